/**
 * Owns: the compiler from a graph to a native plan: gradients, fusion, memory.
 * Invariant: in the arena all parameters are one contiguous flat vector, all gradients another of
 * the same layout, so a parameter server pulls, pushes and applies single vectors.
 */
import type { PlanSpec } from "../../device/device.js";
import { GraphError, TrainingError } from "../errors.js";
import { gradients } from "../graph/autodiff.js";
import type { Graph, Tensor } from "../graph/graph.js";
import { BATCH, elementsOf, OPS, type DType } from "../graph/ops.js";
import { momentsOf, type OptimizerDescriptor } from "../optimizer/descriptor.js";
import { parameterLayout, type ParameterSlot } from "./layout.js";
import { Lowering } from "./lower.js";
import { alignBytes } from "./memory.js";
import { bytesOf, PlanBuilder, type PlanTensor } from "./plan-builder.js";
import { emitUpdate } from "./update.js";

export interface CompileOptions {
  loss: Tensor;
  logits?: Tensor;
  correct?: Tensor;
  /** Rows of one run. */
  batchSize: number;
  /** Gradients whose joint norm is above this are scaled down to it (Pascanu et al. 2013). */
  clipNorm?: number;
  /**
   * Of matrix products, forward and backward: "bf16" rounds their operands and sums in fp32, for tensor cores. Its bits
   * differ between devices; "f32", the default, has the same bits everywhere.
   */
  precision?: "f32" | "bf16";
}

/** Plan tensors by role: indices into spec.tensors. */
export interface CompiledTensors {
  x: number;
  labels: number;
  loss: number;
  /** Rows classified correctly, where the graph counts them. */
  correct?: number;
  logits?: number;
  parametersFlat: number;
  gradientsFlat?: number;
  /** Local training alone: moments and the step counter of Adam. */
  moments?: number[];
  step?: number;
  /** How many runs there were, where a graph drops out: it chooses which elements. */
  run?: number;
  /** The gradient's norm before clipping. */
  norm?: number;
}

export interface Compiled {
  spec: PlanSpec;
  parameters: readonly ParameterSlot[];
  /** Length of the flat parameter vector, alignment gaps included. */
  parameterCount: number;
  tensors: CompiledTensors;
  batchSize: number;
  /** Elements of one row of x, and its type. */
  rowElements: number;
  inputType: DType;
  /** Labels of one row of x: 1, or one for each position of a sequence. */
  rowLabels: number;
  /** Columns of the logits that the loss reads: labels must be below it. */
  classes: number;
  /** Rows of the smallest table that embeds x, when one does: inputs must be below it. */
  vocabulary?: number;
  /** Multiply-adds of products and convolutions in one run. */
  multiplyAdds: number;
}

/** Forward and backward: loss and gradients, parameters untouched. */
export function compileStep(graph: Graph, options: CompileOptions): Compiled & { tensors: { gradientsFlat: number } } {
  return compile(graph, options, { backward: true }) as Compiled & { tensors: { gradientsFlat: number } };
}

/** Forward alone. */
export function compileEvaluation(graph: Graph, options: CompileOptions): Compiled {
  return compile(graph, options, { backward: false });
}

/** Forward, backward and the update as one plan: training in a single process. */
export function compileLocalTraining(graph: Graph, options: CompileOptions & { optimizer: OptimizerDescriptor }): Compiled {
  return compile(graph, options, { backward: true, optimizer: options.optimizer });
}

interface Mode { backward: boolean; optimizer?: OptimizerDescriptor }

