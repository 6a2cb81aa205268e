/**
 * Owns: how transpositions, slices, joins, repeats and sums over axes become strided copies and column
 * sums of a plan. Shapes here are sizes with the batch already fixed, of rank at most 6.
 */
import { elementsOf, RANK_MAX } from "../graph/ops.js";
import type { PlanBuilder, PlanTensor } from "./plan-builder.js";

/** One strided copy (native/kernels/copy.h): strides count elements, outermost dimension first. */
export interface StridedCopy {
  sizes: readonly number[];
  from: readonly number[];
  to: readonly number[];
  fromOffset?: number;
  toOffset?: number;
  /** Zeros wherever nothing is copied. */
  clear?: boolean;
}

const stridesOf = (shape: readonly number[]): number[] => shape.map((_, i) => elementsOf(shape.slice(i + 1)));

export function transposed(shape: readonly number[], permutation: readonly number[]): StridedCopy {
  const strides = stridesOf(shape), sizes = permutation.map((axis) => shape[axis]!);
  return { sizes, from: permutation.map((axis) => strides[axis]!), to: stridesOf(sizes) };
}

/** All of `part` lies at `start` along an axis of `whole`, which is read ("from") or written ("to"). */
export function placed(part: readonly number[], whole: readonly number[], axis: number, start: number, side: "from" | "to"): StridedCopy {
  const strides = stridesOf(whole), own = stridesOf(part), offset = start * strides[axis]!;
  return side === "from" ? { sizes: part, from: strides, to: own, fromOffset: offset } : { sizes: part, from: own, to: strides, toOffset: offset };
}

export function expanded(shape: readonly number[], to: readonly number[]): StridedCopy {
  const added = to.length - shape.length, strides = stridesOf(shape);
  return { sizes: to, from: to.map((_, i) => (i < added || shape[i - added] === 1 ? 0 : strides[i - added]!)), to: stridesOf(to) };
}

export function copied(builder: PlanBuilder, from: PlanTensor, to: PlanTensor, copy: StridedCopy): void {
  const attributes: Record<string, number> = {};
  // What is left out is 0, and 1 for sizes.
  const put = (name: string, value: number, missing = 0): void => {
    if (value !== missing) attributes[name] = value;
  };
  put("fromOffset", copy.fromOffset ?? 0);
  put("toOffset", copy.toOffset ?? 0);
  put("clear", Number(copy.clear ?? false));
  const first = RANK_MAX - copy.sizes.length;
  copy.sizes.forEach((size, i) => {
    put(`size${first + i}`, size, 1);
    put(`from${first + i}`, copy.from[i]!);
    put(`to${first + i}`, copy.to[i]!);
  });
  builder.emit("copy", [from], [to], attributes);
}

/** The summed axes are brought to the front, where they are rows of a column sum. */
export function summed(builder: PlanBuilder, x: PlanTensor, shape: readonly number[], axes: readonly number[], out: PlanTensor): void {
  const all = shape.map((_, axis) => axis), kept = axes.length === 0 ? [] : all.filter((axis) => !axes.includes(axis));
  const order = [...all.filter((axis) => !kept.includes(axis)), ...kept];
  const columns = kept.reduce((product, axis) => product * shape[axis]!, 1), rows = elementsOf(shape) / columns;
  let matrix = builder.view(x, [rows, columns]);
  if (order.some((axis, i) => axis !== i)) {
    matrix = builder.temporary("sum:rows", [rows, columns]);
    copied(builder, x, matrix, transposed(shape, order));
  }
  builder.emit("bias_grad", [matrix], [builder.view(out, [columns])]);
}
