/**
 * Owns: the update at the end of a local training plan, in terms of plan ops.
 */
import { TrainingError } from "../errors.js";
import type { OptimizerDescriptor } from "../optimizer/descriptor.js";
import { alignElements, type ParameterSlot } from "./layout.js";
import type { PlanBuilder, PlanTensor } from "./plan-builder.js";

export interface UpdateTensors {
  slots: readonly (ParameterSlot & { matrix: boolean })[];
  /** Flat vectors of one layout, and where each starts in the arena. */
  parameters: PlanTensor;
  gradients: PlanTensor;
  moments: readonly PlanTensor[];
  step: PlanTensor | undefined;
  bytes: { parameters: number; gradients: number; moments: readonly number[] };
}

export function emitUpdate(builder: PlanBuilder, optimizer: OptimizerDescriptor, tensors: UpdateTensors): void {
  if (optimizer.decay !== undefined) {
    throw new TrainingError("option", "a local plan has a constant learning rate: leave decay out");
  }
  const { parameters: p, gradients: g, moments, step } = tensors;
  const { learningRate, weightDecay = 0 } = optimizer;
  switch (optimizer.kind) {
    case "sgd":
      return builder.emit("sgd", [p, g], [p], { learningRate, weightDecay });
    case "momentum":
      return builder.emit("momentum", [p, g, moments[0]!], [p, moments[0]!],
        { learningRate, weightDecay, momentum: optimizer.momentum, nesterov: Number(optimizer.nesterov ?? false) });
    case "adam": {
      const { beta1, beta2, epsilon } = optimizer;
      const [m, v] = moments as [PlanTensor, PlanTensor];
      return builder.emit("adam", [p, g, m, v, step!], [p, m, v, step!], { learningRate, weightDecay, beta1, beta2, epsilon });
    }
    case "muon":
      return emitMuon(builder, optimizer, tensors);
  }
}

type Muon = Extract<OptimizerDescriptor, { kind: "muon" }>;

/** Matrices one by one; what lies between two matrices is one vector for AdamW, with a step count of its own. */
function emitMuon(builder: PlanBuilder, optimizer: Muon, tensors: UpdateTensors): void {
  const { slots, bytes } = tensors;
  const { vectorRate, weightDecay = 0, beta1, beta2, epsilon } = optimizer;
  const at = (name: string, shape: readonly number[], start: number, base: number): PlanTensor =>
    builder.fixed(name, shape, "f32", base + start * 4);
  for (let i = 0; i < slots.length; i++) {
    const { name, shape, offset, matrix } = slots[i]!;
    if (matrix) {
      emitMatrix(builder, optimizer, at(name, shape, offset, bytes.parameters),
        at(`${name}:gradient`, shape, offset, bytes.gradients), at(`${name}:m`, shape, offset, bytes.moments[0]!));
      continue;
    }
    let last = i;
    while (last + 1 < slots.length && !slots[last + 1]!.matrix) last++;
    const size = alignElements(slots[last]!.offset + slots[last]!.size) - offset;
    const [p, g, m, v] = [bytes.parameters, bytes.gradients, ...bytes.moments]
      .map((base) => at(`${name}...`, [size], offset, base)) as [PlanTensor, PlanTensor, PlanTensor, PlanTensor];
    const step = builder.kept(`${name}:step`, [1]);
    builder.emit("adam", [p, g, m, v, step], [p, m, v, step], { learningRate: vectorRate, weightDecay, beta1, beta2, epsilon });
    i = last;
  }
}

/** Newton-Schulz by a quintic that takes singular values of [0, 1] near 1 in five steps (Jordan et al. 2024). */
const QUINTIC = { a: 3.4445, b: -4.775, c: 2.0315 };
const NEWTON_SCHULZ_STEPS = 5;

/** p (in, out), its gradient and momentum: m = mu m + g; p -= rate * orthogonal(g + mu m). */
function emitMatrix(builder: PlanBuilder, optimizer: Muon, p: PlanTensor, g: PlanTensor, m: PlanTensor): void {
  const [rows, columns] = p.shape as [number, number];
  const { momentum, learningRate, weightDecay = 0 } = optimizer;
  const tall = rows > columns, side = Math.min(rows, columns);
  const scale = (from: PlanTensor, to: PlanTensor, alpha: number): void => builder.emit("scale", [from], [to], { alpha, beta: 0 });
  const square = (name: string): PlanTensor => builder.temporary(`muon:${name}`, [side, side]);
  let x = builder.temporary("muon:x", p.shape), y = builder.temporary("muon:y", p.shape);
  scale(m, m, momentum);
  builder.emit("add", [m, g], [m]);
  scale(m, x, momentum);
  builder.emit("add", [x, g], [x]);
  const norm = builder.temporary("muon:norm", [1]);
  builder.emit("global_norm", [x], [norm]);
  builder.emit("clip", [x, norm], [x], { limit: 1, normalize: 1 });
  const gram = square("gram"), scaled = square("scaled"), polynomial = square("polynomial");
  for (let i = 0; i < NEWTON_SCHULZ_STEPS; i++) {
    // X = a X + (b G + c G G) X with G = X X', on whichever side is the shorter.
    builder.emit("gemm", [x, x], [gram], { transA: Number(tall), transB: Number(!tall) });
    scale(gram, polynomial, QUINTIC.b);
    scale(gram, scaled, QUINTIC.c);
    builder.emit("gemm", [scaled, gram], [polynomial], { accumulate: 1 });
    scale(x, y, QUINTIC.a);
    builder.emit("gemm", tall ? [x, polynomial] : [polynomial, x], [y], { accumulate: 1 });
    [x, y] = [y, x];
  }
  if (weightDecay > 0) scale(p, p, 1 - learningRate * weightDecay);
  scale(x, y, -learningRate * Math.sqrt(Math.max(1, columns / rows)));
  builder.emit("add", [p, y], [p]);
}
