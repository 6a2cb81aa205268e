// Owns: the form of a record's body: msgpack for structure, raw bytes for typed arrays.
// Invariant: a body decodes alone (no state across frames), and decoding hostile bytes either returns plain data
// within the limits or throws WireError; nothing else.
import { Packr } from "msgpackr";
import {
  BULK_BYTES_MIN, DEPTH_MAX, INLINE_ARRAY_BYTES_MAX, RECORD_BYTES_MAX, TENSORS_PER_MESSAGE_MAX, TRANSFER_BYTES_MAX,
  VALUES_PER_RECORD_MAX,
} from "./limits.js";
import { BufferPool } from "./buffer-pool.js";
import { isSafeMsgpack } from "./msgpack-guard.js";
import { MsgpackReader } from "./msgpack-reader.js";
import { MsgpackWriter } from "./msgpack-writer.js";
import { keepMemory } from "./releasable.js";

export class WireError extends Error {
  readonly code: "malformed" | "too-large" | "unsupported";
  constructor(code: "malformed" | "too-large" | "unsupported", message: string) {
    super(message);
    this.name = "WireError";
    this.code = code;
  }
}

export type TypedArray =
  | Uint8Array | Int8Array | Uint8ClampedArray | Uint16Array | Int16Array | Uint32Array | Int32Array
  | Float32Array | Float64Array | BigInt64Array | BigUint64Array;

/** The index in this list is what stands on the wire: append only. */
const ARRAY_TYPES = [
  Uint8Array, Int8Array, Uint8ClampedArray, Uint16Array, Int16Array, Uint32Array, Int32Array,
  Float32Array, Float64Array, BigInt64Array, BigUint64Array,
] as const;
type ArrayConstructor = new (buffer: ArrayBuffer, byteOffset: number, length: number) => TypedArray;

/** [path of keys, index into ARRAY_TYPES, size in bytes] for each hoisted array, in depth-first order. */
export type TensorEntry = [path: (string | number)[], type: number, sizeBytes: number];

export interface EncodedRecord {
  readonly body: Uint8Array;
  readonly tensors: readonly Uint8Array[];
  readonly tensorBytes: number;
  /** Tensors that are copies out of the pool, to be given back when the receiver has them. */
  readonly pooled: ReadonlySet<Uint8Array> | undefined;
  /** Where each tensor lies in shared memory; then `tensors` is empty. */
  readonly placed: readonly Placement[] | undefined;
}

/** Where a tensor lies in shared memory: a segment's number on this link, and the bytes before it. */
export interface Placement {
  readonly segment: number;
  readonly offset: number;
}

/** Puts tensors where the receiver sees them already. @returns undefined when they have to go by the lanes. */
export type Place = (arrays: readonly ArrayBufferView[], sizeBytes: number) => readonly Placement[] | undefined;

/**
 * Arrays that their owner has promised not to change any more. They are sent without a copy; all others are
 * copied when sent, because ZeroMQ reads the memory after `send` has returned.
 */
const handedOver = new WeakSet<object>();

/**
 * Promises that `array`'s memory stays as it is from now on, so that sending it needs no copy. Returns `array`. One that
 * came over a link is kept from `releaseTensors` too, which would free it under ZeroMQ's hands.
 */
export function handOver<T extends ArrayBufferView>(array: T): T {
  keepMemory(array.buffer);
  handedOver.add(array);
  return array;
}

const packr = (): Packr =>
  new Packr({ useRecords: false, mapsAsObjects: true, useBigIntExtension: true, copyBuffers: true, moreTypes: false } as object);

export class Codec {
  readonly #packr = packr();
  readonly #reader = new MsgpackReader();
  readonly #writer = new MsgpackWriter();
  readonly #pool: BufferPool;

  constructor(pool = new BufferPool()) {
    this.#pool = pool;
  }

