/** Transformers through the graph: compiled gradients against finite differences, shape errors, a GPT that learns. */
import { afterAll, describe, expect, it } from "vitest";
import { openDevice } from "../../src/device/device.js";
import { compileEvaluation, compileLocalTraining, compileStep } from "../../src/training/compile/compile.js";
import { initialParameters, initialParametersOn, parameterLayout } from "../../src/training/compile/layout.js";
import { canonicalJob } from "../../src/training/graph/canonical.js";
import { Graph, type Tensor } from "../../src/training/graph/graph.js";
import { parseJob } from "../../src/training/graph/parse.js";
import { PhiloxStream } from "../../src/training/graph/philox.js";
import { gpt2, llama, type LanguageModel } from "../../src/training/models.js";
import * as nn from "../../src/training/nn.js";
import * as optim from "../../src/training/optimizer/optim.js";
import { LocalTrainStep, TrainStep } from "../../src/training/train-step.js";

const device = openDevice({ backend: "cpu" });
afterAll(() => device.close());
const BATCH = 3, VOCABULARY = 11, LENGTH = 5, WIDTH = 8;

/** d loss / d parameter against central differences, the largest error relative to the largest gradient. */
async function checkGradients(model: Pick<LanguageModel, "graph" | "loss">, samples: number): Promise<void> {
  const compiled = compileStep(model.graph, { loss: model.loss, batchSize: BATCH });
  const random = new PhiloxStream(5n, 0);
  const tokens = Int32Array.from({ length: BATCH * compiled.rowElements }, () => random.below(VOCABULARY));
  const labels = Int32Array.from({ length: BATCH * compiled.rowLabels }, () => random.below(compiled.classes));
  const flat = initialParameters(model.graph, 3);
  for (const { offset, size } of compiled.parameters) {
    for (let i = offset; i < offset + size; i++) flat[i]! += 0.6 * (random.uniform() - 0.5);
  }
  const step = new TrainStep(device, compiled);
  const lossAt = async (parameters: Float32Array): Promise<number> => {
    step.setParameters(parameters);
    return (await step.run(tokens, labels)).loss;
  };
  step.setParameters(flat);
  const gradient = (await step.run(tokens, labels)).gradient.slice();
  const scale = gradient.reduce((most, g) => Math.max(most, Math.abs(g)), 0);
  expect(scale).toBeGreaterThan(1e-3);
  for (const { name, offset, size } of compiled.parameters) {
    for (let n = 0; n < Math.min(size, Math.ceil(samples / compiled.parameters.length)); n++) {
      const i = offset + random.below(size), h = 1e-2, moved = flat.slice();
      moved[i] = flat[i]! + h;
      const up = await lossAt(moved);
      moved[i] = flat[i]! - h;
      const numeric = (up - await lossAt(moved)) / (2 * h);
      expect(Math.abs(numeric - gradient[i]!) / scale, `${name}[${i - offset}]`).toBeLessThan(4e-3);
    }
  }
  step.close();
}

/** A language model around the layer under test: (batch, length, width) to the same. */
function around(body: (x: Tensor) => Tensor): Pick<LanguageModel, "graph" | "loss"> {
  const graph = new Graph();
  const tokens = graph.placeholder("tokens", [null, LENGTH], "i32"), labels = graph.placeholder("labels", [null, LENGTH], "i32");
  const table = nn.embeddingTable(graph, "table", VOCABULARY, WIDTH, 0.5);
  const logits = nn.dense("logits", 7)(body(table.embed(tokens)));
  return { graph, loss: nn.softmaxCrossEntropy(logits, labels) };
}
const weight = (x: Tensor, name: string, shape: number[]): Tensor => x.graph.variable(name, shape, { kind: "uniform", bound: 0.5 });

