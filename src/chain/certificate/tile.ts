/**
 * Owns the arithmetic core of CryptoRight-M in plain TypeScript: lottery tiles, their transcript
 * and the ticket. It is the reference that every device must equal bit for bit.
 * Invariant: only int8 products and int32 sums (K <= 65536, so none overflows), XOR and rotation;
 * nothing depends on the order of the sums inside a chunk.
 */
import { fromLittleEndian, keyedHash } from "./hash.js";

/** Side of a block of tiles; M and N are multiples of it. */
export const BLOCK = 64;
/** Tiles in a block: the 32 lanes of a GPU warp, 128 cells each. */
export const LANES = 32;
export const TILE_ROWS = 8;
export const TILE_COLUMNS = 16;
export const TILE_CELLS = TILE_ROWS * TILE_COLUMNS;
/** Elements along k between two looks at the accumulators; K is a multiple of it. */
export const CHUNK = 128;
/** Words of the transcript. */
const WORDS = 16;

/** Largest M or N: keeps a tile index below 2^25 and a matrix below 4 GiB. */
export const ROWS_MAX = 65_536;
export const DEPTH_MIN = 2_048;
/** K * 127^2 < 2^31 for K <= 65536: no accumulator can overflow. */
export const DEPTH_MAX = 65_536;

/** Shape of the product: (m x k) times (k x n). */
export interface ProductDims {
  readonly m: number;
  readonly n: number;
  readonly k: number;
}

/** The first thing wrong with the shape, as a sentence, or undefined. */
export function dimsFault({ m, n, k }: ProductDims): string | undefined {
  for (const [name, value] of [["m", m], ["n", n]] as const) {
    if (!Number.isInteger(value) || value < BLOCK || value > ROWS_MAX || value % BLOCK !== 0) {
      return `${name} must be a multiple of ${BLOCK} in ${BLOCK}..${ROWS_MAX}, got ${value}`;
    }
  }
  if (!Number.isInteger(k) || k < DEPTH_MIN || k > DEPTH_MAX || k % CHUNK !== 0) {
    return `k must be a multiple of ${CHUNK} in ${DEPTH_MIN}..${DEPTH_MAX}, got ${k}`;
  }
  return undefined;
}

/** How many tiles a product has. */
export function tileCount({ m, n }: ProductDims): number {
  return (m / BLOCK) * (n / BLOCK) * LANES;
}

/**
 * The 8 rows of A and 16 columns of B of tile ((b * N/64 + c) * 32 + 4g + t):
 * rows 64b + g + 8i, columns 64c + 2t + 8j + {0, 1}.
 */
export function tileCells(tile: number, { n }: ProductDims): { rows: number[]; columns: number[] } {
  const lane = tile % LANES;
  const block = (tile - lane) / LANES;
  const across = n / BLOCK;
  const c = block % across;
  const b = (block - c) / across;
  const g = lane >> 2;
  const t = lane & 3;
  const rows = Array.from({ length: TILE_ROWS }, (_, i) => BLOCK * b + g + 8 * i);
  const columns = Array.from({ length: TILE_COLUMNS }, (_, i) =>
    BLOCK * c + 2 * t + 8 * (i >> 1) + (i & 1));
  return { rows, columns };
}

/**
 * The transcript J of one tile, 64 bytes (16 little-endian words).
 * aRows: 8 x k, bColumns: 16 x k, both int8, row-major. After each chunk s of 128 along k,
 * J[s mod 16] = rotl13(J[s mod 16]) XOR (XOR of the 128 running sums).
 */
export function tileTranscript(aRows: Int8Array, bColumns: Int8Array, k: number): Uint8Array {
  const sums = new Int32Array(TILE_CELLS);
  const words = new Int32Array(WORDS);
  for (let chunk = 0; chunk < k / CHUNK; chunk += 1) {
    const from = chunk * CHUNK;
    let mixed = 0;
    for (let cell = 0; cell < TILE_CELLS; cell += 1) {
      let a = Math.floor(cell / TILE_COLUMNS) * k + from;
      let b = (cell % TILE_COLUMNS) * k + from;
      let sum = sums[cell]!;
      for (const end = a + CHUNK; a < end; a += 1, b += 1) {
        sum = (sum + Math.imul(aRows[a]!, bColumns[b]!)) | 0;
      }
      sums[cell] = sum;
      mixed ^= sum;
    }
    const word = words[chunk % WORDS]!;
    words[chunk % WORDS] = ((word << 13) | (word >>> 19)) ^ mixed;
  }
  const transcript = new Uint8Array(4 * WORDS);
  const view = new DataView(transcript.buffer);
  words.forEach((word, i) => view.setInt32(4 * i, word, true));
  return transcript;
}

/** ticket = BLAKE3(J) keyed by the ticket key. */
export function ticketOf(transcript: Uint8Array, ticketKey: Uint8Array): Uint8Array {
  return keyedHash(transcript, ticketKey);
}

/** A ticket wins if, as a little-endian number, it is at most the bound. */
export function ticketWins(ticket: Uint8Array, bound: bigint): boolean {
  return fromLittleEndian(ticket) <= bound;
}

/** Gathers the operands of a tile out of whole matrices. */
export function gatherTile(
  a: Int8Array, bTransposed: Int8Array, tile: number, dims: ProductDims,
): { aRows: Int8Array; bColumns: Int8Array } {
  const { k } = dims;
  const { rows, columns } = tileCells(tile, dims);
  const aRows = new Int8Array(TILE_ROWS * k);
  const bColumns = new Int8Array(TILE_COLUMNS * k);
  rows.forEach((row, i) => aRows.set(a.subarray(row * k, (row + 1) * k), i * k));
  columns.forEach((column, i) =>
    bColumns.set(bTransposed.subarray(column * k, (column + 1) * k), i * k));
  return { aRows, bColumns };
}
