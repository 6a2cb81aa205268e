/**
 * ONNX in and out, beside ONNX Runtime (its WebAssembly build, which needs no download but the package): a model
 * that PyTorch wrote is fine-tuned and written again, each operator gives what the other runtime gives, our models
 * leave as ONNX, and hostile files are refused by name.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as ort from "onnxruntime-web";
import { afterAll, describe, expect, it } from "vitest";
import { openDevice, type TensorArray } from "../../../src/device/device.js";
import { compileLocalTraining } from "../../../src/training/compile/compile.js";
import { compileFetches } from "../../../src/training/compile/fetch.js";
import { initialParameters } from "../../../src/training/compile/layout.js";
import { FetchPlan } from "../../../src/training/fetch-plan.js";
import { exportOnnx } from "../../../src/training/format/onnx/export.js";
import { importOnnx, ONNX_OPERATORS, type OnnxImportOptions } from "../../../src/training/format/onnx/import.js";
import { encodeModel } from "../../../src/training/format/onnx/schema.js";
import { floatTensor, intTensor } from "../../../src/training/format/onnx/tensor.js";
import { PhiloxStream } from "../../../src/training/graph/philox.js";
import type { Graph, Tensor } from "../../../src/training/graph/graph.js";
import { cnn, gpt2, llama } from "../../../src/training/models.js";
import * as nn from "../../../src/training/nn.js";
import * as optim from "../../../src/training/optimizer/optim.js";
import { LocalTrainStep } from "../../../src/training/train-step.js";

ort.env.wasm.numThreads = 1;
const device = openDevice({ backend: "cpu" });
afterAll(() => device.close());
const TOLERANCE = 1e-5;

const random = new PhiloxStream(11n, 0);
const floats = (count: number, scale = 2): Float32Array => Float32Array.from({ length: count }, () => (random.uniform() - 0.5) * scale);
const product = (shape: readonly number[]): number => shape.reduce((all, size) => all * size, 1);

interface Fed { name: string; data: TensorArray; shape: number[] }

async function other(bytes: Uint8Array, feeds: readonly Fed[]): Promise<Map<string, { shape: readonly number[]; data: Float32Array }>> {
  const session = await ort.InferenceSession.create(bytes, { logSeverityLevel: 3 });
  const typed = (data: TensorArray): ["float32" | "int32" | "uint8", TensorArray] => [data instanceof Float32Array ? "float32" : data instanceof Int32Array ? "int32" : "uint8", data];
  const results = await session.run(Object.fromEntries(feeds.map(({ name, data, shape }) => {
    const wide = session.inputMetadata.find((each) => each.name === name) as { type?: string } | undefined;
    if (wide?.type === "int64") return [name, new ort.Tensor("int64", BigInt64Array.from(data as Int32Array, BigInt), shape)];
    return [name, new ort.Tensor(...(typed(data) as ["float32", Float32Array]), shape)];
  })));
  await session.release();
  return new Map(Object.entries(results).map(([name, { dims, data }]) => [name, { shape: dims, data: data as Float32Array }]));
}

async function ours(graph: Graph, outputs: readonly Tensor[], parameters: Float32Array, feeds: Record<string, TensorArray>, batchSize: number): Promise<TensorArray[]> {
  const plan = new FetchPlan(device, compileFetches(graph, { fetches: outputs, batchSize }));
  const results = await plan.run({ parameters, feeds });
  plan.close();
  return results;
}

function close(got: ArrayLike<number>, want: ArrayLike<number>, what: string): void {
  expect(got.length, what).toBe(want.length);
  for (let i = 0; i < want.length; i++) {
    const fine = Object.is(got[i], want[i]) || Math.abs(got[i]! - want[i]!) <= TOLERANCE * (1 + Math.abs(want[i]!));
    if (!fine) throw new Error(`${what}: element ${i} is ${got[i]}, the other runtime has ${want[i]}`);
  }
}

describe("a model from PyTorch", () => {
  const file = readFileSync(join(import.meta.dirname, "cnn.onnx"));

  it("is imported, fine-tuned and exported, with the other runtime's outputs before and after", async () => {
    const { graph, inputs: [image], outputs: [logits], parameters } = importOnnx(file);
    expect([image!.name, image!.tensor.shape, logits!.name, logits!.tensor.shape]).toEqual(["image", [-1, 1, 8, 8], "logits", [-1, 10]]);
    const x = floats(6 * 64, 4), feeds = [{ name: "image", data: x, shape: [6, 1, 8, 8] }];
    close((await ours(graph, [logits!.tensor], parameters, { image: x }, 6))[0]!, (await other(file, feeds)).get("logits")!.data, "as imported");

    const labels = graph.placeholder("labels", [null], "i32"), loss = nn.softmaxCrossEntropy(logits!.tensor, labels);
    const compiled = compileLocalTraining(graph, { loss, batchSize: 6, optimizer: optim.adam({ learningRate: 5e-3, beta1: 0.9 }).descriptor });
    const step = new LocalTrainStep(device, compiled, parameters), losses: number[] = [];
    for (let i = 0; i < 20; i++) losses.push((await step.run(x, Uint8Array.from([0, 1, 2, 3, 4, 5]))).loss);
    const tuned = step.parameters();
    step.close();
    expect(losses.at(-1)!).toBeLessThan(losses[0]! / 4);

    const written = exportOnnx(graph, { outputs: [logits!.tensor], parameters: tuned, outputNames: ["logits"] });
    const [expected] = await ours(graph, [logits!.tensor], tuned, { image: x }, 6);
    close((await other(written, feeds)).get("logits")!.data, expected!, "fine-tuned and exported");
    const again = importOnnx(written);
    close((await ours(again.graph, [again.outputs[0]!.tensor], again.parameters, { image: x }, 6))[0]!, expected!, "imported again");
    expect(again.graph.nodes.filter(({ op }) => op === "transpose").length).toBeLessThanOrEqual(graph.nodes.filter(({ op }) => op === "transpose").length);
  });
});

/** Attributes by their JavaScript form: 1 is an int, 0.5 a float, [1] ints, "x" a string. */
type Attributes = Record<string, number | string | readonly number[] | { float: number }>;
interface Op { type: string; in?: string[]; out?: string[]; with?: Attributes; domain?: string }
interface Made { nodes: Op[]; weights?: Record<string, [number[], ArrayLike<number>] | number[]>; inputs?: Record<string, (number | string)[]>; outputs?: string[]; opset?: number; types?: Record<string, number> }

