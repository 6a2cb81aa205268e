/**
 * Owns: the safetensors format (8-byte header length, JSON header, raw little-endian data), strict
 * in both directions: offsets in order, no holes, no overlap, nothing after the last tensor.
 */
import { TrainingError } from "../errors.js";

export interface NamedTensor {
  shape: readonly number[];
  data: Float32Array;
}

/** The reference implementation's own bound on the header. */
export const HEADER_BYTES_MAX = 100_000_000;

const fail = (message: string): never => {
  throw new TrainingError("format", `safetensors: ${message}`);
};

export function encodeSafetensors(tensors: ReadonlyMap<string, NamedTensor>, metadata: Record<string, string> = {}): Uint8Array {
  const header: Record<string, unknown> = {};
  if (Object.keys(metadata).length > 0) header.__metadata__ = metadata;
  let offset = 0;
  for (const [name, { shape, data }] of tensors) {
    if (shape.reduce((product, size) => product * size, 1) !== data.length) fail(`"${name}" has ${data.length} elements, not ${shape}`);
    header[name] = { dtype: "F32", shape, data_offsets: [offset, offset + data.byteLength] };
    offset += data.byteLength;
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const headerBytes = Math.ceil(text.length / 8) * 8; // padded with spaces, so that data is aligned
  const file = new Uint8Array(8 + headerBytes + offset);
  new DataView(file.buffer).setBigUint64(0, BigInt(headerBytes), true);
  file.fill(0x20, 8, 8 + headerBytes);
  file.set(text, 8);
  let position = 8 + headerBytes;
  for (const { data } of tensors.values()) {
    file.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), position);
    position += data.byteLength;
  }
  return file;
}

export function decodeSafetensors(file: Uint8Array): { tensors: Map<string, NamedTensor>; metadata: Record<string, string> } {
  if (file.length < 8) fail(`a file has at least 8 bytes, got ${file.length}`);
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const declared = view.getBigUint64(0, true);
  if (declared > BigInt(Math.min(HEADER_BYTES_MAX, file.length - 8))) fail(`the header of ${declared} bytes does not fit the file`);
  const headerBytes = Number(declared);
  let header: Record<string, unknown> = {};
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(file.subarray(8, 8 + headerBytes))) as typeof header;
  } catch (error) {
    fail(`the header is not JSON: ${(error as Error).message}`);
  }
  if (typeof header !== "object" || header === null || Array.isArray(header)) fail("the header must be an object");
  const data = file.subarray(8 + headerBytes);
  const tensors = new Map<string, NamedTensor>();
  let metadata: Record<string, string> = {};
  const spans: [number, number][] = [];
  for (const [name, value] of Object.entries(header)) {
    if (name === "__metadata__") {
      metadata = value as Record<string, string>;
      continue;
    }
    const { dtype, shape, data_offsets: offsets } = (value ?? {}) as { dtype?: unknown; shape?: unknown; data_offsets?: unknown };
    if (dtype !== "F32") fail(`"${name}" has the type ${JSON.stringify(dtype)}; F32 is read here`);
    const whole = (list: unknown): list is number[] => Array.isArray(list) && list.every((n) => Number.isSafeInteger(n) && n >= 0);
    if (!whole(shape)) fail(`"${name}" has no valid shape`);
    if (!whole(offsets) || (offsets as number[]).length !== 2) fail(`"${name}" has no valid data_offsets`);
    const [begin, end] = offsets as [number, number];
    const elements = (shape as number[]).reduce((product, size) => product * size, 1);
    if (end > data.length || end - begin !== elements * 4) {
      fail(`"${name}" (${shape}) needs ${elements * 4} bytes within ${data.length}, got ${begin} to ${end}`);
    }
    spans.push([begin, end]);
    // A copy is aligned whatever the header's length was; Buffer's own slice() would share bytes.
    const copy = new Float32Array(elements);
    new Uint8Array(copy.buffer).set(data.subarray(begin, end));
    tensors.set(name, { shape: shape as number[], data: copy });
  }
  let cursor = 0;
  for (const [begin, end] of spans.sort((a, b) => a[0] - b[0] || a[1] - b[1])) {
    if (begin !== cursor) fail(`the data has a hole or an overlap at byte ${Math.min(begin, cursor)}`);
    cursor = end;
  }
  if (cursor !== data.length) fail(`${data.length - cursor} bytes follow the last tensor`);
  return { tensors, metadata };
}
