// Owns one task on a worker: computes gradients of the samples it is given, pushes them to the parameter
// server, and hands in a signed receipt a unit.
// Invariant: a batch counts once. The parameter server knows which batches of a shard are applied in an
// epoch; a repeated push is a duplicate there, and a unit starts where the applied batches end.
import { handOver, type CallResult, type Ref } from "../../runtime/index.js";
import { epochOrder } from "../../training/index.js";
import type { MasterProtocol } from "../master/protocol.js";
import type { ParameterServerProtocol } from "../parameter-server/protocol.js";
import type { Unit } from "./protocol.js";
import type { StepRunner, TaskVm } from "./vm/step-runner.js";

const CALL_TIMEOUT_MS = 10_000;
/** The master or the parameter server may be restarting: a worker waits this long before it gives up. */
const PATIENCE_MS = 60_000;
const RETRY_MS = 250;
/** Units a master may send ahead; it sends the next when the last is done, so more is a fault. */
const UNITS_QUEUED_MAX = 16;

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
  /** Shards of the data set: names a shard's epoch as one unit at the parameter server. */
  shardCount: number;
}

export interface SignedReceipt { receipt: Uint8Array; signature: Uint8Array }

export interface TaskRunModules {
  vm: TaskVm;
  /** Looked up anew for each call: after a restart of the other side there is a new reference. */
  master: () => Ref<typeof MasterProtocol> | undefined;
  parameterServer: () => Ref<typeof ParameterServerProtocol> | undefined;
  /** Rows of a leased shard, decrypted. Throws without a lease. */
  rowsOf: (shard: number) => Promise<ShardRows>;
  /** Signs that samples [from, to) of the unit are in the parameters; `result` hashes what was pushed. */
  sign: (unit: Unit, activeMs: number, result: Uint8Array) => Promise<SignedReceipt>;
  hash: (parts: Uint8Array) => Uint8Array;
  sleep: (ms: number, signal: AbortSignal) => Promise<void>;
  now: () => number;
  /** This worker's account address. */
  worker: string;
}

export class TaskRunFailed extends Error {
  constructor(readonly code: "unreachable" | "refused" | "rejected" | "overload", message: string) {
    super(message);
    this.name = "TaskRunFailed";
  }
}

interface Gradient { loss: number; correct: number; baseVersion: number; gradient: Float32Array }
interface Landing { batch: number; isLast: boolean; status: "applied" | "stale" | "duplicate" | "behind" | "rejected"; reason?: string; appliedBatches?: number }
interface UnitRun { id: number; unit: Unit; rows: ShardRows; order: Uint32Array }

export class TaskRun {
  private runner!: StepRunner;
  private readonly queue: Unit[] = [];
  /** Leases taken so far; a task has as many as shards x epochs. */
  private readonly seen = new Set<number>();
  private wake: (() => void) | undefined;
  private parameters = new Float32Array(0);
  private version = 0;
  private sequence = 0;

  constructor(private readonly assignment: TaskAssignment, private readonly modules: TaskRunModules) {}

  /** Takes samples to do; a lease that came before is not taken twice. */
  enqueue(unit: Unit): void {
    if (this.seen.has(unit.leaseId)) return;
    if (this.queue.length >= UNITS_QUEUED_MAX) throw new TaskRunFailed("overload", `${UNITS_QUEUED_MAX} units are queued already`);
    this.seen.add(unit.leaseId);
    this.queue.push(unit);
    this.wake?.();
  }

  /** Works until `signal` fires. Throws TaskRunFailed, and what the VM says of a job that it cannot run. */
  async run(signal: AbortSignal): Promise<void> {
    signal.addEventListener("abort", () => this.wake?.(), { once: true });
    this.runner = await this.modules.vm.open(this.assignment.job);
    try {
      await this.pull(signal);
      while (!signal.aborted) {
        const unit = this.queue[0];
        if (unit === undefined) await new Promise<void>((resolve) => { this.wake = resolve; });
        else {
          await this.runUnit(unit, signal);
          this.queue.shift();
        }
      }
    } finally {
      await this.runner.close();
    }
  }

