// Owns: the quick writing of plain values as msgpack: null, booleans, numbers, short ASCII strings, Uint8Array, lists
// and small maps. Invariant: what it writes the full decoder reads as the same value; a value with anything else in it
// is left to the full encoder as a whole, with arrays that are to travel beside the record.
import { INLINE_ARRAY_BYTES_MAX } from "./limits.js";

/** Records are written one after the other into blocks; a block goes when the last of its records has left. */
const BLOCK_BYTES = 64 * 1024;
/** A longer value is left to the full encoder; a block has room for many of this size. */
export const QUICK_VALUE_BYTES_MAX = 4 * 1024;
const STRING_LENGTH_MAX = 255;
/** Up to this a loop beats a call of `set`. */
const LOOP_COPY_BYTES_MAX = 24;
const DEPTH_MAX = 16;
const EMPTY = Buffer.alloc(0);

export class MsgpackWriter {
  /** Of `write`; made when first needed. */
  #ownBlock: Buffer | undefined;
  #ownAt = 0;
  #block: Buffer = EMPTY;
  #at = 0;
  #end = 0;

  /** @returns the bytes, good for as long as they are held; undefined when the full encoder has to write them. */
  write(value: unknown): Uint8Array | undefined {
    if (this.#ownBlock === undefined || this.#ownAt + QUICK_VALUE_BYTES_MAX > BLOCK_BYTES) {
      this.#ownBlock = Buffer.allocUnsafeSlow(BLOCK_BYTES);
      this.#ownAt = 0;
    }
    const start = this.#ownAt;
    const end = this.writeInto(this.#ownBlock, start, value);
    if (end < 0) return undefined;
    this.#ownAt = end;
    return new Uint8Array(this.#ownBlock.buffer, start, end - start);
  }

  /**
   * Writes at `at` of `block`, which must have QUICK_VALUE_BYTES_MAX of room there.
   * @returns where it ends; -1 when the full encoder has to write it, and what lies from `at` on is nonsense then.
   */
  writeInto(block: Buffer, at: number, value: unknown): number {
    this.#block = block;
    this.#at = at;
    this.#end = at + QUICK_VALUE_BYTES_MAX;
    return this.#value(value, 0) ? this.#at : -1;
  }

  #value(value: unknown, depth: number): boolean {
    if (this.#at + 9 > this.#end) return false;
    switch (typeof value) {
      case "number":
        this.#number(value);
        return true;
      case "string":
        return this.#string(value);
      case "boolean":
        this.#block[this.#at++] = value ? 0xc3 : 0xc2;
        return true;
      case "object":
        if (value === null) {
          this.#block[this.#at++] = 0xc0;
          return true;
        }
        if (depth === DEPTH_MAX) return false;
        if (Array.isArray(value)) return this.#list(value, depth);
        if (value instanceof Uint8Array) return this.#binary(value);
        return Object.getPrototypeOf(value) === Object.prototype && this.#map(value as Record<string, unknown>, depth);
      default:
        return false;
    }
  }

  #number(value: number): void {
    const block = this.#block;
    if (value >>> 0 === value) {
      if (value <= 0x7f) block[this.#at++] = value;
      else if (value <= 0xff) {
        block[this.#at++] = 0xcc;
        block[this.#at++] = value;
      } else if (value <= 0xffff) {
        block[this.#at++] = 0xcd;
        block[this.#at++] = value >>> 8;
        block[this.#at++] = value & 0xff;
      } else {
        block[this.#at++] = 0xce;
        this.#at = block.writeUInt32BE(value, this.#at);
      }
    } else if (value >= -0x20 && value < 0 && Number.isInteger(value)) block[this.#at++] = value & 0xff;
    else {
      block[this.#at++] = 0xcb;
      this.#at = block.writeDoubleBE(value, this.#at);
    }
  }

  #string(text: string): boolean {
    const { length } = text;
    if (length > STRING_LENGTH_MAX || this.#at + 2 + length > this.#end) return false;
    const block = this.#block;
    let at = this.#at;
    if (length < 0x20) block[at++] = 0xa0 | length;
    else {
      block[at++] = 0xd9;
      block[at++] = length;
    }
    let union = 0;
    for (let i = 0; i < length; i++) {
      const code = text.charCodeAt(i);
      union |= code;
      block[at++] = code;
    }
    if (union > 0x7f) return false;
    this.#at = at;
    return true;
  }

  #binary(bytes: Uint8Array): boolean {
    const { length } = bytes;
    if (length > INLINE_ARRAY_BYTES_MAX || this.#at + 3 + length > this.#end) return false;
    const block = this.#block;
    if (length <= 0xff) {
      block[this.#at++] = 0xc4;
      block[this.#at++] = length;
    } else {
      block[this.#at++] = 0xc5;
      block[this.#at++] = length >>> 8;
      block[this.#at++] = length & 0xff;
    }
    const at = this.#at;
    if (length <= LOOP_COPY_BYTES_MAX) for (let i = 0; i < length; i++) block[at + i] = bytes[i]!;
    else block.set(bytes, at);
    this.#at = at + length;
    return true;
  }

  #list(list: readonly unknown[], depth: number): boolean {
    const { length } = list;
    if (length > 0xffff) return false;
    const block = this.#block;
    if (length <= 0x0f) block[this.#at++] = 0x90 | length;
    else {
      block[this.#at++] = 0xdc;
      block[this.#at++] = length >>> 8;
      block[this.#at++] = length & 0xff;
    }
    for (let i = 0; i < length; i++) if (!this.#value(list[i], depth + 1)) return false;
    return true;
  }

  #map(map: Record<string, unknown>, depth: number): boolean {
    const head = this.#at++;
    let count = 0;
    for (const key in map) {
      if (count === 0x0f || key === "__proto__" || this.#at + 9 > this.#end) return false;
      if (!this.#string(key) || !this.#value(map[key], depth + 1)) return false;
      count += 1;
    }
    this.#block[head] = 0x80 | count;
    return true;
  }
}