const attribute = (name: string, value: Attributes[string]): object =>
  typeof value === "string" ? { name, type: 3, s: new TextEncoder().encode(value) }
    : typeof value === "object" && "float" in value ? { name, type: 1, f: value.float }
      : typeof value === "object" ? { name, type: 7, ints: value }
        : Number.isInteger(value) ? { name, type: 2, i: value } : { name, type: 1, f: value };

function onnx({ nodes, weights = {}, inputs = { x: [2, 6] }, outputs = ["y"], opset = 20, types = {} }: Made): Uint8Array {
  return encodeModel({
    irVersion: 9, producerName: "test", opsetImport: [{ domain: "", version: opset }],
    graph: {
      name: "g",
      node: nodes.map((op, i) => ({ opType: op.type, name: `${op.type}${i}`, domain: op.domain ?? "", input: op.in ?? ["x"], output: op.out ?? ["y"], attribute: Object.entries(op.with ?? {}).map(([name, value]) => attribute(name, value)) })),
      initializer: Object.entries(weights).map(([name, value]) => (value.length === 2 && Array.isArray(value[0])
        ? floatTensor(name, value[0], Float32Array.from(value[1] as ArrayLike<number>)) : intTensor(name, [value.length], value as number[]))),
      input: Object.entries(inputs).map(([name, shape]) => ({ name, type: { tensorType: { elemType: types[name] ?? 1, shape: { dim: shape.map((size) => (typeof size === "string" ? { dimParam: size } : { dimValue: size })) } } } })),
      output: outputs.map((name) => ({ name, type: { tensorType: { elemType: 1 } } })),
    },
  });
}

const w = (...shape: number[]): [number[], Float32Array] => [shape, floats(product(shape))];
const one = (type: string, options: Omit<Made, "nodes"> & { in?: string[]; with?: Attributes } = {}): Made =>
  ({ ...options, nodes: [{ type, in: options.in ?? ["x"], ...(options.with && { with: options.with }) }] });
