/**
 * Owns: how a variable gets its first values. The description is plain data and part of the job's
 * hash; the values are a pure function of (description, shape, seed, variable number), computed
 * with exact float operations only, so every node starts from the same bits.
 */
import { GraphError, type Shape } from "../errors.js";
import { PhiloxStream } from "./philox.js";

export type Initializer =
  | { kind: "zeros" }
  | { kind: "constant"; value: number }
  /** Uniform in [-bound, bound). */
  | { kind: "uniform"; bound: number }
  /** Mean 0, by Irwin-Hall (sum of 12 uniforms): near normal, cut at 6 deviations, no libm. */
  | { kind: "normal"; deviation: number };

/** He et al. 2015: variance 2 / fanIn, for layers that a ReLU follows. */
export function heUniform(fanIn: number): Initializer {
  return { kind: "uniform", bound: Math.fround(Math.sqrt(6 / fanIn)) };
}

/** Glorot and Bengio 2010: variance 2 / (fanIn + fanOut), for linear outputs. */
export function glorotUniform(fanIn: number, fanOut: number): Initializer {
  return { kind: "uniform", bound: Math.fround(Math.sqrt(6 / (fanIn + fanOut))) };
}

/** Inputs that feed one output of a weight: matrix (in, out) or convolution (kh, kw, in, out). */
export function fanOf(shape: Shape): { fanIn: number; fanOut: number } {
  const receptive = shape.slice(0, -2).reduce((product, size) => product * size, 1);
  const fanOut = shape[shape.length - 1] ?? 1;
  const fanIn = shape.length >= 2 ? shape[shape.length - 2]! : fanOut;
  return { fanIn: fanIn * receptive, fanOut: fanOut * receptive };
}

export function checkInitializer(value: unknown, op: string): Initializer {
  const fail = (message: string): never => {
    throw new GraphError("attribute", message, { op });
  };
  if (typeof value !== "object" || value === null) return fail("the initializer must be an object");
  const record = value as Record<string, unknown>;
  const number = (key: string): number => {
    const found = record[key];
    if (typeof found !== "number" || !Number.isFinite(found)) {
      return fail(`initializer "${String(record.kind)}" needs a finite number "${key}"`);
    }
    return found;
  };
  const parsed: Initializer =
    record.kind === "zeros" ? { kind: "zeros" }
    : record.kind === "constant" ? { kind: "constant", value: number("value") }
    : record.kind === "uniform" ? { kind: "uniform", bound: number("bound") }
    : record.kind === "normal" ? { kind: "normal", deviation: number("deviation") }
    : fail(`unknown initializer "${String(record.kind)}"; expected zeros, constant, uniform or normal`);
  if (Object.keys(record).length !== Object.keys(parsed).length) fail("the initializer has unknown fields");
  return parsed;
}

/** Fills `out` (one variable) from the stream (seed, variable number). */
export function initialize(initializer: Initializer, out: Float32Array, seed: bigint, variable: number): void {
  if (initializer.kind === "zeros") return void out.fill(0);
  if (initializer.kind === "constant") return void out.fill(initializer.value);
  const stream = new PhiloxStream(seed, variable);
  if (initializer.kind === "uniform") {
    for (let i = 0; i < out.length; i++) out[i] = (2 * stream.uniform() - 1) * initializer.bound;
    return;
  }
  for (let i = 0; i < out.length; i++) {
    let sum = -6;
    for (let draw = 0; draw < 12; draw++) sum += stream.uniform();
    out[i] = sum * initializer.deviation;
  }
}