  /** `record[1]` is the payload; its typed arrays are taken out and described in `record[2]`. */
  encode(record: unknown[], place?: Place): EncodedRecord {
    record[2] = null;
    const quick = this.#writer.write(record);
    if (quick !== undefined) return { body: quick, tensors: NO_TENSORS, tensorBytes: 0, pooled: undefined, placed: undefined };
    const hoist = new Hoist();
    record[1] = hoist.walk(record[1], 0);
    record[2] = hoist.table.length === 0 ? null : hoist.table;
    if (hoist.values > VALUES_MAX) {
      throw new WireError("too-large", `${hoist.values} values in a message; at most ${VALUES_MAX}: send typed arrays`);
    }
    if (hoist.sizeBytes > TRANSFER_BYTES_MAX) {
      throw new WireError("too-large", `${hoist.sizeBytes} bytes of arrays in a message; at most ${TRANSFER_BYTES_MAX}`);
    }
    const body = this.#packr.pack(record);
    if (body.length > RECORD_BYTES_MAX) {
      throw new WireError("too-large", `a message of ${body.length} bytes; at most ${RECORD_BYTES_MAX} without arrays`);
    }
    // Small arrays are copied into the batch frame before this microtask ends; large ones wait in the outbox.
    const isBulk = hoist.sizeBytes >= BULK_BYTES_MIN;
    const placed = isBulk ? place?.(hoist.arrays, hoist.sizeBytes) : undefined;
    if (placed !== undefined) return { body, tensors: [], tensorBytes: hoist.sizeBytes, pooled: undefined, placed };
    const pooled = isBulk ? new Set<Uint8Array>() : undefined;
    const tensors = hoist.arrays.map((array) => {
      const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
      if (pooled === undefined) return copyOf(bytes);
      if (handedOver.has(array)) return bytes;
      const copy = this.#pool.take(bytes.length);
      copy.set(bytes);
      pooled.add(copy);
      return copy;
    });
    return { body, tensors, tensorBytes: hoist.sizeBytes, pooled, placed: undefined };
  }

  decode(body: Uint8Array): unknown[] {
    return this.decodeIn(body, 0, body.length);
  }

  /** The record at [start, end) of `bytes`. */
  decodeIn(bytes: Uint8Array, start: number, end: number): unknown[] {
    if (end - start > RECORD_BYTES_MAX) throw new WireError("too-large", `a record of ${end - start} bytes`);
    const record = this.#reader.readList(bytes, start, end) ?? this.#decodeFully(bytes.subarray(start, end));
    if (!Array.isArray(record) || record.length < 3) throw new WireError("malformed", "a record that is not a list");
    return record as unknown[];
  }

  #decodeFully(body: Uint8Array): unknown {
    if (!isSafeMsgpack(body)) throw new WireError("malformed", "a record that is not safe msgpack");
    // A plain view instead of a Buffer: binary values come out as plain Uint8Array copies.
    const plain = new Uint8Array(body.buffer, body.byteOffset, body.byteLength);
    try {
      return this.#packr.unpack(plain as Buffer);
    } catch (error) {
      throw new WireError("malformed", `a record that does not decode: ${error instanceof Error ? error.message : ""}`);
    }
  }
}

const NO_TENSORS: readonly Uint8Array[] = [];

function copyOf(bytes: Uint8Array): Uint8Array {
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  copy.set(bytes);
  return copy;
}

/** Room for what the record adds around a payload: its own fields and an ask chain. */
const VALUES_MAX = VALUES_PER_RECORD_MAX - 1024;

class Hoist {
  values = 0;
  readonly arrays: ArrayBufferView[] = [];
  readonly table: TensorEntry[] = [];
  sizeBytes = 0;
  readonly #path: (string | number)[] = [];

  walk(value: unknown, depth: number): unknown {
    if (typeof value === "function" || typeof value === "symbol") {
      throw new WireError("unsupported", `a ${typeof value} cannot be sent to another node`);
    }
    if (typeof value !== "object" || value === null) return value;
    if (depth >= DEPTH_MAX - 2) throw new WireError("too-large", `a message nested deeper than ${DEPTH_MAX - 2}`);
    if (ArrayBuffer.isView(value)) return this.#view(value);
    if (Array.isArray(value)) return this.#list(value, depth);
    const prototype: unknown = Object.getPrototypeOf(value);
    if (prototype === Object.prototype || prototype === null) return this.#object(value as Record<string, unknown>, depth);
    if (value instanceof Date) return value;
    throw new WireError(
      "unsupported",
      `a ${value.constructor?.name ?? "value"} cannot be sent to another node; send plain data and typed arrays`,
    );
  }

