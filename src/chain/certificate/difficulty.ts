/**
 * Owns difficulty and the accounting of work. A target T is stated per multiply-add at K = 4096, so
 * a tile of depth K, which costs 128 * K of them, wins at ticket <= floor(T * K / 4096).
 * Invariant: expected work of a win is the cost of a ticket over its exact probability of winning.
 */
import { TILE_CELLS } from "./tile.js";

const TICKETS = 1n << 256n;
/** The depth at which a target is the bound itself. */
const REFERENCE_DEPTH = 4_096n;

/** The easiest target: every ticket wins (at K >= 4096). */
export const TARGET_MAX = TICKETS - 1n;

/** min(2^256 - 1, floor(T * K / 4096)): the largest ticket that wins. Throws RangeError. */
export function ticketBound(target: bigint, k: number): bigint {
  if (target < 0n || target > TARGET_MAX) {
    throw new RangeError(`a target is in 0..2^256-1, got ${target}`);
  }
  const bound = (target * BigInt(k)) / REFERENCE_DEPTH;
  return bound < TARGET_MAX ? bound : TARGET_MAX;
}

/** Multiply-adds that a ticket costs. */
export function multiplyAddsPerTicket(k: number): bigint {
  return BigInt(TILE_CELLS) * BigInt(k);
}

/** Multiply-adds that one win takes on average: 128 * K / P(win), P(win) = (bound + 1) / 2^256. */
export function expectedMultiplyAdds(target: bigint, k: number): bigint {
  return (multiplyAddsPerTicket(k) * TICKETS) / (ticketBound(target, k) + 1n);
}

/** The probability that one ticket wins, as a number (for statistics, not for consensus). */
export function winProbability(target: bigint, k: number): number {
  return Number((ticketBound(target, k) + 1n) >> 192n) / 2 ** 64;
}

/**
 * The target at which a win takes about `multiplyAdds` (for genesis and retargeting): the inverse
 * of expectedMultiplyAdds, clamped to 1..2^256-1.
 */
export function targetForMultiplyAdds(multiplyAdds: bigint): bigint {
  if (multiplyAdds <= 0n) return TARGET_MAX;
  const target = (BigInt(TILE_CELLS) * REFERENCE_DEPTH * TICKETS) / multiplyAdds;
  return target < 1n ? 1n : target > TARGET_MAX ? TARGET_MAX : target;
}
