import { beforeEach, describe, expect, it } from "vitest";
import { systemAddresses, TSR } from "../../../src/chain/contracts/system.js";
import { settle, splitForfeit, WEI_PER_TSR } from "../../../src/scheduler/settlement.js";
import { defaultGenesis, HOLDING, people, TestChain } from "./harness.js";
import { digest, GIGA, refundReason, resultRoot, status, TaskDriver, terms, workerStatus } from "./market.js";

const [a, b, c, d] = [people.worker(0), people.worker(1), people.worker(2), people.worker(3)];
let chain: TestChain;
beforeEach(async () => {
  chain = await TestChain.create();
});

async function conserved(): Promise<void> {
  expect(await chain.conservation()).toEqual({ marketGap: 0n, supplyGap: 0n });
}
const gain = async (who: typeof a) => (await chain.balance(who)) - HOLDING;
const oldestComment = (who: typeof a) => chain.view("compute", "commentOf", [who]);

describe("a task that is done", () => {
  it("pays price x power share x speed x comment, the fee, and returns every collateral", async () => {
    const task = await TaskDriver.running(chain, [a, b]);
    chain.time += 60n;
    await task.post({ worker: a, multiplyAdds: 300n * GIGA, activeMs: 50_000n },
      { worker: b, multiplyAdds: 700n * GIGA, activeMs: 60_000n });
    const collateral = (await chain.view("market", "taskOf", [task.id])).collateral;
    const outcome = settle({
      computeMicroUsd: terms.computeMicroUsd, storageMicroUsd: terms.storageMicroUsd,
      quotedMultiplyAdds: terms.quotedMultiplyAdds, deadlineSeconds: 600n, elapsedSeconds: 60n,
      microUsdPerTsr: 20_000n, collateral, feeBps: 300n,
    }, [
      { multiplyAdds: 300n * GIGA, activeMs: 50_000n, commentBps: 10_000n },
      { multiplyAdds: 700n * GIGA, activeMs: 60_000n, commentBps: 10_000n },
    ]);
    const result = await task.settle();
    expect(result.error).toBeUndefined();
    expect(outcome.price).toBe(505n * WEI_PER_TSR); // 500 TSR of work, a tenth of 50 TSR of storage
    expect(await gain(a)).toBe(outcome.payments[0]);
    expect(await gain(b)).toBe(outcome.payments[1]);
    expect(await chain.balance(people.platform)).toBe(outcome.fee);
    expect(await gain(people.client)).toBe(-(outcome.paid + outcome.fee));
    expect(await chain.balance(systemAddresses.taskMarket)).toBe(0n);
    expect(await chain.view("market", "provenMultiplyAdds", [])).toBe(1_000n * GIGA);
    expect(await oldestComment(a)).toBe(10_200);
    await conserved();
  });

  it("prints as a ledger from its events alone: in equals out", async () => {
    const offered = { ...terms, allowStandby: true };
    const [collateral, pledge] = await chain.view("market", "quote", [offered]);
    const results = [await chain.must(people.client, "market", "open", [offered], collateral)];
    const id = 1n;
    results.push(await chain.must(people.master, "market", "assign", [id, [a, b, c]]));
    for (const each of [a, b, c]) results.push(await chain.must(each, "market", "accept", [id], pledge));
    results.push(await chain.must(people.master, "market", "start", [id]));
    const receipts = [a, b, c].map((worker, index) => ({
      worker, sequence: 1n, multiplyAdds: BigInt(index + 1) * 7n * GIGA, activeMs: 3_333n, isFinished: false, digest,
    }));
    results.push(await chain.must(people.master, "market", "postReceipts", [id, receipts]));
    results.push(await chain.must(people.master, "market", "abort", [id, c]));
    results.push(await chain.must(people.master, "market", "settle", [id, resultRoot]));
    const events = results.flatMap((each) => each.events);
    const of = (name: string) => events.filter((each) => each.name === name).map((each) => each.args as never);
    const taken = [...of("TaskOpened"), ...of("Accepted")]
      .reduce((sum, each: { collateral: bigint }) => sum + each.collateral, 0n);
    const parts = of("WorkerSettled").map((each: { account: Record<string, bigint> }) =>
      each.account["payment"]! + each.account["forfeitShare"]! + each.account["collateralReturned"]!);
    const [closing] = of("Settled").map((each: { account: { fee: bigint; toEcology: bigint; resultRoot: string } }) => each.account);
    const [refund] = of("Refunded").map((each: { amount: bigint; reason: number }) => each);
    expect(parts).toHaveLength(2);
    expect(refund!.reason).toBe(refundReason.unspent);
    expect(closing!.resultRoot).toBe(resultRoot);
    expect(taken).toBe(parts.reduce((sum, each) => sum + each, 0n) + closing!.fee + closing!.toEcology + refund!.amount);
    await conserved();
  });

  it("shows the client what it would cost if it ended now", async () => {
    const task = await TaskDriver.running(chain, [a, b]);
    await task.post({ worker: a, multiplyAdds: 100n * GIGA });
    const [workers, preview] = await chain.view("market", "previewSettlement", [task.id]);
    expect(workers.map((each) => each.toLowerCase())).toEqual([a, b]);
    await task.settle();
    expect(await gain(a)).toBe(preview.payments[0]);
    expect(await gain(people.client)).toBe(-(preview.paid + preview.fee));
  });

  it("is scaled down to the collateral when the work ran over, and never costs more than it", async () => {
    const task = await TaskDriver.running(chain, [a, b]);
    chain.time += 100n;
    await task.post({ worker: a, multiplyAdds: 9_000n * GIGA }, { worker: b, multiplyAdds: 3_000n * GIGA });
    const collateral = (await chain.view("market", "taskOf", [task.id])).collateral;
    await task.settle();
    const paid = (await gain(a)) + (await gain(b)) + (await chain.balance(people.platform));
    expect(collateral - paid).toBeGreaterThanOrEqual(0n);
    expect(collateral - paid).toBeLessThan(4n); // rounding only
    await conserved();
  });

  it("converts at settlement: half the coin's price costs twice the coins", async () => {
    const run = async (price: bigint) => {
      chain = await TestChain.create({ ...defaultGenesis(), priceMicroUsdPerTsr: 20_000n });
      const task = await TaskDriver.running(chain, [a, b], { storageMicroUsd: 0n, rangeBps: 40_000 });
      await task.post({ worker: a, multiplyAdds: 500n * GIGA });
      await chain.must(people.master, "price", "submit", [price]);
      await task.settle();
      return gain(a);
    };
    expect(await run(10_000n)).toBe(2n * (await run(20_000n)));
  });

  it("takes a settlement after the deadline only if everybody had finished before it", async () => {
    const task = await TaskDriver.running(chain, [a, b]);
    chain.time += 590n;
    await task.post({ worker: a, multiplyAdds: GIGA, isFinished: true }, { worker: b, multiplyAdds: GIGA });
    chain.time += 20n;
    expect((await task.settle()).error).toBe("TooLate");
    expect((await task.tryPost(people.master, { worker: b, multiplyAdds: GIGA, isFinished: true })).error).toBe("TooLate");
    const other = await TaskDriver.running(chain, [a, b]);
    await other.post({ worker: a, multiplyAdds: GIGA, isFinished: true }, { worker: b, multiplyAdds: GIGA, isFinished: true });
    chain.time += 700n;
    expect((await other.chain.send(people.master, "market", "late", [other.id])).error).toBe("NobodyLate");
    expect((await other.settle()).ok).toBe(true);
    expect(await oldestComment(a)).toBe(10_200); // finished in time, though settled late
  });
});

