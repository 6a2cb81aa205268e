import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import type { Address } from "../../../src/chain/contracts/system.js";
import { people, TestChain } from "./harness.js";
import { accepting, refusing } from "./hostile-payees.js";
import { GIGA, resultRoot, terms } from "./market.js";

const workers = [0, 1, 2, 3].map(people.worker);
const actors = [people.client, people.master, people.stranger, ...workers];
const names = ["open", "assign", "accept", "start", "post", "settle", "cancel", "finishStop", "abort", "fail", "late",
  "expire", "withdraw", "price", "heartbeat", "takeOver", "deletion", "refuse", "mend"] as const;

interface Step {
  name: (typeof names)[number];
  task: bigint;
  actor: Address;
  worker: Address;
  amount: bigint;
  flag: boolean;
  seconds: number;
}
/** Mostly the right actor, so that tasks get far; sometimes anybody. */
const steps: fc.Arbitrary<Step> = fc.record({
  name: fc.constantFrom(...names, "open", "accept", "accept", "accept", "start", "post", "post", "post"),
  task: fc.bigInt({ min: 1n, max: 3n }), actor: fc.constantFrom(...actors), worker: fc.constantFrom(...workers),
  amount: fc.bigInt({ min: 0n, max: 900n }), flag: fc.boolean(),
  seconds: fc.constantFrom(0, 0, 0, 0, 1, 1, 30, 130, 700),
});

const reached = new Map<string, number>();

async function play(chain: TestChain, step: Step, sequence: bigint): Promise<void> {
  if (await attempt(chain, step, sequence)) reached.set(step.name, (reached.get(step.name) ?? 0) + 1);
}

async function attempt(chain: TestChain, step: Step, sequence: bigint): Promise<boolean> {
  const { name, task, actor, worker, amount, flag } = step;
  const isStrange = actor === people.stranger;
  const master = isStrange ? people.stranger : people.master;
  const pledgeOf = async () => (await chain.view("market", "taskOf", [task])).minerCollateral;
  switch (name) {
    case "open": {
      const offered = {
        ...terms, allowStandby: flag, minWorkers: 1, acceptSeconds: 2_000, computeMicroUsd: 1n + amount * 10_000n, storageMicroUsd: amount,
        rangeBps: flag ? 10_000 : 20_000,
      };
      const [collateral] = await chain.view("market", "quote", [offered]);
      return (await chain.send(people.client, "market", "open", [offered], collateral + amount)).ok;
    }
    case "assign": return (await chain.send(master, "market", "assign", [task, flag ? workers : [worker]])).ok;
    case "accept": return (await chain.send(worker, "market", "accept", [task], isStrange ? 0n : await pledgeOf())).ok;
    case "start": return (await chain.send(master, "market", "start", [task])).ok;
    case "post": return (await chain.send(master, "market", "postReceipts", [task, [{
      worker, sequence, multiplyAdds: amount * GIGA + sequence * GIGA, activeMs: sequence * 100n + amount, isFinished: flag && amount % 3n === 0n,
      digest: resultRoot,
    }]])).ok;
    case "settle": return (await chain.send(master, "market", "settle", [task, resultRoot])).ok;
    case "cancel": return (await chain.send(isStrange ? actor : people.client, "market", "cancel", [task])).ok;
    case "finishStop": return (await chain.send(actor, "market", "finishStop", [task])).ok;
    case "abort": return (await chain.send(flag ? master : worker, "market", "abort", [task, worker])).ok;
    case "fail": return (await chain.send(master, "market", "fail", [task])).ok;
    case "late": return (await chain.send(master, "market", "late", [task])).ok;
    case "expire":
      if (amount % 2n === 0n) chain.time += 5_000n; // past the deadline and the grace time
      return (await chain.send(actor, "market", "expire", [task])).ok;
    case "withdraw": return (await chain.send(worker, "market", "withdraw", [])).ok;
    case "price": return (await chain.send(master, "price", "submit", [1n + amount * 50n])).ok;
    case "heartbeat": return (await chain.send(master, "master", "heartbeat", [])).ok;
    case "takeOver": return (await chain.send(actor, "market", "takeOver", [task])).ok;
    case "deletion": return (await chain.send(worker, "market", "recordDeletion", [task, resultRoot])).ok;
    case "refuse": await chain.place(worker, refusing, await chain.balance(worker)); return true;
    case "mend": await chain.place(worker, accepting, await chain.balance(worker)); return true;
  }
}

/** Two running tasks of two workers each, one with standby, and one that waits for workers. */
async function prepare(chain: TestChain, some: Step): Promise<void> {
  const step = { ...some, actor: people.client, flag: true };
  for (const [task, flag] of [[1n, true], [2n, false], [3n, true]] as const) {
    await play(chain, { ...step, name: "open", flag }, 0n);
    await play(chain, { ...step, name: "assign", task }, 0n);
    if (task === 3n) break;
    for (const worker of workers.slice(0, 2)) await play(chain, { ...step, name: "accept", task, worker }, 0n);
    await play(chain, { ...step, name: "start", task }, 0n);
    for (const worker of workers.slice(0, 2)) await play(chain, { ...step, name: "post", task, worker, flag: false }, 1n);
  }
}

async function checkBooks(chain: TestChain): Promise<void> {
  expect(await chain.conservation()).toEqual({ marketGap: 0n, supplyGap: 0n });
  let live = 0n;
  for (let task = 1n; task <= (await chain.view("market", "taskCount", [])); task += 1n) {
    const { collateral, forfeitPool, status } = await chain.view("market", "taskOf", [task]);
    let held = collateral + forfeitPool;
    for (const worker of workers) held += (await chain.view("market", "workerOf", [task, worker])).collateral;
    if (status > 3) expect(held).toBe(0n);
    live += held;
  }
  expect(live).toBe(await chain.view("market", "totalEscrowed", []));
}

/** Whatever happened, time lets everybody out: nothing stays locked. */
async function endAll(chain: TestChain): Promise<void> {
  chain.time += 100_000n;
  for (let task = 1n; task <= (await chain.view("market", "taskCount", [])); task += 1n) {
    const { status } = await chain.view("market", "taskOf", [task]);
    if (status === 1 || status === 2) await chain.must(people.stranger, "market", "expire", [task]);
    if (status === 3) await chain.must(people.stranger, "market", "finishStop", [task]);
  }
  expect(await chain.view("market", "totalEscrowed", [])).toBe(0n);
}

describe("conservation", () => {
  it("holds after every operation, on any sequence, and nothing stays locked", async () => {
    await fc.assert(fc.asyncProperty(fc.array(steps, { minLength: 15, maxLength: 40 }), async (list) => {
      const chain = await TestChain.create();
      await prepare(chain, list[0]!);
      for (const [index, step] of list.entries()) {
        chain.time += BigInt(step.seconds);
        await play(chain, step, BigInt(index + 2));
        if (index % 16 === 15) await checkBooks(chain);
        const { marketGap, supplyGap } = await chain.conservation();
        expect([step.name, marketGap, supplyGap]).toEqual([step.name, 0n, 0n]);
      }
      await endAll(chain);
      await checkBooks(chain);
    }), { numRuns: 6, seed: 20_261, endOnFailure: true });
  }, 120_000);

  afterAll(() => {
    // A sequence that never got past the first calls would prove nothing.
    for (const name of ["accept", "start", "post", "settle", "cancel", "abort", "expire"] as const) {
      expect(reached.get(name) ?? 0, name).toBeGreaterThan(0);
    }
  });
});
