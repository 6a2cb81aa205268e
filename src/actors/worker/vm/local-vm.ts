// Owns the task's VM in the worker's own process: for tests, for the simulator, and for systems that have no
// confined child. Invariant: the same bits as in the child.
import type { Device } from "../../../device/device.js";
import { compileStep, parseJob, TrainStep, type JobLimits, type ParsedJob } from "../../../training/index.js";
import { gatherRows } from "./gather-rows.js";
import { VmError, type JobSummary, type StepGradient, type StepRows, type StepRunner, type TaskVm } from "./step-runner.js";

export function summaryOf({ run, operation: { optimizer, rules }, cost }: ParsedJob): JobSummary {
  return { run, optimizer, rules, cost };
}

/** @param device stays the caller's. */
export function createLocalVm(device: Device, limits: Partial<JobLimits> = {}): TaskVm {
  const open = new Set<LocalRunner>();
  return {
    inspect: async (job) => summaryOf(parseJob(job, limits)),
    open: async (job) => {
      const runner = new LocalRunner(parseJob(job, limits), device, () => open.delete(runner));
      open.add(runner);
      return runner;
    },
    close: async () => {
      for (const runner of open) await runner.close();
    },
  };
}

class LocalRunner implements StepRunner {
  readonly job: JobSummary;
  private readonly steps = new Map<number, TrainStep>();
  private isClosed = false;

  constructor(private readonly parsed: ParsedJob, private readonly device: Device, private readonly onClose: () => void) {
    this.job = summaryOf(parsed);
  }

  async run(parameters: Float32Array, rows: StepRows, picked: Uint32Array): Promise<StepGradient> {
    if (this.isClosed) throw new VmError("closed", "the job is closed");
    const step = this.stepOf(picked.length);
    const { batchSize, rowElements, rowLabels, inputType } = step.compiled;
    const inputs = inputType === "u8" ? new Uint8Array(batchSize * rowElements) : new Int32Array(batchSize * rowElements);
    const labels = new Int32Array(batchSize * rowLabels);
    gatherRows(rows, picked, inputs, labels);
    step.setParameters(parameters);
    const { loss, correct, gradient } = await step.run(inputs, labels);
    return { loss, correct, gradient: gradient.slice() }; // the next step writes over the plan's own
  }

  async close(): Promise<void> {
    this.isClosed = true;
    for (const step of this.steps.values()) step.close();
    this.steps.clear();
    this.onClose();
  }

  private stepOf(rows: number): TrainStep {
    const known = this.steps.get(rows);
    if (known) return known;
    const { loss, logits, correct } = this.parsed.operation;
    const step = new TrainStep(this.device, compileStep(this.parsed.graph, { loss, logits, correct, batchSize: rows }));
    this.steps.set(rows, step);
    return step;
  }
}
