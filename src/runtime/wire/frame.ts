// Owns: the bytes of a frame: a 16-byte header and, by kind, what follows. Little-endian.
// Invariant: `readHeader` and `splitRecords` accept any bytes and never read outside them.
import { BATCH_RECORDS_MAX } from "./limits.js";
import { WireError } from "./codec.js";

export const FRAME_MAGIC = 0x53;
export const HEADER_BYTES = 16;

export const FrameKind = {
  hello: 1,
  challenge: 2,
  proof: 3,
  lane: 4,
  ready: 5,
  refuse: 6,
  records: 16,
  bulk: 17,
  chunk: 18,
  credit: 19,
  ping: 20,
  pong: 21,
  bye: 22,
  sharedOffer: 23,
  sharedAnswer: 24,
  sharedRetire: 25,
  sharedRelease: 26,
  shared: 27,
} as const;
export type FrameKind = (typeof FrameKind)[keyof typeof FrameKind];

/** [magic u8][kind u8][count u16][sequence u32][value f64] */
export interface FrameHeader {
  readonly kind: number;
  readonly count: number;
  readonly sequence: number;
  readonly value: number;
}

export function writeHeader(target: Buffer, kind: FrameKind, count: number, sequence: number, value: number): void {
  target[0] = FRAME_MAGIC;
  target[1] = kind;
  target.writeUInt16LE(count, 2);
  target.writeUInt32LE(sequence >>> 0, 4);
  target.writeDoubleLE(value, 8);
}

export function createFrame(kind: FrameKind, count: number, sequence: number, value: number, body?: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(HEADER_BYTES + (body?.length ?? 0)); // small ones out of Node's slab, which is never reused
  writeHeader(frame, kind, count, sequence, value);
  if (body !== undefined) frame.set(body, HEADER_BYTES);
  return frame;
}

export function readHeader(frame: Uint8Array | undefined): FrameHeader {
  if (frame === undefined || frame.length < HEADER_BYTES || frame[0] !== FRAME_MAGIC) {
    throw new WireError("malformed", "a frame without a header");
  }
  const view = new DataView(frame.buffer, frame.byteOffset, HEADER_BYTES);
  return {
    kind: frame[1]!,
    count: view.getUint16(2, true),
    sequence: view.getUint32(4, true),
    value: view.getFloat64(8, true),
  };
}

/** A record inside a batch: [body u32][tensor bytes u32][body][tensor bytes]. */
export const RECORD_PREFIX_BYTES = 8;

/** Where a record's body begins and ends in its frame; its tensors follow it. */
export interface RecordSlice {
  readonly start: number;
  readonly end: number;
  readonly tensorsEnd: number;
}

/** Checks the whole batch before anything of it is read. */
export function splitRecords(frame: Uint8Array, count: number): RecordSlice[] {
  if (count === 0 || count > BATCH_RECORDS_MAX) throw new WireError("malformed", `a batch of ${count} records`);
  const slices: RecordSlice[] = [];
  let at = HEADER_BYTES;
  for (let i = 0; i < count; i++) {
    if (at + RECORD_PREFIX_BYTES > frame.length) throw new WireError("malformed", "a batch that ends early");
    const bodyBytes = u32(frame, at);
    const tensorBytes = u32(frame, at + 4);
    const start = at + RECORD_PREFIX_BYTES;
    if (bodyBytes + tensorBytes > frame.length - start) throw new WireError("malformed", "a batch that ends early");
    at = start + bodyBytes + tensorBytes;
    slices.push({ start, end: start + bodyBytes, tensorsEnd: at });
  }
  if (at !== frame.length) throw new WireError("malformed", "a batch with bytes left over");
  return slices;
}

function u32(bytes: Uint8Array, at: number): number {
  return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;
}
