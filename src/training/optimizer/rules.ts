/**
 * Owns: the rules by which the gradients of many workers meet at a parameter server, as data: the
 * mode, its bounds, and how gradients are compressed on their way.
 * Invariant: checkRules gives one object per meaning (defaults filled in, no unknown field), so that
 * equal rules have equal canonical text.
 */
import { TrainingError } from "../errors.js";
import { learningRateAt, momentsOf, type OptimizerDescriptor } from "./descriptor.js";

/** Applied the moment it arrives (white paper 2.8); staleness = versions made since its base. */
export interface AsyncRules {
  mode: "async";
  /** A gradient computed more than this many versions ago is refused and forces a pull. */
  maxStaleness: number;
  /** The rate is divided by 1 + alpha * staleness (Zhang et al. 2016). */
  alpha: number;
  /** DC-ASGD (Zheng et al. 2017): g + lambda * g * g * (w_now - w_base). */
  delayCompensation?: { lambda: number };
}

/** Stale synchronous parallel (Ho et al. 2013). */
export interface SspRules {
  mode: "ssp";
  /** Nobody goes on while more than this many batches ahead of the slowest active worker. */
  slack: number;
}

/** Synchronous with backup workers (Chen et al. 2016). */
export interface SyncRules {
  mode: "sync";
  workers: number;
  /** An update is the mean of the first workers - backups gradients of a version; later ones are stale. */
  backups: number;
}

/** DiLoCo (Douillard et al. 2023). */
export interface LocalRules {
  mode: "local";
  /** Optimizer steps a worker makes on its own before it pushes (parameters at base) - (its parameters). */
  localSteps: number;
  /** The server's Nesterov step along the mean of what all active workers pushed. */
  outer: { learningRate: number; momentum: number };
}

/** How a gradient travels; all but fp16 with error feedback on the worker (GradientCompressor). */
export type Compression =
  | { kind: "fp16" }
  | { kind: "int8" }
  /** ratio: the share of elements sent, those of the largest magnitude. */
  | { kind: "topk"; ratio: number }
  | { kind: "sign" };

export type TrainingRules = (AsyncRules | SspRules | SyncRules | LocalRules) & { compression?: Compression };

type Defaults<Rules extends { mode: string }> = Partial<Omit<Rules, "mode">> & Pick<Rules, "mode"> & { compression?: Compression };
/** What a user writes: everything but the mode has a default, and the default mode is async. */
export type RulesInput =
  | (Partial<AsyncRules> & { compression?: Compression })
  | Defaults<SspRules> | Defaults<SyncRules>
  | (Partial<Omit<LocalRules, "mode" | "outer">> & { mode: "local"; outer?: Partial<LocalRules["outer"]>; compression?: Compression });

export const DEFAULT_ASYNC_RULES: AsyncRules = { mode: "async", maxStaleness: 8, alpha: 0.1 };
/** Ho et al. 2013, section 5: slacks of 3 to 5 were the fastest. */
const DEFAULT_SLACK = 3;
/** Douillard et al. 2023, table 5: the outer rate and momentum of their main runs. */
const DEFAULT_OUTER = { learningRate: 0.7, momentum: 0.9 };
const DEFAULT_LOCAL_STEPS = 32;

/** One kept parameter vector per version of staleness: 256 is far beyond any useful bound. */
export const STALENESS_LIMIT = 256;
/** Each waits in an open round with a whole gradient. */
export const ROUND_WORKERS_MAX = 1024;
const LOCAL_STEPS_MAX = 100_000;

type Fields = Record<string, unknown>;

const fail = (message: string): never => {
  throw new TrainingError("option", message);
};

function fieldsOf(value: unknown, name: string): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    fail(`${name} must be an object, got ${JSON.stringify(value)}`);
  }
  return value as Fields;
}

function integer(value: unknown, name: string, min: number, max: number): number {
  if (!Number.isInteger(value) || (value as number) < min || (value as number) > max) {
    fail(`${name} must be an integer from ${min} to ${max}, got ${JSON.stringify(value)}`);
  }
  return value as number;
}

function number(value: unknown, name: string, min: number, max: number): number {
  if (typeof value !== "number" || !(value >= min && value <= max)) {
    fail(`${name} must be a number from ${min} to ${max}, got ${JSON.stringify(value)}`);
  }
  return value as number;
}