const image = { x: ["n", 3, 7, 8] };
const CASES: Record<string, Made> = {
  ...Object.fromEntries(["Relu", "Sigmoid", "Tanh", "Exp", "Erf", "Neg", "Abs", "Reciprocal", "HardSwish", "Identity", "Gelu", "LeakyRelu", "HardSigmoid"].map((type) => [type, one(type)])),
  "Gelu, tanh": one("Gelu", { with: { approximate: "tanh" } }),
  "LeakyRelu 0.2": one("LeakyRelu", { with: { alpha: 0.2 } }),
  "Sqrt and Log of positives": { nodes: [{ type: "Abs", out: ["a"] }, { type: "Sqrt", in: ["a"], out: ["b"] }, { type: "Log", in: ["b"] }] },
  ...Object.fromEntries(["Add", "Sub", "Mul", "Div"].flatMap((type) => [
    [`${type} of two inputs`, one(type, { in: ["x", "z"], inputs: { x: ["n", 3, 4], z: ["n", 3, 4] } })],
    [`${type} by a number`, one(type, { in: ["x", "c"], weights: { c: [[], [0.3]] } })],
    [`${type} of a number`, one(type, { in: ["c", "x"], weights: { c: [[1], [0.3]] } })],
    [`${type} by a vector`, one(type, { in: ["x", "c"], inputs: { x: ["n", 3, 4] }, weights: { c: w(4) } })],
    [`${type} of an image by channels`, { nodes: [{ type: "Conv", in: ["x", "k"], out: ["a"] }, { type, in: ["a", "c"], out: ["b"] }, { type: type === "Div" ? "Mul" : type, in: ["c", "b"] }], inputs: image, weights: { k: w(3, 3, 2, 2), c: [[3, 1, 1], [0.5, -0.7, 2]] } }],
    [`${type} by channels`, one(type, { in: ["x", "c"], inputs: image, weights: { c: w(3, 1, 1) } })],
    [`${type} to a larger shape`, one(type, { in: ["c", "x"], inputs: { x: ["n", 1, 4] }, weights: { c: w(1, 3, 1) } })],
  ])),
  "Pow 2": one("Pow", { in: ["x", "c"], weights: { c: [[], [2]] } }),
  "Pow 3": one("Pow", { in: ["x", "c"], weights: { c: [[], [3]] } }),
  "Clip": one("Clip", { in: ["x", "a", "b"], weights: { a: [[], [-0.3]], b: [[], [0.6]] } }),
  "Clip above": one("Clip", { in: ["x", "", "b"], weights: { b: [[], [0.2]] } }),
  "Clip of set 9": one("Clip", { with: { min: { float: 0 }, max: { float: 0.5 } }, opset: 9 }),
  "Max": one("Max", { in: ["x", "z", "c"], inputs: { x: ["n", 6], z: ["n", 6] }, weights: { c: w(6) } }),
  "Min and Sum": { nodes: [{ type: "Min", in: ["x", "c"], out: ["a"] }, { type: "Sum", in: ["x", "a", "c"] }], weights: { c: w(6) } },
  "Softmax": one("Softmax"),
  "Softmax over channels": one("Softmax", { with: { axis: 1 }, inputs: { x: ["n", 3, 4] } }),
  "LogSoftmax": one("LogSoftmax"),
  "LayerNormalization": one("LayerNormalization", { in: ["x", "g", "b"], weights: { g: w(6), b: w(6) } }),
  "LayerNormalization without shift": one("LayerNormalization", { in: ["x", "g"], weights: { g: w(6) }, with: { epsilon: 0.01 } }),
  "BatchNormalization": one("BatchNormalization", { in: ["x", "s", "b", "m", "v"], inputs: image, weights: { s: w(3), b: w(3), m: w(3), v: [[3], [0.5, 1, 2]] } }),
  "BatchNormalization of rows": one("BatchNormalization", { in: ["x", "s", "b", "m", "v"], inputs: { x: ["n", 3] }, weights: { s: w(3), b: w(3), m: w(3), v: [[3], [0.5, 1, 2]] } }),
  "MatMul": one("MatMul", { in: ["x", "c"], inputs: { x: ["n", 3, 6] }, weights: { c: w(6, 5) } }),
  "Gemm": one("Gemm", { in: ["x", "c", "b"], inputs: { x: ["n", 6] }, weights: { c: w(5, 6), b: w(5) }, with: { transB: 1, alpha: { float: 0.5 }, beta: { float: 2 } } }),
  "Gemm of a transposed input": one("Gemm", { in: ["x", "c"], inputs: { x: [6, 4] }, weights: { c: w(6, 5) }, with: { transA: 1 } }),
  "Conv": one("Conv", { in: ["x", "k", "b"], inputs: image, weights: { k: w(4, 3, 3, 3), b: w(4) }, with: { pads: [1, 1, 1, 1] } }),
  "Conv with strides and uneven pads": one("Conv", { in: ["x", "k"], inputs: image, weights: { k: w(4, 3, 2, 3) }, with: { strides: [2, 1], pads: [0, 1, 1, 0] } }),
  "Conv padded as wide as its kernel": one("Conv", { in: ["x", "k"], inputs: image, weights: { k: w(2, 3, 1, 1) }, with: { pads: [1, 1, 1, 1] } }),
  "Conv SAME": one("Conv", { in: ["x", "k"], inputs: image, weights: { k: w(2, 3, 4, 3) }, with: { auto_pad: "SAME_UPPER", strides: [2, 2] } }),
  "MaxPool": one("MaxPool", { inputs: image, with: { kernel_shape: [3, 3], strides: [2, 2] } }),
  "MaxPool padded behind Relu": { nodes: [{ type: "Relu", out: ["r"] }, { type: "MaxPool", in: ["r"], with: { kernel_shape: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1] } }], inputs: image },
  "AveragePool": one("AveragePool", { inputs: image, with: { kernel_shape: [2, 2], strides: [1, 1], pads: [1, 1, 1, 1], count_include_pad: 1 } }),
  "GlobalAveragePool": one("GlobalAveragePool", { inputs: image }),
  "Conv, Relu, Conv, add, pool": { nodes: [
    { type: "Conv", in: ["x", "k"], out: ["a"], with: { pads: [1, 1, 1, 1] } }, { type: "Relu", in: ["a"], out: ["b"] }, { type: "Conv", in: ["b", "k"], out: ["c"], with: { pads: [1, 1, 1, 1] } },
    { type: "Add", in: ["c", "x"], out: ["d"] }, { type: "Add", in: ["c", "d"], out: ["e"] }, { type: "GlobalAveragePool", in: ["e"], out: ["f"] }, { type: "Flatten", in: ["f"] }], inputs: image, weights: { k: w(3, 3, 3, 3) } },
  "ReduceMean": one("ReduceMean", { in: ["x", "a"], inputs: { x: ["n", 3, 4] }, weights: { a: [-1] } }),
  "ReduceMean of set 13": one("ReduceMean", { inputs: image, with: { axes: [2, 3], keepdims: 0 }, opset: 13 }),
  "ReduceSum of the middle": one("ReduceSum", { in: ["x", "a"], inputs: { x: ["n", 3, 4] }, weights: { a: [1] }, with: { keepdims: 0 } }),
  "Reshape": one("Reshape", { in: ["x", "s"], inputs: { x: ["n", 3, 4] }, weights: { s: [0, 2, -1] } }),
  "Reshape by computed sizes": { nodes: [{ type: "Shape", out: ["a"] }, { type: "Gather", in: ["a", "i"], out: ["b"], with: { axis: 0 } }, { type: "Concat", in: ["b", "r"], out: ["c"], with: { axis: 0 } }, { type: "Reshape", in: ["x", "c"] }], inputs: { x: ["n", 3, 4] }, weights: { i: [0], r: [-1] } },
  "sizes computed from sizes": { nodes: [{ type: "Shape", out: ["a"] }, { type: "Slice", in: ["a", "s", "e"], out: ["b"] }, { type: "Cast", in: ["b"], out: ["c"], with: { to: 7 } }, { type: "Mul", in: ["c", "two"], out: ["d"] }, { type: "Div", in: ["d", "four"], out: ["h"] }, { type: "Concat", in: ["z", "h", "r"], out: ["f"], with: { axis: 0 } }, { type: "Reshape", in: ["x", "f"] }], inputs: { x: ["n", 3, 4] }, weights: { s: [2], e: [3], two: [2], four: [4], z: [0], r: [-1] } },
  "Flatten": one("Flatten", { inputs: image }),
  "Flatten from axis 2 of fixed sizes": one("Flatten", { inputs: { x: [2, 3, 4] }, with: { axis: 2 } }),
  "Transpose": one("Transpose", { inputs: { x: ["n", 3, 4] }, with: { perm: [0, 2, 1] } }),
  "Transpose of all": one("Transpose", { inputs: { x: [2, 3, 4] } }),
  "Concat": one("Concat", { in: ["x", "z", "x"], inputs: { x: ["n", 3, 4], z: ["n", 2, 4] }, with: { axis: 1 } }),
  "Concat of ten": one("Concat", { in: Array.from({ length: 10 }, () => "x"), inputs: { x: ["n", 3] }, with: { axis: -1 } }),
  "Split": { nodes: [{ type: "Split", out: ["a", "b"], in: ["x", "s"], with: { axis: 1 } }, { type: "Mul", in: ["a", "b"] }], inputs: { x: ["n", 6] }, weights: { s: [3, 3] } },
  "Split by a count": { nodes: [{ type: "Split", out: ["a", "b", "c"], with: { axis: 1, num_outputs: 3 } }, { type: "Concat", in: ["c", "a", "b"], with: { axis: 1 } }], inputs: { x: ["n", 8] } },
  "Slice": one("Slice", { in: ["x", "s", "e", "a"], inputs: { x: ["n", 5, 6] }, weights: { s: [1, -4], e: [1000, -1], a: [1, 2] } }),
  "Squeeze and Unsqueeze": { nodes: [{ type: "Unsqueeze", in: ["x", "a"], out: ["u"] }, { type: "Squeeze", in: ["u", "b"] }], inputs: { x: ["n", 1, 4] }, weights: { a: [1, 4], b: [1] } },
  "Expand": one("Expand", { in: ["x", "s"], inputs: { x: ["n", 1, 4] }, weights: { s: [1, 3, 4] } }),
  "Gather from a table": one("Gather", { in: ["t", "x"], inputs: { x: ["n", 3] }, types: { x: 7 }, weights: { t: w(9, 5) } }),
  "Gather of one place": { nodes: [{ type: "Constant", in: [], out: ["i"], with: { value_int: 2 } }, { type: "Gather", in: ["x", "i"], with: { axis: 1 } }], inputs: { x: ["n", 3, 4] } },
  "Pad": one("Pad", { in: ["x", "p"], inputs: { x: ["n", 3, 4] }, weights: { p: [0, 1, 0, 0, 0, 2] } }),
  "Dropout": one("Dropout", { with: {} }),
  "Cast of bytes": { nodes: [{ type: "Cast", out: ["f"], with: { to: 1 } }, { type: "Mul", in: ["f", "c"] }], types: { x: 2 }, weights: { c: [[], [0.01]] } },
  "ConstantOfShape, folded weights": { nodes: [{ type: "ConstantOfShape", in: ["s"], out: ["z"] }, { type: "Add", in: ["z", "c"], out: ["d"] }, { type: "Transpose", in: ["d"], out: ["e"] }, { type: "MatMul", in: ["x", "e"] }], weights: { s: [4, 6], c: w(6) } },
  "Swish written out": { nodes: [{ type: "Sigmoid", out: ["s"] }, { type: "Mul", in: ["x", "s"] }] },
};

