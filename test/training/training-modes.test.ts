/**
 * Every mode under random schedules: workers join, leave, are fenced, lag and repeat themselves. Whatever the order,
 * each batch counts once, nobody waits for ever, and a backup and a replay of the log have the primary's bits.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { sgd } from "../../src/training/optimizer/optim.js";
import { checkRules, type TrainingRules } from "../../src/training/optimizer/rules.js";
import { PhiloxStream } from "../../src/training/graph/philox.js";
import { bytesOf, ParameterStore, type Push, type PushResult } from "../../src/training/parameter-server/parameter-store.js";
import { replayLog } from "../../src/training/parameter-server/replay-log.js";
import type { PushRecord, UpdateEntry } from "../../src/training/parameter-server/update-log.js";
import { referenceKernels } from "./reference-kernels.js";

const SIZE = 5;
const optimizer = sgd({ learningRate: 0.25 }).descriptor;
const initial = (): Float32Array<ArrayBuffer> => Float32Array.from({ length: SIZE }, (_, i) => 1 + i / 8);
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** A worker's gradient: of what it computes and of the parameters it has. */
function gradientOf(tag: string, parameters: Float32Array): Float32Array<ArrayBuffer> {
  const [unit, batch] = tag.split("/").map(Number) as [number, number];
  return parameters.map((value, i) => value * 0.125 + Math.sin(unit * 31 + batch * 7 + i));
}

interface SimulatedWorker {
  name: string;
  epoch: number;
  sequence: number;
  unit: number | undefined;
  base: { version: number; parameters: Float32Array } | undefined;
  /** The push that is not answered yet. */
  waits: Push | undefined;
}

const UNITS = 5, BATCHES = 4;

/** Runs a whole training under a schedule drawn from the seed. */
async function train(rules: TrainingRules, seed: number, workerCount: number) {
  const random = new PhiloxStream(BigInt(seed), 9);
  const entries: UpdateEntry[] = [];
  const done = new Map<number, number>();
  const workers: SimulatedWorker[] = [];
  const active = new Set<string>();
  const clocks = new Map<string, number>();
  const slowest = (): number => Math.min(...[...active].map((name) => clocks.get(name)!));
  const activate = (name: string): void => {
    if (!active.has(name) && active.size > 0) clocks.set(name, Math.max(clocks.get(name) ?? 0, slowest()));
    clocks.set(name, clocks.get(name) ?? 0);
    active.add(name);
  };
  const backup = new ParameterStore({ parameters: initial(), optimizer, rules }, { kernels: referenceKernels });
  const store = new ParameterStore({ parameters: initial(), optimizer, rules }, {
    kernels: referenceKernels,
    replicate: (entry, gradient) => backup.replay(entry, gradient),
    isOpen: (tag) => Number(tag.split("/")[1]) === (done.get(Number(tag.split("/")[0])) ?? 0),
    applied: (entry) => {
      entries.push(entry);
      for (const { worker, epoch, tag } of entry.pushes) {
        const [unit, batch] = tag.split("/").map(Number) as [number, number];
        expect(done.get(unit) ?? 0, "each batch counts once, in order").toBe(batch);
        done.set(unit, batch + 1);
        if (workers.find(({ name }) => name === worker)!.epoch !== epoch) continue; // fenced while its update ran
        clocks.set(worker, clocks.get(worker)! + 1);
        if (batch === BATCHES - 1) active.delete(worker);
      }
      if (rules.mode !== "sync") return;
      expect(entry.pushes.length).toBeLessThanOrEqual(rules.workers - rules.backups);
      // fewer than asked for only where nobody else has work
      const present = entry.pushes.map((push) => push.worker);
      if (present.length < rules.workers - rules.backups) expect([...active].filter((name) => !present.includes(name))).toEqual([]);
    },
  });
  const queue = Array.from({ length: UNITS }, (_, i) => i);
  const join = (): void => {
    const name = `w${workers.length}`;
    workers.push({ name, epoch: store.admit(name).epoch, sequence: 0, unit: undefined, base: undefined, waits: undefined });
  };
  for (let i = 0; i < workerCount; i++) join();

  const leave = (worker: SimulatedWorker): void => {
    store.fence(worker.name);
    active.delete(worker.name);
    if (worker.unit !== undefined && (done.get(worker.unit) ?? 0) < BATCHES) queue.push(worker.unit);
    worker.unit = worker.base = worker.waits = undefined;
    worker.epoch = store.admit(worker.name).epoch;
  };
  let unanswered = 0;
  const answered = (worker: SimulatedWorker, push: Push, result: PushResult): void => {
    unanswered--;
    if (worker.epoch !== push.epoch || worker.waits !== push) return; // of an incarnation that is over
    worker.waits = undefined;
    worker.base = undefined;
    expect(["applied", "stale", "duplicate"], JSON.stringify(result)).toContain(result.status);
    if (result.status === "stale") return;
    if (rules.mode === "ssp" && !push.last) expect(clocks.get(worker.name)! - slowest()).toBeLessThanOrEqual(rules.slack);
    if (push.last) worker.unit = undefined;
    if (push.last && result.status === "duplicate") active.delete(worker.name);
  };
  const finish = (worker: SimulatedWorker): void => {
    store.rest(worker.name, worker.epoch);
    active.delete(worker.name);
    worker.unit = worker.base = undefined;
  };
  const step = (worker: SimulatedWorker): void => {
    if (worker.unit === undefined) {
      worker.unit = queue.shift();
      if (random.below(2) === 0) return; // begins to work without saying so: its first push does
      store.activate(worker.name, worker.epoch);
      activate(worker.name);
    } else if (worker.base === undefined) worker.base = store.pull();
    else {
      const batch = done.get(worker.unit) ?? 0;
      if (batch === BATCHES) return finish(worker); // its former owner's last push was on the way
      const tag = `${worker.unit}/${batch}`;
      const { version, parameters } = worker.base;
      const push: Push = {
        worker: worker.name, epoch: worker.epoch, sequence: worker.sequence++, baseVersion: version,
        gradient: gradientOf(tag, parameters), tag, last: batch === BATCHES - 1,
      };
      worker.waits = push;
      activate(worker.name);
      unanswered++;
      void store.push(push).then((result) => answered(worker, push, result));
      if (random.below(6) === 0) void store.push({ ...push, gradient: (push.gradient as Float32Array).slice() }); // repeats itself
    }
  };
  const isOver = (): boolean => [...done.values()].reduce((sum, count) => sum + count, 0) === UNITS * BATCHES;
  for (let steps = 0; !isOver(); steps++) {
    expect(steps).toBeLessThan(4000);
    const isAble = (worker: SimulatedWorker): boolean => worker.waits === undefined && (worker.unit !== undefined || queue.length > 0);
    if (!workers.some(isAble)) await settled();
    if (isOver()) break;
    const able = workers.filter(isAble);
    const event = random.below(24);
    if (event === 0 && workers.length < workerCount + 2) join();
    else if (event === 1) leave(workers[random.below(workers.length)]!);
    else {
      expect(able.length, `everybody waits after ${entries.length} updates`).toBeGreaterThan(0);
      step(able[random.below(able.length)]!);
    }
    // a few steps before anybody hears of them, or all that can happen
    if (random.below(3) > 0) await settled();
  }
  await settled();
  expect(unanswered, "every push was answered, those of fenced workers too").toBe(0);
  return { store, backup, entries };
}

