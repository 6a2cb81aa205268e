/**
 * Owns: the compiler from wanted tensors to a native plan: only the sub-graph between what is fed and
 * what is fetched, with nothing said of losses or labels (TensorFlow's partial fetch and feed).
 * Invariant: the parameters are the flat vector of the whole graph's layout, so one vector serves every
 * plan of a graph; a node gives the same bits here as in the forward half of a training plan.
 */
import type { PlanSpec } from "../../device/device.js";
import { GraphError, TrainingError, type Shape } from "../errors.js";
import type { Graph, GraphNode, Tensor } from "../graph/graph.js";
import { BATCH, OPS, type DType } from "../graph/ops.js";
import { parameterLayout, type ParameterLayout } from "./layout.js";
import { Lowering } from "./lower.js";
import { alignBytes } from "./memory.js";
import { bytesOf, PlanBuilder, type PlanTensor } from "./plan-builder.js";

export interface FetchOptions {
  fetches: readonly Tensor[];
  /**
   * What each run is given, placeholders or any other tensors; what only leads to a fed tensor is not
   * computed. Absent: the placeholders that the fetches need.
   */
  feeds?: readonly Tensor[];
  /** Rows of the batch; needed where a shape that is computed depends on it. */
  batchSize?: number;
  /** Dropout drops (default: it passes its input on). */
  training?: boolean;
}

/** A tensor that goes in or comes out, by its node's name. */
export interface PlanEnd {
  name: string;
  /** Index into spec.tensors; undefined for a feed that no fetch needs. */
  tensor: number | undefined;
  shape: Shape;
  dtype: DType;
  /** Values must be below it: they choose rows of a table, or classes. */
  bound?: number;
}

export interface CompiledFetches extends ParameterLayout {
  spec: PlanSpec;
  /** In the order of the options. */
  feeds: readonly PlanEnd[];
  fetches: readonly PlanEnd[];
  /** undefined where nothing computed reads a variable. */
  parametersFlat: number | undefined;
  /** The number of the run, where something drops out. */
  run: number | undefined;
  batchSize: number | undefined;
  /** Multiply-adds of products and convolutions in one run. */
  multiplyAdds: number;
}