  #list(list: readonly unknown[], depth: number): unknown {
    let copy: unknown[] | undefined;
    this.values += list.length;
    for (let i = 0; i < list.length; i++) {
      const item = list[i];
      if (typeof item === "number" || typeof item === "string") continue;
      this.#path.push(i);
      const walked = this.walk(item, depth + 1);
      this.#path.pop();
      if (walked !== item) (copy ??= [...list])[i] = walked;
    }
    return copy ?? list;
  }

  #object(object: Record<string, unknown>, depth: number): unknown {
    let copy: Record<string, unknown> | undefined;
    for (const key in object) {
      this.values += 2;
      const item = object[key];
      if (typeof item === "number" || typeof item === "string") continue;
      this.#path.push(key);
      const walked = this.walk(item, depth + 1);
      this.#path.pop();
      if (walked !== item) (copy ??= { ...object })[key] = walked;
    }
    return copy ?? object;
  }

  #view(view: ArrayBufferView): unknown {
    let type = ARRAY_TYPES.findIndex((each) => view.constructor === each);
    if (type < 0 && view instanceof Uint8Array) type = 0; // Buffer and other subclasses
    if (type < 0) throw new WireError("unsupported", `a ${view.constructor.name} cannot be sent to another node`);
    if (type === 0 && view.byteLength <= INLINE_ARRAY_BYTES_MAX) return view;
    if (this.arrays.length >= TENSORS_PER_MESSAGE_MAX) {
      throw new WireError("too-large", `more than ${TENSORS_PER_MESSAGE_MAX} typed arrays in a message`);
    }
    this.values += 4 + this.#path.length; // its entry in the table
    this.arrays.push(view);
    this.table.push([[...this.#path], type, view.byteLength]);
    this.sizeBytes += view.byteLength;
    return null;
  }
}

/** Checks a received tensor table. @returns the sizes in bytes, in order. */
export function tensorSizes(table: unknown): number[] {
  if (table === null) return [];
  if (!Array.isArray(table) || table.length === 0 || table.length > TENSORS_PER_MESSAGE_MAX) {
    throw new WireError("malformed", "a bad tensor table");
  }
  let total = 0;
  return table.map((entry: unknown) => {
    if (!Array.isArray(entry) || entry.length !== 3) throw new WireError("malformed", "a bad tensor entry");
    const [path, type, size] = entry as unknown[];
    const constructor = ARRAY_TYPES[type as number];
    if (
      !Array.isArray(path) || path.length > DEPTH_MAX || constructor === undefined || typeof type !== "number" ||
      typeof size !== "number" || !Number.isSafeInteger(size) || size < 0 || size % constructor.BYTES_PER_ELEMENT !== 0
    ) {
      throw new WireError("malformed", "a bad tensor entry");
    }
    total += size;
    if (total > TRANSFER_BYTES_MAX) throw new WireError("too-large", `a transfer above ${TRANSFER_BYTES_MAX} bytes`);
    return size;
  });
}

/** Puts the arrays back where the table says; `buffers[i]` holds exactly the bytes of entry i. */
export function attachTensors(record: unknown[], buffers: readonly Uint8Array[]): void {
  const table = record[2] as TensorEntry[] | null;
  if (table === null) return;
  for (const [i, [path, type]] of table.entries()) {
    const array = asTyped(type, buffers[i]!);
    if (path.length === 0) {
      record[1] = array;
      continue;
    }
    let holder: unknown = record[1];
    for (const key of path.slice(0, -1)) holder = step(holder, key);
    const last = path[path.length - 1]!;
    if (step(holder, last) !== null) throw new WireError("malformed", "a tensor path that leads to a value");
    (holder as Record<string | number, unknown>)[last] = array;
  }
}

function step(holder: unknown, key: unknown): unknown {
  if (typeof holder !== "object" || holder === null || (typeof key !== "string" && typeof key !== "number")) {
    throw new WireError("malformed", "a tensor path that leads nowhere");
  }
  if (!Object.hasOwn(holder, key)) throw new WireError("malformed", "a tensor path that leads nowhere");
  return (holder as Record<string | number, unknown>)[key];
}

function asTyped(type: number, bytes: Uint8Array): TypedArray {
  const constructor = ARRAY_TYPES[type]!;
  const size = constructor.BYTES_PER_ELEMENT;
  const aligned = bytes.byteOffset % size === 0 ? bytes : copyOf(bytes);
  return new (constructor as unknown as ArrayConstructor)(
    aligned.buffer as ArrayBuffer, aligned.byteOffset, aligned.byteLength / size,
  );
}