describe("gradients equal finite differences", () => {
  const bodies: Record<string, (x: Tensor) => Tensor> = {
    "embedding alone": (x) => x,
    "positions: a bias over two dimensions": (x) => x.biasAdd(weight(x, "p", [LENGTH, WIDTH])),
    "layer norm": nn.layerNorm("n"),
    "RMS norm": nn.rmsNorm("n"),
    "one gamma for two norms": (x) => {
      const gamma = weight(x, "gamma", [WIDTH]), beta = weight(x, "beta", [WIDTH]);
      return x.layerNorm(gamma, beta).add(x.scale(2, 1).silu().layerNorm(gamma, beta));
    },
    "GELU, erf form": (x) => x.matmul(weight(x, "w", [WIDTH, WIDTH])).gelu(),
    "GELU, tanh form": (x) => x.matmul(weight(x, "w", [WIDTH, WIDTH])).gelu("tanh"),
    "SiLU": (x) => x.matmul(weight(x, "w", [WIDTH, 5])).silu(),
    "rotary positions on some columns": (x) => x.matmul(weight(x, "w", [WIDTH, 15])).rope(3, 4, 100).attention(1),
    "Llama's block, two heads on one of keys": nn.llamaBlock("b", 2, 12, { keyHeads: 1, base: 100 }),
    "Llama's block, each head its own keys": nn.llamaBlock("b", 2, 12),
    "mul, div, sqrt and exp": (x) => {
      const y = x.matmul(weight(x, "w", [WIDTH, 5])), z = x.matmul(weight(x, "v", [WIDTH, 5])).scale(0.3).exp();
      return y.mul(z).add(y.div(z.mul(z).scale(1, 0.5).sqrt()).sub(z));
    },
    "log, erf, sigmoid and tanh": (x) => {
      const y = x.matmul(weight(x, "w", [WIDTH, 5]));
      return y.sigmoid().log().add(y.erf()).add(y.tanh().scale(3));
    },
    "transpose": (x) => x.matmul(weight(x, "w", [WIDTH, LENGTH])).transpose([0, 2, 1]).matmul(weight(x, "v", [LENGTH, 6])),
    "slice, pad by gradient, concat": (x) => x.slice(-1, 1, 4).concat([x.slice(-1, 3, 8), x.slice(1, 2, 3).expand([null, LENGTH, WIDTH])], 2),
    "expand and sum": (x) => x.sum([1]).reshape([null, 1, WIDTH]).expand([null, LENGTH, WIDTH]).mul(x.mul(x).sum([-1]).reshape([null, LENGTH, 1]).expand([null, LENGTH, WIDTH])),
    "sum over the batch": (x) => x.add(x.mul(x).sum([0]).expand([null, LENGTH, WIDTH]).scale(0.3)),
    "softmax": (x) => x.matmul(weight(x, "w", [WIDTH, 6])).softmax().scale(5),
    "attention of two heads": (x) => x.matmul(weight(x, "w", [WIDTH, 3 * WIDTH])).scale(2).attention(2),
    "attention to all positions": (x) => x.matmul(weight(x, "w", [WIDTH, 3 * WIDTH])).scale(2).attention(1, { causal: false }),
    "a product of three dimensions with its own transpose": (x) => x.matmul(x.matmul(x, { transposeA: true })).scale(0.1),
    "a block": nn.transformerBlock("b", 2),
  };
  for (const [name, body] of Object.entries(bodies)) it(name, () => checkGradients(around(body), 60));
  it("a GPT with its table used twice", () =>
    checkGradients(gpt2({ vocabulary: VOCABULARY, length: LENGTH, layers: 2, heads: 2, width: WIDTH }), 90));
});