/** Throws GraphError for tensors of another graph and for a placeholder that is needed and not fed. */
export function compileFetches(graph: Graph, options: FetchOptions): CompiledFetches {
  const { fetches, batchSize, training = false } = options;
  if (fetches.length === 0) throw new TrainingError("option", "there is nothing to fetch");
  if (batchSize !== undefined && (!Number.isInteger(batchSize) || batchSize < 1)) {
    throw new TrainingError("option", `batchSize must be a positive integer, got ${String(batchSize)}`);
  }
  for (const tensor of [...fetches, ...(options.feeds ?? [])]) {
    if (tensor.graph !== graph) throw new GraphError("name", `${tensor.toString()} belongs to another graph`);
  }
  const needed = neededNodes(graph, fetches, options.feeds ?? []);
  const feeds = options.feeds?.map(({ id }) => graph.nodes[id]!) ?? needed.filter(({ op }) => op === "placeholder");
  const fed = new Set(feeds.map(({ id }) => id));
  if (fed.size < feeds.length) throw new TrainingError("option", "a tensor is fed twice");
  for (const node of needed) {
    if (node.op === "placeholder" && !fed.has(node.id)) {
      throw new GraphError("unsupported", "the fetches need this placeholder, and it is not among the feeds",
        { op: node.op, node: node.name }).located(graph.positionOf(node.id));
    }
    if (batchSize === undefined && node.shape.includes(BATCH)) {
      throw new TrainingError("option", `batchSize is needed: the shape of ${node.op} "${node.name}" depends on it`);
    }
  }
  const live = new Set(needed.map(({ id }) => id));
  const layout = parameterLayout(graph);
  const variables = graph.variables();
  const reads = variables.some(({ id }) => live.has(id) && !fed.has(id));
  const drops = training && needed.some(({ id, op }) => op === "dropout" && !fed.has(id));

  let cursor = 0;
  const reserve = (bytes: number): number => {
    const offset = cursor;
    cursor = alignBytes(cursor + bytes);
    return offset;
  };
  const sized = (shape: Shape): number[] => shape.map((size) => (size === BATCH ? batchSize! : size));
  const parameters = reads ? reserve(layout.parameterCount * 4) : 0;
  const runOffset = drops ? reserve(4) : 0;
  const placed = feeds.filter(({ id }) => live.has(id))
    .map((node) => ({ node, shape: sized(node.shape), offset: reserve(bytesOf(sized(node.shape), node.dtype)) }));
  const builder = new PlanBuilder(cursor);
  const parametersFlat = reads ? builder.fixed("parameters", [layout.parameterCount], "f32", parameters) : undefined;
  const run = drops ? builder.fixed("run", [1], "f32", runOffset) : undefined;
  const given = new Map<number, PlanTensor>();
  if (reads) {
    variables.forEach(({ id, name, shape }, i) =>
      given.set(id, builder.fixed(name, shape, "f32", parameters + layout.parameters[i]!.offset * 4)));
  }
  for (const { node, shape, offset } of placed) given.set(node.id, builder.fixed(node.name, shape, node.dtype, offset));
  const lowering = new Lowering(builder, {
    graph, batchSize: batchSize ?? 1, roots: fetches.map(({ id }) => id), given, targets: new Map(), ...(run && { run }),
  });
  lowering.run();
  const fetched = fetches.map(({ id, name, shape, dtype }): PlanEnd => {
    const tensor = lowering.value(id);
    builder.pin(tensor);
    return { name, tensor: tensor.index, shape: sized(shape), dtype };
  });
  const bounds = boundsOf(graph, needed, fed);
  return {
    spec: builder.build(), ...layout, batchSize,
    feeds: feeds.map(({ id, name, shape, dtype }): PlanEnd => ({
      name, tensor: given.get(id)?.index, dtype, shape: live.has(id) ? sized(shape) : shape,
      ...(bounds.has(id) && { bound: bounds.get(id)! }),
    })),
    fetches: fetched, parametersFlat: parametersFlat?.index, run: run?.index, multiplyAdds: lowering.multiplyAdds,
  };
}

/** What must be computed or fed, in creation order: not what only fed tensors need. */
export function neededNodes(graph: Graph, fetches: readonly Tensor[], feeds: readonly Tensor[]): GraphNode[] {
  const fed = new Set(feeds.map(({ id }) => id));
  const needed = new Uint8Array(graph.nodes.length);
  for (const { id } of fetches) needed[id] = 1;
  for (let id = graph.nodes.length - 1; id >= 0; id--) {
    if (needed[id] === 0 || fed.has(id)) continue;
    const { op, inputs, controls } = graph.nodes[id]!;
    inputs.forEach((input, position) => {
      if (OPS[op]!.shapeOnly !== position) needed[input] = 1;
    });
    for (const control of controls) needed[control] = 1;
  }
  return graph.nodes.filter(({ id }) => needed[id] === 1);
}

/** For each fed tensor of ids or labels: below what its values must be. */
export function boundsOf(graph: Graph, needed: readonly GraphNode[], fed: ReadonlySet<number>): Map<number, number> {
  const bounds = new Map<number, number>();
  for (const node of needed.toReversed()) {
    if (fed.has(node.id)) continue;
    const tighten = (id: number, bound: number): unknown => bounds.set(id, Math.min(bound, bounds.get(id) ?? Infinity));
    const shape = graph.nodes[node.inputs[0] ?? -1]?.shape;
    if (node.op === "embedding") tighten(node.inputs[1]!, shape![0]!);
    else if (node.op === "softmaxCrossEntropy" || node.op === "countCorrect") tighten(node.inputs[1]!, shape!.at(-1)!);
    else if (node.op === "embeddingGrad") tighten(node.inputs[1]!, node.shape[0]!);
    else if (node.op === "reshape" && bounds.has(node.id)) tighten(node.inputs[0]!, bounds.get(node.id)!);
  }
  return bounds;
}
