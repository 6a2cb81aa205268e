// What a product fuses gives the bits of the separate operations: on every instruction set and thread count, for
// fp32 and exact-int, over fuzzed shapes with hostile values; and whole compiled plans give the bits of the same
// plans taken apart.
import { afterAll, describe, expect, test } from "vitest";
import { openDevice, type Device, type PlanOp, type PlanSpec } from "../../src/device/device.js";
import { compileStep } from "../../src/training/compile/compile.js";
import { initialParameters } from "../../src/training/compile/layout.js";
import { Graph, type Tensor } from "../../src/training/graph/graph.js";
import { gpt2, mlp } from "../../src/training/models.js";
import * as nn from "../../src/training/nn.js";
import { bits, f32, randomFloats, seeded } from "./reference.js";

const devices: { name: string; device: Device }[] = [];
for (const isa of ["scalar", "avx2", "avx512", "amx"] as const)
  for (const threads of isa === "scalar" ? [1] : [1, 3]) {
    try { devices.push({ name: `${isa} x ${threads}`, device: openDevice({ backend: "cpu", isa, threads }) }); }
    catch { /* this processor lacks the instruction set */ }
  }
afterAll(() => { for (const d of devices) d.device.close(); });

const random = seeded(99_991);
const below = (n: number) => Math.floor(random() * n);
/** Bits with every NaN the same: payloads and signs of NaN are outside the contract. */
const canonical = (a: Float32Array): Buffer => bits(a.map((x) => (Number.isNaN(x) ? NaN : x)));
const UNFUSED = { relu: "relu", gelu: "gelu", geluTanh: "gelu_tanh", silu: "silu" } as const;

/**
 * The plan with every product's epilogue as operations of their own, over tensors added at its end. Copies are
 * x - 0: adding +0 would turn -0 into +0.
 */
function takenApart(spec: PlanSpec): PlanSpec {
  const tensors = [...spec.tensors], ops: PlanOp[] = [];
  let { arenaBytes } = spec;
  const temporary = (shape: number[]): number => {
    tensors.push({ name: `apart${tensors.length}`, dtype: "f32", shape, offsetBytes: arenaBytes });
    arenaBytes += Math.ceil((4 * shape.reduce((p, d) => p * d, 1)) / 64) * 64;
    return tensors.length - 1;
  };
  for (const op of spec.ops) {
    if (op.op !== "gemm") { ops.push(op); continue; }
    const { gradient, residual, relu, gelu, geluTanh, silu, ...attrs } = op.attrs ?? {};
    const flags = { relu, gelu, geluTanh, silu } as Record<string, number | undefined>;
    const activation = Object.entries(UNFUSED).find(([name]) => flags[name])?.[1];
    const inputs = [...op.in], shape = spec.tensors[op.out[0]!]!.shape;
    const added = residual ? inputs.pop()! : undefined, before = gradient ? inputs.pop()! : undefined;
    const bias = inputs.length > 2 ? inputs.pop() : undefined;
    // An accumulating product needs what its output holds.
    let value = attrs.accumulate ? op.out[0]! : temporary(shape);
    ops.push({ op: "gemm", in: inputs, out: [value], attrs });
    const next = (kind: PlanOp["op"], more: number[] = []): void => {
      const to = temporary(shape);
      ops.push({ op: kind, in: [value, ...more], out: [to] });
      value = to;
    };
    if (bias !== undefined) next("bias_add", [bias]);
    if (op.out.length > 1) ops.push({ op: "scale", in: [value], out: [op.out[1]!], attrs: { alpha: 1, beta: -0 } });
    if (activation !== undefined && before === undefined) next(activation);
    if (activation !== undefined && before !== undefined) next(`${activation}_grad`, [before]);
    if (added !== undefined) next("add", [added]);
    if (value !== op.out[0]) ops.push({ op: "scale", in: [value], out: [op.out[0]!], attrs: { alpha: 1, beta: -0 } });
  }
  return { tensors, arenaBytes, ops };
}

/** Runs a plan over the given values and reads the tensors asked for. */
function results(device: Device, spec: PlanSpec, given: [number, Float32Array | Int32Array | Uint8Array][], wanted: number[]): Buffer {
  const plan = device.createPlan(spec);
  for (const [id, data] of given) plan.write(id, data as Float32Array);
  plan.runSync();
  const out = wanted.map((id) => {
    const data = f32(spec.tensors[id]!.shape.reduce((p, d) => p * d, 1));
    plan.read(id, data);
    return canonical(data);
  });
  plan.close();
  return Buffer.concat(out);
}

const SHAPES: [number, number, number][] = [[1, 1, 1], [3, 5, 0], [0, 4, 3], [4, 0, 3], [9, 47, 512], [13, 49, 1025], [400, 33, 20]];
for (let i = 0; i < 10; i++) SHAPES.push([1 + below(50), 1 + below(100), 1 + below(i < 3 ? 1200 : 60)]);
const HOSTILE = [NaN, Infinity, -Infinity, 1e-41, -0, 3e38, -120, 20];

