/**
 * Owns: the safetensors format (8-byte header length, JSON header, raw little-endian data), strict
 * in both directions: offsets in order, no holes, no overlap, nothing after the last tensor.
 * A file is read as a whole or tensor by tensor; sizes are checked against the source's own before
 * anything is allocated. A key twice in the header leaves a hole where the first one's data was.
 */
import { TrainingError } from "../errors.js";
import { bytesOfArray, memorySource, type ByteSource } from "./byte-source.js";
import {
  elementArray, elementBytes, ELEMENT_TYPES, holds, isElementType, typeOfArray, widenToFloat32,
  type ElementArray, type ElementType,
} from "./element-type.js";

export interface NamedTensor {
  shape: readonly number[];
  data: Float32Array;
}

/** A tensor of any type; F16 and BF16 as bits in a Uint16Array. */
export interface StoredTensor {
  /** Told from the array when it is missing. */
  type?: ElementType;
  shape: readonly number[];
  data: ElementArray;
}

export interface TensorEntry {
  type: ElementType;
  shape: readonly number[];
  /** Where its bytes lie in the file. */
  begin: number;
  end: number;
}

/** The reference implementation's own bound on the header. */
export const HEADER_BYTES_MAX = 100_000_000;
const METADATA = "__metadata__";
/** Widened at a time: 4 MiB of float16. */
const WIDEN_ELEMENTS = 2 ** 21;

const fail = (message: string): never => {
  throw new TrainingError("format", `safetensors: ${message}`);
};
const elementsOf = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1);

