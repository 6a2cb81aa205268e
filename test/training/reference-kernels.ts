/** Update rules in plain TypeScript, one rounding a line: the store's tests need no addon. */
import { blake3 } from "@noble/hashes/blake3.js";
import type { UpdateKernels } from "../../src/training/parameter-server/update-kernels.js";

export const referenceKernels: UpdateKernels = {
  async apply(optimizer, { parameters: p, gradient: g, moments: [m, v] }, learningRate, step) {
    await undefined; // as on a device: not in the same tick
    for (let i = 0; i < p.length; i++) {
      if (optimizer.kind === "sgd") p[i] = p[i]! - learningRate * g[i]!;
      else if (optimizer.kind === "momentum") {
        m![i] = optimizer.momentum * m![i]! + g[i]!;
        p[i] = p[i]! - learningRate * m![i]!;
      } else {
        m![i] = optimizer.beta1 * m![i]! + (1 - optimizer.beta1) * g[i]!;
        v![i] = optimizer.beta2 * v![i]! + (1 - optimizer.beta2) * g[i]! * g[i]!;
        const c1 = 1 - optimizer.beta1 ** step, c2 = 1 - optimizer.beta2 ** step;
        p[i] = p[i]! - (learningRate * (m![i]! / c1)) / (Math.sqrt(v![i]! / c2) + optimizer.epsilon);
      }
    }
  },
  delayCompensate(g, now, base, lambda) {
    for (let i = 0; i < g.length; i++) g[i] = g[i]! + lambda * g[i]! * g[i]! * (now[i]! - base[i]!);
  },
  largestMagnitude(vector) {
    let largest = 0;
    for (const value of vector) {
      if (!Number.isFinite(value)) return value;
      largest = Math.max(largest, Math.abs(value));
    }
    return largest;
  },
  blake3: (data) => blake3(data),
};
