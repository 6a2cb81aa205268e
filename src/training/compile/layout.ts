/**
 * Owns: where each variable lies in the flat parameter vector. The rule depends on the graph alone
 * (variables in creation order, each start rounded up to 64 bytes), so clients, workers and
 * parameter servers agree without exchanging it. The gaps are zeros and stay zeros: their gradient
 * is zero, and every update rule maps (0, 0) to 0.
 */
import type { Device, PlanSpec } from "../../device/device.js";
import type { Graph } from "../graph/graph.js";
import { elementsOf } from "../graph/ops.js";
import { initialize, type Initializer } from "../graph/initializer.js";
import { philoxKey } from "../graph/philox.js";
import type { Shape } from "../errors.js";

/** 64 bytes: a cache line and the widest vector register, so every parameter can be loaded aligned. */
export const ALIGNMENT_ELEMENTS = 16;

export interface ParameterSlot {
  name: string;
  shape: Shape;
  /** First element in the flat vector. */
  offset: number;
  /** Elements without the gap that follows. */
  size: number;
}

export interface ParameterLayout {
  parameters: readonly ParameterSlot[];
  /** Length of the flat vector, gaps included. */
  parameterCount: number;
}

export const alignElements = (count: number): number =>
  Math.ceil(count / ALIGNMENT_ELEMENTS) * ALIGNMENT_ELEMENTS;

export function parameterLayout(graph: Graph): ParameterLayout {
  let offset = 0;
  const parameters = graph.variables().map((variable) => {
    const slot = { name: variable.name, shape: variable.shape, offset, size: elementsOf(variable.shape) };
    offset = alignElements(offset + slot.size);
    return slot;
  });
  return { parameters, parameterCount: offset };
}

/**
 * initialParameters() by the device's own generator: the same bits, some hundred times sooner for large
 * models (GPT-2's 124 M weights are 370 M blocks of Philox).
 */
export function initialParametersOn(device: Device, graph: Graph, seed: number): Float32Array<ArrayBuffer> {
  const { parameters, parameterCount } = parameterLayout(graph);
  const [seedLow, seedHigh] = philoxKey(BigInt(seed)) as [number, number];
  const flat = new Float32Array(parameterCount);
  const tensors: PlanSpec["tensors"] = [{ name: "parameters", dtype: "f32", shape: [parameterCount], offsetBytes: 0 }];
  const ops: PlanSpec["ops"] = [], constants: [number, number, number][] = [];
  graph.variables().forEach((variable, i) => {
    const { name, offset, size } = parameters[i]!;
    const initializer = graph.nodes[variable.id]!.attributes.initializer as Initializer;
    if (initializer.kind === "constant") constants.push([initializer.value, offset, offset + size]);
    if (initializer.kind !== "uniform" && initializer.kind !== "normal") return;
    const normal = initializer.kind === "normal";
    tensors.push({ name, dtype: "f32", shape: [size], offsetBytes: offset * 4 });
    ops.push({
      op: "fill", in: [], out: [tensors.length - 1],
      attrs: { normal: Number(normal), scale: initializer.kind === "normal" ? initializer.deviation : initializer.bound, stream: i, seedLow, seedHigh },
    });
  });
  const plan = device.createPlan({ tensors, arenaBytes: Math.max(64, parameterCount * 4), ops });
  try {
    plan.runSync();
    plan.read(0, flat);
  } finally {
    plan.close();
  }
  for (const [value, start, end] of constants) flat.fill(value, start, end);
  return flat;
}

/** The first parameters of a job: the same bits on every machine for the same seed. */
export function initialParameters(graph: Graph, seed: number): Float32Array<ArrayBuffer> {
  const { parameters, parameterCount } = parameterLayout(graph);
  const flat = new Float32Array(parameterCount);
  graph.variables().forEach((variable, i) => {
    const { offset, size } = parameters[i]!;
    const initializer = graph.nodes[variable.id]!.attributes.initializer as Initializer;
    initialize(initializer, flat.subarray(offset, offset + size), BigInt(seed), i);
  });
  return flat;
}
