import { encodeFunctionData, toHex } from "viem";
import { beforeEach, describe, expect, it } from "vitest";
import { taskMarketAbi } from "../../../src/chain/contracts/abi.js";
import { type Address, systemAddresses, TSR } from "../../../src/chain/contracts/system.js";
import { defaultGenesis, HOLDING, people, proofDigest, TestChain, transportKey } from "./harness.js";
import { accepting, bombing, burning, cancelData, openData, reentering, refusing, withdrawData } from "./hostile-payees.js";
import { GIGA, resultRoot, status, TaskDriver, terms } from "./market.js";

const [a, b, c] = [people.worker(0), people.worker(1), people.worker(2)];
let chain: TestChain;
beforeEach(async () => {
  chain = await TestChain.create();
});
const conserved = async () =>
  expect(await chain.conservation()).toEqual({ marketGap: 0n, supplyGap: 0n });
const gain = async (who: Address) => (await chain.balance(who)) - HOLDING;

describe("settlement cannot be had twice", () => {
  it("by any ending after any ending", async () => {
    const endings = ["settle", "cancel", "finishStop", "fail", "late", "expire", "abort"] as const;
    for (const first of ["settle", "abort", "late", "cancel"] as const) {
      const task = await TaskDriver.running(chain, [a, b]);
      await task.post({ worker: a, multiplyAdds: GIGA, isFinished: true });
      if (first === "late") chain.time += 601n;
      const end = async (how: (typeof endings)[number]) => {
        if (how === "settle") return task.settle();
        if (how === "abort") return chain.send(people.master, "market", "abort", [task.id, b]);
        return chain.send(how === "cancel" ? people.client : people.master, "market", how, [task.id]);
      };
      expect((await end(first)).ok, first).toBe(true);
      if (first === "cancel") expect((await end("finishStop")).ok).toBe(true);
      const before = await chain.balance(systemAddresses.taskMarket);
      chain.time += 100_000n;
      await chain.must(people.master, "master", "heartbeat", []);
      for (const again of endings) {
        const result = await end(again);
        expect(result.ok, `${again} after ${first}`).toBe(false);
        expect(result.error).toBe("WrongStatus");
      }
      expect((await task.tryPost(people.master, { worker: a, multiplyAdds: 2n * GIGA })).error).toBe("WrongStatus");
      expect(await chain.balance(systemAddresses.taskMarket)).toBe(before);
      expect(before).toBe(0n);
    }
    await conserved();
  });
});

describe("receipts", () => {
  it("are refused when replayed, older, shrinking, or of another task's worker", async () => {
    const task = await TaskDriver.running(chain, [a, b]);
    await TaskDriver.running(chain, [b, c]);
    const post = (change: Partial<Parameters<TaskDriver["post"]>[0]>) =>
      task.tryPost(people.master, { worker: a, multiplyAdds: 10n * GIGA, sequence: 5n, ...change });
    expect((await post({})).ok).toBe(true);
    expect((await post({})).error).toBe("StaleReceipt");
    expect((await post({ sequence: 4n, multiplyAdds: 20n * GIGA })).error).toBe("StaleReceipt");
    expect((await post({ sequence: 6n, multiplyAdds: 9n * GIGA })).error).toBe("ReceiptShrank");
    expect((await post({ sequence: 6n, activeMs: 1n })).error).toBe("ReceiptShrank");
    expect((await post({ worker: c })).error).toBe("WrongWorkerStatus");
    expect((await post({ sequence: 6n, isFinished: true })).ok).toBe(true);
    expect((await post({ sequence: 7n, multiplyAdds: 20n * GIGA })).error).toBe("WrongWorkerStatus");
  });

  it("are refused when the same worker is twice in one call", async () => {
    const task = await TaskDriver.running(chain, [a, b]);
    const items = [{ worker: a, multiplyAdds: GIGA }, { worker: a, multiplyAdds: 2n * GIGA }];
    expect((await task.tryPost(people.master, ...items)).error).toBe("StaleReceipt");
    expect((await chain.view("market", "workerOf", [task.id, a])).multiplyAdds).toBe(0n);
  });

  it("are refused beyond what the node's proven power can have done", async () => {
    const task = await TaskDriver.running(chain, [a, b]);
    chain.time += 40n; // 10^12 a second, 100 s with the slack, factor 16
    const most = 1_600n * 10n ** 12n;
    expect((await task.tryPost(people.master, { worker: a, multiplyAdds: most + 1n })).error).toBe("ImplausibleWork");
    expect((await task.tryPost(people.master, { worker: a, multiplyAdds: most })).ok).toBe(true);
    expect((await task.tryPost(people.master, { worker: b, multiplyAdds: 2n ** 96n - 1n })).error).toBe("ImplausibleWork");
  });
});

