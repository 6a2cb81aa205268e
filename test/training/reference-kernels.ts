/** Update rules in plain TypeScript, one rounding a line: the store's tests need no addon. */
import { blake3 } from "@noble/hashes/blake3.js";
import type { UpdateKernels } from "../../src/training/parameter-server/update-kernels.js";

export const referenceKernels: UpdateKernels = {
  async update(optimizer, from, g, to, learningRate, step) {
    await undefined; // as on a device: not in the same tick
    const { parameters: w, moments: [m0, v0] } = from, { parameters: p, moments: [m, v] } = to;
    for (let i = 0; i < p.length; i++) {
      if (optimizer.kind === "sgd") p[i] = w[i]! - learningRate * g[i]!;
      else if (optimizer.kind === "momentum") {
        m![i] = optimizer.momentum * m0![i]! + g[i]!;
        p[i] = w[i]! - learningRate * (optimizer.nesterov ? optimizer.momentum * m![i]! + g[i]! : m![i]!);
      } else {
        m![i] = optimizer.beta1 * m0![i]! + (1 - optimizer.beta1) * g[i]!;
        v![i] = optimizer.beta2 * v0![i]! + (1 - optimizer.beta2) * g[i]! * g[i]!;
        const c1 = 1 - optimizer.beta1 ** step, c2 = 1 - optimizer.beta2 ** step;
        p[i] = w[i]! - (learningRate * (m![i]! / c1)) / (Math.sqrt(v![i]! / c2) + (optimizer as { epsilon: number }).epsilon);
      }
    }
    return largest(g);
  },
  async delayCompensate(g, now, base, lambda) {
    for (let i = 0; i < g.length; i++) g[i] = g[i]! + lambda * g[i]! * g[i]! * (now[i]! - base[i]!);
  },
  async mean(gradients, out) {
    await undefined;
    out.forEach((_, i) => { out[i] = gradients.reduce((sum, each) => sum + each[i]!, 0) / gradients.length; });
  },
  async largestMagnitude(vector) { return largest(vector); },
  /** Enough of an encoding for the store's rules: the elements' bytes. */
  async decode({ bytes, length }, out) {
    if (bytes.length !== 4 * length) throw new Error("damaged");
    new Uint8Array(out.buffer, out.byteOffset, out.byteLength).set(bytes);
  },
  blake3: async (data) => blake3(data),
};

function largest(vector: Float32Array): number {
  let most = 0;
  for (const value of vector) {
    if (!Number.isFinite(value)) return value;
    most = Math.max(most, Math.abs(value));
  }
  return most;
}
