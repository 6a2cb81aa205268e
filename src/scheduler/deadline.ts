/**
 * Owns: when a step counts as straggling: later than median + k x MAD of what the others took.
 * Median and MAD stand up to a minority of liars or outliers, where mean and deviation do not.
 */
import { requireInput } from "./errors.js";

/** 1.4826 x MAD estimates one standard deviation; six of them are beyond honest noise. */
export const DEFAULT_MAD_FACTOR = 6 * 1.4826;
/** With fewer observations a median means nothing: nobody is judged. */
export const OBSERVATIONS_MIN = 3;

export function medianOf(values: readonly number[]): number {
  requireInput(values.length > 0, "values", "expected at least one");
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1]! + sorted[sorted.length >> 1]!) / 2;
}

/** Milliseconds after which a step is late; undefined while there is too little to judge by. */
export function deadlineOf(durationsMs: readonly number[], floorMs: number, k = DEFAULT_MAD_FACTOR): number | undefined {
  if (durationsMs.length < OBSERVATIONS_MIN) return undefined;
  const median = medianOf(durationsMs);
  const deviation = medianOf(durationsMs.map((each) => Math.abs(each - median)));
  return Math.max(floorMs, median + k * deviation);
}