describe("who may do what", () => {
  it("nobody but the task's master, its client or the worker itself", async () => {
    const task = await TaskDriver.running(chain, [a, b]);
    for (const who of [people.stranger, people.client, a]) {
      expect((await task.tryPost(who, { worker: a, multiplyAdds: GIGA })).error).toBe("OnlyMasterOf");
      expect((await task.settle(who)).error).toBe("OnlyMasterOf");
      expect((await chain.send(who, "market", "late", [task.id])).error).toBe("OnlyMasterOf");
      expect((await chain.send(who, "market", "fail", [task.id])).error).toBe("OnlyMasterOf");
      expect((await chain.send(who, "market", "assign", [task.id, [c]])).error).toBe("OnlyMasterOf");
      expect((await chain.send(who, "market", "abort", [task.id, b])).error).toBe("OnlyParty");
    }
    for (const who of [people.stranger, people.master, a]) {
      expect((await chain.send(who, "market", "cancel", [task.id])).error).toBe("OnlyClientOf");
    }
    expect((await chain.send(people.client, "market", "settle", [99n, resultRoot])).error).toBe("OnlyMasterOf");
    for (const call of ["recordFinished", "recordAborted", "recordLate"] as const) {
      expect((await chain.send(people.master, "compute", call, [a])).error).toBe("OnlyTaskMarket");
    }
  });

  it("no acceptance after the start, without assignment, twice, ungraded, or by the master", async () => {
    const task = await TaskDriver.running(chain, [a, b]);
    const accept = (who: Address) => chain.send(who, "market", "accept", [task.id], task.minerCollateral);
    expect((await accept(c)).error).toBe("WrongStatus");
    const open = await TaskDriver.open(chain, { minGrade: 4 });
    expect((await chain.send(people.master, "market", "assign", [open.id, [c]])).error).toBe("WorkerNotEligible");
    const plain = await TaskDriver.open(chain);
    expect((await chain.send(c, "market", "accept", [plain.id], plain.minerCollateral)).error).toBe("WrongWorkerStatus");
    expect((await chain.send(people.master, "market", "assign", [plain.id, [people.stranger]])).error).toBe("WorkerNotEligible");
    await chain.must(people.master, "compute", "register", [transportKey(500)]);
    expect((await chain.send(people.master, "market", "assign", [plain.id, [people.master]])).error).toBe("WorkerNotEligible");
    await plain.join(c);
    expect((await chain.send(c, "market", "accept", [plain.id], plain.minerCollateral)).error).toBe("WrongWorkerStatus");
    await conserved();
  });

  it("no task whose client is its own master, whose master is none, or whose terms mean nothing", async () => {
    const open = (change: Partial<typeof terms>, from = people.client, value = 10_000n * TSR) =>
      chain.send(from, "market", "open", [{ ...terms, ...change }], value);
    expect(await open({}, people.master)).toMatchObject({ error: "BadTerms" });
    expect(await open({ master: people.stranger })).toMatchObject({ error: "MasterNotActive" });
    for (const change of [{ maxWorkers: 0 }, { maxWorkers: 65 }, { minWorkers: 4 }, { rangeBps: 9_999 }, { rangeBps: 100_001 },
      { quotedMultiplyAdds: 0n }, { computeMicroUsd: 0n }, { deadlineSeconds: 0 }, { expectedSeconds: 601 }, { acceptSeconds: 0 }]) {
      expect((await open(change)).error, JSON.stringify(Object.keys(change))).toBe("BadTerms");
    }
    expect((await open({}, people.client, 1n)).error).toBe("CollateralTooSmall");
    expect((await open({ computeMicroUsd: 2n ** 64n - 1n }, people.client, 0n)).error).toBe("CollateralTooSmall");
  });
});

