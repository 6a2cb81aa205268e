/**
 * Owns: the shape of a compressed gradient on its way to a parameter server.
 */
import type { Compression } from "../optimizer/rules.js";

export interface CompressedGradient {
  kind: Compression["kind"];
  /** Elements of the gradient that the bytes stand for. */
  length: number;
  /** The message: native/kernels/compression.h. */
  bytes: Uint8Array;
}

export const isCompressed = (gradient: Float32Array | CompressedGradient): gradient is CompressedGradient =>
  !(gradient instanceof Float32Array);
