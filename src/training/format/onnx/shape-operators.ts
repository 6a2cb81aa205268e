/**
 * Owns: the ONNX operators that move values: on known ones at import, on tensors by ops of the graph.
 */
import type { Tensor } from "../../graph/graph.js";
import { BATCH } from "../../graph/ops.js";
import { constantOf, FOLDED_ELEMENTS_MAX, gathered, joined, sliced, transposed, UNKNOWN_BATCH } from "./fold.js";
import { Flow, isFlow, reshape, type NodeReader, type Value } from "./flow.js";
import { isFloatType, TYPE_NAMES, type Constant } from "./tensor.js";

export type Operator = (node: NodeReader) => Value[];

const product = (sizes: readonly number[]): number => sizes.reduce((all, size) => all * size, 1);
/** Sizes as a known value, the batch by its sign. */
const sizesOf = (shape: readonly number[]): number[] => shape.map((size) => (size === BATCH ? UNKNOWN_BATCH : size));
const nullable = (shape: readonly number[]): (number | null)[] => shape.map((size) => (size === BATCH || size === UNKNOWN_BATCH ? null : size));

function squeezed(node: NodeReader, value: Value, axes: readonly number[] | undefined): Value {
  const { shape } = value, dropped = axes?.map((axis) => node.axis(axis, shape.length)) ?? shape.flatMap((size, i) => (size === 1 ? [i] : []));
  const wide = dropped.find((axis) => shape[axis] !== 1);
  if (wide !== undefined) node.fail(`axis ${wide} has size ${shape[wide]}, not 1`);
  return reshape(value, sizesOf(shape.filter((_, i) => !dropped.includes(i))), false, node.fail);
}

function slice(node: NodeReader): Value[] {
  let value = node.value(0);
  const starts = node.list(1, "starts") ?? node.fail("starts are missing"), ends = node.list(2, "ends") ?? node.fail("ends are missing");
  const axes = node.list(3, "axes") ?? starts.map((_, i) => i), steps = node.list(4, "steps") ?? starts.map(() => 1);
  if (new Set([starts.length, ends.length, axes.length, steps.length]).size > 1) node.fail("starts, ends, axes and steps differ in length");
  starts.forEach((from, i) => {
    const axis = node.axis(axes[i]!, value.shape.length), size = value.shape[axis]!, step = steps[i]!;
    if (from === UNKNOWN_BATCH || ends[i] === UNKNOWN_BATCH) node.fail("bounds that are the batch are not supported");
    if (size === BATCH) {
      if (from === 0 && step === 1 && ends[i]! >= 2 ** 31 - 1) return;
      node.fail("the batch cannot be cut");
    }
    if (step < 1) node.fail(`a step of ${step} is not supported`);
    const clamp = (at: number): number => Math.min(size, Math.max(0, at < 0 ? at + size : at));
    const start = clamp(from), end = Math.max(start, clamp(ends[i]!)), count = Math.ceil((end - start) / step);
    if (!isFlow(value)) value = sliced(value, axis, start, step, count);
    else if (step !== 1) node.fail("steps above 1 are supported on known values alone");
    else if (count !== size) value = Flow.of(value.plain().slice(axis, start, end));
  });
  return [value];
}

function split(node: NodeReader): Value[] {
  const value = node.value(0), axis = node.axis(node.int("axis", 0), value.shape.length), size = value.shape[axis]!;
  const outputs = node.int("num_outputs", node.proto.output.length), part = Math.ceil(size / outputs);
  const sizes = node.list(1, "split") ?? Array.from({ length: outputs }, (_, i) => Math.min(part, size - i * part));
  if (size === BATCH || sizes.some((each) => !(each >= 1)) || sizes.reduce((sum, each) => sum + each, 0) !== size) {
    node.fail(`axis ${axis} of size ${size === BATCH ? "batch" : size} cannot be split into ${sizes.join(", ")}`);
  }
  let start = 0;
  return sizes.map((each) => {
    const from = start;
    start += each;
    return isFlow(value) ? Flow.of(value.plain().slice(axis, from, start)) : sliced(value, axis, from, 1, each);
  });
}

