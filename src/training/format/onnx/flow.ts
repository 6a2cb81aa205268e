/**
 * Owns: what an operator of an imported model is given: values known at import or tensors of our graph,
 * attributes by name and type, and the error that names the node.
 * Image tensors are (N, C, H, W) in ONNX and (N, H, W, C) here: a flow keeps whichever forms were made,
 * and a transposition is added only where the other one is asked for.
 */
import { TrainingError } from "../../errors.js";
import type { Graph, Tensor } from "../../graph/graph.js";
import { BATCH, formatShape } from "../../graph/ops.js";
import { reshaped, UNKNOWN_BATCH, type Fail } from "./fold.js";
import type { OnnxAttributeProto, OnnxNodeProto } from "./schema.js";
import { readTensor, type Constant, type ExternalData } from "./tensor.js";

const TO_LAST = [0, 2, 3, 1], TO_FIRST = [0, 3, 1, 2];

/** A tensor that a run computes; `shape` is ONNX's, BATCH first where it depends on the batch. */
export class Flow {
  private constructor(readonly shape: readonly number[], private first: Tensor | undefined, private last: Tensor | undefined) {}

  static of(tensor: Tensor): Flow { return new Flow(tensor.shape, tensor, undefined); }
  /** From (N, H, W, C). */
  static channelsLast(tensor: Tensor): Flow {
    return new Flow(TO_FIRST.map((axis) => tensor.shape[axis]!), undefined, tensor);
  }

  get isChannelsLast(): boolean { return this.first === undefined; }
  plain(): Tensor { return (this.first ??= this.last!.transpose(TO_FIRST)); }
  channelsLast(): Tensor { return (this.last ??= this.first!.transpose(TO_LAST)); }
  /** f of each element, in whichever form there is. */
  map(f: (tensor: Tensor) => Tensor): Flow {
    return this.isChannelsLast ? Flow.channelsLast(f(this.last!)) : Flow.of(f(this.first!));
  }
}

export type Value = Flow | Constant;
export const isFlow = (value: Value): value is Flow => value instanceof Flow;

/** Makes weights of the graph out of constants, each once. */
export interface Weights {
  graph: Graph;
  /** A trained variable, or one that keeps its value where the constant is fixed. */
  tensor(constant: Constant, role: string): Tensor;
  external?: ExternalData;
  opset: number;
}

export class NodeReader {
  private readonly attributes: ReadonlyMap<string, OnnxAttributeProto>;
  private readonly used = new Set<string>();

  constructor(readonly proto: OnnxNodeProto, readonly label: string, private readonly values: readonly (Value | undefined)[], readonly weights: Weights) {
    this.attributes = new Map(proto.attribute.map((attribute) => [attribute.name, attribute]));
  }

  readonly fail: Fail = (message) => {
    throw new TrainingError("format", `onnx: ${this.proto.opType} "${this.label}": ${message}`, { node: this.label, op: this.proto.opType });
  };
  get graph(): Graph { return this.weights.graph; }
  get opset(): number { return this.weights.opset; }
  get inputs(): number { return this.values.length; }

  has(position: number): boolean { return this.values[position] !== undefined; }
  value(position: number): Value { return this.values[position] ?? this.fail(`input ${position} is missing`); }
  /** As a tensor of the graph; a known value becomes a weight. */
  flow(position: number): Flow {
    const value = this.value(position);
    return isFlow(value) ? value : Flow.of(this.weights.tensor(value, `input${position}`));
  }
  constant(position: number, what: string): Constant {
    const value = this.value(position);
    return isFlow(value) ? this.fail(`${what} must be known when the model is read, not computed by it`) : value;
  }
  /** A known list of integers, from an input or, in older operator sets, an attribute. */
  list(position: number, attribute: string, what = attribute): number[] | undefined {
    if (this.has(position)) return Array.from(this.constant(position, what).data);
    return this.ints(attribute);
  }
  /** The one number of a known value of any shape; undefined otherwise. */
  scalar(position: number): number | undefined {
    const value = this.values[position];
    return value !== undefined && !isFlow(value) && value.data.length === 1 ? value.data[0] : undefined;
  }

