// Owns: what a profiled run of a plan says about each operation: what it was, how long it took, and what it
// had to compute and to move. Invariant: work and traffic follow from shapes alone, times from the device.
import type { PlanOp, PlanOpName, PlanTensor } from "./addon.js";

/** A tensor as an operation saw it. */
export interface OpTensor {
  name: string;
  dtype: PlanTensor["dtype"];
  shape: readonly number[];
}

export interface OpTiming {
  op: PlanOpName;
  inputs: readonly OpTensor[];
  outputs: readonly OpTensor[];
  /** From the run's start, in microseconds. */
  startUs: number;
  durationUs: number;
  /** Two for each multiply-add of products, convolutions and attention; 0 for what is bound by memory. */
  flops: number;
  /** All inputs read and all outputs written once. */
  bytes: number;
}

const ELEMENT_BYTES = { f32: 4, i32: 4, u8: 1 } as const;

/** `figures` are those of NativePlan.profile: start and end in nanoseconds, and multiply-adds, of each operation. */
export function opTimings({ ops, tensors }: { ops: readonly PlanOp[]; tensors: readonly PlanTensor[] }, figures: Float64Array): OpTiming[] {
  const tensor = (index: number): OpTensor => {
    const { name, dtype, shape } = tensors[index]!;
    return { name, dtype, shape };
  };
  const bytesOf = ({ dtype, shape }: OpTensor): number => shape.reduce((product, size) => product * size, ELEMENT_BYTES[dtype]);
  return ops.map(({ op, in: from, out: to }, i) => {
    const [start, end, multiplyAdds] = figures.subarray(3 * i, 3 * i + 3);
    const inputs = from.map(tensor), outputs = to.map(tensor);
    return {
      op, inputs, outputs, startUs: start! / 1e3, durationUs: (end! - start!) / 1e3,
      flops: 2 * multiplyAdds!, bytes: [...inputs, ...outputs].reduce((sum, each) => sum + bytesOf(each), 0),
    };
  });
}