/** The file in pieces, header first: a large model is written without a second copy of it. */
export function* safetensorsChunks(tensors: ReadonlyMap<string, StoredTensor>, metadata: Record<string, string> = {}): Generator<Uint8Array> {
  const header: Record<string, unknown> = Object.create(null) as Record<string, unknown>;
  if (Object.keys(metadata).length > 0) header[METADATA] = metadata;
  let offset = 0;
  for (const [name, { type, shape, data }] of tensors) {
    if (name === METADATA) fail(`a tensor cannot be named ${METADATA}`);
    const dtype = type ?? typeOfArray(data);
    if (!holds(dtype, data)) fail(`"${name}" is no ${dtype}: its array is a ${data.constructor.name}`);
    if (elementsOf(shape) !== data.length) fail(`"${name}" has ${data.length} elements, not ${shape}`);
    header[name] = { dtype, shape, data_offsets: [offset, offset + data.byteLength] };
    offset += data.byteLength;
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const headerBytes = Math.ceil(text.length / 8) * 8; // padded with spaces, so that data is aligned
  if (headerBytes > HEADER_BYTES_MAX) fail(`a header has at most ${HEADER_BYTES_MAX} bytes, got ${headerBytes}`);
  const start = new Uint8Array(8 + headerBytes).fill(0x20, 8);
  new DataView(start.buffer).setBigUint64(0, BigInt(headerBytes), true);
  start.set(text, 8);
  yield start;
  for (const { data } of tensors.values()) yield bytesOfArray(data);
}

export function encodeSafetensors(tensors: ReadonlyMap<string, StoredTensor>, metadata: Record<string, string> = {}): Uint8Array {
  const chunks = [...safetensorsChunks(tensors, metadata)];
  const file = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  let position = 0;
  for (const chunk of chunks) {
    file.set(chunk, position);
    position += chunk.length;
  }
  return file;
}

/** All tensors of a file in memory as float32; integers are refused (SafetensorsFile reads them). */
export function decodeSafetensors(file: Uint8Array): { tensors: Map<string, NamedTensor>; metadata: Record<string, string> } {
  const headerBytes = headerLength(file.subarray(0, 8), file.length);
  const { entries, metadata } = parseHeader(file.subarray(8, 8 + headerBytes), file.length);
  const tensors = new Map<string, NamedTensor>();
  for (const [name, entry] of entries) {
    // A copy is aligned whatever the header's length was; Buffer's own slice() would share bytes.
    const stored = elementArray(entry.type, elementsOf(entry.shape));
    bytesOfArray(stored).set(file.subarray(entry.begin, entry.end));
    const data = stored instanceof Float32Array ? stored : new Float32Array(stored.length);
    if (data !== stored && !widenToFloat32(entry.type, stored, data)) fail(notFloats(name, entry.type));
    tensors.set(name, { shape: entry.shape, data });
  }
  return { tensors, metadata };
}

/** A file whose header is known and whose tensors are read one by one. */
export class SafetensorsFile {
  private constructor(private readonly source: ByteSource, readonly tensors: ReadonlyMap<string, TensorEntry>,
    readonly metadata: Readonly<Record<string, string>>) {}

  /** Reads and checks the header alone. The source stays open until close(). */
  static async open(source: ByteSource | Uint8Array): Promise<SafetensorsFile> {
    const from = source instanceof Uint8Array ? memorySource(source) : source;
    const start = new Uint8Array(Math.min(8, from.sizeBytes));
    await from.read(0, start);
    const header = new Uint8Array(headerLength(start, from.sizeBytes));
    await from.read(8, header);
    const { entries, metadata } = parseHeader(header, from.sizeBytes);
    return new SafetensorsFile(from, entries, metadata);
  }

  entry(name: string): TensorEntry {
    return this.tensors.get(name) ?? fail(`there is no tensor "${name}" among ${this.tensors.size}`);
  }

  /** As it is stored. */
  async read(name: string): Promise<Required<StoredTensor>> {
    const { type, shape, begin } = this.entry(name);
    const data = elementArray(type, elementsOf(shape));
    await this.source.read(begin, bytesOfArray(data));
    return { type, shape, data };
  }

  /** A floating tensor as float32, into `out` where it is given; at most 4 MiB are held beside it. */
  async readFloat32(name: string, out?: Float32Array): Promise<Float32Array> {
    const { type, shape, begin } = this.entry(name);
    const count = elementsOf(shape), into = out ?? new Float32Array(count);
    if (into.length !== count) fail(`"${name}" (${shape}) has ${count} elements, and room was given for ${into.length}`);
    if (type === "F32") {
      await this.source.read(begin, bytesOfArray(into));
      return into;
    }
    for (let done = 0; done < count; done += WIDEN_ELEMENTS) {
      const part = elementArray(type, Math.min(WIDEN_ELEMENTS, count - done));
      await this.source.read(begin + done * elementBytes(type), bytesOfArray(part));
      if (!widenToFloat32(type, part, into.subarray(done, done + part.length))) fail(notFloats(name, type));
    }
    return into;
  }

  close(): Promise<void> { return this.source.close(); }
}

const notFloats = (name: string, type: ElementType): string =>
  `"${name}" has the type ${type}, and only floating types are read as float32`;

function headerLength(start: Uint8Array, sizeBytes: number): number {
  if (start.length < 8) fail(`a file has at least 8 bytes, got ${start.length}`);
  const declared = new DataView(start.buffer, start.byteOffset, 8).getBigUint64(0, true);
  if (declared > BigInt(Math.min(HEADER_BYTES_MAX, sizeBytes - 8))) fail(`the header of ${declared} bytes does not fit the file`);
  return Number(declared);
}

function parseHeader(bytes: Uint8Array, sizeBytes: number): { entries: Map<string, TensorEntry>; metadata: Record<string, string> } {
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch (error) {
    fail(`the header is not JSON: ${(error as Error).message}`);
  }
  if (typeof header !== "object" || header === null || Array.isArray(header)) fail("the header must be an object");
  const dataStart = 8 + bytes.length, dataBytes = sizeBytes - dataStart;
  const entries = new Map<string, TensorEntry>();
  let metadata: Record<string, string> = {};
  for (const [name, value] of Object.entries(header as object)) {
    if (name === METADATA) metadata = checkMetadata(value);
    else entries.set(name, checkEntry(name, value, dataStart, dataBytes));
  }
  let cursor = dataStart;
  for (const { begin, end } of [...entries.values()].sort((a, b) => a.begin - b.begin || a.end - b.end)) {
    if (begin !== cursor) fail(`the data has a hole or an overlap at byte ${Math.min(begin, cursor) - dataStart}`);
    cursor = end;
  }
  if (cursor !== sizeBytes) fail(`${sizeBytes - cursor} bytes follow the last tensor`);
  return { entries, metadata };
}

function checkEntry(name: string, value: unknown, dataStart: number, dataBytes: number): TensorEntry {
  const { dtype, shape, data_offsets: offsets } = (value ?? {}) as { dtype?: unknown; shape?: unknown; data_offsets?: unknown };
  if (!isElementType(dtype)) return fail(`"${name}" has the type ${JSON.stringify(dtype)}; expected one of ${ELEMENT_TYPES.join(", ")}`);
  const whole = (list: unknown): list is number[] => Array.isArray(list) && list.every((n) => Number.isSafeInteger(n) && n >= 0);
  if (!whole(shape)) return fail(`"${name}" has no valid shape`);
  if (!whole(offsets) || offsets.length !== 2) return fail(`"${name}" has no valid data_offsets`);
  const [begin, end] = offsets as [number, number];
  // Up to 2^53 each, so a product beyond that is never mistaken for one that fits.
  const needed = elementsOf(shape) * elementBytes(dtype);
  if (end > dataBytes || end - begin !== needed) {
    fail(`"${name}" (${shape}) needs ${needed} bytes within ${dataBytes}, got ${begin} to ${end}`);
  }
  return { type: dtype, shape, begin: dataStart + begin, end: dataStart + end };
}

function checkMetadata(value: unknown): Record<string, string> {
  const texts = typeof value === "object" && value !== null && !Array.isArray(value) &&
    Object.values(value).every((text) => typeof text === "string");
  return texts ? (value as Record<string, string>) : fail(`${METADATA} must map texts to texts`);
}
