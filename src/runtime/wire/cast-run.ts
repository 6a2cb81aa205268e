// Owns: casts in a row to one actor as one record, [kind, [message, …], null, …address], written message by message.
// Invariant: what `end` returns decodes like any record; messages stand in the order in which they were appended.
import { BATCH_BYTES_MAX, CAST_RUN_MAX } from "./limits.js";
import { MsgpackWriter, QUICK_VALUE_BYTES_MAX } from "./msgpack-writer.js";

/** Runs are written one after the other into blocks; a block goes when the last of its runs has left. */
const BLOCK_BYTES = 128 * 1024;
/** A list of 8, its first number, and the head of a list of up to 65,535 messages. */
const HEAD_BYTES = 5;
const FIELDS = 8;

export class CastRun {
  readonly #kind: number;
  readonly #writer = new MsgpackWriter();
  #block: Buffer = Buffer.allocUnsafe(0);
  #start = 0;
  #at = 0;
  #end = 0;
  #count = 0;
  #tail: Uint8Array | undefined;

  /** `kind`: the record's first field, a number below 128. */
  constructor(kind: number) {
    this.#kind = kind;
  }

  /** The messages that it holds. */
  get count(): number {
    return this.#count;
  }

  /** Of the messages alone. */
  get sizeBytes(): number {
    return this.#count === 0 ? 0 : this.#at - this.#start - HEAD_BYTES;
  }

  /** True when the next message may join: the same address, and room for any that the quick writer takes. */
  isOpenFor(tail: Uint8Array): boolean {
    return this.#tail === tail && this.#count < CAST_RUN_MAX && this.#at + QUICK_VALUE_BYTES_MAX <= this.#end;
  }

  /** `tail`: the record's fields after the messages, as msgpack, at most a few hundred bytes. */
  begin(tail: Uint8Array): void {
    const sizeBytes = HEAD_BYTES + QUICK_VALUE_BYTES_MAX + tail.length;
    if (this.#start + sizeBytes > this.#block.length) {
      this.#block = Buffer.allocUnsafeSlow(BLOCK_BYTES);
      this.#start = 0;
    }
    this.#tail = tail;
    this.#count = 0;
    this.#at = this.#start + HEAD_BYTES;
    this.#end = Math.min(this.#start + BATCH_BYTES_MAX, this.#block.length) - tail.length;
  }

  /** @returns the bytes that it took; 0, and nothing is changed, when the full encoder has to write this message. */
  append(message: unknown): number {
    const from = this.#at;
    const at = this.#writer.writeInto(this.#block, from, message);
    if (at < 0) return 0;
    this.#at = at;
    this.#count += 1;
    return at - from;
  }

  /** @returns the record's bytes, good for as long as they are held; the run is over. */
  end(): Uint8Array {
    const block = this.#block;
    const start = this.#start;
    block[start] = 0x90 | FIELDS;
    block[start + 1] = this.#kind;
    block[start + 2] = 0xdc;
    block[start + 3] = this.#count >>> 8;
    block[start + 4] = this.#count & 0xff;
    const tail = this.#tail!;
    block.set(tail, this.#at);
    this.#start = this.#at + tail.length;
    this.#tail = undefined;
    this.#count = 0;
    return new Uint8Array(block.buffer, start, this.#start - start);
  }
}

/** The fields of a record after its messages. @returns undefined when they are not plain enough for a run. */
export function encodeTail(fields: readonly unknown[]): Uint8Array | undefined {
  return new MsgpackWriter().write(fields)?.slice(1); // without the head of the list, which has at most 15 fields
}
