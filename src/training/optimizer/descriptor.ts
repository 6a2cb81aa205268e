/**
 * Owns: optimizers as data: which rule, with which constants. They hold no state; the moments live
 * where the update is applied (the parameter server, or a local plan).
 */
import { TrainingError } from "../errors.js";

/** learningRate * max(finalFactor, 1 - (1 - finalFactor) * version / updates): linear decay. */
export interface LinearDecay {
  kind: "linear";
  updates: number;
  finalFactor: number;
  /** The rate climbs from 0 over this many first updates. */
  warmup?: number;
}

interface Common {
  learningRate: number;
  /** Decoupled (Loshchilov and Hutter 2019): p -= rate * weightDecay * p. */
  weightDecay?: number;
  decay?: LinearDecay;
}

export type OptimizerDescriptor =
  | (Common & { kind: "sgd" })
  | (Common & { kind: "momentum"; momentum: number; nesterov?: boolean })
  | (Common & { kind: "adam"; beta1: number; beta2: number; epsilon: number })
  /**
   * Jordan et al. 2024: matrices move along their momentum made orthogonal; all else (vectors, kernels, tables
   * that embed) by AdamW at `vectorRate`. For local plans alone: a server's shards are not matrices.
   */
  | (Common & { kind: "muon"; momentum: number; vectorRate: number; beta1: number; beta2: number; epsilon: number });

const RANGES: Record<string, { min: number; max: number; openMax?: boolean; optional?: boolean }> = {
  learningRate: { min: 0, max: 100 },
  weightDecay: { min: 0, max: 10, optional: true },
  vectorRate: { min: 0, max: 100 },
  momentum: { min: 0, max: 1, openMax: true },
  beta1: { min: 0, max: 1, openMax: true },
  beta2: { min: 0, max: 1, openMax: true },
  epsilon: { min: 1e-30, max: 1 },
};
const FIELDS = {
  sgd: ["learningRate", "weightDecay"],
  momentum: ["learningRate", "weightDecay", "momentum"],
  adam: ["learningRate", "weightDecay", "beta1", "beta2", "epsilon"],
  muon: ["learningRate", "weightDecay", "momentum", "vectorRate", "beta1", "beta2", "epsilon"],
} as const;

const fail = (message: string, fields: Record<string, unknown> = {}): never => {
  throw new TrainingError("option", message, fields);
};

function numberIn(record: Record<string, unknown>, key: string): number | undefined {
  const range = RANGES[key]!;
  const value = record[key];
  if (value === undefined && range.optional) return undefined;
  const valid = typeof value === "number" && value >= range.min && value <= range.max &&
    !(range.openMax && value === range.max);
  if (!valid) {
    fail(`optimizer "${key}" must be a number from ${range.min} to ${range.openMax ? "below " : ""}${range.max}, ` +
      `got ${JSON.stringify(value)}`, { key });
  }
  return value as number;
}

function checkDecay(value: unknown): LinearDecay {
  const { kind, updates, finalFactor, warmup, ...rest } = (value ?? {}) as Record<string, unknown>;
  const valid = kind === "linear" && Number.isInteger(updates) && (updates as number) > 0 &&
    typeof finalFactor === "number" && finalFactor >= 0 && finalFactor <= 1 &&
    (warmup === undefined || (Number.isInteger(warmup) && (warmup as number) >= 0)) && Object.keys(rest).length === 0;
  if (!valid) {
    fail(`optimizer "decay" must be {kind: "linear", updates, finalFactor, warmup?}, got ${JSON.stringify(value)}`);
  }
  return {
    kind: "linear", updates: updates as number, finalFactor: finalFactor as number,
    ...(warmup === undefined ? {} : { warmup: warmup as number }),
  };
}

/** Checks data from anywhere; the result has the known fields only. */
export function checkOptimizer(value: unknown): OptimizerDescriptor {
  if (typeof value !== "object" || value === null) return fail("the optimizer must be an object");
  const record = value as Record<string, unknown>;
  const kind = record.kind as keyof typeof FIELDS;
  if (typeof kind !== "string" || !Object.hasOwn(FIELDS, kind)) {
    fail(`unknown optimizer ${JSON.stringify(record.kind)}; expected sgd, momentum, adam or muon`);
  }
  const checked: Record<string, unknown> = { kind };
  for (const key of FIELDS[kind]) {
    const number = numberIn(record, key);
    if (number !== undefined) checked[key] = number;
  }
  if (record.decay !== undefined) checked.decay = checkDecay(record.decay);
  if (kind === "momentum" && record.nesterov !== undefined) {
    if (typeof record.nesterov !== "boolean") fail('optimizer "nesterov" must be true or false');
    checked.nesterov = record.nesterov;
  }
  const unknown = Object.keys(record).find((key) => !Object.hasOwn(checked, key) && record[key] !== undefined);
  if (unknown !== undefined) fail(`optimizer "${kind}" has no field "${unknown}"`, { key: unknown });
  return checked as unknown as OptimizerDescriptor;
}

/** The rate of the update that makes version `version + 1`, before any staleness factor. */
export function learningRateAt(optimizer: OptimizerDescriptor, version: number): number {
  const { decay, learningRate } = optimizer;
  if (decay === undefined) return learningRate;
  const warmup = decay.warmup ?? 0;
  const climbing = version < warmup ? (version + 1) / warmup : 1;
  const progress = Math.min(1, version / decay.updates);
  return learningRate * climbing * (1 - (1 - decay.finalFactor) * progress);
}

/** How many moment vectors the rule keeps beside the parameters. */
export function momentsOf(optimizer: OptimizerDescriptor): readonly ("m" | "v")[] {
  return optimizer.kind === "adam" || optimizer.kind === "muon" ? ["m", "v"] : optimizer.kind === "momentum" ? ["m"] : [];
}
