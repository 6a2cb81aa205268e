/**
 * Owns: the IDX format (LeCun's, big-endian header, unsigned bytes), read strictly: the file's
 * length must be exactly what its header says.
 */
import { DataError } from "./errors.js";

export interface IdxArray {
  shape: number[];
  /** A view into the file's bytes. */
  data: Uint8Array;
}

const UNSIGNED_BYTE = 0x08;

/** Parses IDX of unsigned bytes with `rank` dimensions; `file` names it in errors. */
export function parseIdx(bytes: Uint8Array, rank: number, file: string): IdxArray {
  const headerBytes = 4 + 4 * rank;
  if (bytes.length < headerBytes) {
    throw new DataError("idx-format", `${file} is truncated: an IDX header of rank ${rank} has ${headerBytes} bytes, ` +
      `the file has ${bytes.length}`, { file, expected: headerBytes, actual: bytes.length });
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const magic = view.getUint32(0), expectedMagic = (UNSIGNED_BYTE << 8) | rank;
  if (magic !== expectedMagic) {
    throw new DataError("idx-format", `${file} is no IDX file of unsigned bytes with ${rank} dimensions: the magic is ` +
      `${hex(magic)}, expected ${hex(expectedMagic)}`, { file, expected: hex(expectedMagic), actual: hex(magic) });
  }
  const shape = Array.from({ length: rank }, (_, i) => view.getUint32(4 + 4 * i));
  // Up to 2^128: a double compares such a count with a length correctly.
  const expected = headerBytes + shape.reduce((product, size) => product * size, 1);
  if (bytes.length !== expected) {
    throw new DataError("idx-format", `${file} ${bytes.length < expected ? "is truncated" : "has extra bytes"}: its header ` +
      `(${shape.join(" x ")}) asks for ${expected} bytes, the file has ${bytes.length}`,
      { file, expected, actual: bytes.length });
  }
  return { shape, data: bytes.subarray(headerBytes) };
}

const hex = (value: number): string => `0x${value.toString(16).padStart(8, "0")}`;