describe("shapes", () => {
  const x = (shape: (number | null)[]): Tensor => new Graph().placeholder("x", shape);
  it.each<[string, () => unknown, RegExp]>([
    ["heads that do not divide", () => x([null, 4, 24]).attention(5), /5 heads need qkv of 3 x heads x size columns.*\(batch, 4, 24\)/],
    ["heads too wide", () => x([null, 4, 3 * 130]).attention(1), /size at most 128/],
    ["qkv without a batch", () => x([4, 24]).attention(2), /qkv must have rank 3/],
    ["gamma of another width", () => { const t = x([null, 8]); return t.rmsNorm(t.graph.variable("g", [7])); }, /gamma must be \(8\) for x \(batch, 8\), got \(7\)/],
    ["an epsilon of zero", () => { const t = x([null, 8]); return t.rmsNorm(t.graph.variable("g", [8]), 0); }, /"epsilon" must be above 0/],
    ["ids that are floats", () => { const t = x([null, 8]); return t.graph.variable("t", [9, 2]).embed(t); }, /ids must be i32, got f32/],
    ["a table of rank 1", () => { const t = x([null, 8]); return t.graph.variable("t", [9]).embed(t); }, /the table must have rank 2/],
    ["heads that do not fit", () => x([null, 4, 8]).rope(2, 6), /2 heads of 6 columns do not fit \(batch, 4, 8\)/],
    ["heads without halves", () => x([null, 4, 8]).rope(2, 3), /a head of 3 columns has no halves/],
    ["a batch moved back", () => x([null, 4, 8]).transpose([1, 0, 2]), /the batch must stay the first dimension/],
    ["an axis twice", () => x([null, 4, 8]).transpose([0, 1, 1]), /different axes/],
    ["a slice past the end", () => x([null, 4, 8]).slice(1, 2, 5), /2 to 5 is not within axis 1 of \(batch, 4, 8\)/],
    ["a slice of the batch", () => x([null, 4, 8]).slice(0, 0, 1), /the batch cannot be cut/],
    ["a join of other sizes", () => { const t = x([null, 4, 8]); return t.concat([t.slice(1, 0, 3)], 2); }, /differ along axis 2 alone, got \(batch, 4, 8\) and \(batch, 3, 8\)/],
    ["a repeat of sizes that are not 1", () => x([null, 4, 8]).expand([null, 4, 16]), /\(batch, 4, 8\) does not repeat to \(batch, 4, 16\)/],
    ["a sum over no axis", () => x([null, 4]).sum([2]), /there is no axis 2/],
    ["heads of keys that divide nothing", () => nn.llamaBlock("b", 4, 8, { keyHeads: 3 })(x([null, 4, 8])), /a width of 8 must be a multiple of 4 heads, and those of 3/],
    ["a bias that fits no suffix", () => { const t = x([null, 4, 8]); return t.biasAdd(t.graph.variable("b", [4])); }, /a bias of \(4\) does not match the last sizes of \(batch, 4, 8\)/],
    ["inner sizes of a three-dimensional product", () => { const t = x([null, 4, 8]); return t.matmul(t.graph.variable("w", [4, 8])); }, /inner sizes differ: \(batch, 4, 8\) x \(4, 8\)/],
    ["labels without the positions", () => { const t = x([null, 4, 8]); return nn.softmaxCrossEntropy(t, t.graph.placeholder("l", [null], "i32")); }, /labels must be \(batch, 4\)/],
  ])("%s", (_, make, message) => expect(make).toThrow(message));
});

