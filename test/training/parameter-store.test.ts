/** The parameter server's rules: properties over random histories, and each refusal. */
import { blake3 } from "@noble/hashes/blake3.js";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { adam, sgd } from "../../src/training/optimizer/optim.js";
import { checkRules } from "../../src/training/optimizer/rules.js";
import type { OptimizerDescriptor } from "../../src/training/optimizer/descriptor.js";
import { bytesOf, ParameterStore, PENDING_PUSHES_MAX, type Push } from "../../src/training/parameter-server/parameter-store.js";
import { extendDigest } from "../../src/training/parameter-server/update-log.js";
import { referenceKernels } from "./reference-kernels.js";

const SIZE = 16;
const create = (rules: Record<string, unknown> = {}, optimizer: OptimizerDescriptor = sgd({ learningRate: 0.5 }).descriptor): ParameterStore =>
  new ParameterStore({ parameters: new Float32Array(SIZE), optimizer, rules: checkRules({ alpha: 0, ...rules }) },
    { kernels: referenceKernels });
const gradientOf = (value: number): Float32Array => new Float32Array(SIZE).fill(value);
const push = (store: ParameterStore, fields: Partial<Push>): ReturnType<ParameterStore["push"]> => store.push({
  worker: "a", epoch: 1, sequence: 0, baseVersion: store.version, gradient: gradientOf(1), ...fields,
});

