// Owns one task on a worker: takes units from the master, computes gradients, pushes them to the parameter
// server, and hands in a signed receipt a unit.
// Invariant: a batch counts once. The parameter server knows which batches of a unit are applied; a
// successor of a dead worker starts behind them, and a repeated push is a duplicate there.
import { type Device } from "../../device/device.js";
import { type CallResult, type Ref } from "../../runtime/index.js";
import { compileStep, epochOrder, parseJob, TrainStep, type ParsedJob } from "../../training/index.js";
import { type MasterProtocol } from "../master/protocol.js";
import { type ParameterServerProtocol } from "../parameter-server/protocol.js";

const CALL_TIMEOUT_MS = 10_000;
/** The master or the parameter server may be restarting: a worker waits this long before it gives up. */
const PATIENCE_MS = 60_000;
const RETRY_MS = 250;
/** No unit is free yet: another worker holds the last ones. */
const WAIT_MS = 200;

/** Decrypted rows of a shard: images row by row, one label a row. */
export interface ShardRows {
  rows: number;
  images: Uint8Array;
  labels: Uint8Array;
}

export interface TaskAssignment {
  taskId: string;
  fence: number;
  job: string;
}

export interface UnitWork {
  multiplyAdds: bigint;
  samples: number;
  batches: number;
  activeMs: number;
}

export interface TaskRunModules {
  device: Device;
  /** Looked up anew for each call: after a restart of the other side there is a new reference. */
  master: () => Ref<typeof MasterProtocol> | undefined;
  parameterServer: () => Ref<typeof ParameterServerProtocol> | undefined;
  /** Rows of a leased shard, decrypted. Throws without a lease. */
  rowsOf: (shard: number) => Promise<ShardRows>;
  receiptOf: (unit: number, work: UnitWork) => Promise<Uint8Array>;
  sleep: (ms: number, signal: AbortSignal) => Promise<void>;
  now: () => number;
  /** This worker's account address. */
  worker: string;
}

export class TaskRunFailed extends Error {
  constructor(readonly code: "unreachable" | "refused" | "rejected", message: string) {
    super(message);
    this.name = "TaskRunFailed";
  }
}

interface Gradient { loss: number; correct: number; multiplyAdds: bigint; baseVersion: number; gradient: Float32Array }
interface Landing { batch: number; status: "applied" | "stale" | "duplicate" | "rejected"; reason?: string }
interface Unit { id: number; rows: ShardRows; order: Uint32Array }

export class TaskRun {
  private readonly job: ParsedJob;
  private readonly steps = new Map<number, TrainStep>();
  private parameters = new Float32Array(0);
  private version = 0;
  private sequence = 0;

  constructor(private readonly assignment: TaskAssignment, private readonly modules: TaskRunModules) {
    this.job = parseJob(assignment.job);
  }

  /** Runs until the master says that no unit is left. Throws TaskRunFailed. */
  async run(signal: AbortSignal): Promise<void> {
    const { taskId } = this.assignment;
    const { worker } = this.modules;
    try {
      await this.pull(signal);
      while (!signal.aborted) {
        const next = await this.ask(signal, () => this.modules.master()?.call("nextUnit", { taskId, worker }, { timeoutMs: CALL_TIMEOUT_MS }));
        if (next.status === "done") return;
        if (next.status === "wait") await this.modules.sleep(WAIT_MS, signal);
        else await this.runUnit(next.unit!, next.epoch!, next.shard!, signal);
      }
    } finally {
      for (const step of this.steps.values()) step.close();
    }
  }

  private async runUnit(id: number, epoch: number, shard: number, signal: AbortSignal): Promise<void> {
    const { taskId } = this.assignment;
    const startMs = this.modules.now();
    const rows = await this.modules.rowsOf(shard);
    const { appliedBatches } = await this.ask(signal, () => this.modules.parameterServer()?.call(
      "unitProgress", { taskId, unit: id }, { timeoutMs: CALL_TIMEOUT_MS }));
    const unit: Unit = { id, rows, order: epochOrder(this.job.run.seed, shard, epoch, rows.rows) };
    const batches = Math.ceil(rows.rows / this.job.run.batchSize);
    const work: UnitWork = { multiplyAdds: 0n, samples: 0, batches: batches - appliedBatches, activeMs: 0 };
    let flight: Promise<Landing> | undefined;
    // one push is in flight while the next gradient is computed: the apply hides behind the arithmetic
    for (let batch = appliedBatches; batch < batches && !signal.aborted; batch += 1) {
      const picked = this.rowsOfBatch(unit, batch);
      const gradient = await this.gradientOf(rows, picked);
      work.multiplyAdds += gradient.multiplyAdds;
      work.samples += picked.length;
      await this.land(flight, unit, signal);
      flight = this.push(unit, batch, picked.length, gradient, signal);
    }
    await this.land(flight, unit, signal);
    if (signal.aborted) return;
    work.activeMs = this.modules.now() - startMs;
    const receipt = await this.modules.receiptOf(id, work);
    await this.ask(signal, () => this.modules.master()?.call(
      "completeUnit", { taskId, worker: this.modules.worker, unit: id, receipt }, { timeoutMs: CALL_TIMEOUT_MS }));
  }

