// Owns what the convergence suite compares: the cluster's sizes, the modes and the compressions, each with the
// settings that suit it. Invariant: all see the same number of samples, and the same first weights.
import { optim } from "../../../dist/training/index.js";

/** The rate climbs over the first updates and falls linearly to a hundredth. */
const decay = (updates) => ({ kind: "linear", updates, finalFactor: 0.01, warmup: Math.min(60, Math.ceil(updates / 10)) });
const adam = (learningRate, beta1) => (updates) =>
  optim.adam({ learningRate, beta1, beta2: 0.99, epsilon: 1e-8, decay: decay(updates) }).descriptor;
const sgd = (learningRate) => (updates) => optim.momentum({ learningRate, momentum: 0.9, decay: decay(updates) }).descriptor;

/** Staleness acts as momentum (Mitliagkas et al. 2016): beta1 is lower where gradients are late. */
const SEQUENTIAL = adam(0.002, 0.9);
const ASYNC = adam(0.003, 0.5);
const async = (more = {}) => ({ mode: "async", maxStaleness: 8, alpha: 0.1, ...more });
/** One worker is never late. */
const ALONE = { mode: "async", maxStaleness: 0, alpha: 0 };

/** `gate`: must end within 0.5 points of "sequential" (median of the seeds). */
export const VARIANTS = [
  { name: "sequential", group: "workers", workers: 1, rules: ALONE, optimizer: SEQUENTIAL },
  { name: "async, 1 worker", group: "workers", workers: 1, rules: async(), optimizer: ASYNC },
  { name: "async, 2 workers", group: "workers", workers: 2, rules: async(), optimizer: ASYNC, gate: true },
  { name: "async, 4 workers", group: "workers", workers: 4, rules: async(), optimizer: ASYNC, gate: true },
  { name: "async, 8 workers", group: "workers", workers: 8, rules: async(), optimizer: ASYNC, gate: true },
  { name: "SGD with momentum, sequential", group: "modes", workers: 1, rules: ALONE, optimizer: sgd(0.05) },
  { name: "async, delay compensation", group: "modes", workers: 4, rules: async({ delayCompensation: { lambda: 0.04 } }), optimizer: ASYNC },
];

/** What stands beside the variants of a group in its charts. */
export const COMPARED = { workers: [], modes: ["sequential", "async, 4 workers"] };
