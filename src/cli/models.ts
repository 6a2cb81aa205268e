/**
 * Owns the jobs that the command line offers by name, with settings measured to train well
 * asynchronously on two workers.
 */
import { MODELS, optim, type Job, type ModelName } from "../training/index.js";

/** beta1 stays low: under asynchrony staleness already acts as momentum (training spec). */
const ADAM = { beta1: 0.5, beta2: 0.999, epsilon: 1e-8 };
const LEARNING_RATE: Record<ModelName, number> = { mlp: 0.001, cnn: 0.0015 };
const MAX_STALENESS = 8;

export function demoJob(model: ModelName, run: { batchSize: number; epochs: number; seed: number }): Job {
  const { loss, logits, correct } = MODELS[model]();
  const operation = optim.adam({ learningRate: LEARNING_RATE[model], ...ADAM })
    .minimize(loss, { mode: "async", maxStaleness: MAX_STALENESS, logits, correct });
  return { operation, run: { batchSize: run.batchSize, epochs: run.epochs, seed: run.seed } };
}
