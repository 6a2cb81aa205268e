/** Shards of the parameters: every element once, aligned; a checkpoint of a shard, with what else it holds; and its files by another reader. */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { blake3 } from "@noble/hashes/blake3.js";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { parameterLayout } from "../../src/training/compile/layout.js";
import { mlp } from "../../src/training/models.js";
import { sgd } from "../../src/training/optimizer/optim.js";
import { checkRules } from "../../src/training/optimizer/rules.js";
import { CheckpointDirectory } from "../../src/training/parameter-server/checkpoint.js";
import { ParameterStore } from "../../src/training/parameter-server/parameter-store.js";
import { shardRanges, slotsInRange } from "../../src/training/parameter-server/shard-ranges.js";
import { referenceKernels } from "./reference-kernels.js";

const directory = mkdtempSync(join(tmpdir(), "tesra-shards-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
const layout = parameterLayout(mlp({ height: 4, width: 4, hidden: [7, 5] }).graph);

describe("shards", () => {
  it("cover the parameters once, begin on 64 bytes and differ by 64 bytes at most", () => {
    fc.assert(fc.property(fc.integer({ min: 1, max: 100_000 }), fc.integer({ min: 1, max: 40 }), (count, servers) => {
      if (Math.ceil(count / 16) < servers) {
        expect(() => shardRanges(count, servers)).toThrow(/cannot be cut/);
        return;
      }
      const ranges = shardRanges(count, servers);
      expect(ranges.map(({ from }) => from)).toEqual([0, ...ranges.slice(0, -1).map(({ to }) => to)]);
      expect(ranges.at(-1)!.to).toBe(count);
      const sizes = ranges.slice(0, -1).map(({ from, to }) => to - from);
      expect(ranges.every(({ from }) => from % 16 === 0)).toBe(true);
      if (sizes.length > 0) expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThanOrEqual(16);
    }));
    for (const wrong of [[0, 1], [-1, 1], [1.5, 1], [64, 0], [64, NaN]] as const) expect(() => shardRanges(...wrong)).toThrow(/cannot be cut/);
  });

  it("hold each element of each parameter in one place", () => {
    const ranges = shardRanges(layout.parameterCount, 4);
    const places = ranges.flatMap((range) => slotsInRange(layout.parameters, range).map((slot) => ({ ...slot, offset: slot.offset + range.from })));
    const elements = places.flatMap(({ offset, size }) => Array.from({ length: size }, (_, i) => offset + i)).sort((a, b) => a - b);
    const expected = layout.parameters.flatMap(({ offset, size }) => Array.from({ length: size }, (_, i) => offset + i)).sort((a, b) => a - b);
    expect(elements).toEqual(expected);
    expect(new Set(places.map(({ name }) => name)).size).toBe(places.length);
    expect(places.some(({ name }) => name.includes("["))).toBe(true);
  });
});

describe("a shard's checkpoint", () => {
  it("holds clocks, moments and residuals; the open round is computed again; another reader finds the parameters", async () => {
    const range = shardRanges(layout.parameterCount, 3)[1]!;
    const length = range.to - range.from;
    const rules = checkRules({ mode: "sync", workers: 2, compression: { kind: "int8" } });
    const create = (): ParameterStore => new ParameterStore(
      { parameters: Float32Array.from({ length }, (_, i) => i / 3), optimizer: sgd({ learningRate: 1 }).descriptor, rules }, { kernels: referenceKernels });
    const store = create();
    for (const worker of ["a", "b"]) store.activate(worker, store.admit(worker).epoch);
    const push = (to: ParameterStore, worker: string, sequence: number, baseVersion: number) =>
      to.push({ worker, epoch: 1, sequence, baseVersion, gradient: new Float32Array(length).fill(sequence + 1) });
    await Promise.all([push(store, "a", 0, 0), push(store, "b", 0, 0)]);
    const open = push(store, "a", 1, 1); // waits for b
    const checkpoints = new CheckpointDirectory({ directory, jobId: "job", parameters: slotsInRange(layout.parameters, range) }, { blake3 });
    const { path } = await checkpoints.save(await store.snapshot(), new Map([["a", Float32Array.of(1, 2)], ["b", new Float32Array(0)]]));
    const { loaded } = await checkpoints.loadLatest();
    expect([...loaded!.residuals]).toEqual([["a", Float32Array.of(1, 2)], ["b", new Float32Array(0)]]);
    const resumed = create();
    resumed.restore(loaded!.snapshot);
    for (const each of [store, resumed]) each.activate("b", 1);
    resumed.activate("a", 1);
    const again = [push(resumed, "a", 1, 1), push(resumed, "b", 1, 1)];
    await Promise.all([open, push(store, "b", 1, 1), ...again]);
    expect((await again[0]!).status).toBe("applied");
    const [here, there] = [await store.snapshot(), await resumed.snapshot()];
    expect(there).toEqual(here);

    // 8 bytes of length, a JSON header, the data: read here by hand, and by Python's own reader where there is one
    const file = join(path, "parameters.safetensors"), bytes = readFileSync(file);
    const headerBytes = Number(bytes.readBigUInt64LE(0));
    const header = JSON.parse(bytes.toString("utf8", 8, 8 + headerBytes)) as Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;
    const slot = slotsInRange(layout.parameters, range)[0]!;
    const { dtype, shape, data_offsets: [from, to] } = header[slot.name]!;
    expect([dtype, shape, to - from]).toEqual(["F32", slot.shape, 4 * slot.size]);
    const first = bytes.readFloatLE(8 + headerBytes + from);
    expect(first).toBe(loaded!.snapshot.parameters[slot.offset]);
    if (spawnSync("python3", ["-c", "import safetensors.numpy"]).status !== 0) return;
    const read = execFileSync("python3", ["-c",
      "import sys, safetensors.numpy as s; print(float(s.load_file(sys.argv[1])[sys.argv[2]].reshape(-1)[0]))", file, slot.name], { encoding: "utf8" });
    expect(Math.fround(Number(read))).toBe(first);
  });
});
