/**
 * Owns: the update kernels of a compute device, in the parameter server's terms.
 */
import type { Device, UpdateKind, UpdateOptions } from "../../device/device.js";
import { TrainingError } from "../errors.js";
import type { OptimizerDescriptor } from "../optimizer/descriptor.js";
import type { UpdateKernels } from "./update-kernels.js";

export function createUpdateKernels(device: Device): UpdateKernels {
  return {
    async update(optimizer, from, gradient, to, learningRate, step) {
      const { kind, options } = updateOf(optimizer, learningRate, step);
      return device.updateAsync(kind, [from.parameters, gradient, ...from.moments], [to.parameters, ...to.moments], options);
    },
    delayCompensate: (gradient, now, base, lambda) => device.delayCompensateAsync(gradient, now, base, lambda),
    mean: (gradients, out) => device.meanAsync(gradients, out),
    largestMagnitude: (vector) => device.largestAsync(vector),
    decode: ({ bytes }, out) => device.decompressAsync(bytes, out),
    blake3: (data) => device.blake3Async(data),
  };
}

function updateOf(optimizer: OptimizerDescriptor, learningRate: number, step: number): { kind: UpdateKind; options: UpdateOptions } {
  const weightDecay = optimizer.weightDecay ?? 0;
  switch (optimizer.kind) {
    case "sgd":
      return { kind: "sgd", options: { learningRate, weightDecay } };
    case "momentum":
      return {
        kind: "momentum",
        options: { learningRate, weightDecay, momentum: optimizer.momentum, nesterov: optimizer.nesterov ?? false },
      };
    case "adam": {
      const { beta1, beta2, epsilon } = optimizer;
      return { kind: "adam", options: { learningRate, weightDecay, beta1, beta2, epsilon, step } };
    }
    case "muon":
      throw new TrainingError("option", "muon needs whole matrices: it trains in a local plan alone");
  }
}
