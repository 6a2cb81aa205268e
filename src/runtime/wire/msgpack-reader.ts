// Owns: the quick reading of msgpack as this runtime mostly writes it: null, booleans, 32-bit integers, doubles, ASCII
// strings, binary, lists and maps. Invariant: what it reads is what the full decoder reads, within the same limits;
// of anything else it says nothing, and the guard and the full decoder have their say.
import { markAsUntransferable } from "node:worker_threads";
import { DEPTH_MAX, VALUES_PER_RECORD_MAX } from "./limits.js";

/** Names and keys come again and again: up to this length they are looked up instead of made anew. */
const CACHED_LENGTH_MAX = 32;
const CACHE_SLOTS = 1024;
/** Longer strings are quicker in the full decoder. */
const STRING_LENGTH_MAX = 255;

/**
 * Byte strings up to this share copies of COPY_BYTES, as small Buffers of Node share its pool: a view costs 90 ns, an
 * array of its own 230, and one that is kept holds no more than that.
 */
const SHARED_LENGTH_MAX = 256;
const COPY_BYTES = 8 * 1024;

const EMPTY = new Uint8Array(0);
const scratch = new DataView(new ArrayBuffer(8));

export class MsgpackReader {
  readonly #cache = new Array<string | undefined>(CACHE_SLOTS).fill(undefined);
  #bytes: Uint8Array = new Uint8Array(0);
  #at = 0;
  #end = 0;
  #values = 0;
  #isPlain = true;
  /** A copy of the record's bytes from #copyAt on, which its small byte strings are views of. */
  #copy: Uint8Array = EMPTY;
  #copyAt = 0;

  /** @returns undefined unless [start, end) of `bytes` holds one plain list and nothing else. */
  readList(bytes: Uint8Array, start = 0, end = bytes.length): unknown[] | undefined {
    this.#bytes = bytes;
    this.#at = start;
    this.#end = end;
    this.#values = 1;
    this.#isPlain = true;
    const value = this.#value(0);
    this.#bytes = EMPTY;
    this.#copy = EMPTY;
    this.#copyAt = 0;
    return this.#isPlain && this.#at === this.#end && Array.isArray(value) ? value : undefined;
  }

  #value(depth: number): unknown {
    if (this.#at >= this.#end) return this.#give();
    const type = this.#bytes[this.#at++]!;
    if (type <= 0x7f) return type;
    if (type >= 0xe0) return type - 0x100;
    if (type >= 0xa0 && type <= 0xbf) return this.#string(type & 0x1f);
    if (type <= 0x8f) return this.#map(type & 0x0f, depth);
    if (type <= 0x9f) return this.#list(type & 0x0f, depth);
    switch (type) {
      case 0xc0: return null;
      case 0xc2: return false;
      case 0xc3: return true;
      case 0xc4: return this.#binary(this.#unsigned(1));
      case 0xc5: return this.#binary(this.#unsigned(2));
      case 0xcb: return this.#double();
      case 0xcc: return this.#unsigned(1);
      case 0xcd: return this.#unsigned(2);
      case 0xce: return this.#unsigned(4);
      case 0xd0: return (this.#unsigned(1) << 24) >> 24;
      case 0xd1: return (this.#unsigned(2) << 16) >> 16;
      case 0xd2: return this.#unsigned(4) | 0;
      case 0xd9: return this.#string(this.#unsigned(1));
      case 0xdc: return this.#list(this.#unsigned(2), depth);
      case 0xde: return this.#map(this.#unsigned(2), depth);
      default: return this.#give();
    }
  }

  /** Leaves these bytes to the full decoder; every loop ends on it. */
  #give(): undefined {
    this.#isPlain = false;
    return undefined;
  }

  #unsigned(sizeBytes: 1 | 2 | 4): number {
    const at = this.#at;
    if (at + sizeBytes > this.#end) {
      this.#isPlain = false;
      return 0;
    }
    this.#at = at + sizeBytes;
    const bytes = this.#bytes;
    if (sizeBytes === 1) return bytes[at]!;
    if (sizeBytes === 2) return (bytes[at]! << 8) | bytes[at + 1]!;
    return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
  }

  #double(): number | undefined {
    if (this.#at + 8 > this.#end) return this.#give();
    for (let i = 0; i < 8; i++) scratch.setUint8(i, this.#bytes[this.#at + i]!);
    this.#at += 8;
    return scratch.getFloat64(0);
  }

  #binary(length: number): Uint8Array | undefined {
    const at = this.#at;
    if (!this.#isPlain || at + length > this.#end) return this.#give();
    this.#at = at + length;
    // Never a view of the frame: all of it would live as long as the smallest value out of it.
    if (length > SHARED_LENGTH_MAX || this.#end - at < 2 * length) return copyOf(this.#bytes, at, at + length);
    let from = at - this.#copyAt;
    if (from + length > this.#copy.length) {
      this.#copy = copyOf(this.#bytes, at, Math.min(this.#end, at + COPY_BYTES));
      markAsUntransferable(this.#copy.buffer); // as Node's own pool: moving one value away must not take its neighbours
      this.#copyAt = at;
      from = 0;
    }
    return new Uint8Array(this.#copy.buffer, from, length);
  }

  #string(length: number): string | undefined {
    const at = this.#at;
    if (!this.#isPlain || length > STRING_LENGTH_MAX || at + length > this.#end) return this.#give();
    const bytes = this.#bytes;
    let hash = length;
    let union = 0;
    for (let i = at; i < at + length; i++) {
      const byte = bytes[i]!;
      union |= byte;
      hash = (Math.imul(hash, 31) + byte) | 0;
    }
    if (union > 0x7f) return this.#give();
    this.#at = at + length;
    if (length > CACHED_LENGTH_MAX) return latin1(bytes, at, length);
    const slot = (hash ^ (hash >>> 15)) & (CACHE_SLOTS - 1);
    const known = this.#cache[slot];
    if (known !== undefined && known.length === length) {
      let i = 0;
      while (i < length && known.charCodeAt(i) === bytes[at + i]) i++;
      if (i === length) return known;
    }
    return (this.#cache[slot] = latin1(bytes, at, length));
  }

  #list(count: number, depth: number): unknown[] | undefined {
    if (!this.#opens(count, depth)) return this.#give();
    const list: unknown[] = [];
    for (let i = 0; i < count && this.#isPlain; i++) list.push(this.#value(depth + 1));
    return list;
  }

  #map(count: number, depth: number): Record<string, unknown> | undefined {
    if (!this.#opens(count * 2, depth)) return this.#give();
    const map: Record<string, unknown> = {};
    for (let i = 0; i < count && this.#isPlain; i++) {
      const key = this.#value(depth + 1);
      if (typeof key !== "string" || key === "__proto__") return this.#give();
      map[key] = this.#value(depth + 1);
    }
    return map;
  }

  /** The guard's own bounds: every value takes a byte at least. */
  #opens(values: number, depth: number): boolean {
    this.#values += values;
    return this.#isPlain && values <= this.#end - this.#at && depth < DEPTH_MAX && this.#values <= VALUES_PER_RECORD_MAX;
  }
}


/** A plain Uint8Array, whatever `bytes` is. */
function copyOf(bytes: Uint8Array, start: number, end: number): Uint8Array {
  return bytes.constructor === Uint8Array ? bytes.slice(start, end) : new Uint8Array(bytes.subarray(start, end));
}

function latin1(bytes: Uint8Array, at: number, length: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset + at, length).toString("latin1");
}
