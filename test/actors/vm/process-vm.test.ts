// The task's VM in child processes: the same bits as in the process, hostile jobs, deaths, and what a child may not do.
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CHILD_FLAGS, childEnvironment } from "../../../src/actors/worker/vm/confinement.js";
import { createLocalVm } from "../../../src/actors/worker/vm/local-vm.js";
import { FrameReader, encodeFrame } from "../../../src/actors/worker/vm/frame.js";
import { checkLayout, type StepLayout } from "../../../src/actors/worker/vm/messages.js";
import { createProcessVm, type ProcessVm } from "../../../src/actors/worker/vm/process-vm.js";
import type { StepRunner, TaskVm } from "../../../src/actors/worker/vm/step-runner.js";
import { openDevice, type Device } from "../../../src/device/device.js";
import { sandboxSupport } from "../../../src/device/sandbox.js";
import { canonicalJob, initialParameters, MODELS, optim } from "../../../src/training/index.js";

const PIXELS = 784;
const rows = {
  rows: 64,
  images: Uint8Array.from({ length: 64 * PIXELS }, (_, i) => (i * 7919) >>> 3 & 255),
  labels: Uint8Array.from({ length: 64 }, (_, i) => i % 10),
};
const model = MODELS.cnn();
const job = canonicalJob({
  operation: optim.adam({ learningRate: 1e-3 }).minimize(model.loss, { mode: "async", correct: model.correct }),
  run: { batchSize: 16, epochs: 1, seed: 1 },
});
const parameters = initialParameters(model.graph, 1);
const pick = (count: number): Uint32Array => Uint32Array.from({ length: count }, (_, i) => i * 3);

type Json = Record<string, unknown> & { nodes: Record<string, unknown>[] };
const changed = (change: (job: Json) => void): string => {
  const copy = JSON.parse(job) as Json;
  change(copy);
  return JSON.stringify(copy);
};
const node = (op: string): number => (JSON.parse(job) as Json).nodes.findIndex((each) => each.op === op);
const HOSTILE: Record<string, { text: string; code: string }> = {
  "no JSON": { text: "{", code: "not-json" },
  "deep nesting": { text: "[".repeat(1_000_000) + "]".repeat(1_000_000), code: "format" },
  "deep nesting where a message would quote it": { text: `{"format":${"[".repeat(500_000)}${"]".repeat(500_000)}}`, code: "format" },
  "an op that is none": { text: changed((j) => { j.nodes[1]!.op = "constructor"; }), code: "unknown-op" },
  "a cycle": { text: changed((j) => { j.nodes[node("relu")]!.inputs = [j.nodes.length - 1]; }), code: "cycle" },
  "a giant variable": { text: changed((j) => { j.nodes[node("variable")]!.attributes = { shape: [2 ** 31 - 1, 2 ** 31 - 1], initializer: { kind: "zeros" } }; }), code: "overflow" },
  "a batch beyond the memory": { text: changed((j) => { j.run = { batchSize: 65_536, epochs: 1, seed: 1 }; }), code: "limit" },
};