  private rowsOfBatch(unit: Unit, batch: number): Uint32Array {
    const from = batch * this.job.run.batchSize;
    return unit.order.subarray(from, Math.min(from + this.job.run.batchSize, unit.order.length));
  }

  private async gradientOf(rows: ShardRows, picked: Uint32Array): Promise<Gradient> {
    const width = rows.images.length / rows.rows;
    const images = new Uint8Array(picked.length * width);
    const labels = new Uint8Array(picked.length);
    picked.forEach((row, i) => {
      images.set(rows.images.subarray(row * width, (row + 1) * width), i * width);
      labels[i] = rows.labels[row]!;
    });
    const step = this.stepFor(picked.length);
    step.setParameters(this.parameters);
    const baseVersion = this.version;
    const { loss, correct, gradient, multiplyAdds } = await step.run(images, labels);
    // the view is overwritten by the next batch, and the socket sends without copying
    return { loss, correct: Math.round(correct) || 0, multiplyAdds: BigInt(multiplyAdds), baseVersion, gradient: gradient.slice() };
  }

  private async push(unit: Unit, batch: number, samples: number, result: Gradient, signal: AbortSignal): Promise<Landing> {
    const { taskId, fence } = this.assignment;
    const sequence = (this.sequence += 1);
    const reply = await this.ask(signal, () => this.modules.parameterServer()?.call("push", {
      taskId, worker: this.modules.worker, fence, unit: unit.id, batch, sequence, samples,
      baseVersion: result.baseVersion, loss: result.loss, correct: result.correct, gradient: result.gradient,
    }, { timeoutMs: CALL_TIMEOUT_MS }));
    if (reply.parameters && reply.version >= this.version) {
      this.parameters = reply.parameters as Float32Array<ArrayBuffer>;
      this.version = reply.version;
    }
    return { batch, status: reply.status, reason: reply.reason };
  }

  /** Waits for the push in flight; one that came too stale is computed again on fresh parameters. */
  private async land(flight: Promise<Landing> | undefined, unit: Unit, signal: AbortSignal): Promise<void> {
    if (!flight) return;
    let landing = await flight;
    while (landing.status === "stale" && !signal.aborted) {
      const picked = this.rowsOfBatch(unit, landing.batch);
      landing = await this.push(unit, landing.batch, picked.length, await this.gradientOf(unit.rows, picked), signal);
    }
    if (landing.status === "rejected") {
      throw new TaskRunFailed("rejected", `the parameter server refused a gradient: ${landing.reason ?? "no reason given"}`);
    }
  }

  private async pull(signal: AbortSignal): Promise<void> {
    const pulled = await this.ask(signal, () => this.modules.parameterServer()?.call(
      "pull", { taskId: this.assignment.taskId }, { timeoutMs: CALL_TIMEOUT_MS }));
    this.parameters = pulled.parameters as Float32Array<ArrayBuffer>;
    this.version = pulled.version;
  }

  private stepFor(batchSize: number): TrainStep {
    let step = this.steps.get(batchSize);
    if (!step) {
      const { loss, logits, correct } = this.job.operation;
      step = new TrainStep(this.modules.device, compileStep(this.job.graph, { loss, logits, correct, batchSize }));
      this.steps.set(batchSize, step);
    }
    return step;
  }

  /** Repeats a call while the other side cannot be reached or has just restarted; other errors end the run. */
  private async ask<T>(signal: AbortSignal, attempt: () => Promise<CallResult<T>> | undefined): Promise<T> {
    const untilMs = this.modules.now() + PATIENCE_MS;
    for (;;) {
      const result = await attempt();
      if (result?.ok) return result.value;
      const { code, message, reason } = result?.error ?? { code: "unreachable", message: "not connected", reason: undefined };
      const passing = code !== "refused" && code !== "protocol" && code !== "too-large" || reason === "not-hosted";
      if (!passing) throw new TaskRunFailed("refused", message);
      if (signal.aborted || this.modules.now() > untilMs) throw new TaskRunFailed("unreachable", message);
      await this.modules.sleep(RETRY_MS, signal);
    }
  }
}