function nothingElse(rest: Fields, name: string): void {
  const unknown = Object.keys(rest).find((key) => rest[key] !== undefined);
  if (unknown !== undefined) fail(`${name} has no field "${unknown}"`);
}

/** Checks data from anywhere; the result has the known fields only. Throws TrainingError "option". */
export function checkRules(value: unknown): TrainingRules {
  const { mode = "async", compression, ...rest } = fieldsOf(value ?? {}, "the training rules");
  const check = typeof mode === "string" && Object.hasOwn(MODES, mode) ? MODES[mode as TrainingRules["mode"]] : undefined;
  if (check === undefined) return fail(`mode must be async, ssp, sync or local, got ${JSON.stringify(mode)}`);
  return { ...check(rest), ...(compression === undefined ? {} : { compression: checkCompression(compression) }) };
}

const NAME = "the training rules";
const MODES: Record<TrainingRules["mode"], (fields: Fields) => TrainingRules> = {
  async({ maxStaleness = DEFAULT_ASYNC_RULES.maxStaleness, alpha = DEFAULT_ASYNC_RULES.alpha, delayCompensation, ...rest }) {
    nothingElse(rest, NAME);
    return {
      mode: "async",
      maxStaleness: integer(maxStaleness, "maxStaleness", 0, STALENESS_LIMIT),
      alpha: number(alpha, "alpha", 0, 100),
      ...(delayCompensation === undefined ? {} : { delayCompensation: checkCompensation(delayCompensation) }),
    };
  },
  ssp({ slack = DEFAULT_SLACK, ...rest }) {
    nothingElse(rest, NAME);
    return { mode: "ssp", slack: integer(slack, "slack", 0, STALENESS_LIMIT) };
  },
  sync({ workers = 1, backups = 0, ...rest }) {
    nothingElse(rest, NAME);
    const all = integer(workers, "workers", 1, ROUND_WORKERS_MAX);
    return { mode: "sync", workers: all, backups: integer(backups, "backups", 0, all - 1) };
  },
  local({ localSteps = DEFAULT_LOCAL_STEPS, outer = {}, ...rest }) {
    nothingElse(rest, NAME);
    const { learningRate = DEFAULT_OUTER.learningRate, momentum = DEFAULT_OUTER.momentum, ...other } = fieldsOf(outer, "outer");
    nothingElse(other, "outer");
    if (momentum === 1) fail("outer.momentum must be below 1");
    return {
      mode: "local",
      localSteps: integer(localSteps, "localSteps", 1, LOCAL_STEPS_MAX),
      outer: { learningRate: number(learningRate, "outer.learningRate", 0, 100), momentum: number(momentum, "outer.momentum", 0, 1) },
    };
  },
};

function checkCompensation(value: unknown): { lambda: number } {
  const { lambda, ...rest } = fieldsOf(value, "delayCompensation");
  nothingElse(rest, "delayCompensation");
  return { lambda: number(lambda, "delayCompensation.lambda", 0, 100) };
}

function checkCompression(value: unknown): Compression {
  const { kind, ratio, ...rest } = fieldsOf(value, "compression");
  nothingElse(rest, "compression");
  if (kind === "topk") return { kind, ratio: number(ratio, "compression.ratio", 1e-6, 1) };
  if (kind !== "fp16" && kind !== "int8" && kind !== "sign") {
    return fail(`compression.kind must be fp16, int8, topk or sign, got ${JSON.stringify(kind)}`);
  }
  if (ratio !== undefined) fail(`compression.ratio belongs to topk alone, the kind is ${kind}`);
  return { kind };
}

/** The rule that the server applies: the job's own; in local mode that is the worker's, and the server's is Nesterov. */
export function serverOptimizer(optimizer: OptimizerDescriptor, rules: TrainingRules): OptimizerDescriptor {
  return rules.mode === "local" ? { kind: "momentum", nesterov: true, ...rules.outer } : optimizer;
}

/** The rate of the update that makes version `version + 1` of a gradient that is `staleness` versions old. */
export function updateRate(optimizer: OptimizerDescriptor, rules: TrainingRules, version: number, staleness: number): number {
  const rate = learningRateAt(serverOptimizer(optimizer, rules), version);
  return rules.mode === "async" ? rate / (1 + rules.alpha * staleness) : rate;
}

/** Moment vectors on the server beside the parameters. */
export const serverMoments = (optimizer: OptimizerDescriptor, rules: TrainingRules): readonly ("m" | "v")[] =>
  momentsOf(serverOptimizer(optimizer, rules));