const modes = fc.oneof(
  fc.record({ maxStaleness: fc.nat(4), delayCompensation: fc.constantFrom(undefined, { lambda: 0.25 }) }),
  fc.record({ mode: fc.constant("ssp"), slack: fc.nat(3) }),
  fc.integer({ min: 1, max: 5 }).chain((workers) => fc.record({ mode: fc.constant("sync"), workers: fc.constant(workers), backups: fc.nat(workers - 1) })),
  fc.constant({ mode: "local", outer: { momentum: 0.5 } }),
).map(checkRules);

describe("training by rules", () => {
  it("counts each batch once, stays within its bounds and never stops, in any mode and order", async () => {
    await fc.assert(fc.asyncProperty(modes, fc.nat(), fc.integer({ min: 1, max: 5 }), async (rules, seed, workerCount) => {
      const { store, backup, entries } = await train(rules, seed, workerCount);
      const [primary, copy] = [await store.snapshot(), await backup.snapshot()];
      for (const { version, pushes } of entries) {
        if (rules.mode === "sync" || rules.mode === "local") {
          for (const { baseVersion } of pushes) expect(baseVersion).toBe(version - 1);
          expect(new Set(pushes.map(({ worker }) => worker)).size).toBe(pushes.length);
        } else expect(pushes).toHaveLength(1);
      }
      const again = await replayLog({
        optimizer, rules, entries,
        snapshot: await new ParameterStore({ parameters: initial(), optimizer, rules }, { kernels: referenceKernels }).snapshot(),
        gradientOf: async ({ tag }: PushRecord, parameters) => gradientOf(tag, parameters),
      }, { kernels: referenceKernels });
      for (const other of [copy, again]) {
        expect(bytesOf(other.parameters)).toEqual(bytesOf(primary.parameters));
        expect(other.moments).toEqual(primary.moments);
        expect([other.version, other.logPosition, other.logDigest]).toEqual([primary.version, primary.logPosition, primary.logDigest]);
        expect(other.counters.staleness).toEqual(primary.counters.staleness);
      }
    }), { numRuns: 60 });
  });

  it("applies a batch once although its fenced owner's update still runs when a successor pushes it", async () => {
    const rules = checkRules({}), applied = new Set<string>();
    let resume = (): void => undefined;
    const slow = new Promise<void>((resolve) => { resume = resolve; });
    const store = new ParameterStore({ parameters: initial(), optimizer, rules }, {
      kernels: { ...referenceKernels, update: async (...all) => { await slow; return referenceKernels.update(...all); } },
      isOpen: (tag) => !applied.has(tag),
      applied: ({ pushes }) => { for (const { tag } of pushes) applied.add(tag); },
    });
    const pushed = (worker: string): Promise<PushResult> => store.push({
      worker, epoch: 1, sequence: 0, baseVersion: 0, gradient: initial(), tag: "0/0" });
    for (const worker of ["old", "new"]) store.admit(worker);
    const first = pushed("old");
    await settled();
    store.fence("old");
    const second = pushed("new");
    resume();
    expect([(await first).status, (await second).status]).toEqual(["applied", "duplicate"]);
    expect(store.version).toBe(1);
  });
});
