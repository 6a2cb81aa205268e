/**
 * Owns the search for challenge certificates: for each nonce, fresh matrices, one product, and
 * a signed certificate for each tile that wins.
 * Invariant: what it returns verifies. Each win that a device reports is computed again by the
 * reference before it is signed, so a faulty device stops the miner instead of spamming peers.
 */
import {
  CertificateError, fieldFault, signCertificate, type Certificate, type UnsignedCertificate,
} from "./certificate.js";
import { challengeKeys, challengePell, type ChallengeKeys } from "./challenge.js";
import { ticketBound } from "./difficulty.js";
import { littleEndian } from "./hash.js";
import { challengeRows, fillChallengeRows, MATRIX_A, MATRIX_B_TRANSPOSED } from "./matrices.js";
import { isPrivateKey, publicKeyOf } from "./secp256k1.js";
import {
  dimsFault, gatherTile, tileCells, ticketOf, ticketWins, tileCount, tileTranscript, type ProductDims,
} from "./tile.js";

/** A winning tile of one product and its ticket (32 bytes). */
export interface WinningTile {
  readonly tile: number;
  readonly ticket: Uint8Array;
}

/** What certificates need of a compute device; the devices of src/device have it. */
export interface CertificateDevice {
  blake3(data: Uint8Array, key?: Uint8Array): Uint8Array;
  /** a: m x k, bT: n x k, int8; bound: 32 bytes little-endian. All tiles with ticket <= bound. */
  crmScanAsync(
    a: Int8Array, bT: Int8Array, dims: { m: number; n: number; k: number },
    ticketKey: Uint8Array, bound: Uint8Array,
  ): Promise<{ tickets: readonly WinningTile[] }>;
  /** The same for the matrices of a challenge's seed, which the device makes by itself; may be absent. */
  crmChallengeAsync?(
    seed: Uint8Array, dims: { m: number; n: number; k: number },
    ticketKey: Uint8Array, bound: Uint8Array,
  ): Promise<{ tickets: readonly WinningTile[] }>;
  /** aRows: 8 x k, bCols: 16 x k. The 64-byte transcript. */
  crmTile(aRows: Int8Array, bCols: Int8Array, k: number): Uint8Array;
}

export interface MinerOptions {
  readonly chainId: bigint;
  /** 32-byte secp256k1 key that signs and earns. */
  readonly privateKey: Uint8Array;
  readonly dims?: ProductDims;
}

export interface MinerModules {
  /** Without one the plain reference scans: right, and hundreds of times slower. */
  readonly device?: CertificateDevice;
  /** Gives the event loop a turn while matrices are made, for example by setImmediate. */
  readonly pause?: () => Promise<void>;
}

export interface MineRequest {
  /** Height and hash of the block that gives the challenge. */
  readonly height: number;
  readonly tip: Uint8Array;
  readonly target: bigint;
  /** First nonce to try; 0 counts as 1. */
  readonly nonceStart: bigint;
  readonly maxNonces: number;
  /** Stop after the nonce that brings this many certificates. Default: never. */
  readonly maxCertificates?: number;
  /** Looked at between nonces, and between slices of a matrix. */
  readonly signal?: AbortSignal;
}

export interface MineResult {
  readonly certificates: Certificate[];
  readonly noncesTried: number;
  /** Multiply-adds done: noncesTried * m * n * k. */
  readonly multiplyAdds: bigint;
}

export interface Miner {
  readonly publicKey: Uint8Array;
  readonly dims: ProductDims;
  mine(request: MineRequest): Promise<MineResult>;
}

/** A product of 134 million multiply-adds: milliseconds on one core of a laptop. */
export const DEVNET_DIMS: ProductDims = { m: 256, n: 256, k: 2_048 };
/** The public networks' shape: 275 thousand million multiply-adds a nonce. */
export const MAINNET_DIMS: ProductDims = { m: 8_192, n: 8_192, k: 4_096 };

/** Elements made between two pauses: about 4 ms of one core. */
const SLICE_ELEMENTS = 1 << 20;
const NONCE_MAX = 2n ** 64n - 1n;

/** Throws CertificateError for a bad key or shape. */
export function createMiner(options: MinerOptions & MinerModules): Miner {
  const { chainId, privateKey, device, pause } = options;
  const dims = options.dims ?? DEVNET_DIMS;
  const shape = dimsFault(dims);
  if (shape) throw new CertificateError("out-of-range", shape);
  if (!isPrivateKey(privateKey)) {
    throw new CertificateError("bad-key", "privateKey must be a secp256k1 key of 32 bytes");
  }
  const publicKey = publicKeyOf(privateKey);
  const open = device?.crmChallengeAsync ? deviceChallenges(device.crmChallengeAsync.bind(device), dims)
    : madeChallenges(device ? deviceScan(device) : referenceScan(pause), dims, pause);

  async function mine(request: MineRequest): Promise<MineResult> {
    const { height, tip, target, signal } = request;
    const bound = ticketBound(target, dims.k);
    const first = request.nonceStart < 1n ? 1n : request.nonceStart;
    const fields = (nonce: bigint, tile: number): UnsignedCertificate => (
      { mode: "challenge", chainId, height, tip, publicKey, nonce, tile, ...dims }
    );
    const fault = fieldFault({ ...fields(first, 0), signature: new Uint8Array(65) });
    if (fault) throw new CertificateError("out-of-range", fault);

    const prepare = async (index: number): Promise<PreparedNonce | undefined> => {
      const nonce = first + BigInt(index);
      if (index >= request.maxNonces || nonce > NONCE_MAX || signal?.aborted) return undefined;
      if (pause) await pause();
      const keys = challengeKeys(fields(nonce, 0), challengePell(tip, nonce));
      const scan = await open(index, keys, bound, signal);
      return scan && { nonce, keys, scan };
    };

    const certificates: Certificate[] = [];
    let noncesTried = 0;
    let current = await prepare(0);
    while (current) {
      const { nonce, keys } = current;
      const scanning = current.scan();
      // Both must have let go of their buffers before an error of either leaves this function.
      const [scanned, prepared] =
        await Promise.allSettled([scanning, prepare(noncesTried + 1)] as const);
      const wins = settled(scanned);
      const next = settled(prepared);
      noncesTried += 1;
      for (const win of wins) {
        confirm(win, keys, dims, bound);
        certificates.push(signCertificate(fields(nonce, win.tile), privateKey));
      }
      if (certificates.length >= (request.maxCertificates ?? Infinity)) break;
      current = next;
    }
    const each = BigInt(dims.m) * BigInt(dims.n) * BigInt(dims.k);
    return { certificates, noncesTried, multiplyAdds: each * BigInt(noncesTried) };
  }

  let busy = false; // the buffers serve one search
  return {
    publicKey,
    dims,
    async mine(request) {
      if (busy) throw new CertificateError("out-of-range", "this miner is at work already");
      busy = true;
      try {
        return await mine(request);
      } finally {
        busy = false;
      }
    },
  };
}

