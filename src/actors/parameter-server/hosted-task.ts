// Owns one task on a parameter server: its store, its readers, the batches already applied, its checkpoints.
// Invariant: appliedBatches(unit) = the batches 0..n-1 of the unit whose gradients are in the parameters,
// also after a resume: the counts are saved with the version of the checkpoint that they belong to. A unit whose
// last push was answered is in a checkpoint: its receipt may be booked, and no crash takes its samples back.
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { handOver, Refusal, type Reply } from "../../runtime/index.js";
import {
  canonicalJob, CheckpointDirectory, compileStep, createUpdateKernels, initialParameters, jobId, parseJob, ParameterStore, type ParsedJob,
} from "../../training/index.js";
import type { Device } from "../../device/device.js";
import type { ParameterServerProtocol, Progress } from "./protocol.js";

/** A crash takes back at most the updates of this long; writing one takes tens of milliseconds. */
const CHECKPOINT_EVERY_MS = 2_000;
/** Weight of the newest batch in the running loss and accuracy. */
const MEAN_WEIGHT = 0.02;
/** Counts are kept longer than the checkpoints they belong to. */
const KEEP_COUNTS = 8;
const TASK_ID = /^[0-9]{1,20}$/;

export interface HostRequest { taskId: string; job: string; readers: string[] }
export interface HostModules { device: Device; dataDir: string; now: () => number; warn: (text: string) => void }
export interface PushRequest {
  taskId: string; worker: string; fence: number; unit: number; batch: number; sequence: number;
  baseVersion: number; samples: number; loss: number; correct: number; gradient: Float32Array; isLast: boolean;
}
type PushReply = Reply<typeof ParameterServerProtocol, "push">;

interface UnitCounts { samples: number; batches: [number, number][] }

export class HostedTask {
  private readonly admitted = new Map<string, string>();
  private readonly fences: Map<string, number>;
  private readonly applied: Map<number, number>;
  private samples: number;
  private loss: number | null = null;
  private accuracy: number | null = null;
  /** Applied since the last checkpoint. */
  private recent: { version: number; unit: number; samples: number }[] = [];
  private saving: Promise<void> = Promise.resolve();
  /** A checkpoint that waits for the one before it, and will hold all that is applied until then. */
  private queued: Promise<void> | undefined;
  private savedVersion: number;
  private savedAtMs: number;

  constructor(
    private readonly options: { dir: string; readers: readonly string[]; counts: UnitCounts; fences: ReadonlyMap<string, number> },
    private readonly modules: { store: ParameterStore; checkpoints: CheckpointDirectory; now: () => number; warn: (text: string) => void },
  ) {
    this.savedAtMs = modules.now();
    this.savedVersion = modules.store.version;
    this.fences = new Map(options.fences);
    this.applied = new Map(options.counts.batches);
    this.samples = options.counts.samples;
  }

  get version(): number { return this.modules.store.version; }
  get parameterCount(): number { return this.modules.store.pull().parameters.length; }

  /** Idempotent: after a resume the master admits the same fences again. */
  admit(worker: string, nodeId: string, fence: number): void {
    if (this.fences.get(worker) !== fence) this.modules.store.admit(worker, fence);
    this.fences.set(worker, fence);
    this.admitted.set(worker, nodeId);
  }

  expel(worker: string): void {
    this.modules.store.fence(worker);
    this.admitted.delete(worker);
  }

  pull(nodeId: string | undefined): { version: number; parameters: Float32Array } {
    const isReader = nodeId === undefined || this.options.readers.includes(nodeId) || [...this.admitted.values()].includes(nodeId);
    if (!isReader) throw new Refusal("not-admitted", "this node may not read the task's parameters");
    return this.parameters();
  }

  /** A published vector never changes, so the link may send it without a copy. */
  private parameters(): { version: number; parameters: Float32Array } {
    const { version, parameters } = this.modules.store.pull();
    return { version, parameters: handOver(parameters) };
  }

  appliedBatches(unit: number): number {
    return this.applied.get(unit) ?? 0;
  }

  async push(request: PushRequest, nodeId: string | undefined): Promise<PushReply> {
    const { store } = this.modules;
    const { worker, unit, batch } = request;
    const rejected = (reason: string): PushReply => ({ status: "rejected", version: store.version, reason });
    // a server that has just restarted hears from its workers before the master has admitted them again
    if (nodeId !== undefined && this.admitted.get(worker) !== nodeId) throw new Refusal("not-admitted", `worker ${worker} is not admitted from this node`);
    const done = this.appliedBatches(unit);
    if (batch < done) {
      if (request.isLast) await this.durable(store.version);
      return { status: "duplicate", ...this.parameters() };
    }
    // a base that this server does not have: it was computed before a crash took the newest updates
    if (batch > done || request.baseVersion > store.version) return { status: "behind", version: store.version, appliedBatches: done };
    if (!Number.isFinite(request.loss)) return rejected("the loss is not finite");
    const result = await store.push({
      worker, epoch: request.fence, sequence: request.sequence, baseVersion: request.baseVersion, gradient: request.gradient,
    });
    if (result.status === "rejected") return rejected(result.message);
    if (result.status === "applied") {
      this.applied.set(unit, done + 1);
      this.samples += request.samples;
      this.recent.push({ version: result.version, unit, samples: request.samples });
      this.loss = mean(this.loss, request.loss);
      this.accuracy = mean(this.accuracy, request.correct / Math.max(1, request.samples));
      if (request.isLast) await this.durable(result.version);
      else if (this.modules.now() - this.savedAtMs >= CHECKPOINT_EVERY_MS) this.checkpointInBackground();
    }
    return { status: result.status, ...this.parameters() };
  }

