// Owns both sides of the capability products: operands from a seed, the worker's whole products, the master's
// recomputation of the parts it draws.
// Invariant: a pure function of the seed; both sides get the same bits whatever instruction set they use.
import { createCipheriv } from "node:crypto";
import { gatherTile } from "../chain/certificate/tile.js";
import type { Device } from "../device/device.js";
import type { ChallengeDims, RecomputeTile } from "../scheduler/index.js";

const TICKET_BYTES = 32;
/** Every ticket is below it: a scan then reports all tiles. */
const ANY_TICKET = new Uint8Array(32).fill(0xff);
/** Rows of the fp32 product that the master recomputes. */
export const FP32_ROWS_CHECKED = 8;

/** AES-256-CTR keystream of the seed: gigabytes a second, so that operands cost little beside the product. */
function stream(seed: Uint8Array, lane: number, sizeBytes: number): Uint8Array {
  const iv = new Uint8Array(16);
  iv[0] = lane;
  const bytes = createCipheriv("aes-256-ctr", seed, iv).update(new Uint8Array(sizeBytes));
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength).slice();
}

interface Int8Operands { a: Int8Array; bT: Int8Array; key: Uint8Array }

/** A is m x k, B transposed n x k; -128 becomes 0, which the arithmetic core does not take. */
function int8Operands(seed: Uint8Array, { m, n, k }: ChallengeDims): Int8Operands {
  const matrix = (lane: number, elements: number): Int8Array => {
    const values = new Int8Array(stream(seed, lane, elements).buffer);
    for (let i = 0; i < values.length; i += 1) if (values[i] === -128) values[i] = 0;
    return values;
  };
  return { a: matrix(0, m * k), bT: matrix(1, n * k), key: stream(seed, 2, 32) };
}

/** Worker: the tickets of all tiles of the int8 product, 32 bytes each in tile order. */
export async function int8Tickets(device: Device, seed: Uint8Array, dims: ChallengeDims): Promise<Uint8Array> {
  const { a, bT, key } = int8Operands(seed, dims);
  const { tickets } = await device.crmScanAsync(a, bT, dims, key, ANY_TICKET);
  const out = new Uint8Array(tickets.length * TICKET_BYTES);
  for (const { tile, ticket } of tickets) out.set(ticket, tile * TICKET_BYTES);
  return out;
}

/** Master: recomputes one tile's ticket; the operands of the last seed are kept. */
export function createTileCheck(device: Device): RecomputeTile {
  let last: { seed: Uint8Array; operands: Int8Operands } | undefined;
  return (seed, dims, tile) => {
    if (last?.seed !== seed) last = { seed, operands: int8Operands(seed, dims) };
    const { a, bT, key } = last.operands;
    const { aRows, bColumns } = gatherTile(a, bT, tile, dims);
    return device.blake3(device.crmTile(aRows, bColumns, dims.k), key);
  };
}

/** fp32 operands in [-1, 1): signed words over 2^31. */
function fp32Operands(seed: Uint8Array, size: number): { a: Float32Array; b: Float32Array } {
  const matrix = (lane: number): Float32Array => {
    const words = new Int32Array(stream(seed, lane, size * size * 4).buffer);
    const values = new Float32Array(words.length);
    for (let i = 0; i < words.length; i += 1) values[i] = words[i]! / 2 ** 31;
    return values;
  };
  return { a: matrix(3), b: matrix(4) };
}

function rowHash(device: Device, product: Float32Array, row: number, size: number): Uint8Array {
  return device.blake3(new Uint8Array(product.buffer, product.byteOffset + row * size * 4, size * 4));
}

/** Worker: C = A B in fp32, size x size; returns the BLAKE3 of each row, 32 bytes each in order. */
export function fp32RowHashes(device: Device, seed: Uint8Array, size: number): Uint8Array {
  const { a, b } = fp32Operands(seed, size);
  const product = device.sgemm(a, b, { m: size, n: size, k: size });
  const hashes = new Uint8Array(size * TICKET_BYTES);
  for (let row = 0; row < size; row += 1) hashes.set(rowHash(device, product, row, size), row * TICKET_BYTES);
  return hashes;
}

/** Master: recomputes some rows; repro-f32 makes them equal to the bit on every back end. */
export function checkFp32Rows(device: Device, seed: Uint8Array, size: number, hashes: Uint8Array, rows: readonly number[]): boolean {
  if (hashes.length !== size * TICKET_BYTES) return false;
  const { a, b } = fp32Operands(seed, size);
  const some = new Float32Array(rows.length * size);
  rows.forEach((row, i) => some.set(a.subarray(row * size, (row + 1) * size), i * size));
  const expected = device.sgemm(some, b, { m: rows.length, n: size, k: size });
  return rows.every((row, i) => {
    const hash = rowHash(device, expected, i, size);
    return hash.every((byte, at) => byte === hashes[row * TICKET_BYTES + at]);
  });
}
