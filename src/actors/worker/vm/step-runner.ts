// Owns what a worker knows of the task's VM: a job goes in as text, gradients come out.
// Invariant: a step is a pure function of parameters and rows, so a VM may repeat one on a fresh machine; nothing of
// a job reaches the worker but the summary, loss, correct and the gradient.
import type { OptimizerDescriptor, RunPlan, TrainOperation } from "../../../training/index.js";

/** What a worker needs to know of a job that was checked. */
export interface JobSummary {
  run: RunPlan;
  optimizer: OptimizerDescriptor;
  rules: TrainOperation["rules"];
  cost: { parameterCount: number; memoryBytes: number; multiplyAddsPerStep: number };
}

/** Rows of a shard in the clear: inputs row by row, the labels of a row one after another. */
export interface StepRows {
  rows: number;
  images: Uint8Array | Int32Array;
  labels: Uint8Array | Int32Array;
}

export interface StepGradient {
  /** Mean over the rows; NaN where the arithmetic gave it. */
  loss: number;
  /** NaN where the graph does not count. */
  correct: number;
  /** The caller's own: nothing here touches it again. */
  gradient: Float32Array<ArrayBuffer>;
}

/** A job that was opened: its steps, one at a time. */
export interface StepRunner {
  readonly job: JobSummary;
  /** The gradient of `picked` rows (at most the job's batch size) at `parameters`. Throws TrainingError or VmError. */
  run(parameters: Float32Array, rows: StepRows, picked: Uint32Array): Promise<StepGradient>;
  close(): Promise<void>;
}

export interface TaskVm {
  /** Parses, checks and compiles a job, and keeps nothing that costs. Throws JobError or VmError. */
  inspect(job: string): Promise<JobSummary>;
  /** The same, and makes it ready to run. */
  open(job: string): Promise<StepRunner>;
  /** Ends all runners. */
  close(): Promise<void>;
}

export type VmErrorCode =
  /** It did not answer in time and was ended. */
  | "deadline"
  /** It ended by itself, as often as it was started anew. */
  | "died"
  /** What it said is not of the protocol. */
  | "protocol"
  /** It could not be started. */
  | "start"
  | "memory" | "failed" | "closed";

/** The machine failed; a job that is at fault itself is refused with a JobError. */
export class VmError extends Error {
  override readonly name = "VmError";
  constructor(readonly code: VmErrorCode, message: string) {
    super(message);
  }
}