describe("each operator gives what the other runtime gives", () => {
  it.each(Object.entries(CASES))("%s", async (_, made) => {
    const bytes = onnx(made), batchSize = 3, model = importOnnx(bytes);
    const feeds = model.inputs.map(({ name, tensor }): Fed => {
      const shape = tensor.shape.map((size) => (size === -1 ? batchSize : size)), count = product(shape);
      const data = tensor.dtype === "f32" ? floats(count, 3) : tensor.dtype === "i32" ? Int32Array.from({ length: count }, () => random.below(9)) : Uint8Array.from({ length: count }, () => random.below(256));
      return { name, data, shape };
    });
    const results = await ours(model.graph, model.outputs.map(({ tensor }) => tensor), model.parameters, Object.fromEntries(feeds.map(({ name, data }) => [name, data])), batchSize);
    const expected = await other(bytes, feeds);
    model.outputs.forEach(({ name, tensor }, i) => {
      expect(tensor.shape.map((size) => (size === -1 ? batchSize : size)), "shape").toEqual([...expected.get(name)!.shape]);
      close(results[i]!, expected.get(name)!.data, name);
    });
    // And out again: our own form of the same model.
    const written = exportOnnx(model.graph, { outputs: model.outputs.map(({ tensor }) => tensor), parameters: model.parameters, outputNames: model.outputs.map(({ name }) => name) });
    const back = await other(written, feeds);
    for (const { name } of model.outputs) close(back.get(name)!.data, expected.get(name)!.data, `${name}, exported`);
  });

  it("and every operator that is listed is among them", () => {
    const tried = new Set(Object.values(CASES).flatMap(({ nodes }) => nodes.map(({ type }) => type)));
    // Newer than what the other runtime has, or than the set that the models above are of.
    expect(ONNX_OPERATORS.filter((type) => !tried.has(type))).toEqual(["RMSNormalization", "Swish"]);
    expect(ONNX_OPERATORS.length).toBeGreaterThanOrEqual(50);
  });
});