describe.skipIf(!sandboxSupport().childProcess)("a task in a child process", () => {
  let device: Device, vm: ProcessVm, local: TaskVm;
  const warnings: string[] = [];
  beforeAll(() => {
    device = openDevice({ backend: "cpu", threads: 1 });
    local = createLocalVm(device, { memoryBytes: 2 ** 30 });
    vm = createProcessVm({ compute: { backend: "cpu", threads: 1 }, limits: { memoryBytes: 2 ** 30 } }, { warn: (text) => warnings.push(text) });
  });
  afterAll(async () => {
    await vm.close();
    device.close();
  });

  const expectSame = async (runner: StepRunner, reference: StepRunner, count: number): Promise<void> => {
    const [mine, theirs] = await Promise.all([runner, reference].map((each) => each.run(parameters, rows, pick(count))));
    expect(mine!.loss).toBe(theirs!.loss);
    expect(mine!.correct).toBe(theirs!.correct);
    expect(Buffer.compare(Buffer.from(mine!.gradient.buffer), Buffer.from(theirs!.gradient.buffer))).toBe(0);
  };

  it("gives the bits of the worker's own process, also after kill -9", async () => {
    expect(await vm.inspect(job)).toEqual(await local.inspect(job));
    const runner = await vm.open(job) as StepRunner & { pid: number };
    const reference = await local.open(job);
    for (const count of [16, 5, 16, 7]) await expectSame(runner, reference, count);
    const { pid } = runner;
    const step = runner.run(parameters, rows, pick(16));
    process.kill(pid, "SIGKILL");
    expect((await step).gradient).toEqual((await reference.run(parameters, rows, pick(16))).gradient);
    expect(runner.pid).not.toBe(pid);
    await expect(runner.run(parameters, { ...rows, labels: new Uint8Array(64).fill(10) }, pick(16))).rejects.toMatchObject({ name: "TrainingError", code: "label" });
    const nan = new Float32Array(parameters.length).fill(NaN);
    expect((await runner.run(nan, rows, pick(16))).loss).toBeNaN();
    await expectSame(runner, reference, 16);
    await Promise.all([runner.close(), reference.close()]);
    expect(() => process.kill(pid, 0)).toThrow();
  });

  it.each(Object.entries(HOSTILE))("refuses %s, in the process and out of it", async (_, { text, code }) => {
    const refused = { name: "JobError", code };
    await expect(local.inspect(text)).rejects.toMatchObject(refused);
    await expect(vm.inspect(text)).rejects.toMatchObject(refused);
    expect(await vm.inspect(job)).toBeDefined();
  });

  it("may not read, write, connect, listen, signal, start programs or take more memory", async () => {
    const script = join(import.meta.dirname, "confined-probe.mjs");
    const bomb = promisify(execFile)(process.execPath, [...CHILD_FLAGS, script], { env: childEnvironment() });
    const { stdout, stderr, signal } = await bomb.then(() => { throw new Error("it took 4 GiB"); }, (error) => error as { stdout: string; stderr: string; signal: string });
    expect({ signal, stderr }).toMatchObject({ signal: expect.any(String), stderr: expect.stringMatching(/out of memory/i) });
    const { confinement, codes } = JSON.parse(stdout) as { confinement: object; codes: Record<string, string> };
    expect(confinement).toMatchObject({ limits: true, capabilities: true });
    if (!sandboxSupport().seccomp) return;
    expect(warnings).toEqual([]);
    expect(Object.entries(codes).filter(([, code]) => code !== "EPERM")).toEqual([]);
  });
});

describe("what a worker believes of a child", () => {
  const summary = { cost: { parameterCount: 16 } } as Parameters<typeof checkLayout>[2];
  const layout: StepLayout = {
    parameters: { offset: 0, length: 16 }, gradient: { offset: 64, length: 16 }, inputs: { offset: 128, length: 32, type: "u8" },
    labels: { offset: 192, length: 4 }, loss: 256,
  };

  it("takes regions that lie in the slot, and no others", () => {
    expect(checkLayout(layout, 4, summary, 4_096)).toEqual(layout);
    for (const wrong of [
      { ...layout, gradient: { offset: 4_064, length: 16 } }, { ...layout, parameters: { offset: 0, length: 17 } },
      { ...layout, labels: { offset: 2, length: 4 } }, { ...layout, loss: -4 }, { ...layout, correct: 4_096 },
      { ...layout, inputs: { offset: 128, length: 33, type: "u8" } }, null, [],
    ]) expect(() => checkLayout(wrong, 4, summary, 4_096)).toThrow(/no valid/);
  });

  it("cuts frames at any byte and takes none above the bound", () => {
    const frames = Buffer.concat([encodeFrame({ a: 1 }), encodeFrame("é".repeat(20))]);
    for (let size = 1; size <= frames.length; size += 1) {
      const reader = new FrameReader(64), seen: unknown[] = [];
      for (let at = 0; at < frames.length; at += size) seen.push(...reader.push(frames.subarray(at, at + size)));
      expect(seen).toEqual([{ a: 1 }, "é".repeat(20)]);
    }
    expect(() => new FrameReader(64).push(encodeFrame("x".repeat(63)))).toThrow(/65 bytes/);
  });
});
