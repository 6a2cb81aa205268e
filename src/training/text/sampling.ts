/**
 * Owns: the choice of a token from logits: greedy, or by chance after temperature, the k likeliest and
 * the likeliest that make up p (Holtzman et al. 2020), in this order.
 * Invariant: the same logits, options and stream give the same token; among equals the lower id is first.
 */
import { TrainingError } from "../errors.js";
import type { PhiloxStream } from "../graph/philox.js";

export interface SamplingOptions {
  /** Logits are divided by it; 0 takes the likeliest. Default 1. */
  temperature?: number;
  /** Only so many of the likeliest. Default all. */
  topK?: number;
  /** Only the likeliest that together have this probability, above 0 and at most 1. Default 1. */
  topP?: number;
}

export function checkSampling({ temperature = 1, topK, topP = 1 }: SamplingOptions): void {
  const fail = (message: string): never => {
    throw new TrainingError("option", message);
  };
  if (!(Number.isFinite(temperature) && temperature >= 0)) fail(`temperature must be 0 or more, got ${temperature}`);
  if (topK !== undefined && !(Number.isInteger(topK) && topK >= 1)) fail(`topK must be a positive integer, got ${topK}`);
  if (!(topP > 0 && topP <= 1)) fail(`topP must be above 0 and at most 1, got ${topP}`);
}

/** Throws where a logit is NaN or all are -infinity: there is nothing to choose. */
export function sampleToken(logits: Float32Array, options: SamplingOptions, random: PhiloxStream): number {
  const { temperature = 1, topK = logits.length, topP = 1 } = options;
  let best = 0;
  for (let id = 0; id < logits.length; id++) {
    if (Number.isNaN(logits[id]!)) throw new TrainingError("label", `the logit of token ${id} is NaN`, { token: id });
    if (logits[id]! > logits[best]!) best = id;
  }
  const top = logits[best]!;
  if (top === -Infinity) throw new TrainingError("label", "every token has the logit -infinity");
  if (temperature === 0 || topK === 1 || top === Infinity) return best;
  const weightOf = (logit: number): number => Math.exp((logit - top) / temperature);
  const falling = topK < logits.length || topP < 1 ? logits.toSorted().reverse() : logits;
  let kept = Math.min(topK, logits.length);
  if (topP < 1) {
    let total = 0, sum = 0;
    for (let i = 0; i < kept; i++) total += weightOf(falling[i]!);
    for (let i = 0; i < kept; i++) {
      sum += weightOf(falling[i]!);
      if (sum >= topP * total) kept = i + 1;
    }
  }
  return draw(logits, kept === logits.length ? -Infinity : falling[kept - 1]!, kept, weightOf, random);
}

/** By weight among the `kept` largest: all above `least`, and the first that equal it. */
function draw(logits: Float32Array, least: number, kept: number, weightOf: (logit: number) => number, random: PhiloxStream): number {
  let above = 0, total = 0;
  for (const logit of logits) if (logit > least) above++;
  const ids: number[] = [];
  let equal = kept - above;
  logits.forEach((logit, id) => {
    if (logit > least || (logit === least && equal-- > 0)) {
      ids.push(id);
      total += weightOf(logit);
    }
  });
  // 53 bits: a token of any weight that a double holds can be drawn.
  let rest = total * ((random.next() >>> 5) * 0x4000000 + (random.next() >>> 6)) / 0x20000000000000;
  for (const id of ids) {
    rest -= weightOf(logits[id]!);
    if (rest < 0) return id;
  }
  return ids.findLast((id) => weightOf(logits[id]!) > 0)!;
}