describe("a client that pulls out mid-task", () => {
  it("still pays for the work until then, and cannot take the escrow by withdrawing", async () => {
    const task = await TaskDriver.running(chain, [a, b]);
    await task.post({ worker: a, multiplyAdds: 100n * GIGA });
    expect((await chain.send(people.client, "market", "withdraw", [])).error).toBe("NothingToWithdraw");
    await chain.must(people.client, "market", "cancel", [task.id]);
    expect((await chain.send(people.client, "market", "cancel", [task.id])).error).toBe("WrongStatus");
    await chain.must(people.master, "market", "finishStop", [task.id]);
    expect(await gain(a)).toBe(50n * TSR);
    await conserved();
  });
});

describe("hostile payees", () => {
  async function settleWith(code: `0x${string}`): Promise<bigint> {
    const task = await TaskDriver.running(chain, [a, b]);
    await task.post({ worker: a, multiplyAdds: 100n * GIGA }, { worker: b, multiplyAdds: 100n * GIGA });
    await chain.place(a, code, await chain.balance(a));
    const result = await task.settle();
    expect(result.ok).toBe(true);
    expect(await gain(b)).toBeGreaterThan(0n);
    expect(await task.status()).toBe(status.settled);
    await conserved();
    return result.gasUsed;
  }

  it("that refuse, burn gas or return a megabyte are credited and block nobody", async () => {
    for (const code of [refusing, burning, bombing]) {
      chain = await TestChain.create();
      const gasUsed = await settleWith(code);
      expect(gasUsed).toBeLessThan(600_000n);
      expect(await chain.view("market", "creditOf", [a])).toBeGreaterThan(50n * TSR);
      expect(await chain.view("market", "totalEscrowed", [])).toBe(0n);
      await chain.place(a, accepting, await chain.balance(a)); // mended, it can collect
      await chain.must(a, "market", "withdraw", []);
      expect(await gain(a)).toBe(await gain(b));
      expect((await chain.send(a, "market", "withdraw", [])).error).toBe("NothingToWithdraw");
      await conserved();
    }
  });

  it("cannot withdraw a credit twice by calling back with all the gas they want", async () => {
    const credit = await (async () => {
      await settleWith(refusing);
      return chain.view("market", "creditOf", [a]);
    })();
    await TaskDriver.open(chain); // coins in the market that are not theirs
    await chain.place(a, reentering(withdrawData), 0n);
    const before = await chain.balance(systemAddresses.taskMarket);
    const result = await chain.raw(people.stranger, a, withdrawData);
    expect(result.error).toBeUndefined();
    expect(result.events.map((each) => each.name)).toEqual(["Withdrawn"]);
    expect(await chain.balance(a)).toBe(credit);
    expect(before - (await chain.balance(systemAddresses.taskMarket))).toBe(credit);
  });

  it("that call back while being paid get nothing more", async () => {
    const client = people.worker(50);
    const attacks = [withdrawData, cancelData(1n),
      encodeFunctionData({ abi: taskMarketAbi, functionName: "expire", args: [1n] })];
    for (const data of attacks) {
      chain = await TestChain.create();
      await chain.place(client, reentering(data));
      const collateral = (await chain.view("market", "quote", [terms]))[0];
      const opened = await chain.raw(people.client, client, openData(terms), collateral);
      expect(opened.error).toBeUndefined();
      expect((await chain.view("market", "taskOf", [1n])).client.toLowerCase()).toBe(client);
      const task = new TaskDriver(chain, 1n, (await chain.view("market", "taskOf", [1n])).minerCollateral);
      const other = await TaskDriver.open(chain); // coins that a reentrant payee could want
      await task.join(a, b);
      await chain.must(people.master, "market", "start", [1n]);
      expect((await task.settle()).ok).toBe(true);
      expect(await chain.balance(client)).toBe(collateral);
      expect(await other.status()).toBe(status.open);
      await conserved();
    }
  });
});

