// Owns one task on a worker: takes units from the master, computes gradients, pushes them to the parameter
// server, and hands in a signed receipt a unit.
// Invariant: a batch counts once. The parameter server knows which batches of a unit are applied; a
// successor of a dead worker starts behind them, and a repeated push is a duplicate there.
import { type Device } from "../../device/device.js";
import { compileStep, TrainStep, parseGraph, type CompiledStep } from "../../training/index.js";
import { type ShardRows } from "../../data/shard.js";
import { type ActorRef, type CallResult } from "../../runtime/index.js";
import { type MasterProtocol } from "../master/protocol.js";
import { type ParameterServerProtocol } from "../parameter-server/protocol.js";
import { batchOrder } from "./batch-order.js";

const CALL_TIMEOUT_MS = 10_000;
/** The master or the parameter server may be restarting: a worker waits this long before it gives up. */
const PATIENCE_MS = 60_000;
const RETRY_MS = 250;
/** A unit is not free yet: another worker holds the last ones. */
const WAIT_MS = 200;

export interface TaskAssignment {
  taskId: string;
  fence: number;
  job: string;
}

export interface TaskRunModules {
  device: Device;
  master: ActorRef<typeof MasterProtocol>;
  parameterServer: ActorRef<typeof ParameterServerProtocol>;
  /** Rows of a leased shard, decrypted; undefined when this worker has no lease for it. */
  rowsOf: (shard: number) => Promise<ShardRows | undefined>;
  receiptOf: (unit: number, work: { multiplyAdds: bigint; samples: number; batches: number }) => Promise<Uint8Array>;
  sleep: (ms: number, signal: AbortSignal) => Promise<void>;
  now: () => number;
  /** This worker's account address. */
  worker: string;
}

export class TaskRunFailed extends Error {
  constructor(readonly code: "unreachable" | "refused" | "rejected", message: string) {
    super(message);
  }
}

interface PushOutcome { status: "applied" | "stale" | "duplicate" | "rejected"; reason?: string }

export class TaskRun {
  private readonly steps = new Map<number, { compiled: CompiledStep; step: TrainStep }>();
  private parameters = new Float32Array(0);
  private version = 0;
  private sequence = 0;

  constructor(private readonly assignment: TaskAssignment, private readonly modules: TaskRunModules) {}

  /** Runs until the master says that no unit is left. Throws TaskRunFailed. */
  async run(signal: AbortSignal): Promise<void> {
    const { taskId } = this.assignment;
    const { master, worker } = this.modules;
    try {
      await this.pull(signal);
      while (!signal.aborted) {
        const next = await this.persist(signal, () => master.call("nextUnit", { taskId, worker }, { timeoutMs: CALL_TIMEOUT_MS }));
        if (next.status === "done") return;
        if (next.status === "wait") await this.modules.sleep(WAIT_MS, signal);
        else await this.runUnit(next.unit!, next.epoch!, next.shard!, signal);
      }
    } finally {
      for (const { step } of this.steps.values()) step.close();
    }
  }

  private async runUnit(unit: number, epoch: number, shard: number, signal: AbortSignal): Promise<void> {
    const { taskId, training } = this.assignment;
    const rows = await this.modules.rowsOf(shard);
    if (!rows) throw new TaskRunFailed("refused", `no lease for shard ${shard}`);
    const { appliedBatches } = await this.persist(signal, () => this.modules.parameterServer.call(
      "unitProgress", { taskId, unit }, { timeoutMs: CALL_TIMEOUT_MS }));
    const order = batchOrder(rows.rows, taskId, epoch, shard);
    const batches = Math.ceil(rows.rows / training.batchSize);
    let multiplyAdds = 0n;
    let samples = 0;
    let flight: Promise<{ batch: number; outcome: PushOutcome }> | undefined;
    // one push is in flight while the next gradient is computed: the apply hides behind the arithmetic
    for (let batch = appliedBatches; batch < batches && !signal.aborted; batch += 1) {
      const from = batch * training.batchSize;
      const picked = order.subarray(from, Math.min(from + training.batchSize, rows.rows));
      const gradient = await this.gradientOf(rows, picked);
      multiplyAdds += gradient.multiplyAdds;
      samples += picked.length;
      await this.landed(flight, unit, rows, order, signal);
      flight = this.push(unit, batch, picked.length, gradient, signal);
    }
    await this.landed(flight, unit, rows, order, signal);
    if (signal.aborted) return;
    const receipt = await this.modules.receiptOf(unit, { multiplyAdds, samples, batches: batches - appliedBatches });
    await this.persist(signal, () => this.modules.master.call(
      "completeUnit", { taskId, worker: this.modules.worker, unit, receipt }, { timeoutMs: CALL_TIMEOUT_MS }));
  }

