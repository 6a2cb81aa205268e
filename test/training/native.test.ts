/**
 * The compiler's plans on the native device: equal to the interpreter, equal bits on every
 * instruction set, and real training: asynchronous workers with stale gradients learn.
 */
import { homedir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { loadFashionMnist, type Split } from "../../src/data/fashion-mnist.js";
import { cutDataset, openShard } from "../../src/data/shard.js";
import { openDevice, type Device, type IsaName } from "../../src/device/device.js";
import { compileLocalTraining, compileStep } from "../../src/training/compile/compile.js";
import { initialParameters } from "../../src/training/compile/layout.js";
import { Graph, type Tensor } from "../../src/training/graph/graph.js";
import { PhiloxStream } from "../../src/training/graph/philox.js";
import { cnn, mlp } from "../../src/training/models.js";
import * as nn from "../../src/training/nn.js";
import { adam, momentum, sgd } from "../../src/training/optimizer/optim.js";
import { checkRules } from "../../src/training/optimizer/rules.js";
import { createUpdateKernels } from "../../src/training/parameter-server/device-kernels.js";
import { ParameterStore } from "../../src/training/parameter-server/parameter-store.js";
import { BatchSampler } from "../../src/training/sample-order.js";
import { Evaluator, LocalTrainStep, TrainStep } from "../../src/training/train-step.js";
import { PlanInterpreter } from "./plan-interpreter.js";
import { referenceKernels } from "./reference-kernels.js";

const device = openDevice({ backend: "cpu", threads: 1 });
afterAll(() => device.close());

function batchFor(rows: number, elements: number, classes: number): { images: Uint8Array; labels: Int32Array } {
  const random = new PhiloxStream(9n, rows);
  return {
    images: Uint8Array.from({ length: rows * elements }, () => random.below(256)),
    labels: Int32Array.from({ length: rows }, () => random.below(classes)),
  };
}

describe("plans on the native device", () => {
  const weight = (x: Tensor, name: string, shape: number[]): Tensor => x.graph.variable(name, shape, { kind: "uniform", bound: 0.5 });
  const around = (body: (x: Tensor) => Tensor): nn.Classifier =>
    nn.classifier(new Graph(), [7, 6, 2], (x) => nn.dense("logits", 4)(body(x).flatten()), { scale: 1 / 128, shift: -1 });
  const nets: Record<string, () => nn.Classifier> = {
    "the MLP": () => mlp({ height: 9, width: 7, hidden: [33, 17] }),
    "the CNN": () => cnn({ height: 14, width: 12, filters: [5, 9], units: 19 }),
    "loose bias, strides, overlapping pools": () => around((x) => x.biasAdd(weight(x, "b", [2]))
      .conv2d(weight(x, "w", [3, 2, 2, 5]), { stride: 2, padding: 1 }).relu().maxPool(2, 1)),
    "average pool, transposes, sums": () => around((x) => {
      const y = x.conv2d(weight(x, "w", [3, 3, 2, 4]), { padding: 1 }).avgPool(2).flatten();
      const z = y.matmul(weight(x, "u", [11, 36]), { transposeB: true }).relu();
      return z.add(z.scale(-0.5, 0.1)).matmul(weight(x, "v", [11, 5]));
    }),
  };
  it.each(Object.entries(nets))("%s equals the interpreter", async (_, make) => {
    const net = make(), rows = 13;
    const compiled = compileStep(net.graph, { ...net, batchSize: rows });
    const parameters = initialParameters(net.graph, 4);
    const { images, labels } = batchFor(rows, compiled.rowElements, compiled.classes);
    const oracle = new PlanInterpreter(compiled.spec);
    oracle.write(compiled.tensors.x, images);
    oracle.write(compiled.tensors.labels, labels);
    oracle.write(compiled.tensors.parametersFlat, parameters);
    oracle.runSync();
    const step = new TrainStep(device, compiled);
    step.setParameters(parameters);
    const result = await step.run(images, labels);
    expect(result.loss).toBeCloseTo(oracle.view(compiled.tensors.loss)[0]!, 4);
    expect(result.correct).toBe(oracle.view(compiled.tensors.correct!)[0]);
    expect(result.multiplyAdds).toBe(compiled.multiplyAdds);
    const expected = oracle.view(compiled.tensors.gradientsFlat);
    const scale = await device.largestAsync(expected as Float32Array);
    result.gradient.forEach((value, i) => {
      if (Math.abs(value - expected[i]!) > 2e-5 * scale) expect(value, `element ${i}`).toBeCloseTo(expected[i]!, 6);
    });
    step.close();
  });

  it("gives the same bits on every instruction set and thread count", async () => {
    const net = cnn();
    const compiled = compileStep(net.graph, { ...net, batchSize: 16 });
    const { images, labels } = batchFor(16, 784, 10);
    const gradients: Uint8Array[] = [];
    const kinds: { isa: IsaName; threads: number }[] = [{ isa: "scalar", threads: 1 }, { isa: "avx2", threads: 2 }, { isa: "avx512", threads: 1 }];
    for (const kind of kinds) {
      let other: Device;
      try {
        other = openDevice({ backend: "cpu", ...kind });
      } catch (error) {
        if (kind.isa === "scalar") throw error;
        continue; // this processor lacks it
      }
      const step = new TrainStep(other, compiled);
      step.setParameters(initialParameters(net.graph, 4));
      const { gradient } = await step.run(images, labels);
      gradients.push(new Uint8Array(gradient.slice().buffer));
      step.close();
      other.close();
    }
    for (const gradient of gradients) expect(Buffer.compare(gradient, gradients[0]!)).toBe(0);
  });

  it("checks what it is fed before it runs", async () => {
    const net = mlp({ height: 4, width: 4, hidden: [4] });
    const step = new TrainStep(device, compileStep(net.graph, { ...net, batchSize: 2 }));
    await expect(step.run(new Uint8Array(31), Uint8Array.of(0, 1))).rejects.toMatchObject({ code: "batch-size" });
    await expect(step.run(new Uint8Array(32), Uint8Array.of(0))).rejects.toMatchObject({ code: "batch-size" });
    await expect(step.run(new Uint8Array(32), Uint8Array.of(0, 10))).rejects.toMatchObject({ code: "label", fields: { row: 1, label: 10 } });
    expect(() => step.setParameters(new Float32Array(3))).toThrow(/parameters, got 3/);
    step.close();
  });
});

describe("update kernels on the native device", () => {
  it.each([sgd({ learningRate: 0.1 }), momentum({ learningRate: 0.1 }), adam({ learningRate: 0.01 })])("agree with the reference: %o", async ({ descriptor }) => {
    const run = async (kernels: typeof referenceKernels): Promise<Float32Array> => {
      const store = new ParameterStore({ parameters: Float32Array.from({ length: 1000 }, (_, i) => Math.fround(Math.sin(i))), optimizer: descriptor,
        rules: checkRules({ alpha: 0.5, delayCompensation: { lambda: 0.1 } }) }, { kernels });
      store.admit("w");
      for (let i = 0; i < 6; i++) {
        const { version } = store.pull();
        const gradient = Float32Array.from({ length: 1000 }, (_, j) => Math.fround(Math.cos(i * j)));
        await store.push({ worker: "w", epoch: 1, sequence: i, baseVersion: Math.max(0, version - 2), gradient, hash: device.blake3(new Uint8Array(gradient.buffer)) });
      }
      expect(store.version).toBe(6);
      return store.pull().parameters;
    };
    const expected = await run(referenceKernels), actual = await run(createUpdateKernels(device));
    actual.forEach((value, i) => expect(Math.abs(value - expected[i]!)).toBeLessThan(1e-5));
  });
  it("finds the largest magnitude, NaN and infinity included", async () => {
    expect(await device.largestAsync(Float32Array.of(1, -3, 2))).toBe(3);
    expect(await device.largestAsync(Float32Array.of(1, -Infinity))).toBe(Infinity);
    expect(await device.largestAsync(Float32Array.of(1, NaN, -Infinity))).toBeNaN();
    expect(await device.largestAsync(new Float32Array(0))).toBe(0);
  });
});

/** Fashion-MNIST where it is installed or cached; else pictures of ten noisy prototypes. */
async function trainingData(): Promise<{ train: Split; test: Split; real: boolean }> {
  try {
    const { train, test } = await loadFashionMnist({ cacheDirectory: join(homedir(), ".cache/tesra-supernet/fashion-mnist") });
    return { train, test, real: true };
  } catch {
    const random = new PhiloxStream(1n, 0);
    const prototypes = Array.from({ length: 10 }, () => Uint8Array.from({ length: 784 }, () => random.below(160)));
    const split = (rows: number): Split => {
      const labels = Uint8Array.from({ length: rows }, (_, i) => i % 10);
      const images = new Uint8Array(rows * 784);
      labels.forEach((label, i) => prototypes[label]!.forEach((value, j) => { images[i * 784 + j] = value + random.below(96); }));
      return { images, labels, rows };
    };
    return { train: split(2000), test: split(500), real: false };
  }
}

describe("training", () => {
  it("two asynchronous workers with their own encrypted shards learn, through the parameter store", async () => {
    const { train, test, real } = await trainingData();
    const rows = Math.min(train.rows, 6000), batchSize = 50;
    const random = new PhiloxStream(3n, 1);
    const cut = await cutDataset(train.images.subarray(0, rows * 784), train.labels.subarray(0, rows),
      { name: "training", shardCount: 2, random: (n) => Uint8Array.from({ length: n }, () => random.below(256)), device });
    const net = mlp({ hidden: [64, 32] });
    const operation = adam({ learningRate: 1e-3 }).minimize(net.loss, { correct: net.correct, logits: net.logits, maxStaleness: 8 });
    const store = new ParameterStore({ parameters: initialParameters(net.graph, 1), optimizer: operation.optimizer, rules: operation.rules },
      { kernels: createUpdateKernels(device) });
    const evaluator = new Evaluator(device, net.graph, net);
    const accuracy = async (): Promise<number> => (await evaluator.evaluate(store.pull().parameters, test.images, test.labels)).accuracy;
    const before = await accuracy();
    await Promise.all([0, 1].map(async (worker) => {
      const shard = await openShard(cut.shards[worker]!, cut.keys[worker]!, cut.manifest, worker, { device });
      const sampler = new BatchSampler(shard, { batchSize, seed: 1, shard: worker });
      const step = new TrainStep(device, compileStep(net.graph, { ...net, batchSize }));
      const { epoch } = store.admit(`worker ${worker}`);
      let flight: Promise<unknown> | undefined;
      for (let sequence = 0; sequence < 5 * sampler.batchesPerEpoch; sequence++) {
        const { version, parameters } = store.pull();
        step.setParameters(parameters);
        const batch = sampler.next();
        const { gradient } = await step.run(batch.images, batch.labels);
        await flight;
        flight = store.push({ worker: `worker ${worker}`, epoch, sequence, baseVersion: version, gradient: gradient.slice() });
      }
      await flight;
      step.close();
    }));
    expect(before).toBeLessThan(0.3);
    expect(await accuracy()).toBeGreaterThan(real ? 0.7 : 0.9); // 0.81 to 0.83 whatever order the machine gives the pushes; chance is 0.1
    const { applied, staleness } = store.statistics;
    expect(applied).toBe(store.version);
    expect(staleness.slice(1).some((count) => count > 0)).toBe(true); // gradients did cross each other
    evaluator.close();
  });

  it("a local plan trains in one native call a batch", async () => {
    const { train } = await trainingData();
    const net = mlp({ hidden: [32, 16] });
    const step = new LocalTrainStep(device, compileLocalTraining(net.graph, { ...net, batchSize: 50, optimizer: adam({ learningRate: 2e-3, beta1: 0.9 }).descriptor }),
      initialParameters(net.graph, 1));
    const sampler = new BatchSampler({ images: train.images.subarray(0, 2000 * 784), labels: train.labels.subarray(0, 2000) }, { batchSize: 50, seed: 1 });
    const losses: number[] = [];
    for (let i = 0; i < 80; i++) {
      const { images, labels } = sampler.next();
      losses.push((await step.run(images, labels)).loss);
    }
    const mean = (list: number[]): number => list.reduce((a, b) => a + b) / list.length;
    expect(mean(losses.slice(-10))).toBeLessThan(0.6 * mean(losses.slice(0, 10)));
    expect(step.parameters().every(Number.isFinite)).toBe(true);
    step.close();
  });
});
