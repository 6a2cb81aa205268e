/**
 * Owns: text to token ids and back: bytes as they are, and byte-level byte pair encoding (Sennrich et al.
 * 2016, in the form of Radford et al. 2019) from a user's vocab.json and merges.txt.
 * Invariant: decode(encode(text)) is the text, for every well-formed text; encoding takes
 * O(n log n) for any input, long words included.
 */
import { TrainingError } from "../errors.js";

export interface Tokenizer {
  /** Ids are below it. */
  readonly vocabulary: number;
  encode(text: string): Int32Array;
  /** Bytes that are no UTF-8 become U+FFFD. */
  decode(ids: ArrayLike<number>): string;
}

/** Each UTF-8 byte is a token. */
export const byteTokenizer: Tokenizer = {
  vocabulary: 256,
  encode: (text) => Int32Array.from(new TextEncoder().encode(text)),
  decode: (ids) => new TextDecoder().decode(Uint8Array.from(ids)),
};

/** GPT-2's split: contractions, words, numbers and signs with the space before them, runs of spaces. */
const PIECES = /'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;
/** Pieces whose ids are remembered; text repeats its words. */
const CACHE_PIECES_MAX = 65_536;

/** GPT-2 writes each byte as a printable character: itself where it prints, else the next from 256 on. */
const CHARACTERS: readonly string[] = (() => {
  const prints = (byte: number): boolean => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(prints(byte) ? byte : next++));
})();
const BYTES = new Map(CHARACTERS.map((character, byte) => [character, byte]));

const fail = (message: string): never => {
  throw new TrainingError("format", `tokenizer: ${message}`);
};

export class BpeTokenizer implements Tokenizer {
  readonly vocabulary: number;
  /** id -> its bytes, or the text of a special token. */
  private readonly values: readonly (Uint8Array | string)[];
  private readonly byteIds: readonly number[];
  private readonly cache = new Map<string, readonly number[]>();

  private constructor(tokens: readonly string[], private readonly ids: ReadonlyMap<string, number>,
    /** left * vocabulary + right -> [rank, the id of both]. */
    private readonly merges: ReadonlyMap<number, readonly [number, number]>) {
    this.vocabulary = tokens.length;
    this.values = tokens.map((token) => {
      const bytes = Array.from(token, (character) => BYTES.get(character));
      return bytes.includes(undefined) || SPECIAL.test(token) ? token : Uint8Array.from(bytes as number[]);
    });
    this.byteIds = CHARACTERS.map((character, byte) => ids.get(character) ?? fail(`the vocabulary has no token for byte ${byte}`));
  }

