/**
 * Owns: the names under which a training run's figures are recorded, the same in every sink.
 */
import type { HistogramCounts, MetricsSink } from "./sink.js";

/** What one report of a run may say; whatever is missing is not recorded. A session's Progress is one. */
export interface TrainingFigures {
  /** Updates applied so far: the step of every figure. */
  step: number;
  epoch?: number;
  /** Mean of the training batches; null before there is one. */
  loss?: number | null;
  /** Share of right answers on the training batches, 0 to 1. */
  trainAccuracy?: number | null;
  /** On data that is not trained on. */
  accuracy?: number;
  testLoss?: number;
  /** Of the last update, in versions. */
  staleness?: number;
  /** stalenessCounts[t]: pushes applied t versions after their base. */
  stalenessCounts?: readonly number[];
  stalePushes?: number;
  duplicatePushes?: number;
  rejectedPushes?: number;
  /** Gradients sent to the server, and parameters sent by it, so far. */
  bytesPushed?: number;
  bytesPulled?: number;
  /** Of one batch, forward and backward. */
  stepMs?: number;
  stepMsHistogram?: HistogramCounts;
  samples?: number;
  samplesPerSecond?: number;
  /** Spent so far, in the smallest money unit (10^-18 TSR). */
  cost?: bigint;
}

/** TSR in the smallest unit. */
const TSR = 1e18;

const SCALARS: Record<string, (figures: TrainingFigures) => number | null | undefined> = {
  "loss/train": (f) => f.loss,
  "loss/test": (f) => f.testLoss,
  "accuracy/train": (f) => f.trainAccuracy,
  "accuracy/test": (f) => f.accuracy,
  "progress/epoch": (f) => f.epoch,
  "progress/samples": (f) => f.samples,
  "speed/samples_per_second": (f) => f.samplesPerSecond,
  "speed/step_ms": (f) => f.stepMs,
  "staleness/last": (f) => f.staleness,
  "pushes/stale": (f) => f.stalePushes,
  "pushes/duplicate": (f) => f.duplicatePushes,
  "pushes/rejected": (f) => f.rejectedPushes,
  "bytes/pushed": (f) => f.bytesPushed,
  "bytes/pulled": (f) => f.bytesPulled,
  "cost/tsr": (f) => (f.cost === undefined ? undefined : Number(f.cost) / TSR),
};

/**
 * Records one report:
 * `for await (const p of session.run(step, run)) recordTraining(metrics, p, Date.now())`.
 */
export function recordTraining(metrics: MetricsSink, figures: TrainingFigures, wallTimeMs: number): void {
  const { step, stalenessCounts, stepMsHistogram } = figures;
  for (const [name, of] of Object.entries(SCALARS)) {
    const value = of(figures);
    if (value !== undefined && value !== null) metrics.scalar(name, step, value, wallTimeMs);
  }
  if (stalenessCounts?.some((count) => count > 0)) {
    metrics.histogram("staleness/applied", step, { counts: stalenessCounts }, wallTimeMs);
  }
  if (stepMsHistogram) metrics.histogram("speed/step_ms_histogram", step, stepMsHistogram, wallTimeMs);
}
