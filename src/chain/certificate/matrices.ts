/**
 * Owns the challenge matrices: A (M x K) and the transpose of B (N x K), int8, row-major, drawn
 * from ChaCha20 (RFC 8439) so that a verifier can make any row without the others.
 * Invariant: row r of matrix i depends on (seed, i, r, K) alone, and its elements are uniform in
 * [-127, 127]: the keystream byte 0x80 (-128) is skipped, never mapped.
 */
import { createCipheriv } from "node:crypto";

/** Which matrix a row belongs to: the first word of the ChaCha nonce. */
export const MATRIX_A = 0;
export const MATRIX_B_TRANSPOSED = 1;

/** The one int8 value with no counterpart of the other sign. */
const SKIPPED = 0x80;

/**
 * Writes row `row` of matrix `matrix` to out[0..k).
 * Keystream: key = seed, counter from 0, nonce = u32le(matrix) || u64le(row).
 */
export function challengeRow(
  seed: Uint8Array, matrix: number, row: number, out: Uint8Array,
): void {
  const iv = Buffer.alloc(16); // OpenSSL's: u32le counter, then the 12-byte nonce of the RFC
  iv.writeUInt32LE(matrix, 4);
  iv.writeUInt32LE(row, 8); // rows stay below 2^17, so the upper word is 0
  const cipher = createCipheriv("chacha20", seed, iv);
  const k = out.length;
  // One in 256 is skipped. K/128 spare bytes are 8 deviations of that at K = 2048, and more
  // above; a row that still falls short goes on with the same stream.
  let stream = cipher.update(zeros(k + (k >> 7) + 64));
  let filled = 0;
  for (;;) {
    for (let from = 0; from < stream.length && filled < k;) {
      const skip = stream.indexOf(SKIPPED, from);
      const end = Math.min(skip < 0 ? stream.length : skip, from + k - filled);
      out.set(stream.subarray(from, end), filled);
      filled += end - from;
      from = end === skip ? end + 1 : end;
    }
    if (filled >= k) return;
    stream = cipher.update(zeros(64));
  }
}

/** Rows `rows` of one matrix, packed: rows.length x k. */
export function challengeRows(
  seed: Uint8Array, matrix: number, rows: readonly number[], k: number,
): Int8Array {
  const bytes = new Uint8Array(rows.length * k);
  rows.forEach((row, i) => challengeRow(seed, matrix, row, bytes.subarray(i * k, (i + 1) * k)));
  return new Int8Array(bytes.buffer);
}

/** Fills rows from..to of a whole matrix whose row length is k. */
export function fillChallengeRows(
  seed: Uint8Array, matrix: number, into: Int8Array, k: number, from: number, to: number,
): void {
  const bytes = new Uint8Array(into.buffer, into.byteOffset, into.byteLength);
  for (let row = from; row < to; row += 1) {
    challengeRow(seed, matrix, row, bytes.subarray(row * k, (row + 1) * k));
  }
}

let zeroBytes = Buffer.alloc(0);
function zeros(length: number): Buffer {
  if (zeroBytes.length < length) zeroBytes = Buffer.alloc(length);
  return zeroBytes.subarray(0, length);
}