describe("an abort", () => {
  it("without standby ends the task: client refunded, forfeit to the others by verified work", async () => {
    const task = await TaskDriver.running(chain, [a, b, c]);
    await task.post({ worker: a, multiplyAdds: 100n * GIGA }, { worker: b, multiplyAdds: 300n * GIGA },
      { worker: c, multiplyAdds: 900n * GIGA });
    const result = await chain.must(people.master, "market", "abort", [task.id, c]);
    const { parts, rest } = splitForfeit(task.minerCollateral, [100n, 300n]);
    expect(await gain(people.client)).toBe(0n);
    expect([await gain(a), await gain(b), await gain(c)]).toEqual([parts[0], parts[1], -task.minerCollateral]);
    expect((await chain.view("distribution", "accountOf", [3])).total).toBe(rest);
    expect(await task.status()).toBe(status.aborted);
    expect(result.events.find((each) => each.name === "Refunded")!.args["reason"]).toBe(refundReason.minerAborted);
    expect(await chain.view("market", "provenMultiplyAdds", [])).toBe(0n);
    expect(await oldestComment(c)).toBe(8_000);
    chain.time += 3n * 86_400n;
    expect(await oldestComment(c)).toBe(10_000);
    await conserved();
  });

  it("with standby goes on: another takes the place, the aborted one's work is neither paid nor charged", async () => {
    const task = await TaskDriver.running(chain, [a, b], { allowStandby: true });
    await task.post({ worker: a, multiplyAdds: 100n * GIGA }, { worker: b, multiplyAdds: 50n * GIGA });
    expect((await chain.send(people.master, "market", "assign", [task.id, [c]])).error).toBe("TaskFull");
    await chain.must(people.master, "market", "abort", [task.id, b]);
    await task.join(c);
    await task.post({ worker: c, multiplyAdds: 100n * GIGA });
    expect((await task.settle()).ok).toBe(true);
    const half = task.minerCollateral / 2n;
    expect(await gain(a)).toBe(50n * TSR + half);
    expect(await gain(c)).toBe(await gain(a));
    expect(await gain(b)).toBe(-task.minerCollateral);
    await conserved();
  });

  it("of the last worker leaves the task to fail or to a standby; unearned forfeits go to the ecology", async () => {
    const task = await TaskDriver.running(chain, [a, b], { allowStandby: true });
    await chain.must(a, "market", "abort", [task.id, a]);
    expect((await chain.send(people.master, "market", "fail", [task.id])).error).toBe("StillWorking");
    await chain.must(people.master, "market", "abort", [task.id, b]);
    await chain.must(people.master, "market", "fail", [task.id]);
    expect(await gain(people.client)).toBe(0n);
    expect((await chain.view("distribution", "accountOf", [3])).total).toBe(2n * task.minerCollateral);
    await conserved();
  });

  it("before the start is only leaving", async () => {
    const task = await TaskDriver.open(chain);
    await task.join(a, b);
    await chain.must(a, "market", "abort", [task.id, a]);
    expect(await gain(a)).toBe(0n);
    expect((await chain.send(people.master, "market", "start", [task.id])).error).toBe("TooFewWorkers");
    expect((await chain.send(a, "market", "accept", [task.id], task.minerCollateral)).error).toBe("WrongWorkerStatus");
    await conserved();
  });
});