describe("our models leave as ONNX", () => {
  const language = { vocabulary: 17, length: 7, layers: 2, heads: 4, width: 16 };
  const trained = (graph: Graph): Float32Array => initialParameters(graph, 3).map((value, i) => value + 0.1 * Math.sin(i));
  it.each([
    ["GPT-2", gpt2(language), { tokens: Int32Array.from({ length: 14 }, () => random.below(17)) }],
    ["Llama, two heads on one of keys", llama({ ...language, keyHeads: 2, hidden: 24 }), { tokens: Int32Array.from({ length: 14 }, () => random.below(17)) }],
    ["the CNN", cnn({ height: 12, width: 12, filters: [3, 4], units: 6 }), { images: Uint8Array.from({ length: 2 * 144 }, () => random.below(256)) }],
  ] as const)("%s", async (_, { graph, logits }, feeds) => {
    const parameters = trained(graph), [name, data] = Object.entries(feeds)[0] as [string, TensorArray], shape = graph.nodes.find((node) => node.name === name)!.shape.with(0, 2);
    const [expected] = await ours(graph, [logits], parameters, feeds as unknown as Record<string, TensorArray>, 2);
    const bytes = exportOnnx(graph, { outputs: [logits], parameters, outputNames: ["logits"] });
    close((await other(bytes, [{ name, data, shape: [...shape] }])).get("logits")!.data, expected!, "logits");
  });
  it("refuses losses, and parameters of another model", () => {
    const { graph, loss, logits } = cnn();
    expect(() => exportOnnx(graph, { outputs: [loss], parameters: trained(graph) })).toThrow(/softmaxCrossEntropy ".*": has no form in ONNX/);
    expect(() => exportOnnx(graph, { outputs: [logits], parameters: new Float32Array(3) })).toThrow(/parameters, got 3/);
  });
});