  private async gradientOf(rows: ShardRows, picked: Uint32Array) {
    const { step } = this.stepFor(picked.length);
    const width = rows.images.length / rows.rows;
    const images = new Uint8Array(picked.length * width);
    const labels = new Uint8Array(picked.length);
    picked.forEach((row, i) => {
      images.set(rows.images.subarray(row * width, (row + 1) * width), i * width);
      labels[i] = rows.labels[row]!;
    });
    step.setParameters(this.parameters);
    const baseVersion = this.version;
    const { loss, correct, gradient, multiplyAdds } = await step.run(images, labels);
    // the view belongs to the plan's arena and is overwritten by the next batch; the socket sends without copying
    return { loss, correct, multiplyAdds: BigInt(multiplyAdds), baseVersion, gradient: gradient.slice() };
  }

  private async push(
    unit: number, batch: number, samples: number,
    result: { loss: number; correct: number; baseVersion: number; gradient: Float32Array }, signal: AbortSignal,
  ): Promise<{ batch: number; outcome: PushOutcome }> {
    const { taskId, fence } = this.assignment;
    const sequence = (this.sequence += 1);
    const reply = await this.persist(signal, () => this.modules.parameterServer.call("push", {
      taskId, worker: this.modules.worker, fence, unit, batch, sequence, samples,
      baseVersion: result.baseVersion, loss: result.loss, correct: result.correct, gradient: result.gradient,
    }, { timeoutMs: CALL_TIMEOUT_MS }));
    if (reply.parameters && reply.version >= this.version) {
      this.parameters = reply.parameters;
      this.version = reply.version;
    }
    return { batch, outcome: { status: reply.status, reason: reply.reason } };
  }

  /** Waits for the push in flight; one that came too stale is computed again on fresh parameters. */
  private async landed(
    flight: Promise<{ batch: number; outcome: PushOutcome }> | undefined,
    unit: number, rows: ShardRows, order: Uint32Array, signal: AbortSignal,
  ): Promise<void> {
    if (!flight) return;
    let { batch, outcome } = await flight;
    while (outcome.status === "stale" && !signal.aborted) {
      const from = batch * this.assignment.training.batchSize;
      const picked = order.subarray(from, Math.min(from + this.assignment.training.batchSize, rows.rows));
      ({ batch, outcome } = await this.push(unit, batch, picked.length, await this.gradientOf(rows, picked), signal));
    }
    if (outcome.status === "rejected") {
      throw new TaskRunFailed("rejected", `the parameter server refused a gradient: ${outcome.reason ?? "no reason given"}`);
    }
  }

  private async pull(signal: AbortSignal): Promise<void> {
    const pulled = await this.persist(signal, () => this.modules.parameterServer.call(
      "pull", { taskId: this.assignment.taskId }, { timeoutMs: CALL_TIMEOUT_MS }));
    this.parameters = pulled.parameters;
    this.version = pulled.version;
  }

  private stepFor(batchSize: number) {
    let entry = this.steps.get(batchSize);
    if (!entry) {
      const { graph, loss, logits } = parseGraph(this.assignment.graph);
      const compiled = compileStep(graph, { loss, logits, batchSize });
      entry = { compiled, step: new TrainStep(this.modules.device, compiled) };
      this.steps.set(batchSize, entry);
    }
    return entry;
  }

  /** Repeats a call while the other side is unreachable; other errors end the run. */
  private async persist<T>(signal: AbortSignal, attempt: () => Promise<CallResult<T>>): Promise<T> {
    const untilMs = this.modules.now() + PATIENCE_MS;
    for (;;) {
      const result = await attempt();
      if (result.ok) return result.value;
      const { code, message } = result.error;
      if (code === "fault") throw new TaskRunFailed("refused", message);
      if (signal.aborted || this.modules.now() > untilMs) throw new TaskRunFailed("unreachable", message);
      await this.modules.sleep(RETRY_MS, signal);
    }
  }
}