describe("a late task", () => {
  it("takes the pledges of the late ones for those that had finished, and charges nobody", async () => {
    const task = await TaskDriver.running(chain, [a, b, c]);
    await task.post({ worker: a, multiplyAdds: 10n * GIGA, isFinished: true },
      { worker: b, multiplyAdds: 90n * GIGA }, { worker: c, multiplyAdds: 0n });
    expect((await chain.send(people.master, "market", "late", [task.id])).error).toBe("TooEarly");
    chain.time += 601n;
    await chain.must(people.master, "market", "late", [task.id]);
    expect([await gain(a), await gain(b), await gain(c)])
      .toEqual([2n * task.minerCollateral, -task.minerCollateral, -task.minerCollateral]);
    expect(await gain(people.client)).toBe(0n);
    expect([await oldestComment(a), await oldestComment(b)]).toEqual([10_000, 7_000]);
    chain.time += 10n * 86_400n;
    expect(await oldestComment(b)).toBe(10_000);
    await conserved();
  });
});

describe("stop", () => {
  it("before the start returns everything", async () => {
    const task = await TaskDriver.open(chain);
    await task.join(a);
    await chain.must(people.client, "market", "cancel", [task.id]);
    expect([await gain(people.client), await gain(a)]).toEqual([0n, 0n]);
    await conserved();
  });

  it("means stop: work until then is paid, also when its receipt lands a little later", async () => {
    const task = await TaskDriver.running(chain, [a, b]);
    chain.time += 10n;
    await chain.must(people.client, "market", "cancel", [task.id]);
    chain.time += 60n;
    await task.post({ worker: a, multiplyAdds: 100n * GIGA });
    expect((await chain.send(people.client, "market", "finishStop", [task.id])).error).toBe("TooEarly");
    expect((await chain.send(people.master, "market", "abort", [task.id, a])).error).toBe("WrongStatus");
    chain.time += 61n;
    expect((await task.tryPost(people.master, { worker: a, multiplyAdds: 200n * GIGA })).error).toBe("TooLate");
    await chain.must(people.stranger, "market", "finishStop", [task.id]);
    // 50 TSR of work, and storage for the 10 s until the stop, not for the 131 s until the books closed
    expect(await gain(a)).toBe(50n * TSR + (50n * TSR * 10n) / 600n);
    expect(await oldestComment(a)).toBe(10_000);
    await conserved();
  });
});

