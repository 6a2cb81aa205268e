/**
 * Owns: what the parameter server needs of a compute device, over flat float32 vectors of one
 * length. `apply` runs off the event loop; its buffers must not be touched until it settles.
 */
import type { OptimizerDescriptor } from "../optimizer/descriptor.js";

export interface UpdateVectors {
  parameters: Float32Array;
  gradient: Float32Array;
  /** As many as momentsOf(optimizer). */
  moments: readonly Float32Array[];
}

export interface UpdateKernels {
  /** In place. `step` counts from 1; `learningRate` replaces the descriptor's own. */
  apply(optimizer: OptimizerDescriptor, vectors: UpdateVectors, learningRate: number, step: number): Promise<void>;
  /** gradient += lambda * gradient^2 * (now - base). */
  delayCompensate(gradient: Float32Array, now: Float32Array, base: Float32Array, lambda: number): void;
  /** Largest absolute value; NaN or Infinity where the vector holds one. */
  largestMagnitude(vector: Float32Array): number;
  blake3(data: Uint8Array): Uint8Array;
}
