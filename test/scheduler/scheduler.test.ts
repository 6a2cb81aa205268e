import { blake3 } from "@noble/hashes/blake3.js";
import { bytesToHex } from "@noble/hashes/utils.js";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  type ChallengeDims, issueChallenge, operandSeedOf, tilesOf, TICKET_BYTES, verifyAnswer,
} from "../../src/scheduler/challenge.js";
import { deadlineOf } from "../../src/scheduler/deadline.js";
import { type Capability, gradeOf } from "../../src/scheduler/grading.js";
import { type Candidate, type Demand, placeQueue, placeTask } from "../../src/scheduler/matching.js";
import {
  decodeReceipt, encodeReceipt, Meter, receiptDigest, signReceipt, type WorkReceipt,
} from "../../src/scheduler/metering.js";
import { defaultUnitPrices, quoteTask } from "../../src/scheduler/quote.js";
import { splitForfeit } from "../../src/scheduler/settlement.js";

const GIGA = 10n ** 9n;
const node = (index: number) => `0x${index.toString(16).padStart(40, "0")}`;

describe("quote", () => {
  const rules = {
    prices: defaultUnitPrices, rangeBps: 20_000n, minerCollateralBps: 2_000n, microUsdPerTsr: 20_000n,
    deadlineFactorBps: 30_000n, minimumDeadlineSeconds: 60n,
  };
  it("costs 0.02 dollars for a TFLOPS over one hour", () => {
    const quote = quoteTask({ multiplyAdds: 1_800n * 10n ** 12n, storageBytes: 0n, workers: 2, power: 10n ** 12n }, rules);
    expect(quote.computeMicroUsd).toBe(20_000n);
    expect(quote.expectedSeconds).toBe(1_800n);
    expect(quote.deadlineSeconds).toBe(5_400n);
    expect(quote.collateral).toBe(2n * 10n ** 18n); // one TSR x range 2
    expect(quote.minerCollateral).toBe(10n ** 17n);
  });
  it("never falls below its parts and never rounds to nothing", () => {
    fc.assert(fc.property(fc.bigInt({ min: 1n, max: 10n ** 20n }), fc.bigInt({ min: 0n, max: 10n ** 13n }), (work, bytes) => {
      const quote = quoteTask({ multiplyAdds: work, storageBytes: bytes, workers: 3, power: 10n ** 10n }, rules);
      expect(quote.computeMicroUsd * 10n ** 12n * 3_600n >= work * 2n * 20_000n).toBe(true);
      expect(quote.collateral > 0n && quote.minerCollateral > 0n).toBe(true);
      expect(quote.deadlineSeconds >= quote.expectedSeconds).toBe(true);
    }));
  });
  it("says what is wrong with a size that means nothing", () => {
    expect(() => quoteTask({ multiplyAdds: 0n, storageBytes: 0n, workers: 1, power: 1n }, rules)).toThrow(/multiplyAdds: expected/);
    expect(() => quoteTask({ multiplyAdds: 1n, storageBytes: 0n, workers: 1, power: 0n }, rules)).toThrow(/power: expected/);
  });
});

describe("challenge", () => {
  const dims: ChallengeDims = { m: 64, n: 128, k: 128 };
  /** Stands for the tile arithmetic: any function that nobody can guess without computing it. */
  const tileOf = (seed: Uint8Array, _: ChallengeDims, tile: number) =>
    blake3(new Uint8Array([...seed, tile & 255, tile >> 8]), { dkLen: TICKET_BYTES });
  let counter = 0;
  const random = (bytes: number) => blake3(new TextEncoder().encode(`random ${counter++}`), { dkLen: bytes });
  const answerTo = (challenge: ReturnType<typeof issueChallenge>) => {
    const tickets = new Uint8Array(tilesOf(dims) * TICKET_BYTES);
    for (let tile = 0; tile < tilesOf(dims); tile += 1) {
      tickets.set(tileOf(operandSeedOf(challenge), dims, tile), tile * TICKET_BYTES);
    }
    return { seed: challenge.seed, node: challenge.node, tickets };
  };
  const issue = (of: string, nowMs = 1_000) => issueChallenge(of, dims, 500, nowMs, random);

  it("proves power as work over time", () => {
    const challenge = issue(node(1));
    const verdict = verifyAnswer(challenge, answerTo(challenge), 1_100, random, tileOf);
    expect(verdict).toMatchObject({ ok: true, multiplyAddsPerSecond: (64n * 128n * 128n * 1_000n) / 100n, elapsedMs: 100 });
  });

  it("does not let one computation grade a second node", () => {
    const seed = random(32);
    const [first, second] = [1, 2].map((index) => issueChallenge(node(index), dims, 500, 1_000, () => seed));
    const answer = answerTo(first!);
    expect(verifyAnswer(second!, answer, 1_100, random, tileOf)).toMatchObject({ ok: false, code: "wrong-challenge" });
    expect(verifyAnswer(second!, { ...answer, node: node(2) }, 1_100, random, tileOf)).toMatchObject({ ok: false, code: "wrong-tile" });
    // two honest answers of one machine, done one after the other, prove half the power each
    const one = verifyAnswer(first!, answerTo(first!), 1_100, random, tileOf);
    const two = verifyAnswer(second!, answerTo(second!), 1_200, random, tileOf);
    if (!one.ok || !two.ok) throw new Error("refused");
    expect(two.multiplyAddsPerSecond).toBe(one.multiplyAddsPerSecond / 2n);
    expect(two.proofDigest).not.toBe(one.proofDigest);
  });

  it("refuses what is late, short, guessed or half computed", () => {
    const challenge = issue(node(3));
    const answer = answerTo(challenge);
    expect(verifyAnswer(challenge, answer, 1_501, random, tileOf)).toMatchObject({ ok: false, code: "too-late" });
    expect(verifyAnswer(challenge, { ...answer, tickets: answer.tickets.subarray(1) }, 1_100, random, tileOf))
      .toMatchObject({ ok: false, code: "wrong-length" });
    const half = { ...answer, tickets: answer.tickets.slice().fill(7, answer.tickets.length / 2) };
    expect(verifyAnswer(challenge, half, 1_100, random, tileOf)).toMatchObject({ ok: false, code: "wrong-tile" });
    expect(verifyAnswer(issue(node(3)), answer, 1_100, random, tileOf)).toMatchObject({ ok: false, code: "wrong-challenge" });
    expect(() => issueChallenge(node(3), { m: 65, n: 64, k: 128 }, 1, 0, random)).toThrow(/multiples/);
  });
});

