// Owns: the one source of chance of a simulation (sfc32). Invariant: a seed fixes every value that follows; streams
// made with `fork` are independent, so that one more draw in one place does not shift all the others.

/** Words thrown away after seeding, so that near seeds give unlike streams (the generator's authors use 12). */
const WARM_UP_WORDS = 12;

export class SimRandom {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  constructor(seed: number, label = "") {
    this.#a = seed >>> 0;
    this.#b = Math.floor(seed / 2 ** 32) >>> 0;
    this.#c = hashText(label);
    for (let i = 0; i < WARM_UP_WORDS; i++) this.word();
  }

  /** A stream of its own, by label. */
  fork(label: string): SimRandom {
    return new SimRandom(this.word() + this.word() * 2 ** 20, label);
  }

  /** Uniform 32 bits. */
  word(): number {
    const t = (((this.#a + this.#b) | 0) + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + t) | 0;
    return t >>> 0;
  }

  /** Uniform in [0, 1). */
  unit(): number {
    return this.word() / 2 ** 32;
  }

  /** Uniform in {0, …, bound - 1}. */
  below(bound: number): number {
    return Math.floor(this.unit() * bound);
  }

  between(min: number, max: number): number {
    return min + (max - min) * this.unit();
  }

  chance(probability: number): boolean {
    return probability > 0 && this.unit() < probability;
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }

  /** Time to the next event of a Poisson process. */
  exponential(mean: number): number {
    return -Math.log(1 - this.unit()) * mean;
  }

  bytes(sizeBytes: number): Uint8Array {
    const bytes = new Uint8Array(sizeBytes);
    for (let at = 0; at < sizeBytes; at += 4) {
      let word = this.word();
      for (let i = at; i < at + 4 && i < sizeBytes; i++) {
        bytes[i] = word;
        word >>>= 8;
      }
    }
    return bytes;
  }
}

/** FNV-1a, 32 bits. */
function hashText(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}
