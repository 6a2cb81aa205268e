/**
 * Owns: what the parameter server needs of a compute device, over flat float32 vectors of one
 * length. Everything runs off the event loop; buffers must not be touched until the promise settles.
 */
import type { OptimizerDescriptor } from "../optimizer/descriptor.js";
import type { CompressedGradient } from "./compressed-gradient.js";

export interface OptimizerState {
  parameters: Float32Array;
  /** As many as momentsOf(optimizer). */
  moments: readonly Float32Array[];
}

export interface UpdateKernels {
  /**
   * to = one step of the optimizer from `from` along the gradient; `from` is only read, so that an update
   * whose gradient turns out to be bad is dropped by not publishing `to`. `step` counts from 1;
   * `learningRate` replaces the descriptor's own. Resolves to the gradient's largest absolute value,
   * NaN or Infinity where it holds one.
   */
  update(optimizer: OptimizerDescriptor, from: OptimizerState, gradient: Float32Array, to: OptimizerState,
    learningRate: number, step: number): Promise<number>;
  /** gradient += lambda * gradient^2 * (now - base). */
  delayCompensate(gradient: Float32Array, now: Float32Array, base: Float32Array, lambda: number): Promise<void>;
  /** out[i] = the sum of the gradients' [i] in float64 and in their order, over their number, rounded once. */
  mean(gradients: readonly Float32Array[], out: Float32Array): Promise<void>;
  /** Largest absolute value; NaN or Infinity where the vector holds one. */
  largestMagnitude(vector: Float32Array): Promise<number>;
  /** Writes all of `out`; rejects, with `out` as it was, where the bytes are no message of out.length elements. */
  decode(gradient: CompressedGradient, out: Float32Array): Promise<void>;
  blake3(data: Uint8Array): Promise<Uint8Array>;
}