function compile(source: Graph, options: CompileOptions, mode: Mode): Compiled {
  const { batchSize } = options;
  if (!Number.isInteger(batchSize) || batchSize < 1) {
    throw new TrainingError("option", `batchSize must be a positive integer, got ${String(batchSize)}`);
  }
  const precision: unknown = options.precision ?? "f32";
  if (precision !== "f32" && precision !== "bf16") {
    throw new TrainingError("option", `precision must be f32 or bf16, got ${String(precision)}`);
  }
  if (options.loss.shape.length !== 0) {
    throw new GraphError("shape", "a loss must be a scalar", { op: options.loss.op, node: options.loss.name })
      .located(source.positionOf(options.loss.id));
  }
  const graph = source.clone();
  const rebind = (tensor: Tensor | undefined): Tensor | undefined => {
    if (tensor !== undefined && tensor.graph !== source) {
      throw new GraphError("name", `${tensor.toString()} belongs to another graph`);
    }
    return tensor && graph.tensor(tensor.id);
  };
  const loss = rebind(options.loss)!, logits = rebind(options.logits), correct = rebind(options.correct);
  const { images, labels, classes, vocabulary } = endsOf(graph, loss);
  const layout = parameterLayout(graph);
  const variables = graph.variables();
  const derived = mode.backward ? gradients(loss, variables) : [];

  // The fixed start of the arena: flat vectors first, then what is fed and what is read.
  let cursor = 0;
  const reserve = (bytes: number): number => {
    const offset = cursor;
    cursor = alignBytes(cursor + bytes);
    return offset;
  };
  const fixShape = (tensor: Tensor): number[] => tensor.shape.map((size) => (size === BATCH ? batchSize : size));
  const flatBytes = layout.parameterCount * 4;
  const moments = mode.optimizer === undefined ? [] : momentsOf(mode.optimizer);
  const offsets = {
    parameters: reserve(flatBytes),
    gradients: mode.backward ? reserve(flatBytes) : 0,
    moments: moments.map(() => reserve(flatBytes)),
    step: reserve(4),
    x: reserve(bytesOf(fixShape(images), images.dtype)),
    labels: reserve(bytesOf(fixShape(labels), "i32")),
    loss: reserve(4),
    correct: reserve(4),
    run: reserve(4),
    norm: reserve(4),
  };
  const builder = new PlanBuilder(cursor);
  const flat = (name: string, offset: number): PlanTensor => builder.fixed(name, [layout.parameterCount], "f32", offset);
  const parametersFlat = flat("parameters", offsets.parameters);
  const gradientsFlat = mode.backward ? flat("gradients", offsets.gradients) : undefined;
  const x = builder.fixed(images.name, fixShape(images), images.dtype, offsets.x);
  const labelTensor = builder.fixed(labels.name, fixShape(labels), "i32", offsets.labels);
  const lossTensor = builder.fixed("loss", [1], "f32", offsets.loss);
  const given = new Map<number, PlanTensor>([[images.id, x], [labels.id, labelTensor]]);
  const targets = new Map<number, PlanTensor[]>([[loss.id, [lossTensor]]]);
  const roots = [loss.id];
  const slotTensor = (base: number, i: number, suffix: string): PlanTensor => {
    const slot = layout.parameters[i]!;
    return builder.fixed(slot.name + suffix, slot.shape, "f32", base + slot.offset * 4);
  };
  variables.forEach((variable, i) => given.set(variable.id, slotTensor(offsets.parameters, i, "")));
  derived.forEach((gradient, i) => {
    if (gradient === undefined) return; // the loss does not read it: its gradient stays zero
    targets.set(gradient.id, [...(targets.get(gradient.id) ?? []), slotTensor(offsets.gradients, i, ":gradient")]);
    roots.push(gradient.id);
  });
  let correctTensor: PlanTensor | undefined;
  if (correct !== undefined) {
    correctTensor = builder.fixed("correct", [1], "f32", offsets.correct);
    targets.set(correct.id, [correctTensor]);
    roots.push(correct.id);
  }
  if (logits !== undefined) roots.push(logits.id);

  const drops = mode.backward && graph.nodes.some((node) => node.op === "dropout");
  const run = drops ? builder.fixed("run", [1], "f32", offsets.run) : undefined;
  if (run !== undefined) builder.emit("scale", [run], [run], { alpha: 1, beta: 1 });
  const lowering = new Lowering(builder, { graph, batchSize, roots, given, targets, ...(run && { run }),
    ...(options.precision && { precision: options.precision }) });
  const write = lowering.liveNodes().find(({ op }) => OPS[op]!.writes);
  if (write !== undefined) {
    throw new GraphError("unsupported", "in training the optimizer alone changes variables", { op: write.op, node: write.name })
      .located(source.positionOf(write.id));
  }
  lowering.run();
  const logitsTensor = logits && lowering.value(logits.id);
  if (logitsTensor) builder.pin(logitsTensor);
  const norm = gradientsFlat && options.clipNorm !== undefined ? builder.fixed("norm", [1], "f32", offsets.norm) : undefined;
  if (norm !== undefined) {
    builder.emit("global_norm", [gradientsFlat!], [norm]);
    builder.emit("clip", [gradientsFlat!, norm], [gradientsFlat!], { limit: options.clipNorm! });
  }
  const momentTensors = moments.map((name, i) => flat(name, offsets.moments[i]!));
  const step = moments.length === 2 ? builder.fixed("step", [1], "f32", offsets.step) : undefined;
  if (mode.optimizer !== undefined) {
    const embedded = new Set(graph.nodes.filter((node) => node.op === "embedding").map((node) => node.inputs[0]));
    emitUpdate(builder, mode.optimizer, {
      slots: layout.parameters.map((slot, i) => ({ ...slot, matrix: slot.shape.length === 2 && !embedded.has(variables[i]!.id) })),
      parameters: parametersFlat, gradients: gradientsFlat!, moments: momentTensors, step,
      bytes: { parameters: offsets.parameters, gradients: offsets.gradients, moments: offsets.moments },
    });
  }
  return {
    spec: builder.build(), ...layout, batchSize, classes,
    rowElements: elementsOf(fixShape(images)) / batchSize, inputType: images.dtype,
    rowLabels: elementsOf(fixShape(labels)) / batchSize, ...(vocabulary !== undefined && { vocabulary }),
    multiplyAdds: lowering.multiplyAdds,
    tensors: {
      x: x.index, labels: labelTensor.index, loss: lossTensor.index, parametersFlat: parametersFlat.index,
      ...(correctTensor && { correct: correctTensor.index }),
      ...(logitsTensor && { logits: logitsTensor.index }),
      ...(gradientsFlat && { gradientsFlat: gradientsFlat.index }),
      ...(mode.optimizer && { moments: momentTensors.map((tensor) => tensor.index) }),
      ...(step && { step: step.index }),
      ...(run && { run: run.index }),
      ...(norm && { norm: norm.index }),
    },
  };
}