describe("matching", () => {
  const capability = (power: bigint): Capability => ({
    power: { fp32: power, int8: power, fp16: 0n, fp8: 0n }, memoryBytes: 2n ** 34n, bandwidthBytesPerSecond: 10n ** 8n,
  });
  const candidate = (index: number, change: Partial<Candidate> = {}): Candidate => ({
    node: node(index), capability: capability(200n * GIGA), spendable: 10n ** 20n, askMicroUsd: 10n, isBusy: false,
    hasFreeTask: false, distanceMs: 0, commentBps: 10_000n, reliabilityBps: 10_000n, ...change,
  });
  const demand: Demand = {
    taskId: "1", precision: "fp32", minWorkers: 2, maxWorkers: 2, standby: 1, minGrade: 1, memoryBytes: 2n ** 30n,
    minerCollateral: 10n ** 18n, shareMicroUsd: 2_000_000n, freeShareMicroUsd: 1_000_000n, bidMicroUsd: 10n, maxDistanceMs: 100,
  };

  it("grades only what is proven", () => {
    expect(gradeOf(capability(0n))).toBe(0);
    expect(gradeOf(capability(50n * GIGA))).toBe(1);
    expect(gradeOf(capability(200n * GIGA))).toBe(2);
    expect(gradeOf({ ...capability(40_000n * GIGA), memoryBytes: 2n ** 33n })).toBe(3); // fast, but little memory
  });

  it("places the gang whole or not at all, and says why", () => {
    const nodes = [candidate(1), candidate(2, { spendable: 0n }), candidate(3, { isBusy: true }),
      candidate(4, { askMicroUsd: 11n }), candidate(5, { distanceMs: 101 }), candidate(6, { capability: capability(0n) })];
    const placement = placeTask(demand, nodes);
    expect(placement).toMatchObject({
      ok: false, eligible: 1, wanted: 2, refusals: { collateral: 1, busy: 1, price: 1, distance: 1, unproven: 1 },
    });
    expect(placeTask({ ...demand, shareMicroUsd: 1_000_000n }, nodes)).toMatchObject({ ok: true }); // small: free (5.3)
  });

  it("takes the best first, whatever the order they come in; ties fall by task, not by address", () => {
    fc.assert(fc.property(fc.shuffledSubarray([1, 2, 3, 4, 5, 6], { minLength: 6 }), (order) => {
      const nodes = order.map((index) => candidate(index, { commentBps: index === 4 ? 12_000n : 10_000n }));
      const placement = placeTask(demand, nodes);
      const sorted = placeTask(demand, [...nodes].sort((a, b) => (a.node < b.node ? -1 : 1)));
      expect(placement).toEqual(sorted);
      if (!placement.ok) throw new Error("not placed");
      expect(placement.workers[0]).toBe(node(4));
      expect(placement.standby).toHaveLength(1);
    }), { numRuns: 30 });
    const firsts = new Set(Array.from({ length: 30 }, (_, index) => {
      const placement = placeTask({ ...demand, taskId: `${index}` }, [1, 2, 3, 4].map((each) => candidate(each)));
      return placement.ok ? placement.workers[0] : "";
    }));
    expect(firsts.size).toBe(4);
  });

  it("fills gaps without delaying the task at the head", () => {
    const nodes = [candidate(1), candidate(2, { isBusy: true }), candidate(3, { capability: capability(50n * GIGA) })];
    const head = { ...demand, taskId: "head", minGrade: 2 };
    const small = { ...demand, taskId: "small", minWorkers: 1, maxWorkers: 1 };
    const placements = placeQueue([head, small], nodes);
    expect(placements.get("head")).toMatchObject({ ok: false });
    expect(placements.get("small")).toMatchObject({ ok: true, workers: [node(3)] }); // not node 1: the head needs it
  });
});

