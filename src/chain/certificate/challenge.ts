/**
 * Owns the seeds of a challenge: from (chain, block, miner, nonce, shape) to the ChaCha key of the
 * matrices and the key of the tickets.
 * Invariant: every field that a miner could vary is in the seed, so nothing made for one nonce,
 * key, block or shape is of use for another.
 */
import type { UnsignedCertificate } from "./certificate.js";
import { hashFields, littleEndian } from "./hash.js";
import { pellBase, pellPower, type PellSolution } from "./pell.js";

/** What a miner needs for one nonce, and a verifier for one certificate. */
export interface ChallengeKeys {
  /** 32-byte ChaCha20 key of both matrices. */
  readonly seed: Uint8Array;
  /** 32-byte BLAKE3 key of the tickets. */
  readonly ticketKey: Uint8Array;
}

type ChallengeFields = Omit<UnsignedCertificate, "mode" | "tile">;

/** (x_n, y_n) modulo p for this block and nonce; the identity was checked. */
export function challengePell(tip: Uint8Array, nonce: bigint): PellSolution {
  return pellPower(pellBase(tip), nonce);
}

/**
 * seed = H("chal", chainId, tip, height, publicKey, x_n, y_n, nonce, m, n, k); integers are 8 bytes
 * and x_n, y_n 32 bytes, little-endian. ticketKey = H("ticket", seed).
 */
export function challengeKeys(c: ChallengeFields, pell: PellSolution): ChallengeKeys {
  const seed = hashFields("chal", [
    littleEndian(c.chainId, 8), c.tip, littleEndian(BigInt(c.height), 8), c.publicKey,
    littleEndian(pell.x, 32), littleEndian(pell.y, 32), littleEndian(c.nonce, 8),
    ...[c.m, c.n, c.k].map((value) => littleEndian(BigInt(value), 8)),
  ]);
  return { seed, ticketKey: hashFields("ticket", [seed]) };
}
