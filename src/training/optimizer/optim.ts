/**
 * Owns: the optimizers a user writes: `adam({ learningRate }).minimize(loss, {...})` makes the
 * train operation that a session runs. Data only; see parameter-server for the rules that apply it.
 */
import { TrainingError } from "../errors.js";
import type { Tensor } from "../graph/graph.js";
import { checkOptimizer, type LinearDecay, type OptimizerDescriptor } from "./descriptor.js";
import { checkRules, type RulesInput, type TrainingRules } from "./rules.js";

/** What a session runs: a loss to minimise, by which rule, and what to report beside it. */
export interface TrainOperation {
  readonly loss: Tensor;
  readonly logits?: Tensor;
  readonly correct?: Tensor;
  readonly optimizer: OptimizerDescriptor;
  readonly rules: TrainingRules;
}

export class Optimizer {
  constructor(readonly descriptor: OptimizerDescriptor) {}

  /** `logits` and `correct` let workers report accuracy; only `loss` is needed to train. */
  minimize(loss: Tensor, options: RulesInput & { logits?: Tensor; correct?: Tensor } = {}): TrainOperation {
    const { logits, correct, ...rules } = options;
    if (loss.shape.length !== 0) {
      throw new TrainingError("option", `minimize needs a scalar loss, got ${loss.toString()}`);
    }
    for (const other of [logits, correct]) {
      if (other !== undefined && other.graph !== loss.graph) {
        throw new TrainingError("option", `${other.toString()} belongs to another graph than the loss`);
      }
    }
    return {
      loss, ...(logits && { logits }), ...(correct && { correct }),
      optimizer: this.descriptor, rules: checkRules(rules),
    };
  }
}

interface RateOptions { learningRate: number; decay?: LinearDecay }

export function sgd(options: RateOptions & { weightDecay?: number }): Optimizer {
  return new Optimizer(checkOptimizer({ kind: "sgd", ...options }));
}

export function momentum(options: RateOptions & { momentum?: number; nesterov?: boolean; weightDecay?: number }): Optimizer {
  return new Optimizer(checkOptimizer({ kind: "momentum", momentum: 0.9, ...options }));
}

/**
 * Kingma and Ba 2015. beta1 is 0.5 by default: staleness already acts as momentum (Mitliagkas et
 * al. 2016), so the usual 0.9 over-shoots when many workers push.
 */
export function adam(options: RateOptions & { beta1?: number; beta2?: number; epsilon?: number }): Optimizer {
  return new Optimizer(checkOptimizer({ kind: "adam", beta1: 0.5, beta2: 0.999, epsilon: 1e-8, ...options }));
}

/** Adam with decoupled weight decay. */
export function adamW(options: RateOptions & { beta1?: number; beta2?: number; epsilon?: number; weightDecay?: number }): Optimizer {
  return new Optimizer(checkOptimizer({
    kind: "adam", beta1: 0.5, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.01, ...options,
  }));
}

/**
 * Muon (Jordan et al. 2024) for matrices, AdamW at `vectorRate` for all else; local training alone.
 * A matrix moves by learningRate * sqrt(max(1, out / in)) times an orthogonal matrix.
 */
export function muon(options: { learningRate: number; vectorRate: number; momentum?: number; weightDecay?: number;
  beta1?: number; beta2?: number; epsilon?: number }): Optimizer {
  return new Optimizer(checkOptimizer({
    kind: "muon", momentum: 0.95, weightDecay: 0.01, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, ...options,
  }));
}