describe("products", () => {
  test.each(SHAPES)("%d x %d x %d: fused equals separate, on every device", (m, n, k) => {
    for (const activation of ["none", ...Object.keys(UNFUSED)]) {
      const gradient = activation !== "none" && below(2), residual = below(2), saved = !gradient && below(2);
      const slices = k > 0 && k < 100 ? [0, 2, 3][below(3)]! : 0;
      const attrs: Record<string, number> = { transA: below(2), transB: below(2), accumulate: below(3) === 0 ? 1 : 0, residual, gradient: Number(gradient), slices };
      if (activation !== "none") attrs[activation] = 1;
      const shapes = [attrs.transA ? [k, m] : [m, k], attrs.transB ? [n, k] : [k, n]];
      if (below(2)) shapes.push([n]);
      const inputs = shapes.length + Number(gradient) + residual;
      while (shapes.length < inputs) shapes.push([m, n]);
      shapes.push([m, n]);
      if (saved) shapes.push([m, n]);
      let arenaBytes = 0;
      const tensors = shapes.map((shape, i) => {
        const offsetBytes = arenaBytes;
        arenaBytes += Math.ceil((4 * shape[0]! * (shape[1] ?? 1)) / 64) * 64;
        return { name: `t${i}`, dtype: "f32" as const, shape, offsetBytes };
      });
      const given = shapes.map((shape, i): [number, Float32Array] => {
        const data = randomFloats(shape[0]! * (shape[1] ?? 1), random, 3);
        if (i > 2) HOSTILE.forEach((value) => { if (data.length > 0) data[below(data.length)] = value; });
        return [i, data];
      });
      const outputs = shapes.map((_, i) => i).slice(inputs);
      const spec: PlanSpec = { tensors, arenaBytes, ops: [{ op: "gemm", in: shapes.map((_, i) => i).slice(0, inputs), out: outputs, attrs }] };
      const apart = takenApart(spec);
      let first: Buffer | undefined;
      for (const { name, device } of devices) {
        const fused = results(device, spec, given, outputs);
        first ??= fused;
        expect(fused.equals(first), `${name}, ${JSON.stringify(attrs)}`).toBe(true);
        expect(results(device, apart, given, outputs).equals(fused), `taken apart on ${name}, ${JSON.stringify(attrs)}`).toBe(true);
      }
    }
  });

  test("what does not fit is refused", () => {
    const device = devices[0]!.device;
    const tensors = [[4, 4], [4, 4], [4], [4, 4], [4, 4], [4, 4], [4, 5]].map((shape, i) => ({ name: `t${i}`, dtype: "f32" as const, shape, offsetBytes: 128 * i }));
    const refused = (inputs: number[], out: number[], attrs: Record<string, number>, code: string): void =>
      expect(() => device.createPlan({ tensors, arenaBytes: 1024, ops: [{ op: "gemm", in: inputs, out, attrs }] })).toThrow(expect.objectContaining({ code }) as Error);
    device.createPlan({ tensors, arenaBytes: 1024, ops: [{ op: "gemm", in: [0, 1, 2, 3], out: [4, 5], attrs: { gelu: 1, residual: 1 } }] }).close();
    refused([0, 1], [4], { relu: 1, silu: 1 }, "argument");
    refused([0, 1, 3], [4], { gradient: 1 }, "argument"); // of what?
    refused([0, 1, 3], [4, 5], { gradient: 1, relu: 1 }, "argument");
    refused([0, 1], [4], { residual: 1 }, "argument"); // which one?
    refused([0, 1, 6], [4], { residual: 1 }, "shape");
    refused([0, 1, 4], [4], { residual: 1 }, "argument"); // sums of chunks would lie over it
    refused([0, 1], [4, 4], {}, "argument");
    refused([0, 1], [4, 6], {}, "shape");
  });
});

describe("compiled plans", () => {
  const GPT = { vocabulary: 23, length: 9, layers: 2, heads: 2, width: 16 };
  const weight = (x: Tensor, name: string, shape: number[]): Tensor => x.graph.variable(name, shape, { kind: "uniform", bound: 0.5 });
  const shared = (): nn.Classifier => nn.classifier(new Graph(), [5, 4, 1], (x) => {
    const flat = x.flatten(), w = weight(x, "w", [20, 20]);
    const z = flat.matmul(w).biasAdd(weight(x, "b", [20]));
    // z is read by two activations, one of which is not the first to come; products are added to products.
    return nn.dense("logits", 4)(z.gelu().matmul(w).add(z.silu().matmul(w)).add(flat).relu());
  }, { scale: 1 / 128, shift: -1 });
  test.each<[string, () => { graph: Graph; loss: Tensor }, number, string[]]>([
    ["an MLP", () => mlp({ height: 6, width: 5, hidden: [33, 17] }), 13, ["relu", "relu_grad", "bias_add"]],
    ["GPT-2", () => gpt2(GPT), 3, ["gelu_tanh", "gelu_tanh_grad", "bias_add"]],
    ["values that are read twice", shared, 6, []],
  ])("%s: the bits of the plan taken apart", (_, make, batchSize, gone) => {
    const model = make();
    const compiled = compileStep(model.graph, { loss: model.loss, batchSize });
    const names = compiled.spec.ops.map((op) => op.op as string);
    // The positions' bias of GPT-2 is a table, and no vector.
    expect(names.filter((name) => gone.includes(name)).length).toBe(gone.includes("gelu_tanh") ? 1 : 0);
    expect(names.filter((name) => name === "gemm").length).toBeGreaterThan(3);
    const { x, labels, loss, parametersFlat, gradientsFlat } = compiled.tensors;
    const rows = batchSize * compiled.rowElements;
    const images = compiled.inputType === "u8" ? Uint8Array.from({ length: rows }, () => below(256)) : Int32Array.from({ length: rows }, () => below(GPT.vocabulary));
    const given: Parameters<typeof results>[2] = [
      [x, images], [labels, Int32Array.from({ length: batchSize * compiled.rowLabels }, () => below(compiled.classes))],
      [parametersFlat, initialParameters(model.graph, 5)],
    ];
    for (const { name, device } of devices) {
      const fused = results(device, compiled.spec, given, [loss, gradientsFlat]);
      expect(results(device, takenApart(compiled.spec), given, [loss, gradientsFlat]).equals(fused), name).toBe(true);
    }
  });
});
