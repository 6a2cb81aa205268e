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
  const matrix = (lane: number): Float32Array =>
    Float32Array.from(new Int32Array(stream(seed, lane, size * size * 4).buffer), (word) => word / 2 ** 31);
  return { a: matrix(3), b: matrix(4) };
}

export interface Fp32Answer { product: Float32Array; computeMs: number }

/** Worker: C = A B in fp32, size x size. */
export function fp32Product(device: Device, seed: Uint8Array, size: number): Float32Array {
  const { a, b } = fp32Operands(seed, size);
  return device.sgemm(a, b, { m: size, n: size, k: size });
}

/** Master: recomputes some rows; repro-f32 makes them equal to the bit on every back end. */
export function checkFp32Product(device: Device, seed: Uint8Array, size: number, product: Float32Array, rows: readonly number[]): boolean {
  if (product.length !== size * size) return false;
  const { a, b } = fp32Operands(seed, size);
  const some = new Float32Array(rows.length * size);
  rows.forEach((row, i) => some.set(a.subarray(row * size, (row + 1) * size), i * size));
  const expected = device.sgemm(some, b, { m: rows.length, n: size, k: size });
  return rows.every((row, i) => {
    for (let j = 0; j < size; j += 1) if (!Object.is(expected[i * size + j], product[row * size + j])) return false;
    return true;
  });
}
