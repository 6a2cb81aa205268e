/**
 * Owns: what a training run says about itself: scalars, histograms and texts by name and step, and
 * the sink that takes them. Invariant: a sink writes down what it is given and computes nothing; the
 * time comes in as an argument, so a simulated run has simulated times.
 */
import { TrainingError } from "../errors.js";

/**
 * Counts by bins. Without `edges`, counts[i] is how often the whole number i came (staleness). With
 * them, counts[i] is how many values lay from edges[i] to edges[i + 1]: one more edge than counts.
 */
export interface HistogramCounts {
  counts: readonly number[];
  edges?: readonly number[];
}

/** Where figures go. `step` is a whole number (updates applied), `wallTimeMs` milliseconds since 1970. */
export interface MetricsSink {
  scalar(name: string, step: number, value: number, wallTimeMs: number): void;
  histogram(name: string, step: number, histogram: HistogramCounts, wallTimeMs: number): void;
  text(name: string, step: number, text: string, wallTimeMs: number): void;
  /** What was written stays; nothing may be written after it. */
  close(): void;
}

/** A name is a path as in "loss/train": viewers group by what stands before the slash. */
export const METRIC_NAME_LENGTH_MAX = 256;

/** Throws a TrainingError for what no sink can take. */
export function checkMetric(name: string, step: number, wallTimeMs: number): void {
  if (typeof name !== "string" || name.length === 0 || name.length > METRIC_NAME_LENGTH_MAX) {
    throw new TrainingError("option", `a metric's name has 1 to ${METRIC_NAME_LENGTH_MAX} characters, got ${JSON.stringify(name)}`);
  }
  if (!Number.isSafeInteger(step) || step < 0) {
    throw new TrainingError("option", `the step of metric "${name}" must be a whole number from 0 on, got ${String(step)}`);
  }
  if (!Number.isFinite(wallTimeMs)) {
    throw new TrainingError("option", `the time of metric "${name}" must be in milliseconds, got ${String(wallTimeMs)}`);
  }
}

/** As checkMetric, for the bins of a histogram. */
export function checkHistogram(name: string, { counts, edges }: HistogramCounts): void {
  if (!counts.every((count) => Number.isFinite(count) && count >= 0)) {
    throw new TrainingError("option", `histogram "${name}" must have counts from 0 on`);
  }
  const ascending = edges?.every((edge, i) => Number.isFinite(edge) && (i === 0 || edge > edges[i - 1]!)) ?? true;
  if (!ascending || (edges !== undefined && edges.length !== counts.length + 1)) {
    throw new TrainingError("option", `histogram "${name}" of ${counts.length} counts must have ` +
      `${counts.length + 1} ascending edges, or none`);
  }
}

export type MetricRecord =
  | { kind: "scalar"; name: string; step: number; value: number; wallTimeMs: number }
  | { kind: "histogram"; name: string; step: number; counts: number[]; edges?: number[]; wallTimeMs: number }
  | { kind: "text"; name: string; step: number; text: string; wallTimeMs: number };

/** Keeps everything in memory, in the order of arrival: for reports and tests. */
export class MemoryMetrics implements MetricsSink {
  readonly records: MetricRecord[] = [];

  scalar(name: string, step: number, value: number, wallTimeMs: number): void {
    checkMetric(name, step, wallTimeMs);
    this.records.push({ kind: "scalar", name, step, value, wallTimeMs });
  }

  histogram(name: string, step: number, histogram: HistogramCounts, wallTimeMs: number): void {
    checkMetric(name, step, wallTimeMs);
    checkHistogram(name, histogram);
    const { counts, edges } = histogram;
    this.records.push({ kind: "histogram", name, step, counts: [...counts], ...(edges && { edges: [...edges] }), wallTimeMs });
  }

  text(name: string, step: number, text: string, wallTimeMs: number): void {
    checkMetric(name, step, wallTimeMs);
    this.records.push({ kind: "text", name, step, text, wallTimeMs });
  }

  /** The values of one scalar in the order of arrival. */
  series(name: string): { step: number; value: number; wallTimeMs: number }[] {
    return this.records.flatMap((record) => (record.kind === "scalar" && record.name === name
      ? [{ step: record.step, value: record.value, wallTimeMs: record.wallTimeMs }] : []));
  }

  close(): void {}
}

/** One sink that hands everything on to several. */
export function combineMetrics(...sinks: readonly MetricsSink[]): MetricsSink {
  return {
    scalar: (...args) => sinks.forEach((sink) => sink.scalar(...args)),
    histogram: (...args) => sinks.forEach((sink) => sink.histogram(...args)),
    text: (...args) => sinks.forEach((sink) => sink.text(...args)),
    close: () => sinks.forEach((sink) => sink.close()),
  };
}
