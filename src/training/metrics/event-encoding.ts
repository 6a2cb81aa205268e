/**
 * Owns: the bytes of TensorBoard events: the protobuf messages Event, Summary, HistogramProto and
 * TensorProto of tensorflow/core (field numbers as there), and TFRecord's frame around each.
 * Invariant: a frame is one whole record; a file is nothing but frames.
 */
import { maskedCrc32c } from "./crc32c.js";
import type { HistogramCounts } from "./sink.js";

const VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5;
const utf8 = new TextEncoder();

/** A message under construction: fields in the order in which they are added. */
class Message {
  private readonly parts: Uint8Array[] = [];

  varint(field: number, value: number): this {
    return this.key(field, VARINT).add(varint(value));
  }

  double(field: number, value: number): this {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setFloat64(0, value, true);
    return this.key(field, FIXED64).add(bytes);
  }

  float(field: number, value: number): this {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setFloat32(0, value, true);
    return this.key(field, FIXED32).add(bytes);
  }

  bytes(field: number, value: Uint8Array): this {
    return this.key(field, BYTES).add(varint(value.length)).add(value);
  }

  string(field: number, value: string): this {
    return this.bytes(field, utf8.encode(value));
  }

  message(field: number, value: Message): this {
    return this.bytes(field, value.encode());
  }

  packedDoubles(field: number, values: readonly number[]): this {
    const bytes = new Uint8Array(values.length * 8);
    const view = new DataView(bytes.buffer);
    values.forEach((value, i) => view.setFloat64(i * 8, value, true));
    return this.bytes(field, bytes);
  }

  encode(): Uint8Array {
    return Buffer.concat(this.parts);
  }

  private key(field: number, wire: number): this {
    return this.add(varint(field * 8 + wire));
  }

  private add(bytes: Uint8Array): this {
    this.parts.push(bytes);
    return this;
  }
}

/** Whole numbers up to 2^53: beyond 32 bits by division, as shifts would cut them. */
function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 0x80) {
    bytes.push((rest % 0x80) + 0x80);
    rest = Math.floor(rest / 0x80);
  }
  bytes.push(rest);
  return Uint8Array.from(bytes);
}

const event = (wallTimeMs: number, step: number): Message => {
  const message = new Message().double(1, wallTimeMs / 1000);
  return step > 0 ? message.varint(2, step) : message;
};

/** The first event of a file: readers take the format's version from it. */
export function encodeVersionEvent(wallTimeMs: number): Uint8Array {
  return event(wallTimeMs, 0).string(3, "brain.Event:2").encode();
}

function encodeSummary(step: number, wallTimeMs: number, value: Message): Uint8Array {
  return event(wallTimeMs, step).message(5, new Message().message(1, value)).encode();
}

export function encodeScalarEvent(name: string, step: number, value: number, wallTimeMs: number): Uint8Array {
  return encodeSummary(step, wallTimeMs, new Message().string(1, name).float(2, value));
}

export function encodeHistogramEvent(name: string, step: number, histogram: HistogramCounts, wallTimeMs: number): Uint8Array {
  return encodeSummary(step, wallTimeMs, new Message().string(1, name).message(5, histogramMessage(histogram)));
}

/** The empty bins at both ends are left out: viewers scale their axis to what is there. */
function histogramMessage({ counts, edges }: HistogramCounts): Message {
  const edge = (i: number): number => edges?.[i] ?? i - 0.5;
  const first = Math.max(0, counts.findIndex((count) => count > 0));
  const last = Math.max(first, counts.findLastIndex((count) => count > 0));
  const kept = counts.slice(first, last + 1);
  const middle = (i: number): number => (edge(first + i) + edge(first + i + 1)) / 2;
  const sum = (of: (count: number, i: number) => number): number => kept.reduce((total, count, i) => total + of(count, i), 0);
  return new Message()
    .double(1, edge(first)).double(2, edge(last + 1))
    .double(3, sum((count) => count)).double(4, sum((count, i) => count * middle(i)))
    .double(5, sum((count, i) => count * middle(i) ** 2))
    .packedDoubles(6, kept.map((_, i) => edge(first + i + 1))).packedDoubles(7, kept);
}

/** DataType.DT_STRING of tensorflow/core/framework/types.proto. */
const DT_STRING = 7;

/** A tensor of one string, marked for the plug-in that shows texts (as Markdown). */
export function encodeTextEvent(name: string, step: number, text: string, wallTimeMs: number): Uint8Array {
  const shape = new Message().message(2, new Message().varint(1, 1));
  const tensor = new Message().varint(1, DT_STRING).message(2, shape).string(8, text);
  const metadata = new Message().message(1, new Message().string(1, "text"));
  return encodeSummary(step, wallTimeMs, new Message().string(1, name).message(8, tensor).message(9, metadata));
}

/** TFRecord: length (8 bytes), its masked CRC-32C (4), the data, the data's masked CRC-32C (4); little-endian. */
export function encodeRecord(data: Uint8Array): Uint8Array {
  const record = new Uint8Array(8 + 4 + data.length + 4);
  const view = new DataView(record.buffer);
  view.setBigUint64(0, BigInt(data.length), true);
  view.setUint32(8, maskedCrc32c(record.subarray(0, 8)), true);
  record.set(data, 12);
  view.setUint32(12 + data.length, maskedCrc32c(data), true);
  return record;
}