describe("rounding and extremes", () => {
  it("the fee is never rounded away, however small the payment", async () => {
    const task = await TaskDriver.running(chain, [a, b], { computeMicroUsd: 1n, storageMicroUsd: 0n, quotedMultiplyAdds: 10n ** 20n });
    await task.post({ worker: a, multiplyAdds: 10n ** 8n }); // 50 wei of work
    await task.settle();
    expect(await gain(a)).toBe(50n);
    expect(await chain.balance(people.platform)).toBe(2n); // 1.5 rounded up
    expect(await chain.view("market", "provenMultiplyAdds", [])).toBe(2n); // useful as far as its fee was paid
    await conserved();
  });

  it("the largest task the supply can pay for settles", async () => {
    const rich = await TestChain.create({
      ...defaultGenesis(), priceMicroUsdPerTsr: 10n ** 15n,
    });
    chain = rich;
    const task = await TaskDriver.open(chain, {
      computeMicroUsd: 2n ** 64n - 1n, storageMicroUsd: 2n ** 64n - 1n, quotedMultiplyAdds: 2n ** 96n - 1n, deadlineSeconds: 2 ** 32 - 1,
    });
    await task.join(a, b);
    await chain.must(people.master, "market", "start", [task.id]);
    chain.time += 2n ** 31n;
    await task.post({ worker: a, multiplyAdds: 10n ** 22n, activeMs: 2n ** 64n - 1n }, { worker: b, multiplyAdds: 1n, activeMs: 0n });
    await chain.must(people.master, "master", "heartbeat", []);
    expect((await task.settle()).error).toBeUndefined();
    await conserved();
  });

  it("64 workers settle in one transaction of a block's gas", async () => {
    const many = Array.from({ length: 64 }, (_, index) => people.worker(index));
    const genesis = defaultGenesis();
    chain = await TestChain.create({
      ...genesis,
      allocations: [people.client, people.master, ...many].map((address) => ({ address, amount: HOLDING })),
      computeNodes: many.map((owner, index) => ({
        owner, transportKey: transportKey(900 + index), grade: 3, power: [10n ** 12n, 0n, 0n, 0n] as const,
        memoryBytes: 1n, proofDigest: proofDigest(900 + index),
      })),
    });
    const task = await TaskDriver.running(chain, many, { maxWorkers: 64 });
    await task.post(...many.map((worker, index) => ({ worker, multiplyAdds: BigInt(index + 1) * GIGA })));
    const result = await task.settle();
    expect(result.error).toBeUndefined();
    expect(result.gasUsed).toBeLessThan(15_000_000n);
    expect(result.events.filter((each) => each.name === "WorkerSettled")).toHaveLength(64);
    await conserved();
  }, 60_000);
});

describe("Sybil grading", () => {
  it("one proof, one transport key and one machine grade one node", async () => {
    const [sybil, other] = [people.stranger, people.validator];
    await chain.must(sybil, "compute", "register", [transportKey(700)]);
    expect((await chain.send(other, "compute", "register", [transportKey(700)])).error).toBe("TransportKeyTaken");
    await chain.must(other, "compute", "register", [transportKey(701)]);
    const attest = (node: Address, proof: number, from = people.master) => chain.send(
      from, "compute", "attestPower", [node, 2, [1n, 0n, 0n, 0n], 1n, proofDigest(proof)]);
    expect((await attest(sybil, 800)).ok).toBe(true);
    expect((await attest(other, 800)).error).toBe("ProofReplayed");
    expect((await attest(other, 801, people.stranger)).error).toBe("OnlyMaster");
    expect((await attest(people.client, 802)).error).toBe("NotRegistered");
    expect((await chain.send(people.master, "compute", "attestPower",
      [other, 2, [1n, 0n, 0n, 0n], 1n, toHex(0, { size: 32 })])).error).toBe("EmptyProof");
    expect(await chain.view("compute", "peakPowerOf", [other])).toBe(0n);
  });
});