describe("a small Llama", () => {
  it("learns to look back by one, takes the same bits on scalar code, and travels as data", async () => {
    const options = { vocabulary: 16, length: 24, layers: 2, heads: 4, keyHeads: 2, width: 32, hidden: 48 };
    const model = llama(options), adam = optim.adamW({ learningRate: 1e-2, beta1: 0.9, beta2: 0.95, weightDecay: 0.01 });
    const compiled = compileLocalTraining(model.graph, { loss: model.loss, batchSize: 8, optimizer: adam.descriptor });
    const scalar = openDevice({ backend: "cpu", isa: "scalar", threads: 1 });
    const run = async (on: typeof device, steps: number): Promise<{ losses: number[]; parameters: Float32Array }> => {
      const step = new LocalTrainStep(on, compiled, initialParameters(model.graph, 1)), random = new PhiloxStream(9n, 0), losses: number[] = [];
      for (let i = 0; i < steps; i++) {
        const tokens = Int32Array.from({ length: 8 * 24 }, () => random.below(16));
        losses.push((await step.run(tokens, tokens.map((token, at) => (at % 24 === 0 ? token : tokens[at - 1]!)))).loss);
      }
      const parameters = step.parameters();
      step.close();
      return { losses, parameters };
    };
    const [fast, slow] = [await run(device, 2), await run(scalar, 2)];
    scalar.close();
    expect(Buffer.from(fast.parameters.buffer).equals(Buffer.from(slow.parameters.buffer))).toBe(true);
    const { losses } = await run(device, 120);
    expect(Math.abs(losses[0]! - Math.log(16))).toBeLessThan(0.1);
    expect(losses.slice(-10).reduce((sum, loss) => sum + loss / 10, 0)).toBeLessThan(0.3);
    const job = { batchSize: 2, epochs: 1, seed: 1 }, text = canonicalJob({ operation: adam.minimize(model.loss), run: job });
    expect(canonicalJob({ operation: parseJob(text).operation, run: job })).toBe(text);
  });
});

