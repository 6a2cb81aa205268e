/**
 * Owns: the optimizers a user writes: `adam({ learningRate }).minimize(loss, {...})` makes the
 * train operation that a session runs. Data only; see parameter-server for the rules that apply it.
 */
import { TrainingError } from "../errors.js";
import type { Tensor } from "../graph/graph.js";
import { checkOptimizer, type LinearDecay, type OptimizerDescriptor } from "./descriptor.js";

/** How gradients of many workers meet (white paper 2.8; bounded staleness as in Ho et al. 2013). */
export interface AsyncRules {
  mode: "async";
  /** A gradient computed more than this many versions ago is refused and forces a pull. */
  maxStaleness: number;
  /** The rate is divided by 1 + alpha * staleness (Zhang et al. 2016). */
  alpha: number;
  /** DC-ASGD (Zheng et al. 2017): g + lambda * g * g * (w_now - w_base). */
  delayCompensation?: { lambda: number };
}

export const DEFAULT_ASYNC_RULES: AsyncRules = { mode: "async", maxStaleness: 8, alpha: 0.1 };

/** What a session runs: a loss to minimise, by which rule, and what to report beside it. */
export interface TrainOperation {
  readonly loss: Tensor;
  readonly logits?: Tensor;
  readonly correct?: Tensor;
  readonly optimizer: OptimizerDescriptor;
  readonly rules: AsyncRules;
}

export function checkRules(value: unknown): AsyncRules {
  const { mode = "async", maxStaleness = DEFAULT_ASYNC_RULES.maxStaleness, alpha = DEFAULT_ASYNC_RULES.alpha,
    delayCompensation, ...rest } = (value ?? {}) as Record<string, unknown>;
  const fail = (message: string): never => {
    throw new TrainingError("option", message);
  };
  if (mode !== "async") fail(`mode must be "async", got ${JSON.stringify(mode)}`);
  if (!Number.isInteger(maxStaleness) || (maxStaleness as number) < 0 || (maxStaleness as number) > STALENESS_LIMIT) {
    fail(`maxStaleness must be an integer from 0 to ${STALENESS_LIMIT}, got ${JSON.stringify(maxStaleness)}`);
  }
  if (typeof alpha !== "number" || !(alpha >= 0 && alpha <= 100)) {
    fail(`alpha must be a number from 0 to 100, got ${JSON.stringify(alpha)}`);
  }
  const lambda = (delayCompensation as { lambda?: unknown } | undefined)?.lambda;
  if (delayCompensation !== undefined && !(typeof lambda === "number" && lambda >= 0 && lambda <= 100)) {
    fail(`delayCompensation.lambda must be a number from 0 to 100, got ${JSON.stringify(lambda)}`);
  }
  const unknown = Object.keys(rest)[0];
  if (unknown !== undefined) fail(`the training rules have no field "${unknown}"`);
  return {
    mode: "async", maxStaleness: maxStaleness as number, alpha: alpha as number,
    ...(delayCompensation === undefined ? {} : { delayCompensation: { lambda: lambda as number } }),
  };
}

/** One kept parameter vector per version of staleness: 256 is far beyond any useful bound. */
export const STALENESS_LIMIT = 256;

export class Optimizer {
  constructor(readonly descriptor: OptimizerDescriptor) {}

  /** `logits` and `correct` let workers report accuracy; only `loss` is needed to train. */
  minimize(loss: Tensor, options: Partial<AsyncRules> & { logits?: Tensor; correct?: Tensor } = {}): TrainOperation {
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