describe("weights", () => {
  it("stay tied where a file transposes a table for its head", () => {
    const bytes = onnx({ nodes: [{ type: "Gather", in: ["t", "x"], out: ["e"] }, { type: "Transpose", in: ["t"], out: ["h"] }, { type: "MatMul", in: ["e", "h"] }], inputs: { x: ["n", 3] }, types: { x: 7 }, weights: { t: w(9, 5) } });
    expect(importOnnx(bytes).graph.variables().map(({ name }) => name)).toEqual(["t"]);
  });
  it("that a Constant node holds are not trained", () => {
    const constant = { opType: "Constant", name: "c", input: [], output: ["c"], attribute: [{ name: "value", type: 4, t: floatTensor("", [6], floats(6)) }] };
    const bytes = encodeModel({ irVersion: 9, opsetImport: [{ domain: "", version: 20 }], graph: { name: "g", node: [constant, { opType: "Mul", name: "m", input: ["x", "c"], output: ["y"], attribute: [] }], input: [{ name: "x", type: { tensorType: { elemType: 1, shape: { dim: [{ dimParam: "n" }, { dimValue: 6 }] } } } }], output: [{ name: "y" }] } });
    expect(importOnnx(bytes).graph.nodes.filter(({ op }) => op === "stopGradient")).toHaveLength(1);
  });
  it("beside the file are read by the caller's function alone, within a folder", () => {
    const model = (location: string): Uint8Array => encodeModel({ irVersion: 9, opsetImport: [{ domain: "", version: 20 }], graph: { name: "g", node: [{ opType: "Add", name: "a", input: ["x", "w"], output: ["y"], attribute: [] }],
      initializer: [{ name: "w", dims: [6], dataType: 1, dataLocation: 1, externalData: [{ key: "location", value: location }, { key: "offset", value: "8" }] }], input: [{ name: "x", type: { tensorType: { elemType: 1, shape: { dim: [{ dimValue: 2 }, { dimValue: 6 }] } } } }], output: [{ name: "y" }] } });
    expect(() => importOnnx(model("w.bin"))).toThrow(/lies in another file; pass `externalData`/);
    const asked: unknown[] = [];
    const options: OnnxImportOptions = { externalData: (...place) => { asked.push(place); return new Uint8Array(Float32Array.of(1, 2, 3, 4, 5, 6).buffer); } };
    expect([...importOnnx(model("w.bin"), options).parameters.subarray(0, 6)]).toEqual([1, 2, 3, 4, 5, 6]);
    expect(asked).toEqual([["w.bin", 8, 24]]);
    for (const path of ["/etc/passwd", "../w.bin", "a/../../w.bin", "C:\\w.bin", "", "a\0b"]) expect(() => importOnnx(model(path), options), path).toThrow(/no place within a folder/);
  });
});

