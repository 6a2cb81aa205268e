/** Checkpoints: bit-identical resume, and every kind of damage falls back to the one before. */
import { cp, mkdir, mkdtemp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { blake3 } from "@noble/hashes/blake3.js";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { initialParameters, parameterLayout } from "../../src/training/compile/layout.js";
import { mlp } from "../../src/training/models.js";
import { adam, momentum } from "../../src/training/optimizer/optim.js";
import { checkRules } from "../../src/training/optimizer/rules.js";
import { decodeSafetensors, encodeSafetensors } from "../../src/training/format/safetensors.js";
import { CheckpointDirectory } from "../../src/training/parameter-server/checkpoint.js";
import { ParameterStore } from "../../src/training/parameter-server/parameter-store.js";
import { PhiloxStream } from "../../src/training/graph/philox.js";
import { referenceKernels } from "./reference-kernels.js";

const { graph } = mlp({ height: 4, width: 4, hidden: [7, 5] });
const layout = parameterLayout(graph);
const rules = checkRules({ maxStaleness: 4, alpha: 0.2, delayCompensation: { lambda: 0.1 } });
const optimizer = adam({ learningRate: 0.01, decay: { kind: "linear", updates: 40, finalFactor: 0.1 } }).descriptor;
let directory: string;

beforeEach(async () => { directory = await mkdtemp(join(tmpdir(), "tesra-checkpoint-")); });
afterEach(async () => { await rm(directory, { recursive: true, force: true }); });

const fresh = (): ParameterStore => new ParameterStore(
  { parameters: initialParameters(graph, 3), optimizer, rules }, { kernels: referenceKernels });
const checkpoints = (jobId = "job"): CheckpointDirectory => new CheckpointDirectory(
  { directory, jobId, parameters: layout.parameters, keep: 3 }, { blake3 });

/** Update `i` as every run sees it: its worker, base and gradient depend on `i` alone. */
async function update(store: ParameterStore, i: number): Promise<void> {
  const stream = new PhiloxStream(5n, i);
  const gradient = Float32Array.from({ length: layout.parameterCount }, () => stream.uniform() - 0.5);
  const { version } = store.pull();
  const result = await store.push({
    worker: i % 2 === 0 ? "even" : "odd", epoch: 1, sequence: i, baseVersion: version, gradient,
  });
  expect(result.status).toBe("applied");
}

async function run(store: ParameterStore, from: number, to: number): Promise<void> {
  for (let i = from; i < to; i++) await update(store, i);
}

describe("checkpoints", () => {
  it("resume with the same bits for the same later updates", async () => {
    const straight = fresh();
    for (const worker of ["even", "odd"]) straight.admit(worker);
    await run(straight, 0, 7);
    await checkpoints().save(await straight.snapshot());
    await run(straight, 7, 20);
    const resumed = fresh();
    const { loaded } = await checkpoints().loadLatest();
    resumed.restore(loaded!.snapshot);
    expect(resumed.version).toBe(7);
    // The resumed store still knows what it applied.
    const repeated = await resumed.push({
      worker: "even", epoch: 1, sequence: 6, baseVersion: 7, gradient: new Float32Array(layout.parameterCount),
    });
    expect(repeated).toEqual({ status: "duplicate", version: 7 });
    await run(resumed, 7, 20);
    expect(resumed.pull().parameters).toEqual(straight.pull().parameters);
    expect((await resumed.snapshot()).moments).toEqual((await straight.snapshot()).moments);
    expect(resumed.logDigest).toEqual(straight.logDigest);
    expect(resumed.logPosition).toBe(20);
  });

  it("keeps the newest three and sweeps what an interrupted save left", async () => {
    const store = fresh();
    for (const worker of ["even", "odd"]) store.admit(worker);
    for (let i = 0; i < 5; i++) {
      await update(store, i);
      await checkpoints().save(await store.snapshot());
    }
    await mkdir(join(directory, ".checkpoint-000000000009.partial"));
    await checkpoints().sweep();
    expect((await readdir(directory)).sort()).toEqual([3, 4, 5].map((version) => `checkpoint-00000000000${version}`));
  });

  it("a torn, flipped, emptied, missing or foreign file is detected and the one before is used", async () => {
    const store = fresh();
    for (const worker of ["even", "odd"]) store.admit(worker);
    await update(store, 0);
    await checkpoints().save(await store.snapshot());
    await update(store, 1);
    const { path } = await checkpoints().save(await store.snapshot());
    const intact = join(directory, "kept");
    await cp(path, intact, { recursive: true });
    const files = ["parameters.safetensors", "optimizer.safetensors", "manifest.json"];
    const damage = fc.record({
      file: fc.constantFrom(...files), kind: fc.constantFrom("flip", "cut", "remove", "grow"), at: fc.double({ min: 0, max: 0.999, noNaN: true }),
    });
    await fc.assert(fc.asyncProperty(damage, async ({ file, kind, at }) => {
      await rm(path, { recursive: true });
      await cp(intact, path, { recursive: true });
      const target = join(path, file);
      const bytes = await readFile(target);
      const position = Math.floor(at * bytes.length);
      if (kind === "flip") bytes[position]! ^= 0x04;
      if (kind === "flip") await writeFile(target, bytes);
      if (kind === "grow") await writeFile(target, Buffer.concat([bytes, Buffer.from("x")]));
      if (kind === "cut") await truncate(target, position);
      if (kind === "remove") await rm(target);
      const { loaded, skipped } = await checkpoints().loadLatest();
      expect(loaded?.snapshot.version, JSON.stringify(skipped)).toBe(1);
      expect(skipped).toHaveLength(1);
    }), { numRuns: 60 });
    expect((await checkpoints("another job").loadLatest()).loaded).toBeUndefined();
  });

  it("says so where nothing can be written, and leaves nothing", async () => {
    await writeFile(join(directory, "file"), "");
    const blocked = new CheckpointDirectory({ directory: join(directory, "file", "x"), jobId: "j", parameters: layout.parameters }, { blake3 });
    await expect(blocked.save(await fresh().snapshot())).rejects.toMatchObject({ code: "checkpoint" });
    expect((await blocked.loadLatest().catch(() => ({ skipped: [] }))).skipped).toEqual([]);
  });

  it("a snapshot of another optimizer or size does not restore", async () => {
    const other = new ParameterStore({ parameters: initialParameters(graph, 3), optimizer: momentum({ learningRate: 1 }).descriptor, rules },
      { kernels: referenceKernels });
    const snapshot = await fresh().snapshot();
    expect(() => other.restore(snapshot)).toThrow(/2 moments/);
  });
});

describe("safetensors", () => {
  const tensors = new Map([["a", { shape: [2, 3], data: Float32Array.of(1, -0, 3, NaN, 5e-42, 6) }], ["b", { shape: [], data: Float32Array.of(7) }]]);
  it("round trips, bits and all", () => {
    const { tensors: back, metadata } = decodeSafetensors(encodeSafetensors(tensors, { k: "v" }));
    expect(metadata).toEqual({ k: "v" });
    for (const [name, { shape, data }] of tensors) {
      expect(back.get(name)!.shape).toEqual(shape);
      expect(new Uint8Array(back.get(name)!.data.buffer)).toEqual(new Uint8Array(data.buffer));
    }
  });
  it("never crashes or reads outside on damaged bytes", () => {
    const file = encodeSafetensors(tensors);
    fc.assert(fc.property(fc.nat(file.length - 1), fc.nat(255), fc.nat(file.length), (position, value, cut) => {
      const damaged = file.slice(0, Math.max(cut, position + 1));
      damaged[position] = value;
      try {
        for (const { data } of decodeSafetensors(damaged).tensors.values()) expect(data.length).toBeLessThanOrEqual(7);
      } catch (error) {
        expect((error as { code?: string }).code).toBe("format");
      }
    }));
  });
  it("refuses holes, overlaps, trailing bytes and giant headers", () => {
    const build = (header: object, data: number): Uint8Array => {
      const text = new TextEncoder().encode(JSON.stringify(header));
      const file = new Uint8Array(8 + text.length + data);
      new DataView(file.buffer).setBigUint64(0, BigInt(text.length), true);
      file.set(text, 8);
      return file;
    };
    const entry = (begin: number, end: number): object => ({ dtype: "F32", shape: [(end - begin) / 4], data_offsets: [begin, end] });
    expect(() => decodeSafetensors(build({ a: entry(0, 8), b: entry(4, 12) }, 12))).toThrow(/overlap/);
    expect(() => decodeSafetensors(build({ a: entry(4, 8) }, 8))).toThrow(/hole/);
    expect(() => decodeSafetensors(build({ a: entry(0, 8) }, 12))).toThrow(/follow/);
    expect(() => decodeSafetensors(build({ a: entry(0, 16) }, 8))).toThrow(/within 8/);
    const giant = new Uint8Array(16);
    new DataView(giant.buffer).setBigUint64(0, 1n << 63n, true);
    expect(() => decodeSafetensors(giant)).toThrow(/does not fit/);
  });
});
