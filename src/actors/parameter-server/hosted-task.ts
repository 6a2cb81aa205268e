// Owns one task on a parameter server: its store, its readers, the batches already applied, its checkpoints.
// Invariant: appliedBatches(unit) = the batches 0..n-1 of the unit whose gradients are in the parameters.
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { Refusal, type Reply } from "../../runtime/index.js";
import { parseJob, initialParameters, ParameterStore, CheckpointStore, deviceKernels } from "../../training/index.js";
import { type ParameterServerModules } from "./server.js";
import { type ParameterServerProtocol, type Progress } from "./protocol.js";

/** A checkpoint every so many versions: at a few hundred updates a second, one every several seconds. */
const CHECKPOINT_EVERY_VERSIONS = 1_000;
/** Weight of the newest batch in the running loss and accuracy. */
const MEAN_WEIGHT = 0.02;
const TASK_ID = /^[0-9]{1,20}$/;

export interface HostRequest { taskId: string; job: string; readers: string[] }
export interface PushRequest {
  taskId: string; worker: string; fence: number; unit: number; batch: number; sequence: number;
  baseVersion: number; samples: number; loss: number; correct: number; gradient: Float32Array;
}
type PushReply = Reply<typeof ParameterServerProtocol, "push">;

export class HostedTask {
  private readonly admitted = new Map<string, string>();
  private readonly applied = new Map<number, number>();
  private samples = 0;
  private loss: number | null = null;
  private accuracy: number | null = null;
  private checkpointing: Promise<void> = Promise.resolve();
  private lastCheckpoint = 0;

  constructor(
    readonly store: ParameterStore, private readonly readers: ReadonlySet<string>,
    private readonly checkpoints: CheckpointStore, private readonly dir: string,
  ) {}

  admit(worker: string, nodeId: string, fence: number): void {
    this.store.admit(worker, fence);
    this.admitted.set(worker, nodeId);
  }

  expel(worker: string): void {
    this.store.fence(worker);
    this.admitted.delete(worker);
  }

  checkReader(nodeId: string | undefined): void {
    if (nodeId === undefined || this.readers.has(nodeId)) return;
    for (const admitted of this.admitted.values()) if (admitted === nodeId) return;
    throw new Refusal("not-admitted", "this node may not read the task's parameters");
  }

  appliedBatches(unit: number): number {
    return this.applied.get(unit) ?? 0;
  }

  async push(request: PushRequest, nodeId: string | undefined): Promise<PushReply> {
    const { worker, unit, batch } = request;
    if (nodeId !== undefined && this.admitted.get(worker) !== nodeId) {
      return { status: "rejected", version: this.store.version, reason: `worker ${worker} is not admitted from this node` };
    }
    const done = this.appliedBatches(unit);
    if (batch < done) return { status: "duplicate", version: this.store.version };
    if (batch > done) return { status: "rejected", version: this.store.version, reason: `batch ${batch} of unit ${unit} comes before batch ${done}` };
    if (!Number.isFinite(request.loss)) return { status: "rejected", version: this.store.version, reason: "the loss is not finite" };
    const result = await this.store.push({
      worker, epoch: request.fence, sequence: request.sequence, baseVersion: request.baseVersion, gradient: request.gradient,
    });
    if (result.status === "rejected") return { status: "rejected", version: this.store.version, reason: result.message };
    if (result.status === "applied") {
      this.applied.set(unit, done + 1);
      this.samples += request.samples;
      this.loss = mean(this.loss, request.loss);
      this.accuracy = mean(this.accuracy, request.correct / request.samples);
      if (result.version - this.lastCheckpoint >= CHECKPOINT_EVERY_VERSIONS) void this.checkpoint();
    }
    const { version, parameters } = this.store.pull();
    return { status: result.status, version, parameters };
  }

  progress(): Progress {
    const counters = this.store.statistics;
    const highest = counters.staleness.findLastIndex((applied) => applied > 0);
    return {
      version: this.store.version, samples: this.samples, loss: this.loss, trainAccuracy: this.accuracy,
      maxStaleness: Math.max(0, highest), staleness: counters.staleness,
      stalePushes: counters.stale, duplicatePushes: counters.duplicate, rejectedPushes: counters.rejected,
    };
  }

  checkpoint(): Promise<void> {
    this.lastCheckpoint = this.store.version;
    this.checkpointing = this.checkpointing.then(async () => {
      const snapshot = await this.store.snapshot();
      const batches = Object.fromEntries([...this.applied].map(([unit, count]) => [String(unit), count]));
      await this.checkpoints.save(snapshot, { batches, samples: this.samples });
    });
    return this.checkpointing;
  }

  async remove(): Promise<void> {
    await this.checkpointing.catch(() => undefined);
    rmSync(this.dir, { recursive: true, force: true });
  }
}
function mean(old: number | null, value: number): number {
  return old === null ? value : old + MEAN_WEIGHT * (value - old);
}

/** Initialises a task from its job's seed, or resumes it from its newest whole checkpoint. */
export async function openHostedTask(request: HostRequest, modules: ParameterServerModules): Promise<HostedTask> {
  if (!TASK_ID.test(request.taskId)) throw new Refusal("bad-task-id", `a task id is a decimal number, got ${JSON.stringify(request.taskId)}`);
  const job = parseJob(request.job);
  const dir = join(modules.dataDir, "tasks", request.taskId);
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const store = new ParameterStore({
    parameters: initialParameters(job), optimizer: job.operation.optimizer, rules: job.operation.rules,
  }, { kernels: deviceKernels(modules.device) });
  const checkpoints = new CheckpointStore(dir);
  return new HostedTask(store, new Set(request.readers), checkpoints, dir);
}