function settled<T>(result: PromiseSettledResult<T>): T {
  if (result.status === "rejected") throw result.reason;
  return result.value;
}

interface PreparedNonce {
  readonly nonce: bigint;
  readonly keys: ChallengeKeys;
  readonly scan: () => Promise<readonly WinningTile[]>;
}

/** Makes ready the challenge of the `index`th nonce and gives its scan; undefined if it was aborted. */
type OpenChallenge = (
  index: number, keys: ChallengeKeys, bound: bigint, signal?: AbortSignal,
) => Promise<PreparedNonce["scan"] | undefined>;

/** The device makes the matrices: 0.7 ms of a core for the devnet's shape, where this thread takes 5. */
function deviceChallenges(
  call: NonNullable<CertificateDevice["crmChallengeAsync"]>, dims: ProductDims,
): OpenChallenge {
  return async (_index, { seed, ticketKey }, bound) =>
    async () => (await call(seed, { ...dims }, ticketKey, littleEndian(bound, 32))).tickets;
}

/** Two sets of matrices: the next nonce's are made here while this one's are multiplied. */
function madeChallenges(scan: Scan, dims: ProductDims, pause?: () => Promise<void>): OpenChallenge {
  const buffers = [0, 1].map(() => ({
    a: new Int8Array(dims.m * dims.k), bT: new Int8Array(dims.n * dims.k),
  }));
  return async (index, keys, bound, signal) => {
    const { a, bT } = buffers[index % 2]!;
    const whole = await fill(a, keys, MATRIX_A, dims, signal, pause)
      && await fill(bT, keys, MATRIX_B_TRANSPOSED, dims, signal, pause);
    return whole ? () => scan(a, bT, dims, keys.ticketKey, bound) : undefined;
  };
}

type Scan = (
  a: Int8Array, bT: Int8Array, dims: ProductDims, ticketKey: Uint8Array, bound: bigint,
) => Promise<readonly WinningTile[]>;

function deviceScan(device: CertificateDevice): Scan {
  return async (a, bT, dims, ticketKey, bound) =>
    (await device.crmScanAsync(a, bT, { ...dims }, ticketKey, littleEndian(bound, 32))).tickets;
}

/** All winning tiles of a product, ascending, by the reference; a turn of the loop every 64 rows. */
function referenceScan(pause?: () => Promise<void>): Scan {
  return async (a, bT, dims, ticketKey, bound) => {
    const wins: WinningTile[] = [];
    const tilesPerPause = Math.max(1, tileCount(dims) / (dims.m / 64));
    for (let tile = 0; tile < tileCount(dims); tile += 1) {
      if (pause && tile % tilesPerPause === 0) await pause();
      const { aRows, bColumns } = gatherTile(a, bT, tile, dims);
      const ticket = ticketOf(tileTranscript(aRows, bColumns, dims.k), ticketKey);
      if (ticketWins(ticket, bound)) wins.push({ tile, ticket });
    }
    return wins;
  };
}

/** Fills a whole matrix in slices; false if it was aborted. */
async function fill(
  matrix: Int8Array, keys: ChallengeKeys, which: number, { k }: ProductDims,
  signal?: AbortSignal, pause?: () => Promise<void>,
): Promise<boolean> {
  const rows = matrix.length / k;
  const slice = Math.max(1, Math.floor(SLICE_ELEMENTS / k));
  for (let row = 0; row < rows; row += slice) {
    if (pause) await pause();
    if (signal?.aborted) return false;
    fillChallengeRows(keys.seed, which, matrix, k, row, Math.min(rows, row + slice));
  }
  return true;
}

function confirm(
  win: WinningTile, { seed, ticketKey }: ChallengeKeys, dims: ProductDims, bound: bigint,
): void {
  const { rows, columns } = tileCells(win.tile, dims);
  const aRows = challengeRows(seed, MATRIX_A, rows, dims.k);
  const bColumns = challengeRows(seed, MATRIX_B_TRANSPOSED, columns, dims.k);
  const ticket = ticketOf(tileTranscript(aRows, bColumns, dims.k), ticketKey);
  if (Buffer.compare(ticket, win.ticket) !== 0 || !ticketWins(ticket, bound)) {
    throw new CertificateError("device-mismatch",
      `the device's ticket for tile ${win.tile} differs from the reference: do not mine with it`);
  }
}
