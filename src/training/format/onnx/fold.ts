/**
 * Owns: ONNX operators on values that are known at import: what exporters write to compute shapes, and
 * weights that are reshaped or scaled before use. Sizes of the batch, which are not known, travel as
 * UNKNOWN_BATCH through the operators that move values and are refused by those that compute.
 */
import { TrainingError } from "../../errors.js";
import type { Constant } from "./tensor.js";

/** Stands for the batch among the sizes of a Shape; no size, index or offset has this value. */
export const UNKNOWN_BATCH = -(2 ** 40);
/** A folded value is small, or a weight that the file holds: this many elements from a few bytes are an attack. */
export const FOLDED_ELEMENTS_MAX = 2 ** 28;

export type Fail = (message: string) => never;

const count = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1);
function like(source: Constant, shape: number[]): Constant {
  const length = count(shape);
  if (length > FOLDED_ELEMENTS_MAX) throw new TrainingError("format", `onnx: a value of ${length} elements is not computed at import`);
  return { name: "", shape, float: source.float, data: source.float ? new Float32Array(length) : new Float64Array(length) };
}

export const constantOf = (values: ArrayLike<number>, shape: number[] = [values.length], float = false): Constant =>
  ({ name: "", shape, float, data: float ? Float32Array.from(values) : Float64Array.from(values) });

/** The same values under another shape. */
export const reshaped = (source: Constant, shape: number[]): Constant => ({ ...source, shape });

/** Gathers each output element from the source position that `at` gives. */
function moved(source: Constant, shape: number[], at: (index: number[]) => number): Constant {
  const out = like(source, shape), index = shape.map(() => 0);
  for (let i = 0; i < out.data.length; i++) {
    out.data[i] = source.data[at(index)]!;
    for (let d = shape.length - 1; d >= 0 && ++index[d]! === shape[d]; d--) index[d] = 0;
  }
  return out;
}
const strides = (shape: readonly number[]): number[] => shape.map((_, i) => count(shape.slice(i + 1)));
const offset = (index: readonly number[], by: readonly number[]): number => index.reduce((sum, at, d) => sum + at * by[d]!, 0);

export function transposed(source: Constant, permutation: readonly number[]): Constant {
  const from = strides(source.shape), by = permutation.map((axis) => from[axis]!);
  return moved(source, permutation.map((axis) => source.shape[axis]!), (index) => offset(index, by));
}

export function gathered(source: Constant, indices: Constant, axis: number, fail: Fail): Constant {
  const size = source.shape[axis]!, by = strides(source.shape), rank = indices.shape.length, inner = strides(indices.shape);
  const rows = Array.from(indices.data, (row) => (row < 0 ? row + size : row));
  const strange = rows.find((row) => !Number.isInteger(row) || row < 0 || row >= size);
  if (strange !== undefined) fail(`the index ${strange} is not within ${size}`);
  const shape = [...source.shape.slice(0, axis), ...indices.shape, ...source.shape.slice(axis + 1)];
  return moved(source, shape, (index) => offset(index.slice(0, axis), by) + rows[offset(index.slice(axis, axis + rank), inner)]! * by[axis]! +
    offset(index.slice(axis + rank), by.slice(axis + 1)));
}

export function sliced(source: Constant, axis: number, start: number, step: number, size: number): Constant {
  const by = strides(source.shape);
  return moved(source, source.shape.with(axis, size), (index) => offset(index, by) + (start + index[axis]! * (step - 1)) * by[axis]!);
}

export function joined(parts: readonly Constant[], axis: number): Constant {
  const shape = parts[0]!.shape.with(axis, parts.reduce((sum, part) => sum + part.shape[axis]!, 0));
  const out = like(parts[0]!, shape), outer = count(shape.slice(0, axis));
  let at = 0;
  for (let block = 0; block < outer; block++) {
    for (const { data } of parts) {
      const run = data.length / outer;
      out.data.set(data.subarray(block * run, (block + 1) * run), at);
      at += run;
    }
  }
  return out;
}

/** NumPy's broadcasting of two shapes, or undefined. BATCH (-1) goes with itself and 1. */
export function broadcastShape(a: readonly number[], b: readonly number[]): number[] | undefined {
  const rank = Math.max(a.length, b.length), out: number[] = [];
  for (let i = 0; i < rank; i++) {
    const x = a[i - rank + a.length] ?? 1, y = b[i - rank + b.length] ?? 1;
    if (x !== y && x !== 1 && y !== 1) return undefined;
    out.push(x === 1 ? y : x);
  }
  return out;
}

export function mapped(a: Constant, b: Constant, f: (x: number, y: number) => number, fail: Fail): Constant {
  const shape = broadcastShape(a.shape, b.shape) ?? fail(`shapes ${a.shape.join(" x ")} and ${b.shape.join(" x ")} do not broadcast`);
  if ([a, b].some(({ data }) => data.includes(UNKNOWN_BATCH))) fail("computes with the size of the batch, which is not known; give it as a dimension");
  const walk = ({ shape: own }: Constant): number[] => {
    const by = strides(own), added = shape.length - own.length;
    return shape.map((_, i) => (i < added || own[i - added] === 1 ? 0 : by[i - added]!));
  };
  const [by, other] = [walk(a), walk(b)], out = moved(a, shape, (index) => offset(index, by)), right = moved(b, shape, (index) => offset(index, other));
  for (let i = 0; i < out.data.length; i++) out.data[i] = f(out.data[i]!, right.data[i]!);
  return out;
}