  /** From the texts of vocab.json (token -> id, ids from 0 without gaps) and merges.txt (a pair a line, first come first). */
  static parse(vocabulary: string, merges: string): BpeTokenizer {
    let parsed: unknown;
    try {
      parsed = JSON.parse(vocabulary);
    } catch (error) {
      fail(`the vocabulary is not JSON: ${(error as Error).message}`);
    }
    if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) fail("the vocabulary must map tokens to ids");
    const ids = new Map(Object.entries(parsed as Record<string, number>)), tokens = new Array<string>(ids.size).fill("");
    for (const [token, id] of ids) {
      if (!Number.isInteger(id) || id < 0 || id >= ids.size || tokens[id] !== "") fail(`"${token}" has the id ${String(id)}; ids are 0 to ${ids.size - 1}, each once`);
      tokens[id] = token;
    }
    const pairs = new Map<number, readonly [number, number]>();
    merges.split(/\r?\n/).forEach((line, i) => {
      if (line === "" || (i === 0 && line.startsWith("#version"))) return;
      const [left, right, ...more] = line.split(" ");
      const [a, b, both] = [ids.get(left!), ids.get(right ?? ""), ids.get(`${left!}${right ?? ""}`)];
      if (a === undefined || b === undefined || both === undefined || more.length > 0) return fail(`line ${i + 1} of the merges, ${JSON.stringify(line)}, names no two tokens whose join is one`);
      if (!pairs.has(a * ids.size + b)) pairs.set(a * ids.size + b, [pairs.size, both]);
    });
    return new BpeTokenizer(tokens, ids, pairs);
  }

  /** The id of a token as the vocabulary writes it, such as "<|endoftext|>"; encode() makes no special tokens from text. */
  idOf(token: string): number | undefined { return this.ids.get(token); }

  encode(text: string): Int32Array {
    const out: number[] = [];
    for (const [piece] of text.matchAll(PIECES)) {
      let ids = this.cache.get(piece);
      if (ids === undefined) {
        ids = this.merged(Array.from(new TextEncoder().encode(piece), (byte) => this.byteIds[byte]!));
        if (this.cache.size < CACHE_PIECES_MAX) this.cache.set(piece, ids);
      }
      for (const id of ids) out.push(id);
    }
    return Int32Array.from(out);
  }

  decode(ids: ArrayLike<number>): string {
    const decoder = new TextDecoder();
    let text = "";
    for (let i = 0; i < ids.length; i++) {
      const value = this.values[ids[i]!] ?? fail(`there is no token ${ids[i]!} in 0..${this.vocabulary - 1}`);
      text += typeof value === "string" ? decoder.decode() + value : decoder.decode(value, { stream: true });
    }
    return text + decoder.decode();
  }

  /** Joins the pair of the lowest rank, the leftmost first, until none is left. */
  private merged(ids: number[]): readonly number[] {
    const next = ids.map((_, i) => i + 1), previous = ids.map((_, i) => i - 1), heap = new PairHeap();
    const offer = (left: number): void => {
      const right = next[left]!;
      const merge = right < ids.length ? this.merges.get(ids[left]! * this.vocabulary + ids[right]!) : undefined;
      if (merge !== undefined) heap.push({ rank: merge[0], left, leftId: ids[left]!, rightId: ids[right]!, joined: merge[1] });
    };
    for (let i = 0; i + 1 < ids.length; i++) offer(i);
    for (let pair = heap.pop(); pair !== undefined; pair = heap.pop()) {
      const { left, leftId, rightId, joined } = pair, right = next[left]!;
      if (ids[left] !== leftId || right >= ids.length || ids[right] !== rightId) continue; // one of them is part of another by now
      ids[left] = joined;
      ids[right] = -1;
      next[left] = next[right]!;
      if (next[right]! < ids.length) previous[next[right]!] = left;
      if (previous[left]! >= 0) offer(previous[left]!);
      offer(left);
    }
    return ids.filter((id) => id >= 0);
  }
}

const SPECIAL = /^<\|.*\|>$/;

interface Pair { rank: number; left: number; leftId: number; rightId: number; joined: number }

/** A binary heap: the lowest rank, then the leftmost. */
class PairHeap {
  private readonly pairs: Pair[] = [];

  push(pair: Pair): void {
    let at = this.pairs.push(pair) - 1;
    while (at > 0 && before(pair, this.pairs[(at - 1) >> 1]!)) {
      this.pairs[at] = this.pairs[(at - 1) >> 1]!;
      at = (at - 1) >> 1;
    }
    this.pairs[at] = pair;
  }

  pop(): Pair | undefined {
    const first = this.pairs[0], last = this.pairs.pop();
    if (first === undefined || last === undefined || this.pairs.length === 0) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child + 1 < this.pairs.length && before(this.pairs[child + 1]!, this.pairs[child]!)) child++;
      if (child >= this.pairs.length || !before(this.pairs[child]!, last)) break;
      this.pairs[at] = this.pairs[child]!;
      at = child;
    }
    this.pairs[at] = last;
    return first;
  }
}
const before = (a: Pair, b: Pair): boolean => a.rank < b.rank || (a.rank === b.rank && a.left < b.left);