  int(name: string, fallback: number): number {
    const value = this.attribute(name)?.i;
    return value === undefined ? fallback : this.whole(name, value);
  }
  ints(name: string): number[] | undefined {
    return this.attribute(name)?.ints.map((value) => this.whole(name, value));
  }
  float(name: string, fallback: number): number {
    const value = this.attribute(name)?.f ?? fallback;
    return Number.isFinite(value) ? value : this.fail(`"${name}" must be a finite number`);
  }
  text(name: string, fallback: string): string {
    const value = this.attribute(name)?.s;
    return value === undefined ? fallback : new TextDecoder().decode(value);
  }
  tensor(name: string): Constant | undefined {
    const value = this.attribute(name)?.t;
    return value ? readTensor(value, this.weights.external) : undefined;
  }
  floats(name: string): number[] | undefined { return this.attribute(name)?.floats; }

  axis(axis: number, rank: number): number {
    const at = axis < 0 ? axis + rank : axis;
    return Number.isInteger(at) && at >= 0 && at < rank ? at : this.fail(`there is no axis ${axis} among ${rank}`);
  }

  /** Fails on an attribute that no reader asked for: its meaning would be lost. */
  finish(): void {
    const strange = [...this.attributes.keys()].find((name) => !this.used.has(name));
    if (strange !== undefined) this.fail(`the attribute "${strange}" is not supported`);
  }

  private attribute(name: string): OnnxAttributeProto | undefined {
    this.used.add(name);
    return this.attributes.get(name);
  }
  private whole(name: string, value: number | bigint): number {
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : this.fail(`"${name}" is out of range: ${value}`);
  }
}

/** Resolves a Reshape's sizes: 0 copies, -1 takes what is left, the batch stays first and whole. */
export function reshape(value: Value, sizes: readonly number[], copyZeros: boolean, fail: Fail): Value {
  const from = value.shape, hasBatch = isFlow(value) && from[0] === BATCH;
  const known = (shape: readonly number[]): number => shape.reduce((product, size) => (size > 0 ? product * size : product), 1);
  const empty = from.includes(0);
  const INFER = -2;
  const to = sizes.map((size, i) => {
    if (size === UNKNOWN_BATCH) return BATCH;
    if (size === 0 && copyZeros) return from[i] ?? fail(`there is no dimension ${i} to copy from ${formatShape(from)}`);
    if (size === -1) return INFER;
    return Number.isInteger(size) && size >= 0 ? size : fail(`a size of ${size}`);
  });
  const inferred = to.indexOf(INFER);
  if (inferred !== to.lastIndexOf(INFER) || to.lastIndexOf(BATCH) > 0) fail(`the sizes ${JSON.stringify(sizes)} leave more than one open, or the batch not first`);
  if (inferred >= 0) {
    if (hasBatch && !to.includes(BATCH)) to[inferred] = BATCH;
    else to[inferred] = empty ? 0 : known(from) / known(to);
  }
  const fits = (to[0] === BATCH) === hasBatch && to.every((size) => Number.isInteger(size)) && (inferred !== 0 || !hasBatch || to[0] === BATCH) &&
    to.lastIndexOf(BATCH) <= 0 && known(to) === known(from) && to.includes(0) === empty;
  if (!fits) {
    fail(`${formatShape(from)} cannot be reshaped to ${JSON.stringify(sizes.map((size) => (size === UNKNOWN_BATCH ? "batch" : size)))}` +
      (hasBatch ? "; give the batch a size as a dimension where a model joins it with others" : ""));
  }
  return isFlow(value) ? Flow.of(value.plain().reshape(to.map((size) => (size === BATCH ? null : size)))) : reshaped(value, to);
}