  progress(): Progress {
    const counters = this.modules.store.statistics;
    return {
      version: this.version, samples: this.samples, loss: this.loss, trainAccuracy: this.accuracy,
      maxStaleness: Math.max(0, counters.staleness.findLastIndex((applied) => applied > 0)), staleness: counters.staleness,
      stalePushes: counters.stale, duplicatePushes: counters.duplicate, rejectedPushes: counters.rejected,
    };
  }

  /** Resolves when a checkpoint of this version or a later one is on the disk; who waits together shares one. */
  async durable(version: number): Promise<void> {
    while (this.savedVersion < version) await this.checkpoint();
  }

  /** Writes a checkpoint and resolves when it is on disk. */
  checkpoint(): Promise<void> {
    if (this.queued) return this.queued;
    this.savedAtMs = Number.POSITIVE_INFINITY; // no second one before this is on the disk
    const saved = this.saving.catch(() => undefined).then(async () => {
      this.queued = undefined;
      const snapshot = await this.modules.store.snapshot();
      await nextTurn(); // every push up to the snapshot's version is counted by then
      const counts = this.countsAt(snapshot.version);
      writeFileSync(join(this.options.dir, countsFile(snapshot.version)), JSON.stringify(counts), { mode: 0o600 });
      await this.modules.checkpoints.save(snapshot);
      this.savedVersion = snapshot.version;
      const counted = readdirSync(this.options.dir).filter((name) => name.startsWith("units-")).sort();
      for (const name of counted.slice(0, -KEEP_COUNTS)) rmSync(join(this.options.dir, name), { force: true });
    }).finally(() => { this.savedAtMs = this.modules.now(); });
    this.saving = saved;
    this.queued = saved;
    return saved;
  }

  /** The counts without the pushes that came after `version`. */
  private countsAt(version: number): UnitCounts {
    const batches = new Map(this.applied);
    let { samples } = this;
    for (const later of this.recent.filter((each) => each.version > version)) {
      batches.set(later.unit, batches.get(later.unit)! - 1);
      samples -= later.samples;
    }
    this.recent = this.recent.filter((each) => each.version > version);
    return { samples, batches: [...batches] };
  }

  async remove(): Promise<void> {
    await this.saving.catch(() => undefined);
    rmSync(this.options.dir, { recursive: true, force: true });
  }

  private checkpointInBackground(): void {
    this.checkpoint().catch((error: Error) => this.modules.warn(`no checkpoint: ${error.message}`));
  }
}

/**
 * A job that a network of this version trains: asynchronously, with whole gradients. The other rules need workers that
 * say when they are idle, which these do not; they would wait for each other for ever. Throws JobError, Refusal.
 */
export function parseNetworkJob(text: string): ParsedJob {
  const job = parseJob(text);
  const { mode, compression } = job.operation.rules;
  if (mode !== "async") throw new Refusal("unsupported-rules", `the network trains with mode "async"; "${mode}" is for a ParameterStore of your own`);
  if (compression !== undefined) throw new Refusal("unsupported-rules", "the network's gradients travel uncompressed: leave compression out of the rules");
  return job;
}

/** Initialises a task from its job's seed, or resumes it from its newest whole checkpoint. */
export async function openHostedTask(request: HostRequest, modules: HostModules): Promise<HostedTask> {
  if (!TASK_ID.test(request.taskId)) throw new Refusal("bad-task-id", `a task id is a decimal number, got ${JSON.stringify(request.taskId)}`);
  const job = parseNetworkJob(request.job);
  const { loss, logits, correct, optimizer, rules } = job.operation;
  const compiled = compileStep(job.graph, { loss, logits, correct, batchSize: job.run.batchSize });
  const dir = join(modules.dataDir, "tasks", request.taskId);
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const store = new ParameterStore(
    { parameters: initialParameters(job.graph, job.run.seed), optimizer, rules },
    { kernels: createUpdateKernels(modules.device) },
  );
  const checkpoints = new CheckpointDirectory(
    { directory: dir, jobId: jobId(canonicalJob(job)), parameters: compiled.parameters },
    { blake3: (data) => modules.device.blake3(data) },
  );
  await checkpoints.sweep();
  const { loaded, skipped } = await checkpoints.loadLatest();
  for (const { path, reason } of skipped) modules.warn(`checkpoint ${path} is not used: ${reason}`);
  let counts: UnitCounts = { samples: 0, batches: [] };
  if (loaded) {
    counts = JSON.parse(readFileSync(join(dir, countsFile(loaded.snapshot.version)), "utf8")) as UnitCounts;
    store.restore(loaded.snapshot);
  }
  const fences = new Map(loaded?.snapshot.workers.map(({ worker, epoch }) => [worker, epoch]));
  return new HostedTask({ dir, readers: request.readers, counts, fences }, { store, checkpoints, now: modules.now, warn: modules.warn });
}

const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const countsFile = (version: number): string => `units-${String(version).padStart(12, "0")}.json`;
const digestOf = (parameters: Float32Array): string => createHash("sha256")
  .update(new Uint8Array(parameters.buffer, parameters.byteOffset, parameters.byteLength)).digest("hex");
const mean = (old: number | null, value: number): number => (old === null ? value : old + MEAN_WEIGHT * (value - old));
export { digestOf };