describe("the importer refuses", () => {
  const tensor = (fields: object): Uint8Array => encodeModel({ irVersion: 9, opsetImport: [{ domain: "", version: 20 }], graph: { name: "g", node: [{ opType: "Add", name: "a", input: ["x", "w"], output: ["y"], attribute: [] }], initializer: [{ name: "w", ...fields }], input: [{ name: "x", type: { tensorType: { elemType: 1, shape: { dim: [{ dimValue: 2 }] } } } }], output: [{ name: "y" }] } });
  it.each<[string, Uint8Array, RegExp]>([
    ["an empty file", new Uint8Array(0), /no graph/],
    ["bytes that are no model", Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0xff), /no model|no graph/],
    ["a cut file", onnx(one("Relu")).subarray(0, 40), /no model/],
    ["an unknown operator", onnx(one("NonMaxSuppression")), /NonMaxSuppression "NonMaxSuppression0" is not supported; supported are Abs, Add, /],
    ["an operator of the prototype", onnx(one("constructor")), /constructor "constructor0" is not supported/],
    ["another domain", onnx({ nodes: [{ type: "Relu", domain: "com.example" }] }), /com.example.Relu "Relu0" is not supported/],
    ["an attribute that is not known", onnx(one("Relu", { with: { leak: 1 } })), /Relu "Relu0": the attribute "leak" is not supported/],
    ["an old operator set", onnx(one("Relu", { opset: 6 })), /operator set 6 is not read/],
    ["a cycle", onnx({ nodes: [{ type: "Add", in: ["x", "z"] }, { type: "Relu", in: ["y"], out: ["z"] }] }), /Add "Add0" reads "z", which no input, weight or earlier node gives/],
    ["a missing weight", onnx(one("Add", { in: ["x", "w"] })), /reads "w"/],
    ["a name twice", onnx({ nodes: [{ type: "Relu" }, { type: "Relu" }] }), /"y" is defined twice/],
    ["an output that nobody gives", onnx(one("Relu", { outputs: ["z"] })), /output "z" is given by no node/],
    ["a missing input", onnx(one("Add", { in: ["x"] })), /Add "Add0": input 1 is missing/],
    ["shapes that do not fit", onnx(one("Add", { in: ["x", "w"], weights: { w: w(5) } })), /do not broadcast/],
    ["a product that does not fit", onnx(one("MatMul", { in: ["x", "w"], weights: { w: w(5, 6) } })), /MatMul "MatMul0": .*inner sizes differ/],
    ["products of two computed batches", onnx(one("MatMul", { in: ["x", "x"], inputs: { x: ["n", 4, 4] } })), /the right one must be a matrix/],
    ["grouped convolution", onnx(one("Conv", { in: ["x", "k"], inputs: image, weights: { k: w(3, 1, 3, 3) }, with: { group: 3 } })), /groups are not supported/],
    ["dilation", onnx(one("Conv", { in: ["x", "k"], inputs: image, weights: { k: w(3, 3, 2, 2) }, with: { dilations: [2, 2] } })), /dilations/],
    ["a negative pad", onnx(one("Conv", { in: ["x", "k"], inputs: image, weights: { k: w(3, 3, 2, 2) }, with: { pads: [-1, 0, 0, 0] } })), /"pads" must be four sizes/],
    ["a pool padded where zeros would count", onnx(one("MaxPool", { inputs: image, with: { kernel_shape: [3, 3], pads: [1, 1, 1, 1] } })), /behind Relu alone/],
    ["a join of the batch", onnx(one("Reshape", { in: ["x", "s"], inputs: { x: ["n", 3, 4] }, weights: { s: [-1, 2] } })), /cannot be reshaped/],
    ["a reshape to other counts", onnx(one("Reshape", { in: ["x", "s"], weights: { s: [5, 5] } })), /cannot be reshaped/],
    ["two open sizes", onnx(one("Reshape", { in: ["x", "s"], weights: { s: [-1, -1] } })), /more than one open/],
    ["a giant constant", onnx({ nodes: [{ type: "ConstantOfShape", in: ["s"], out: ["c"] }, { type: "Add", in: ["x", "c"] }], weights: { s: [2 ** 31, 2 ** 31] } }), /are not made at import/],
    ["giant broadcasts", onnx({ nodes: [{ type: "Add", in: ["a", "b"], out: ["c"] }, { type: "Add", in: ["x", "c"] }], weights: { a: [[70_000, 1], new Float32Array(70_000)], b: [[1, 70_000], new Float32Array(70_000)] } }), /4900000000 elements is not computed/],
    ["sizes computed with the batch", onnx({ nodes: [{ type: "Shape", out: ["a"] }, { type: "Mul", in: ["a", "a"], out: ["b"] }, { type: "Reshape", in: ["x", "b"] }], inputs: { x: ["n", 4] } }), /size of the batch, which is not known/],
    ["shapes that are computed from data", onnx({ nodes: [{ type: "Reshape", in: ["x", "s"] }], inputs: { x: [2, 6], s: [2] }, types: { s: 7 } }), /must be known when the model is read/],
    ["a negative dimension", tensor({ dims: [-2], dataType: 1, rawData: new Uint8Array(8) }), /tensor "w" has a dimension of -2/],
    ["a dimension of 2^40", tensor({ dims: [2 ** 40], dataType: 1 }), /dimension of 1099511627776/],
    ["data that is too short", tensor({ dims: [2], dataType: 1, rawData: new Uint8Array(4) }), /needs 8 bytes, got 4/],
    ["dimensions without data", tensor({ dims: [2147483647, 2147483647], dataType: 1 }), /needs 4611686014132420600 elements, got 0/],
    ["texts", tensor({ dims: [2], dataType: 8 }), /has the type string/],
    ["whole numbers as weights", tensor({ dims: [2], dataType: 7, int64Data: [1, 2] }), /whole numbers/],
    ["an unnamed dimension inside", onnx({ nodes: [{ type: "Relu" }], inputs: { x: [2, "length"] } }), /dimension 1 \("length"\) of the input "x" has no size; give it by `dimensions`/],
    ["a negative input size", onnx({ nodes: [{ type: "Relu" }], inputs: { x: [2, -3] } }), /the input "x" has the shape \[2,-3\]/],
    ["an input of texts", onnx({ nodes: [{ type: "Relu" }], types: { x: 8 } }), /input "x" is of string/],
  ])("%s", (_, bytes, message) => {
    let error: unknown;
    try { importOnnx(bytes); } catch (thrown) { error = thrown; }
    expect((error as Error | undefined)?.message).toMatch(message);
    expect((error as { code?: string }).code).toBe("format");
  });

  it("nothing but with its own error: a byte changed anywhere", () => {
    const file = onnx(CASES["sizes computed from sizes"]!), flips = new PhiloxStream(5n, 0);
    for (let round = 0; round < 600; round++) {
      const damaged = file.slice();
      damaged[flips.below(file.length)] = flips.below(256);
      try { importOnnx(damaged); } catch (error) {
        if ((error as { code?: string }).code !== "format") throw error;
      }
    }
  });

  it("named dimensions take the sizes that are given", () => {
    const bytes = onnx({ nodes: [{ type: "Relu" }], inputs: { x: ["n", "length"] } });
    expect(importOnnx(bytes, { dimensions: { length: 5 } }).outputs[0]!.tensor.shape).toEqual([-1, 5]);
    expect(importOnnx(bytes, { shapes: { x: [4, 7] } }).outputs[0]!.tensor.shape).toEqual([4, 7]);
  });
});