/** More than a node of ours takes are joined in groups. */
function concat(tensors: readonly Tensor[], axis: number): Tensor {
  if (tensors.length <= 8) return tensors.length === 1 ? tensors[0]! : tensors[0]!.concat(tensors.slice(1), axis);
  const groups = Array.from({ length: Math.ceil(tensors.length / 8) }, (_, i) => concat(tensors.slice(8 * i, 8 * i + 8), axis));
  return concat(groups, axis);
}

function gather(node: NodeReader): Value[] {
  const data = node.value(0), indices = node.value(1), axis = node.axis(node.int("axis", 0), data.shape.length);
  if (isFlow(indices)) {
    if (data.shape.length !== 2 || axis !== 0) node.fail("rows are taken from a table (rank 2, axis 0) where the indices are computed");
    if (indices.plain().dtype !== "i32") node.fail("the indices must be integers that are fed");
    return [Flow.of(node.flow(0).plain().embed(indices.plain()))];
  }
  if (!isFlow(data)) return [gathered(data, indices, axis, node.fail)];
  if (indices.data.length !== 1) node.fail("more than one index of a computed tensor is not supported");
  const size = data.shape[axis]!, at = indices.data[0]! < 0 ? indices.data[0]! + size : indices.data[0]!;
  if (size === BATCH || !(at >= 0 && at < size)) node.fail(`there is no index ${at} on axis ${axis}`);
  const one = data.plain().slice(axis, at, at + 1);
  return [Flow.of(one.reshape(nullable([...data.shape.slice(0, axis), ...indices.shape, ...data.shape.slice(axis + 1)])))];
}

function pad(node: NodeReader): Value[] {
  const x = node.flow(0), rank = x.shape.length, pads = node.list(1, "pads") ?? node.fail("pads are missing"), mode = node.text("mode", "constant");
  const filler = node.has(2) ? node.scalar(2) : node.float("value", 0);
  if (mode !== "constant" || filler !== 0) node.fail("only padding by zeros is supported");
  const axes = node.list(3, "axes")?.map((axis) => node.axis(axis, rank)) ?? x.shape.map((_, i) => i);
  if (pads.length !== 2 * axes.length || pads.some((size) => !(size >= 0))) node.fail(`pads must be ${2 * axes.length} sizes from 0, got ${JSON.stringify(pads)}`);
  return [Flow.of(axes.reduce((tensor, axis, i) => padded(tensor, axis, pads[i]!, pads[axes.length + i]!), x.plain()))];
}
export const padded = (x: Tensor, axis: number, before: number, after: number): Tensor =>
  (before === 0 && after === 0 ? x : x.graph.add("pad", [x], { axis, before, after }));

function cast(node: NodeReader): Value[] {
  const value = node.value(0), to = node.int("to", 0);
  node.int("saturate", 1);
  if (!isFlow(value)) {
    const float = isFloatType(to), whole = (x: number): number => (to === 9 ? Number(x !== 0) : Math.trunc(x));
    return [{ ...value, name: value.float === float ? value.name : "", float, data: float ? Float32Array.from(value.data) : Float64Array.from(value.data, whole) }];
  }
  const tensor = value.isChannelsLast ? undefined : value.plain();
  if (tensor?.dtype === "u8" && isFloatType(to)) return [Flow.of(tensor.toFloat(1, 0))];
  const same = tensor?.dtype === "i32" ? to === 6 || to === 7 : isFloatType(to);
  return same ? [value] : node.fail(`a computed ${tensor?.dtype ?? "f32"} tensor cannot be cast to ${TYPE_NAMES[to] ?? to}`);
}

function constantNode(node: NodeReader): Value[] {
  const tensor = node.tensor("value");
  if (tensor !== undefined) return [{ ...tensor, name: "", fixed: true }];
  const numbers = node.floats("value_floats") ?? node.ints("value_ints");
  if (numbers !== undefined && node.proto.attribute.length === 1) {
    return [constantOf(numbers, [numbers.length], node.proto.attribute[0]!.name === "value_floats")];
  }
  const [attribute] = node.proto.attribute;
  if (attribute?.name === "value_float") return [constantOf([node.float("value_float", 0)], [], true)];
  if (attribute?.name === "value_int") return [constantOf([node.int("value_int", 0)], [])];
  return node.fail("holds no tensor and no numbers");
}