  private async runUnit(unit: Unit, signal: AbortSignal): Promise<void> {
    const { taskId, shardCount } = this.assignment;
    const { batchSize, seed } = this.runner.job.run;
    const startMs = this.modules.now();
    const rows = await this.modules.rowsOf(unit.shard);
    const run: UnitRun = { id: unit.epoch * shardCount + unit.shard, unit, rows, order: epochOrder(seed, unit.shard, unit.epoch, rows.rows) };
    const end = Math.ceil(unit.to / batchSize);
    let batch = Math.floor(unit.from / batchSize);
    let digest = new Uint8Array(0);
    let flight: Promise<Landing> | undefined;
    // one push is in flight while the next gradient is computed: the apply hides behind the arithmetic
    while (!signal.aborted) {
      const next = batch < end ? await this.gradientOf(run, batch) : undefined;
      const landed = await this.land(flight, run, signal);
      flight = undefined;
      if (landed?.status === "behind") {
        batch = landed.appliedBatches ?? 0;
        continue;
      }
      if (next === undefined) break;
      digest = this.modules.hash(joined(digest, bytesOf(next.gradient))) as Uint8Array<ArrayBuffer>;
      flight = this.push(run, batch, next, batch === end - 1, signal);
      batch += 1;
    }
    if (signal.aborted) return;
    const signed = await this.modules.sign(unit, Math.max(1, Math.round(this.modules.now() - startMs)), digest);
    await this.ask(signal, () => this.modules.master()?.call("receipt", { taskId, ...signed }, { timeoutMs: CALL_TIMEOUT_MS }));
  }

  private rowsOfBatch({ unit, order }: UnitRun, batch: number): Uint32Array {
    const { batchSize } = this.runner.job.run;
    return order.subarray(batch * batchSize, Math.min((batch + 1) * batchSize, unit.to));
  }

  private async gradientOf(run: UnitRun, batch: number): Promise<Gradient> {
    const baseVersion = this.version;
    const { loss, correct, gradient } = await this.runner.run(this.parameters, run.rows, this.rowsOfBatch(run, batch));
    return { loss, correct: Math.round(correct) || 0, baseVersion, gradient: handOver(gradient) };
  }

  private async push(run: UnitRun, batch: number, result: Gradient, isLast: boolean, signal: AbortSignal): Promise<Landing> {
    const { taskId, fence } = this.assignment;
    const sequence = (this.sequence += 1);
    const reply = await this.ask(signal, () => this.modules.parameterServer()?.call("push", {
      taskId, worker: this.modules.worker, fence, unit: run.id, batch, sequence, samples: this.rowsOfBatch(run, batch).length,
      baseVersion: result.baseVersion, loss: result.loss, correct: result.correct, gradient: result.gradient, isLast,
    }, { timeoutMs: CALL_TIMEOUT_MS }));
    if (reply.parameters) {
      this.parameters = reply.parameters as Float32Array<ArrayBuffer>;
      this.version = reply.version;
    }
    const { status, reason, appliedBatches } = reply;
    if (status === "behind") await this.pull(signal);
    return { batch, isLast, status, reason, appliedBatches };
  }

  /** Waits for the push in flight; one that came too stale is computed again on fresh parameters. */
  private async land(flight: Promise<Landing> | undefined, run: UnitRun, signal: AbortSignal): Promise<Landing | undefined> {
    let landing = await flight;
    while (landing?.status === "stale" && !signal.aborted) {
      landing = await this.push(run, landing.batch, await this.gradientOf(run, landing.batch), landing.isLast, signal);
    }
    if (landing?.status === "rejected") {
      throw new TaskRunFailed("rejected", `the parameter server refused a gradient: ${landing.reason ?? "no reason given"}`);
    }
    return landing;
  }

  private async pull(signal: AbortSignal): Promise<void> {
    const pulled = await this.ask(signal, () => this.modules.parameterServer()?.call(
      "pull", { taskId: this.assignment.taskId }, { timeoutMs: CALL_TIMEOUT_MS }));
    this.parameters = pulled.parameters as Float32Array<ArrayBuffer>;
    this.version = pulled.version;
  }

  /** Repeats a call while the other side cannot be reached or has just restarted; other errors end the run. */
  private async ask<T>(signal: AbortSignal, attempt: () => Promise<CallResult<T>> | undefined): Promise<T> {
    const untilMs = this.modules.now() + PATIENCE_MS;
    for (;;) {
      const result = await attempt();
      if (result?.ok) return result.value;
      const { code, message, reason } = result?.error ?? { code: "unreachable", message: "not connected", reason: undefined };
      const isPassing = !["refused", "protocol", "too-large"].includes(code) || reason === "not-hosted" || reason === "not-admitted";
      if (!isPassing) throw new TaskRunFailed("refused", message);
      if (signal.aborted || this.modules.now() > untilMs) throw new TaskRunFailed("unreachable", message);
      await this.modules.sleep(RETRY_MS, signal);
    }
  }
}

const bytesOf = (vector: Float32Array): Uint8Array => new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength);

function joined(a: Uint8Array, b: Uint8Array): Uint8Array {
  const out = new Uint8Array(a.length + b.length);
  out.set(a);
  out.set(b, a.length);
  return out;
}
