/**
 * Owns: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011),
 * a counter-based generator: any position of the stream is a pure function of (key, counter),
 * so initial values and sample orders are the same on every machine and need no stored state.
 */

const MULTIPLIER_0 = 0xd2511f53;
const MULTIPLIER_1 = 0xcd9e8d57;
const WEYL_0 = 0x9e3779b9;
const WEYL_1 = 0xbb67ae85;
const ROUNDS = 10;

/** High 32 bits of a 32 x 32 bit product, by 16-bit halves: each partial fits a double exactly. */
function multiplyHigh(a: number, b: number): number {
  const aHigh = a >>> 16, aLow = a & 0xffff, bHigh = b >>> 16, bLow = b & 0xffff;
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const other = aLow * bHigh + (middle & 0xffff);
  return (aHigh * bHigh + Math.floor(middle / 0x10000) + Math.floor(other / 0x10000)) >>> 0;
}

/** Four 32-bit words for a 128-bit counter and a 64-bit key; `out` must hold 4 words. */
export function philox4x32(
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
  out: Uint32Array,
): void {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < ROUNDS; round++) {
    const high0 = multiplyHigh(MULTIPLIER_0, c0), low0 = Math.imul(MULTIPLIER_0, c0) >>> 0;
    const high1 = multiplyHigh(MULTIPLIER_1, c2), low1 = Math.imul(MULTIPLIER_1, c2) >>> 0;
    c0 = (high1 ^ c1 ^ k0) >>> 0;
    c1 = low1;
    c2 = (high0 ^ c3 ^ k1) >>> 0;
    c3 = low0;
    k0 = (k0 + WEYL_0) >>> 0;
    k1 = (k1 + WEYL_1) >>> 0;
  }
  out[0] = c0; out[1] = c1; out[2] = c2; out[3] = c3;
}

/** A 64-bit seed as the two key words. */
export function philoxKey(seed: bigint): [number, number] {
  const value = BigInt.asUintN(64, seed);
  return [Number(value & 0xffffffffn), Number(value >> 32n)];
}

/** The stream (key, stream number): words are handed out in order from counter 0. */
export class PhiloxStream {
  private readonly key: [number, number];
  private readonly words = new Uint32Array(4);
  private block = 0;
  private used = 4;

  constructor(seed: bigint, private readonly stream: number, private readonly subStream = 0) {
    this.key = philoxKey(seed);
  }

  /** The next 32 random bits. */
  next(): number {
    if (this.used === 4) {
      philox4x32([this.block >>> 0, 0, this.stream >>> 0, this.subStream >>> 0], this.key, this.words);
      this.block++;
      this.used = 0;
    }
    return this.words[this.used++]!;
  }

  /** Uniform in [0, 1) with 24 bits, exact in a float32. */
  uniform(): number {
    return (this.next() >>> 8) / 0x1000000;
  }

  /** Uniform integer in [0, bound) without modulo bias (Lemire's multiply and reject). */
  below(bound: number): number {
    const threshold = (0x100000000 - bound) % bound;
    for (;;) {
      const word = this.next();
      const low = Math.imul(word, bound) >>> 0;
      if (low >= threshold) return multiplyHigh(word, bound);
    }
  }
}