export const SHAPE_OPERATORS: Readonly<Record<string, Operator>> = {
  Reshape: (node) => [reshape(node.value(0), node.list(1, "shape") ?? node.fail("the shape is missing"), node.int("allowzero", 0) === 0, node.fail)],
  Flatten(node) {
    const value = node.value(0), given = node.int("axis", 1), axis = given < 0 ? given + value.shape.length : given;
    const [front, back] = [value.shape.slice(0, axis), value.shape.slice(axis)];
    if (front.includes(BATCH) && axis !== 1) node.fail("the batch cannot be joined with other dimensions; give it a size as a dimension");
    return [reshape(value, [front.includes(BATCH) ? UNKNOWN_BATCH : product(front), product(back)], false, node.fail)];
  },
  Transpose(node) {
    const value = node.value(0), permutation = node.ints("perm") ?? value.shape.map((_, i) => value.shape.length - 1 - i);
    const valid = permutation.length === value.shape.length && permutation.every((_, axis) => permutation.includes(axis));
    if (!valid) node.fail(`"perm" must name each of ${value.shape.length} axes once, got ${JSON.stringify(permutation)}`);
    if (!isFlow(value)) {
      const flipped = value.shape.length === 2 && permutation[0] === 1;
      return [{ ...transposed(value, permutation), ...(value.fixed && { fixed: true }), ...(flipped && value.name !== "" && { transposeOf: value }) }];
    }
    if (value.shape[0] === BATCH && permutation[0] !== 0) node.fail("the batch must stay the first dimension; give it a size as a dimension");
    return [Flow.of(value.plain().transpose(permutation))];
  },
  Squeeze: (node) => [squeezed(node, node.value(0), node.list(1, "axes"))],
  Unsqueeze(node) {
    const value = node.value(0), given = node.list(1, "axes") ?? node.fail("axes are missing"), rank = value.shape.length + given.length;
    const axes = new Set(given.map((axis) => node.axis(axis, rank))), rest = sizesOf(value.shape);
    if (axes.size !== given.length) node.fail("an axis is named twice");
    return [reshape(value, Array.from({ length: rank }, (_, i) => (axes.has(i) ? 1 : rest.shift()!)), false, node.fail)];
  },
  Concat(node) {
    const values = Array.from({ length: node.inputs }, (_, i) => node.value(i)), axis = node.axis(node.int("axis", 0), values[0]!.shape.length);
    const constants = values.filter((value): value is Constant => !isFlow(value));
    const ranks = values.some((value) => value.shape.length !== values[0]!.shape.length ||
      value.shape.some((size, i) => i !== axis && size !== values[0]!.shape[i]));
    if (ranks) node.fail(`the inputs must differ along axis ${axis} alone`);
    if (constants.length === values.length) return [joined(constants, axis)];
    return [Flow.of(concat(values.map((_, i) => node.flow(i).plain()), axis))];
  },
  Split: split,
  Slice: slice,
  Gather: gather,
  Pad: pad,
  Expand(node) {
    const x = node.flow(0), sizes = Array.from(node.constant(1, "the shape").data);
    const rank = Math.max(sizes.length, x.shape.length);
    const to = Array.from({ length: rank }, (_, i) => {
      const own = x.shape[i - rank + x.shape.length] ?? 1, size = sizes[i - rank + sizes.length] ?? 1;
      return size === 1 ? own : size === UNKNOWN_BATCH ? BATCH : size;
    });
    return [Flow.of(x.plain().expand(nullable(to)))];
  },
  Shape(node) {
    const { shape } = node.value(0), end = node.int("end", shape.length);
    return [constantOf(sizesOf(shape).slice(node.int("start", 0), end))];
  },
  ConstantOfShape(node) {
    const sizes = Array.from(node.constant(0, "the shape").data), value = node.tensor("value");
    if (sizes.some((size) => !(size >= 0)) || product(sizes) > FOLDED_ELEMENTS_MAX) node.fail(`sizes of ${JSON.stringify(sizes)} are not made at import`);
    return [constantOf(new Float64Array(product(sizes)).fill(value?.data[0] ?? 0), sizes, value?.float ?? true)];
  },
  Cast: cast,
  Constant: constantNode,
  Identity: (node) => [node.value(0)],
  Dropout(node) {
    node.float("ratio", 0.5);
    node.int("seed", 0);
    if ((node.scalar(2) ?? 0) !== 0) node.fail("training mode is not imported; add dropout to the graph");
    if (node.proto.output.length > 1 && node.proto.output[1] !== "") node.fail("the mask is not given");
    return [node.value(0)];
  },
};
