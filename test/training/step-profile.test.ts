// Profiles: times of every operation of a real step, bits as in any other run, a table that adds up, and a Chrome
// trace as its readers need it.
import { afterAll, describe, expect, it } from "vitest";
import { openDevice, type OpTiming } from "../../src/device/device.js";
import {
  cnn, compileLocalTraining, initialParameters, optim,
} from "../../src/training/index.js";
import { chromeTrace, profileStep, summarizeOps } from "../../src/training/metrics/step-profile.js";

const device = openDevice({ backend: "cpu", threads: 2 });
afterAll(() => device.close());
const BATCH = 8;
const model = cnn();
const compiled = compileLocalTraining(model.graph, {
  loss: model.loss, correct: model.correct, batchSize: BATCH, optimizer: optim.adam({ learningRate: 1e-3 }).descriptor,
});
const inputs = Uint8Array.from({ length: BATCH * 784 }, (_, i) => (i * 37) % 256);
const labels = Int32Array.from({ length: BATCH }, (_, i) => i % 10);

const timing = (op: OpTiming["op"], startUs: number, durationUs: number, flops: number, bytes: number): OpTiming => ({
  op, startUs, durationUs, flops, bytes, inputs: [{ name: "x", dtype: "f32", shape: [2, 3] }], outputs: [{ name: "y", dtype: "u8", shape: [6] }],
});

describe("a profiled run", () => {
  it("times every operation in order, with its shapes, work and traffic", async () => {
    let now = 0;
    const runs = await profileStep(device, { compiled, parameters: initialParameters(model.graph, 1), inputs, labels, runs: 2 },
      { nowUs: () => (now += 1e6) });
    expect(runs.map(({ startUs }) => startUs)).toEqual([1e6, 2e6]);
    for (const { ops } of runs) {
      expect(ops.map(({ op }) => op)).toEqual(compiled.spec.ops.map(({ op }) => op));
      ops.forEach(({ startUs, durationUs }, i) => {
        expect(durationUs).toBeGreaterThanOrEqual(0);
        if (i > 0) expect(startUs).toBeGreaterThanOrEqual(ops[i - 1]!.startUs + ops[i - 1]!.durationUs - 1e-6);
      });
      expect(ops.reduce((sum, { durationUs }) => sum + durationUs, 0)).toBeGreaterThan(10);
    }
    const [{ ops }] = runs as [typeof runs[0], typeof runs[1]];
    expect(ops.reduce((sum, { flops }) => sum + flops, 0)).toBe(2 * compiled.multiplyAdds);
    const adam = ops.find(({ op }) => op === "adam")!;
    // four vectors read and three written, and the step's counter
    expect(adam.bytes).toBe(7 * 4 * compiled.parameterCount + 2 * 4);
    const convolution = ops.find(({ op }) => op === "conv2d")!;
    expect(convolution.outputs[0]!.shape).toEqual([BATCH, 28, 28, 16]);
    expect(convolution.flops).toBe(2 * BATCH * 28 * 28 * 25 * 16);
  });

  it("computes the bits of any other run", async () => {
    const after = async (mode: "run" | "profile"): Promise<Float32Array> => {
      const plan = device.createPlan(compiled.spec);
      const { x, labels: fed, parametersFlat } = compiled.tensors;
      plan.write(parametersFlat, initialParameters(model.graph, 1));
      plan.write(x, inputs);
      plan.write(fed, labels);
      for (let i = 0; i < 3; i++) await plan[mode]();
      const out = new Float32Array(compiled.parameterCount);
      plan.read(parametersFlat, out);
      plan.close();
      return out;
    };
    expect(Buffer.from((await after("profile")).buffer).equals(Buffer.from((await after("run")).buffer))).toBe(true);
  });

  it("is refused while a run is under way, and after close", async () => {
    const plan = device.createPlan(compiled.spec);
    const first = plan.profile();
    await expect(plan.profile()).rejects.toMatchObject({ code: "busy" });
    await expect(plan.run()).rejects.toMatchObject({ code: "busy" });
    await first;
    plan.close();
    await expect(plan.profile()).rejects.toMatchObject({ code: "closed" });
  });
});

const RUNS = [
  { startUs: 5_000, ops: [timing("gemm", 0, 30, 60_000, 300), timing("relu", 40, 10, 0, 100)] },
  { startUs: 9_000, ops: [timing("gemm", 0, 50, 60_000, 300), timing("relu", 60, 10, 0, 100)] },
];

describe("the table", () => {
  it("has a line an operation, the longest first, and adds up", () => {
    expect(summarizeOps(RUNS)).toEqual([
      { op: "gemm", calls: 1, totalUs: 40, share: 0.8, gflopsPerSecond: 1.5, gigabytesPerSecond: 0.0075 },
      { op: "relu", calls: 1, totalUs: 10, share: 0.2, gigabytesPerSecond: 0.01 },
    ]);
    expect(summarizeOps([])).toEqual([]);
  });
});

describe("the Chrome trace", () => {
  it("is what the Trace Event Format asks for: complete slices, named tracks, operations within their step", () => {
    const trace = JSON.parse(JSON.stringify(chromeTrace(RUNS, { process: "cnn", thread: "cpu" }))) as ReturnType<typeof chromeTrace>;
    for (const event of trace.traceEvents) {
      expect([typeof event.name, typeof event.pid, typeof event.tid]).toEqual(["string", "number", "number"]);
      if (event.ph === "M") expect(event.args).toMatchObject({ name: expect.any(String) as string });
      else expect(Number.isFinite(event.ts) && event.dur! >= 0 && typeof event.cat === "string").toBe(true);
    }
    const steps = trace.traceEvents.filter(({ cat }) => cat === "step");
    expect(steps.map(({ ts, dur }) => [ts, dur])).toEqual([[0, 50], [4_000, 70]]);
    const operations = trace.traceEvents.filter(({ cat }) => cat === "operation");
    expect(operations).toHaveLength(4);
    for (const { ts, dur } of operations) {
      expect(steps.some((step) => ts! >= step.ts! && ts! + dur! <= step.ts! + step.dur!)).toBe(true);
    }
    expect(operations[0]).toMatchObject({
      name: "gemm", args: { tensor: "y", inputs: "f32(2, 3)", outputs: "u8(6)", flops: 60_000, bytes: 300 },
    });
  });
});
