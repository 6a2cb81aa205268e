/** Finite differences against the compiled gradients: per op and for both models. */
import { describe, expect, it } from "vitest";
import { compileStep } from "../../src/training/compile/compile.js";
import { initialParameters } from "../../src/training/compile/layout.js";
import { Graph, type Tensor } from "../../src/training/graph/graph.js";
import { PhiloxStream } from "../../src/training/graph/philox.js";
import { cnn, mlp } from "../../src/training/models.js";
import * as nn from "../../src/training/nn.js";
import { PlanInterpreter } from "./plan-interpreter.js";

const BATCH = 3;

/** Compares d loss / d parameter with central differences, for `samples` parameters. */
function checkGradients(net: nn.Classifier, samples: number, tolerance = 2e-2): void {
  const compiled = compileStep(net.graph, { loss: net.loss, correct: net.correct, batchSize: BATCH });
  const random = new PhiloxStream(7n, 0);
  const images = Uint8Array.from({ length: BATCH * compiled.rowElements }, () => random.below(256));
  const labels = Int32Array.from({ length: BATCH }, () => random.below(compiled.classes));
  const flat = initialParameters(net.graph, 11);
  for (const { offset, size } of compiled.parameters) {
    for (let i = offset; i < offset + size; i++) flat[i]! += 0.1 * (random.uniform() - 0.5); // biases off 0
  }
  const plan = new PlanInterpreter(compiled.spec);
  const lossAt = (parameters: Float32Array): number => {
    plan.write(compiled.tensors.x, images);
    plan.write(compiled.tensors.labels, labels);
    plan.write(compiled.tensors.parametersFlat, parameters);
    plan.runSync();
    return plan.view(compiled.tensors.loss)[0]!;
  };
  lossAt(flat);
  const gradient = Float32Array.from(plan.view(compiled.tensors.gradientsFlat));
  const h = 1e-2;
  const scale = Math.max(...gradient.map(Math.abs));
  expect(scale).toBeGreaterThan(1e-4);
  const each = Math.ceil(samples / compiled.parameters.length);
  for (const { name, offset, size } of compiled.parameters) {
    let worst = 0;
    for (let n = 0; n < Math.min(each, size); n++) {
      const i = offset + random.below(size);
      const moved = Float32Array.from(flat);
      moved[i] = flat[i]! + h;
      const up = lossAt(moved);
      moved[i] = flat[i]! - h;
      const numeric = (up - lossAt(moved)) / (2 * h);
      // A step across a ReLU or pool kink is no derivative: judge by the best of two step sizes.
      moved[i] = flat[i]! + h / 8;
      const closeUp = lossAt(moved);
      moved[i] = flat[i]! - h / 8;
      const close = (closeUp - lossAt(moved)) / (h / 4);
      worst = Math.max(worst, Math.min(Math.abs(numeric - gradient[i]!), Math.abs(close - gradient[i]!)));
    }
    expect(worst / scale, name).toBeLessThan(tolerance);
  }
}

/** A tiny classifier over 6 x 6 x 2 images around the layer under test. */
function around(body: (x: Tensor) => Tensor): nn.Classifier {
  return nn.classifier(new Graph(), [6, 6, 2], (x) => nn.dense("logits", 4)(body(x).flatten()), { scale: 1 / 128, shift: -1 });
}

describe("gradients equal finite differences", () => {
  const variable = (x: Tensor, name: string, shape: number[]): Tensor => x.graph.variable(name, shape,
    { kind: "uniform", bound: 0.5 });
  const bodies: Record<string, (x: Tensor) => Tensor> = {
    "matmul and bias": (x) => x.flatten().matmul(variable(x, "w", [72, 5])).biasAdd(variable(x, "b", [5])),
    "matmul with b transposed": (x) => x.flatten().matmul(variable(x, "w", [5, 72]), { transposeB: true }),
    "matmul with a transposed": (x) => {
      const product = variable(x, "a", [72, 3]).matmul(variable(x, "w", [72, 5]), { transposeA: true });
      return x.flatten().matmul(variable(x, "v", [72, 3])).matmul(product);
    },
    "both transposed": (x) => x.flatten().matmul(
      variable(x, "a", [3, 72]).matmul(variable(x, "w", [5, 3]), { transposeA: true, transposeB: true })),
    "bias on something else than a product": (x) => x.biasAdd(variable(x, "b", [2])).relu(),
    "relu alone": (x) => x.scale(0.5, 0.1).relu(),
    "convolution, padded": (x) => x.conv2d(variable(x, "w", [3, 3, 2, 4]), { padding: 1 }).biasAdd(variable(x, "b", [4])).relu(),
    "convolution, strided": (x) => x.conv2d(variable(x, "w", [2, 3, 2, 3]), { stride: 2 }),
    "two convolutions": (x) => x.conv2d(variable(x, "w", [3, 3, 2, 3]), { padding: 1 }).relu()
      .conv2d(variable(x, "v", [3, 3, 3, 2]), { padding: 1, stride: 2 }).relu(),
    "max pool after relu": (x) => x.conv2d(variable(x, "w", [3, 3, 2, 4]), { padding: 1 }).relu().maxPool(2),
    "max pool without relu": (x) => x.conv2d(variable(x, "w", [3, 3, 2, 4]), { padding: 1 }).maxPool(3, 1),
    "overlapping max pool of a relu": (x) => x.conv2d(variable(x, "w", [3, 3, 2, 4]), { padding: 1 }).relu().maxPool(3, 2),
    "average pool": (x) => x.conv2d(variable(x, "w", [3, 3, 2, 4]), { padding: 1 }).avgPool(2),
    "a value used twice": (x) => {
      const y = x.flatten().matmul(variable(x, "w", [72, 72]));
      return y.relu().add(y.scale(-0.25)).add(x.flatten());
    },
    "a shared variable": (x) => {
      const w = variable(x, "w", [72, 72]);
      return x.flatten().matmul(w).relu().matmul(w).scale(0.1);
    },
    "a relu that a pool and another op read": (x) => {
      const y = x.conv2d(variable(x, "w", [3, 3, 2, 4]), { padding: 1 }).relu();
      return y.maxPool(2).flatten().matmul(variable(x, "v", [36, 5])).add(y.flatten().matmul(variable(x, "u", [144, 5])));
    },
  };
  for (const [name, body] of Object.entries(bodies)) it(name, () => checkGradients(around(body), 60));

  it("a scaled sum of losses", () => {
    const net = around((x) => x.conv2d(variable(x, "w", [3, 3, 2, 4])).relu());
    checkGradients({ ...net, loss: net.loss.scale(0.5).add(net.loss.scale(2)) }, 40);
  });
  it("the MLP", () => checkGradients(mlp({ height: 6, width: 6, hidden: [12, 8] }), 60));
  it("the CNN", () => checkGradients(cnn({ height: 12, width: 12, filters: [3, 4], units: 8 }), 80));

  it("skips the first layer's input gradient and nothing else", () => {
    const net = cnn();
    const { spec } = compileStep(net.graph, { loss: net.loss, batchSize: 4 });
    const count = (op: string): number => spec.ops.filter((step) => step.op === op).length;
    expect([count("conv2d"), count("conv2d_dw"), count("conv2d_dx")]).toEqual([2, 2, 1]);
    expect([count("relu"), count("add"), count("scale")]).toEqual([0, 0, 0]); // all fused, all placed
  });
});
