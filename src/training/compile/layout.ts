/**
 * Owns: where each variable lies in the flat parameter vector. The rule depends on the graph alone
 * (variables in creation order, each start rounded up to 64 bytes), so clients, workers and
 * parameter servers agree without exchanging it. The gaps are zeros and stay zeros: their gradient
 * is zero, and every update rule maps (0, 0) to 0.
 */
import type { Graph } from "../graph/graph.js";
import { elementsOf } from "../graph/ops.js";
import { initialize, type Initializer } from "../graph/initializer.js";
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