/** The two placeholders of a classifier: what the loss compares with, and what is fed beside it. */
function endsOf(graph: Graph, loss: Tensor): { images: Tensor; labels: Tensor; classes: number; vocabulary?: number } {
  const losses = graph.nodes.filter((node) => node.op === "softmaxCrossEntropy" && node.id <= loss.id);
  const placeholders = graph.nodes.filter((node) => node.op === "placeholder");
  const labels = placeholders.find((node) => losses.some((entropy) => entropy.inputs[1] === node.id));
  const images = placeholders.filter((node) => node.id !== labels?.id);
  if (labels === undefined || images.length !== 1) {
    throw new GraphError("unsupported", "a step needs a softmaxCrossEntropy loss over one placeholder of " +
      `labels, and one more placeholder for the input; found ${placeholders.length} placeholders`);
  }
  if (images[0]!.shape[0] !== BATCH || labels.shape[0] !== BATCH) {
    throw new GraphError("shape", "the placeholders' first dimension must be the batch (null)",
      { shapes: [images[0]!.shape, labels.shape] });
  }
  const classes = Math.min(...losses.map((entropy) => graph.nodes[entropy.inputs[0]!]!.shape.at(-1)!));
  const tables = graph.nodes.filter((node) => node.op === "embedding" && node.inputs[1] === images[0]!.id)
    .map((node) => graph.nodes[node.inputs[0]!]!.shape[0]!);
  return {
    images: graph.tensor(images[0]!.id), labels: graph.tensor(labels.id), classes,
    ...(tables.length > 0 && { vocabulary: Math.min(...tables) }),
  };
}