describe("a parameter store", () => {
  it("applies each gradient exactly once over any history of duplicates, stale, broken and fenced pushes", async () => {
    const action = fc.record({
      worker: fc.constantFrom("a", "b", "stranger"),
      epochOffset: fc.constantFrom(0, 0, 0, 0, -1, 1),
      sequence: fc.nat(12),
      lag: fc.nat(6),
      value: fc.constantFrom(1, 2, -3, NaN, Infinity, 1e30),
      length: fc.constantFrom(SIZE, SIZE, SIZE, SIZE - 1),
      badHash: fc.constantFrom(undefined, undefined, false, true),
      event: fc.constantFrom("push", "push", "push", "push", "push", "fence", "readmit"),
      wait: fc.boolean(),
    });
    await fc.assert(fc.asyncProperty(fc.array(action, { maxLength: 60 }), async (actions) => {
      const store = create({ maxStaleness: 3 });
      const epochs: Record<string, number> = { a: store.admit("a").epoch, b: store.admit("b").epoch };
      const applied = new Map<string, number>();
      const pending: Promise<void>[] = [];
      let seenVersion = 0;
      for (const { worker, event, ...fields } of actions) {
        if (event === "fence") store.fence(worker);
        if (event === "readmit" && worker in epochs) epochs[worker] = store.admit(worker).epoch;
        if (event !== "push") continue;
        const gradient = new Float32Array(fields.length).fill(fields.value);
        const hash = fields.badHash === undefined ? undefined : blake3(bytesOf(gradient));
        if (fields.badHash === true) hash![0]! ^= 1;
        const request: Push = {
          worker, epoch: (epochs[worker] ?? 1) + fields.epochOffset, sequence: fields.sequence,
          baseVersion: store.version - fields.lag, gradient, ...(hash && { hash }),
        };
        const done = store.push(request).then((result) => {
          expect(store.version).toBeGreaterThanOrEqual(seenVersion);
          seenVersion = store.version;
          if (result.status !== "applied") return;
          const key = `${worker}/${request.epoch}/${request.sequence}`;
          expect(applied.has(key)).toBe(false);
          expect(Number.isFinite(fields.value) && fields.value < 1e9 && fields.badHash !== true).toBe(true);
          expect(result.staleness).toBeLessThanOrEqual(3);
          applied.set(key, fields.value);
        });
        if (fields.wait) await done;
        else pending.push(done);
      }
      await Promise.all(pending);
      expect(store.version).toBe(applied.size);
      expect(store.statistics.staleness.reduce((sum, count) => sum + count, 0)).toBe(applied.size);
      const sum = [...applied.values()].reduce((total, value) => total + value, 0);
      expect(store.pull().parameters[3]).toBe(0 - 0.5 * sum);
      // The log lists the updates in order and its digest commits to them.
      const entries = store.entriesSince(0)!;
      expect(entries.map((entry) => entry.version)).toEqual(entries.map((_, i) => i + 1));
      expect(store.logDigest).toEqual(entries.reduce(extendDigest, new Uint8Array(32)));
    }), { numRuns: 150 });
  });

  it("never changes a vector that was pulled, and pulls whole versions while an update runs", async () => {
    const store = create();
    store.admit("a");
    const first = store.pull();
    const running = push(store, { gradient: gradientOf(2) });
    expect(store.pull()).toEqual({ version: 0, parameters: gradientOf(0) });
    await running;
    const second = store.pull();
    for (let i = 1; i < 5; i++) await push(store, { sequence: i });
    expect(first.parameters).toEqual(gradientOf(0));
    expect(second).toEqual({ version: 1, parameters: gradientOf(-1) });
    expect(store.pull()).toEqual({ version: 5, parameters: gradientOf(-3) });
  });

  it("divides the rate by 1 + alpha * staleness and counts staleness", async () => {
    const store = create({ alpha: 1, maxStaleness: 4 });
    store.admit("a");
    await push(store, { sequence: 0 });
    await push(store, { sequence: 1, baseVersion: 0 });
    expect(store.pull().parameters[0]).toBe(-0.5 - 0.25);
    expect(store.statistics.staleness).toEqual([1, 1, 0, 0, 0]);
  });

  it("follows the linear decay by version", async () => {
    const decay = { kind: "linear", updates: 4, finalFactor: 0 } as const;
    const store = create({}, sgd({ learningRate: 1, decay }).descriptor);
    store.admit("a");
    for (let i = 0; i < 6; i++) await push(store, { sequence: i });
    expect(store.pull().parameters[0]).toBe(-(1 + 0.75 + 0.5 + 0.25));
  });

  it("compensates delay against the pulled base, and asks for a pull where the base is unknown", async () => {
    const store = create({ delayCompensation: { lambda: 0.5 }, maxStaleness: 8 });
    store.admit("a");
    store.pull();
    await push(store, { sequence: 0, gradient: gradientOf(2) }); // w: 0 -> -1
    await push(store, { sequence: 1, baseVersion: 0, gradient: gradientOf(2) }); // g = 2 + 0.5 * 4 * (-1 - 0) = 0
    expect(store.pull()).toEqual({ version: 2, parameters: gradientOf(-1) });
    expect(await push(store, { sequence: 2, baseVersion: 1 })).toEqual({ status: "stale", version: 2 });
  });

  it("refuses what the rules refuse, and says why", async () => {
    const store = create({ maxStaleness: 1 });
    store.admit("a", 5);
    const reason = async (fields: Partial<Push>): Promise<string> => {
      const result = await push(store, { epoch: 5, ...fields });
      return result.status === "rejected" ? result.reason : result.status;
    };
    expect(await reason({ worker: "nobody" })).toBe("unknown-worker");
    expect(await reason({ epoch: 4 })).toBe("fenced");
    expect(await reason({ epoch: 6 })).toBe("fenced");
    expect(await reason({ sequence: -1 })).toBe("sequence");
    expect(await reason({ baseVersion: 7 })).toBe("base-version");
    expect(await reason({ gradient: new Float32Array(3) })).toBe("length");
    expect(await reason({ gradient: gradientOf(NaN) })).toBe("not-finite");
    expect(await reason({ gradient: gradientOf(-Infinity) })).toBe("not-finite");
    expect(await reason({ gradient: gradientOf(1e10) })).toBe("too-large");
    expect(await reason({ hash: new Uint8Array(32) })).toBe("hash");
    expect(store.version).toBe(0); // none of these consumed a sequence number or an update
    expect(await reason({ hash: blake3(bytesOf(gradientOf(1))) })).toBe("applied");
    expect(await reason({})).toBe("duplicate");
    await push(store, { epoch: 5, sequence: 1 });
    expect(await reason({ sequence: 2, baseVersion: 0 })).toBe("stale");
    expect(await reason({ sequence: 200 })).toBe("applied");
    expect(await reason({ sequence: 2 })).toBe("sequence");
  });

  it("refuses the gradients of a fenced worker that wait already, and bounds the queue", async () => {
    const store = create({ maxStaleness: 250 });
    store.admit("a");
    const waiting = Array.from({ length: PENDING_PUSHES_MAX }, (_, i) => push(store, { sequence: i, baseVersion: 0 }));
    expect(await push(store, { sequence: 99 })).toMatchObject({ reason: "busy" });
    store.fence("a");
    const results = await Promise.all(waiting);
    expect(results.filter((result) => result.status === "applied").length).toBe(store.version);
    expect(results.at(-1)).toMatchObject({ status: "rejected", reason: "fenced" });
    expect(() => store.admit("a", 1)).toThrow(/cannot be admitted/);
    expect(store.admit("a").epoch).toBe(3);
  });

  it("keeps its state whole when a kernel fails", async () => {
    let lost = true;
    const store = new ParameterStore({
      parameters: new Float32Array(SIZE), optimizer: adam({ learningRate: 1 }).descriptor, rules: checkRules({}),
    }, { kernels: { ...referenceKernels, update: (...all) => (lost ? Promise.reject(new Error("device lost")) : referenceKernels.update(...all)) } });
    store.admit("a");
    expect(await push(store, {})).toMatchObject({ reason: "failed", message: "an update failed: device lost" });
    expect(store.version).toBe(0);
    lost = false;
    expect(await push(store, {})).toMatchObject({ status: "applied", version: 1 });
  });
});
