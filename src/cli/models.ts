/**
 * Owns the jobs that the command line offers by name, with settings measured to train well
 * asynchronously on two workers.
 */
import { MODELS, optim, type Job, type ModelName } from "../training/index.js";

/**
 * Measured on two asynchronous workers over three epochs: beta1 stays low because staleness already acts as
 * momentum (training spec), the rate climbs over the first updates and falls linearly to a twentieth.
 */
const ADAM = { beta1: 0.5, beta2: 0.99, epsilon: 1e-8 };
const LEARNING_RATE: Record<ModelName, number> = { mlp: 0.0015, cnn: 0.003, "cnn-wide": 0.002 };
/** Batch that the rates belong to; a larger one takes a proportionally larger rate. */
const RATE_BATCH = 128;
const WARMUP_UPDATES = 60;
const FINAL_FACTOR = 0.05;
const MAX_STALENESS = 8;
const STALENESS_ALPHA = 0.1;

export interface DemoRun { batchSize: number; epochs: number; seed: number; /** Rows of the training set. */ rows: number }

export function demoJob(model: ModelName, { batchSize, epochs, seed, rows }: DemoRun): Job {
  const { loss, logits, correct } = MODELS[model]();
  const updates = Math.max(1, Math.ceil((epochs * rows) / batchSize));
  const operation = optim.adam({
    ...ADAM, learningRate: (LEARNING_RATE[model] * batchSize) / RATE_BATCH,
    decay: { kind: "linear", updates, finalFactor: FINAL_FACTOR, warmup: Math.min(WARMUP_UPDATES, updates) },
  }).minimize(loss, { mode: "async", maxStaleness: MAX_STALENESS, alpha: STALENESS_ALPHA, logits, correct });
  return { operation, run: { batchSize, epochs, seed } };
}