describe("time alone", () => {
  it("ends a task that never started", async () => {
    const task = await TaskDriver.open(chain);
    await task.join(a);
    expect((await chain.send(people.stranger, "market", "expire", [task.id])).error).toBe("TooEarly");
    chain.time += 121n;
    expect((await chain.send(people.master, "market", "start", [task.id])).error).toBe("TooLate");
    await chain.must(people.stranger, "market", "expire", [task.id]);
    expect([await gain(people.client), await gain(a)]).toEqual([0n, 0n]);
    await conserved();
  });

  it("ends a task whose master fell silent, at nobody's fault: verified work is paid", async () => {
    const task = await TaskDriver.running(chain, [a, b]);
    await task.post({ worker: a, multiplyAdds: 100n * GIGA });
    chain.time += 601n;
    expect((await chain.send(people.client, "market", "expire", [task.id])).error).toBe("TooEarly");
    chain.time += 3_600n;
    await chain.must(people.client, "market", "expire", [task.id]);
    expect(await gain(a)).toBe(100n * TSR); // 50 for the work, 50 for the storage until the deadline
    expect(await gain(b)).toBe(0n);
    await conserved();
  });

  it("lets another master continue, once the first is silent", async () => {
    const task = await TaskDriver.running(chain, [a, b], { deadlineSeconds: 20_000 });
    const key = (index: number) => `0x${index.toString(16).padStart(96, "0")}` as const;
    const transport = `0x${"7".padStart(64, "0")}` as const;
    const proof = `0x${"1".padStart(192, "0")}` as const;
    expect((await chain.send(people.master2, "market", "takeOver", [task.id])).error).toBe("MasterStillActive");
    chain.time += 3_601n;
    expect((await chain.send(people.stranger, "market", "takeOver", [task.id])).error).toBe("MasterNotActive");
    await chain.must(people.master2, "master", "register", [key(77), proof, transport], 10_000n * TSR);
    await chain.must(people.master2, "market", "takeOver", [task.id]);
    expect((await task.tryPost(people.master, { worker: a, multiplyAdds: GIGA })).error).toBe("OnlyMasterOf");
    expect((await task.tryPost(people.master2, { worker: a, multiplyAdds: GIGA })).ok).toBe(true);
    expect((await task.settle(people.master2)).ok).toBe(true);
    await conserved();
  });
});

describe("collateral of the miner", () => {
  it("is exact, or nothing for a small part of one task at a time", async () => {
    const task = await TaskDriver.open(chain, { computeMicroUsd: 1_500_000n, storageMicroUsd: 0n });
    const other = await TaskDriver.open(chain, { computeMicroUsd: 1_500_000n, storageMicroUsd: 0n });
    const large = await TaskDriver.open(chain, { computeMicroUsd: 9_000_000n, storageMicroUsd: 0n });
    for (const each of [task, other, large]) await chain.must(people.master, "market", "assign", [each.id, [a, b]]);
    expect((await chain.send(a, "market", "accept", [task.id], task.minerCollateral - 1n)).error).toBe("WrongMinerCollateral");
    expect((await chain.send(a, "market", "accept", [task.id], task.minerCollateral + 1n)).error).toBe("WrongMinerCollateral");
    expect((await chain.send(a, "market", "accept", [large.id])).error).toBe("WrongMinerCollateral");
    await chain.must(a, "market", "accept", [task.id]);
    expect((await chain.send(a, "market", "accept", [other.id])).error).toBe("WorkerNotEligible");
    await chain.must(b, "market", "accept", [task.id], task.minerCollateral);
    await chain.must(people.master, "market", "start", [task.id]);
    await task.settle();
    await chain.must(a, "market", "accept", [other.id]); // its slot is free again
    await conserved();
  });
});

describe("deletion receipts", () => {
  it("are taken once from each worker, after the end", async () => {
    const task = await TaskDriver.running(chain, [a, b]);
    expect((await chain.send(a, "market", "recordDeletion", [task.id, digest])).error).toBe("WrongStatus");
    await task.settle();
    const result = await chain.must(a, "market", "recordDeletion", [task.id, digest]);
    expect(result.events.map((each) => each.name)).toEqual(["DeletionReceipt"]);
    expect((await chain.send(a, "market", "recordDeletion", [task.id, digest])).error).toBe("AlreadyDeleted");
    expect((await chain.send(d, "market", "recordDeletion", [task.id, digest])).error).toBe("WrongWorkerStatus");
    expect((await chain.view("market", "workerOf", [task.id, a])).status).toBe(workerStatus.paid);
  });
});
