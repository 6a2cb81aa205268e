/**
 * Owns: proving a node's power (white paper 2.4, 2.2.3). The master draws a seed; the node computes a
 * whole matrix product from it before a deadline and returns the ticket of every tile (the keyed hash
 * of its transcript);
 * the master recomputes tiles it draws afterwards.
 * Invariants: operands depend on the node's address, so no two nodes can share one computation;
 * power is work / time until the answer arrived, so one machine that answers for several nodes at
 * once divides its power among them; an answer counts once.
 */
import { blake3 } from "@noble/hashes/blake3.js";
import { bytesToHex, concatBytes, hexToBytes, utf8ToBytes } from "@noble/hashes/utils.js";
import { requireInput } from "./errors.js";

/** Cells of one tile, and bytes of its ticket, as CryptoRight-M has them. */
export const TILE_CELLS = 128;
export const TICKET_BYTES = 32;
/** A forger of a tenth of the tiles passes 16 draws with probability 0.9^16 = 19 %, of half 0.002 %. */
export const DEFAULT_TILES_CHECKED = 16;
/** 2^16 tiles are 2 MiB of tickets: a bound on what one answer may make the master hold. */
export const TILES_MAX = 65_536;

export interface ChallengeDims {
  readonly m: number;
  readonly n: number;
  readonly k: number;
}

export interface Challenge {
  /** 32 bytes, hex: names the challenge, and seeds its operands together with the node. */
  readonly seed: string;
  /** 20-byte address, lower-case hex with 0x. */
  readonly node: string;
  readonly dims: ChallengeDims;
  readonly issuedAtMs: number;
  readonly deadlineMs: number;
}

export interface ChallengeAnswer {
  readonly seed: string;
  readonly node: string;
  /** tiles x 32 bytes, ascending tile number. */
  readonly tickets: Uint8Array;
}

/** Recomputes one tile's ticket from the operand seed; the device does it, or plain TypeScript. */
export type RecomputeTile = (operandSeed: Uint8Array, dims: ChallengeDims, tile: number) => Uint8Array;

export type ChallengeVerdict =
  | { ok: true; multiplyAddsPerSecond: bigint; proofDigest: string; elapsedMs: number }
  | { ok: false; code: "wrong-challenge" | "too-late" | "wrong-length" | "wrong-tile"; message: string };

export function tilesOf(dims: ChallengeDims): number {
  return (dims.m * dims.n) / TILE_CELLS;
}

/** Draws a challenge for one node. `random` gives unpredictable bytes; `nowMs` is the master's clock. */
export function issueChallenge(
  node: string, dims: ChallengeDims, allowedMs: number, nowMs: number, random: (bytes: number) => Uint8Array,
): Challenge {
  requireInput(/^0x[0-9a-f]{40}$/.test(node), "node", `expected a lower-case 20-byte address, got ${node}`);
  requireInput(dims.m % 64 === 0 && dims.n % 64 === 0 && dims.k % 128 === 0 && dims.m > 0 && dims.n > 0 && dims.k > 0,
    "dims", `expected M and N multiples of 64, K a multiple of 128, got ${dims.m} x ${dims.n} x ${dims.k}`);
  requireInput(tilesOf(dims) <= TILES_MAX, "dims", `expected at most ${TILES_MAX} tiles, got ${tilesOf(dims)}`);
  requireInput(allowedMs > 0, "allowedMs", `expected a positive time, got ${allowedMs}`);
  return { seed: bytesToHex(random(32)), node, dims, issuedAtMs: nowMs, deadlineMs: nowMs + allowedMs };
}

/** What both sides derive the operands from: BLAKE3 over a domain, the seed and the node. */
export function operandSeedOf(challenge: Pick<Challenge, "seed" | "node">): Uint8Array {
  return blake3(concatBytes(
    utf8ToBytes("TSR/capability/1"), hexToBytes(challenge.seed), hexToBytes(challenge.node.slice(2))));
}

/** Checks an answer, cheapest first, and states the power it proves. */
export function verifyAnswer(
  challenge: Challenge, answer: ChallengeAnswer, receivedAtMs: number,
  random: (bytes: number) => Uint8Array, recomputeTile: RecomputeTile, tilesChecked = DEFAULT_TILES_CHECKED,
): ChallengeVerdict {
  if (answer.seed !== challenge.seed || answer.node !== challenge.node) {
    return { ok: false, code: "wrong-challenge", message: "the answer is to another challenge or by another node" };
  }
  if (receivedAtMs > challenge.deadlineMs) {
    return { ok: false, code: "too-late", message: `answered ${receivedAtMs - challenge.deadlineMs} ms after the deadline` };
  }
  const tiles = tilesOf(challenge.dims);
  if (answer.tickets.length !== tiles * TICKET_BYTES) {
    return {
      ok: false, code: "wrong-length",
      message: `expected ${tiles * TICKET_BYTES} bytes of tickets, got ${answer.tickets.length}`,
    };
  }
  const operandSeed = operandSeedOf(challenge);
  for (const tile of drawTiles(tiles, tilesChecked, random)) {
    const expected = recomputeTile(operandSeed, challenge.dims, tile);
    const given = answer.tickets.subarray(tile * TICKET_BYTES, (tile + 1) * TICKET_BYTES);
    if (!given.every((byte, index) => byte === expected[index])) {
      return { ok: false, code: "wrong-tile", message: `tile ${tile} is not what its operands give` };
    }
  }
  const elapsedMs = Math.max(1, receivedAtMs - challenge.issuedAtMs);
  const { m, n, k } = challenge.dims;
  return {
    ok: true,
    elapsedMs,
    multiplyAddsPerSecond: (BigInt(m) * BigInt(n) * BigInt(k) * 1_000n) / BigInt(elapsedMs),
    proofDigest: `0x${bytesToHex(blake3(concatBytes(operandSeed, blake3(answer.tickets))))}`,
  };
}

/** Tile numbers, uniform up to a bias below 2^-16 (32 random bits over at most 2^16 tiles). */
function drawTiles(tiles: number, count: number, random: (bytes: number) => Uint8Array): number[] {
  if (count >= tiles) return Array.from({ length: tiles }, (_, index) => index);
  const bytes = random(count * 4);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: count }, (_, index) => view.getUint32(index * 4, true) % tiles);
}
