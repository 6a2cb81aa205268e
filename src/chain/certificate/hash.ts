/**
 * Owns the hash H of the matrix proof of work: BLAKE3 over a tag and a list of fields.
 * Invariant: the input is injective. Each part is preceded by its length, so no two different
 * (tag, fields) lists give the same bytes, and no tag can imitate another one's fields.
 */
import { blake3 } from "@noble/hashes/blake3.js";

/** Version prefix of every tag: a change of any rule below it takes a new number. */
export const HASH_DOMAIN = "TSR/crm/1/";

const encoder = new TextEncoder();

/** H(tag, fields): BLAKE3, 32 bytes, of u32le(length) || bytes for the tag and then each field. */
export function hashFields(tag: string, fields: readonly Uint8Array[]): Uint8Array {
  const parts = [encoder.encode(HASH_DOMAIN + tag), ...fields];
  const input = new Uint8Array(parts.reduce((sum, part) => sum + 4 + part.length, 0));
  const view = new DataView(input.buffer);
  let at = 0;
  for (const part of parts) {
    view.setUint32(at, part.length, true);
    input.set(part, at + 4);
    at += 4 + part.length;
  }
  return blake3(input);
}

/** Keyed BLAKE3, 32 bytes out: the reference for the device's one. */
export function keyedHash(data: Uint8Array, key: Uint8Array): Uint8Array {
  return blake3(data, { key });
}

/** An unsigned integer as `length` little-endian bytes. Throws RangeError if it does not fit. */
export function littleEndian(value: bigint, length: number): Uint8Array {
  if (value < 0n || value >> BigInt(8 * length) !== 0n) {
    throw new RangeError(`${value} does not fit in ${length} bytes`);
  }
  const out = new Uint8Array(length);
  for (let i = 0, rest = value; i < length; i += 1, rest >>= 8n) out[i] = Number(rest & 0xffn);
  return out;
}

/** Reads bytes as a little-endian unsigned integer. */
export function fromLittleEndian(bytes: Uint8Array): bigint {
  let value = 0n;
  for (let i = bytes.length - 1; i >= 0; i -= 1) value = (value << 8n) | BigInt(bytes[i]!);
  return value;
}
