import { beforeAll, describe, expect, it } from "vitest";
import { challengeKeys, challengePell } from "../../../src/chain/certificate/challenge.js";
import { ticketBound, winProbability } from "../../../src/chain/certificate/difficulty.js";
import { fromLittleEndian } from "../../../src/chain/certificate/hash.js";
import {
  fillChallengeRows, MATRIX_A, MATRIX_B_TRANSPOSED,
} from "../../../src/chain/certificate/matrices.js";
import { publicKeyOf } from "../../../src/chain/certificate/secp256k1.js";
import {
  gatherTile, ticketOf, tileCount, tileTranscript,
} from "../../../src/chain/certificate/tile.js";
import { openTestDevice } from "./test-device.js";

const dims = { m: 64, n: 64, k: 2_048 };
const TILES = tileCount(dims);
/** 20,480 tickets: 5.4 thousand million multiply-adds. */
const NONCES = 640;
const tip = new Uint8Array(32).fill(42);
const publicKey = publicKeyOf(new Uint8Array(32).fill(7));
/** Fixed seeds: the figures below are the same on every run. Six deviations: 1 in 5e8 by chance. */
const DEVIATIONS = 6;

let tickets: bigint[][];
beforeAll(async () => {
  const device = await openTestDevice();
  const a = new Int8Array(dims.m * dims.k);
  const bT = new Int8Array(dims.n * dims.k);
  tickets = [];
  for (let nonce = 1n; nonce <= NONCES; nonce += 1n) {
    const fields = { chainId: 7_357n, height: 9, tip, publicKey, nonce, ...dims };
    const { seed, ticketKey } = challengeKeys(fields, challengePell(tip, nonce));
    fillChallengeRows(seed, MATRIX_A, a, dims.k, 0, dims.m);
    fillChallengeRows(seed, MATRIX_B_TRANSPOSED, bT, dims.k, 0, dims.n);
    if (device) {
      const all = await device.crmScanAsync(a, bT, dims, ticketKey, new Uint8Array(32).fill(255));
      tickets.push(all.tickets.map(({ ticket }) => fromLittleEndian(ticket)));
      continue;
    }
    tickets.push(Array.from({ length: TILES }, (_, tile) => {
      const { aRows, bColumns } = gatherTile(a, bT, tile, dims);
      return fromLittleEndian(ticketOf(tileTranscript(aRows, bColumns, dims.k), ticketKey));
    }));
  }
  device?.close();
}, 180_000);

/** Sum of (seen - expected)^2 / expected. */
const chiSquare = (seen: readonly number[], expected: number) =>
  seen.reduce((sum, n) => sum + (n - expected) ** 2 / expected, 0);
const chiLimit = (bins: number) => bins - 1 + DEVIATIONS * Math.sqrt(2 * (bins - 1));

describe("tickets of 20,480 tiles", () => {
  it("are all there and all different", () => {
    expect(tickets.flat()).toHaveLength(NONCES * TILES);
    expect(new Set(tickets.flat()).size).toBe(NONCES * TILES);
  });

  it.each([2n ** 256n - 1n, 2n ** 254n, 2n ** 252n, 2n ** 250n])(
    "win at target %i as often as the accounting of work says", (target) => {
      const p = winProbability(target, dims.k);
      const n = NONCES * TILES;
      const wins = tickets.flat().filter((ticket) => ticket <= ticketBound(target, dims.k)).length;
      expect(Math.abs(wins - n * p)).toBeLessThan(DEVIATIONS * Math.sqrt(n * p * (1 - p)));
    });

  it("are uniform", () => {
    for (const shift of [250n, 0n]) { // the highest and the lowest six bits
      const bins = new Array<number>(64).fill(0);
      for (const ticket of tickets.flat()) bins[Number((ticket >> shift) & 63n)]! += 1;
      expect(chiSquare(bins, (NONCES * TILES) / 64)).toBeLessThan(chiLimit(64));
    }
  });

  it("favour no tile and no nonce", () => {
    const quarter = 2n ** 254n;
    const perTile = new Array<number>(TILES).fill(0);
    const perNonce = new Array<number>(TILES + 1).fill(0);
    for (const row of tickets) {
      const wins = row.filter((ticket) => ticket < quarter).length;
      perNonce[wins]! += 1;
      row.forEach((ticket, tile) => { if (ticket < quarter) perTile[tile]! += 1; });
    }
    // Wins of a tile are binomial: variance 3/4 of the mean.
    expect(chiSquare(perTile, NONCES / 4) / 0.75).toBeLessThan(chiLimit(TILES + 1));
    // Wins of a nonce: mean 8, variance 6.
    const mean = perNonce.reduce((sum, count, wins) => sum + count * wins, 0) / NONCES;
    const variance = perNonce.reduce((sum, n, wins) => sum + n * (wins - mean) ** 2, 0) / NONCES;
    expect(Math.abs(mean - 8)).toBeLessThan(DEVIATIONS * Math.sqrt(6 / NONCES));
    expect(Math.abs(variance - 6)).toBeLessThan(DEVIATIONS * Math.sqrt((2 * 36) / NONCES));
  });
});