describe("a small GPT", () => {
  const options = { vocabulary: 16, length: 24, layers: 2, heads: 2, width: 32 };
  const model = gpt2(options);
  const adam = optim.adamW({ learningRate: 1e-2, beta1: 0.9, beta2: 0.95, weightDecay: 0.01 });

  /** Random tokens, each labelled with the one before it: nothing but attention can tell. */
  function sequences(random: PhiloxStream, batch: number): { tokens: Int32Array; labels: Int32Array } {
    const tokens = Int32Array.from({ length: batch * options.length }, () => random.below(options.vocabulary));
    return { tokens, labels: tokens.map((token, i) => (i % options.length === 0 ? token : tokens[i - 1]!)) };
  }

  it("learns to look back by one: the loss falls from chance to almost nothing", async () => {
    const compiled = compileLocalTraining(model.graph, { loss: model.loss, batchSize: 16, optimizer: adam.descriptor });
    const step = new LocalTrainStep(device, compiled, initialParameters(model.graph, 1));
    const random = new PhiloxStream(9n, 0), losses: number[] = [];
    for (let i = 0; i < 150; i++) {
      const { tokens, labels } = sequences(random, 16);
      losses.push((await step.run(tokens, labels)).loss);
    }
    step.close();
    expect(Math.abs(losses[0]! - Math.log(16))).toBeLessThan(0.1);
    expect(losses.slice(-10).reduce((s, l) => s + l / 10, 0)).toBeLessThan(0.3);
  });

  it("takes the same bits on one thread of scalar code", async () => {
    const run = async (open: ReturnType<typeof openDevice>): Promise<Float32Array> => {
      const step = new LocalTrainStep(open, compileLocalTraining(model.graph, { loss: model.loss, batchSize: 3, optimizer: adam.descriptor }), initialParameters(model.graph, 1));
      const random = new PhiloxStream(2n, 0);
      for (let i = 0; i < 3; i++) { const { tokens, labels } = sequences(random, 3); await step.run(tokens, labels); }
      const parameters = step.parameters();
      step.close();
      return parameters;
    };
    const scalar = openDevice({ backend: "cpu", isa: "scalar", threads: 1 });
    const [a, b] = [await run(device), await run(scalar)];
    scalar.close();
    expect(Buffer.from(a.buffer).equals(Buffer.from(b.buffer))).toBe(true);
  });

  it("drops out in training alone, and differently in each run", async () => {
    const graph = new Graph();
    const images = graph.placeholder("x", [null, 6]), labels = graph.placeholder("labels", [null], "i32");
    const weights = graph.variable("w", [6, 40], { kind: "constant", value: 1 });
    const logits = images.matmul(weights).dropout(0.5, { stream: 1 }).matmul(graph.variable("v", [40, 4]));
    const loss = nn.softmaxCrossEntropy(logits, labels);
    const evaluated = compileEvaluation(graph, { loss, batchSize: 2 });
    expect(evaluated.spec.ops.some((op) => op.op === "dropout")).toBe(false);
    const compiled = compileStep(graph, { loss, batchSize: 2 });
    expect(compiled.spec.ops.filter((op) => op.op === "dropout")).toHaveLength(2); // forward and backward
    const plan = device.createPlan(compiled.spec);
    const gradientOf = (): string => {
      plan.write(compiled.tensors.x, new Float32Array(12).fill(1));
      plan.write(compiled.tensors.parametersFlat, initialParameters(graph, 1));
      plan.runSync();
      const out = new Float32Array(compiled.parameterCount);
      plan.read(compiled.tensors.gradientsFlat, out);
      return out.join();
    };
    const first = gradientOf(), second = gradientOf();
    expect(second).not.toBe(first);
    plan.write(compiled.tensors.run!, Float32Array.of(0));
    expect(gradientOf()).toBe(first); // the run's number is all the state there is
    plan.close();
  });

  it("clips the joint norm of all gradients", async () => {
    const compiled = compileStep(model.graph, { loss: model.loss, batchSize: 2, clipNorm: 0.01 });
    const step = new TrainStep(device, compiled);
    step.setParameters(initialParameters(model.graph, 1));
    const { tokens, labels } = sequences(new PhiloxStream(3n, 0), 2);
    const { gradient } = await step.run(tokens, labels);
    expect(Math.sqrt(gradient.reduce((s, g) => s + g * g, 0))).toBeCloseTo(0.01, 5);
    step.close();
  });

  it("learns with Muon, whose first step moves each matrix by an orthogonal one", async () => {
    const muon = optim.muon({ learningRate: 0.02, vectorRate: 1e-2, weightDecay: 0 });
    const compiled = compileLocalTraining(model.graph, { loss: model.loss, batchSize: 16, optimizer: muon.descriptor });
    const before = initialParameters(model.graph, 1), step = new LocalTrainStep(device, compiled, before);
    const random = new PhiloxStream(9n, 0), losses: number[] = [];
    const run = async (): Promise<void> => { const { tokens, labels } = sequences(random, 16); losses.push((await step.run(tokens, labels)).loss); };
    await run();
    const after = step.parameters();
    for (const { name, shape, offset, size } of compiled.parameters) {
      const [rows, columns] = shape as [number, number];
      if (shape.length !== 2 || /^(tokens|positions)/.test(name)) continue;
      const rate = 0.02 * Math.sqrt(Math.max(1, columns / rows));
      let square = 0;
      for (let i = offset; i < offset + size; i++) square += ((after[i]! - before[i]!) / rate) ** 2;
      // Each of the min(rows, columns) singular values is within the quintic's band around 1.
      const mean = square / Math.min(rows, columns);
      expect(mean, name).toBeGreaterThan(0.4);
      expect(mean, name).toBeLessThan(1.5);
    }
    for (let i = 0; i < 120; i++) await run();
    step.close();
    expect(losses.slice(-10).reduce((s, l) => s + l / 10, 0)).toBeLessThan(0.4);
    expect(() => parseJob(canonicalJob({ operation: muon.minimize(model.loss), run: { batchSize: 2, epochs: 1, seed: 1 } }))).toThrow(/muon needs whole matrices/);
  });

  it.each([0, 7, 2 ** 40 + 3])("starts from the same bits on the device, seed %d", (seed) => {
    const graph = gpt2({ ...options, vocabulary: 13 }).graph;
    graph.variable("uniform", [3, 7], { kind: "uniform", bound: 0.3 });
    const [want, got] = [initialParameters(graph, seed), initialParametersOn(device, graph, seed)];
    expect(Buffer.from(got.buffer).equals(Buffer.from(want.buffer))).toBe(true);
  });

  it("refuses tokens and labels outside the vocabulary, and batches of another size", async () => {
    const step = new TrainStep(device, compileStep(model.graph, { loss: model.loss, batchSize: 1 }));
    const fine = new Int32Array(24), high = Int32Array.from(fine, (_, i) => (i === 7 ? 16 : 0));
    await expect(step.run(high, fine)).rejects.toThrow(/token 16 of row 0 is not in 0..15/);
    await expect(step.run(fine, high)).rejects.toThrow(/label 16 of row 0 is not in 0..15/);
    await expect(step.run(fine.subarray(1), fine)).rejects.toThrow(/1 rows of 24 elements and 24 labels/);
    step.close();
  });

  it("knows more positions than a sequence has, under the same weights", async () => {
    const wide = gpt2({ ...options, length: 8, context: 24 });
    expect(compileEvaluation(wide.graph, { loss: wide.loss, batchSize: 1 }).parameters).toEqual(compileEvaluation(model.graph, { loss: model.loss, batchSize: 1 }).parameters);
    const { tokens, labels } = sequences(new PhiloxStream(4n, 0), 1), parameters = initialParameters(model.graph, 1);
    const slots = parameterLayout(model.graph).parameters;
    /** The gradient by name, from the same weights by name; a table that is shorter takes its first rows. */
    const gradient = async (of: LanguageModel): Promise<Map<string, Float32Array>> => {
      const compiled = compileStep(of.graph, { loss: of.loss, batchSize: 1 }), step = new TrainStep(device, compiled);
      const flat = new Float32Array(compiled.parameterCount);
      compiled.parameters.forEach(({ offset, size }, i) => flat.set(parameters.subarray(slots[i]!.offset, slots[i]!.offset + size), offset));
      step.setParameters(flat);
      const { gradient: view } = await step.run(tokens.subarray(0, 8), labels.subarray(0, 8));
      const named = new Map(compiled.parameters.map(({ name, offset, size }) => [name, view.slice(offset, offset + size)]));
      step.close();
      return named;
    };
    const known = await gradient(wide), own = await gradient(gpt2({ ...options, length: 8 }));
    expect(known.get("positions/weight")!.subarray(8 * 32).every((g) => g === 0)).toBe(true);
    known.set("positions/weight", known.get("positions/weight")!.slice(0, 8 * 32));
    expect(known).toEqual(own);
  });

  it("travels as data: the job's text gives the same job back", () => {
    const run = { batchSize: 2, epochs: 1, seed: 1 };
    const text = canonicalJob({ operation: adam.minimize(model.loss), run });
    const parsed = parseJob(text);
    expect(canonicalJob({ operation: parsed.operation, run: parsed.run })).toBe(text);
    expect(parsed.cost.multiplyAddsPerStep).toBeGreaterThan(0);
  });

  it("keeps one copy of the logits, and writes the norms' gradients in place", () => {
    const { spec, parameterCount } = compileStep(model.graph, { loss: model.loss, batchSize: 4 });
    const entropy = spec.ops.find((op) => op.op === "softmax_xent")!;
    expect(spec.tensors[entropy.out[1]!]!.offsetBytes).toBe(spec.tensors[entropy.in[0]!]!.offsetBytes);
    const table = spec.ops.find((op) => op.op === "embedding_grad")!;
    expect(table.attrs).toEqual({ accumulate: 1 }); // onto the projection's gradient, which lies there already
    expect(spec.tensors[table.out[0]!]!.name).toBe("tokens/weight:gradient");
    for (const op of spec.ops.filter((each) => each.op === "layer_norm_grad")) {
      for (const sum of op.out.slice(1)) expect(spec.tensors[sum]!.offsetBytes).toBeLessThan(8 * parameterCount);
    }
  });
});