describe("metering", () => {
  const receipt: WorkReceipt = {
    chainId: 7n, taskId: 1n, worker: node(1), sequence: 1n, epoch: 0, shard: 0, from: 0, to: 10, activeMs: 50,
    result: "ab".repeat(32),
  };
  /** A keyed hash stands for the signature; who holds the key is the signer. */
  const sign = (worker: string) => (digest: Uint8Array) => blake3(digest, { key: blake3(new TextEncoder().encode(worker)) });
  const recover = (digest: Uint8Array, signature: Uint8Array) =>
    [1, 2].map(node).find((each) => bytesToHex(sign(each)(digest)) === bytesToHex(signature));
  const meterOf = () => {
    const meter = new Meter({ chainId: 7n, taskId: 1n, multiplyAddsPerSample: 3n, recover });
    meter.admit(node(1));
    return meter;
  };
  const all = (each: WorkReceipt) => each.to - each.from;

  it("round-trips, and every field is under the signature", () => {
    fc.assert(fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.nat(), fc.nat(), (big, low, high) => {
      const each = { ...receipt, taskId: big, sequence: big, from: low, to: high };
      expect(decodeReceipt(encodeReceipt(each))).toEqual(each);
    }));
    const changes: Partial<WorkReceipt>[] = [{ chainId: 8n }, { taskId: 2n }, { worker: node(2) }, { sequence: 2n },
      { epoch: 1 }, { shard: 1 }, { from: 1 }, { to: 11 }, { activeMs: 51 }, { result: "ac".repeat(32) }];
    const digests = changes.map((each) => bytesToHex(receiptDigest({ ...receipt, ...each })));
    expect(new Set([...digests, bytesToHex(receiptDigest(receipt))]).size).toBe(changes.length + 1);
    expect(() => encodeReceipt({ ...receipt, from: -1 })).toThrow(/from: expected/);
    expect(() => decodeReceipt(new Uint8Array(95))).toThrow(/96 bytes/);
  });

  it("counts a receipt once; refuses replays, other tasks, other chains and other signers", async () => {
    const meter = meterOf();
    const signature = await signReceipt(receipt, sign(node(1)));
    expect(meter.accept(receipt, signature, all)).toMatchObject({ ok: true, totals: { multiplyAdds: 30n, samples: 10n } });
    expect(meter.accept(receipt, signature, all)).toMatchObject({ ok: false, code: "replayed" });
    const codeOf = async (change: Partial<WorkReceipt>, signer = node(1)) => {
      const each = { ...receipt, sequence: 2n, ...change };
      const verdict = meter.accept(each, await signReceipt(each, sign(signer)), all);
      return verdict.ok ? "ok" : verdict.code;
    };
    expect(await codeOf({ taskId: 2n })).toBe("wrong-task");
    expect(await codeOf({ chainId: 8n })).toBe("wrong-chain");
    expect(await codeOf({ worker: node(2) }, node(2))).toBe("unknown-worker");
    expect(await codeOf({}, node(2))).toBe("bad-signature");
    expect(await codeOf({ to: 0 })).toBe("empty");
    const unaccounted = { ...receipt, sequence: 2n };
    expect(meter.accept(unaccounted, await signReceipt(unaccounted, sign(node(1))), () => 0)).toMatchObject({ code: "not-accounted" });
    expect(meter.totalsOf(node(1)).samples).toBe(10n);
    const again = Meter.restore({ chainId: 7n, taskId: 1n, multiplyAddsPerSample: 3n, recover },
      JSON.parse(JSON.stringify(meter.snapshot())) as ReturnType<Meter["snapshot"]>);
    expect(again.accept(receipt, signature, all)).toMatchObject({ ok: false, code: "replayed" });
  });
});

describe("deadline rule", () => {
  it("stands up to a minority of liars and judges nobody on two observations", () => {
    expect(deadlineOf([100, 110], 1)).toBeUndefined();
    const honest = [100, 104, 98, 102, 101];
    const limit = deadlineOf(honest, 1)!;
    expect(limit).toBeGreaterThan(Math.max(...honest));
    expect(deadlineOf([...honest, 1e9, 1e9], 1)!).toBeLessThan(200);
    expect(deadlineOf([5, 5, 5], 50)).toBe(50);
  });
});

describe("forfeits", () => {
  it("are handed out to the last wei", () => {
    fc.assert(fc.property(fc.bigInt({ min: 0n, max: 2n ** 96n }), fc.array(fc.bigInt({ min: 0n, max: 2n ** 96n }), { maxLength: 6 }),
      (pool, work) => {
        const { parts, rest } = splitForfeit(pool, work);
        expect(parts.reduce((total, each) => total + each, rest)).toBe(pool);
        expect(rest >= 0n).toBe(true);
      }));
  });
});
