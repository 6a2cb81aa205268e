/**
 * Owns: one shard of a model's parameters and the rules by which gradients enter it (white paper
 * 2.8): applied the moment they arrive, one after another, waiting for nobody.
 *
 * Invariants: `version` counts applied gradients and never falls. A (worker, epoch, sequence) is
 * applied at most once. A published parameter vector never changes: an update works on a fresh
 * copy and publishes it whole, so a pull is consistent at any moment and costs nothing.
 */
import { TrainingError } from "../errors.js";
import { learningRateAt, momentsOf, type OptimizerDescriptor } from "../optimizer/descriptor.js";
import type { AsyncRules } from "../optimizer/optim.js";
import { SequenceWindow, type SequenceState } from "./sequence-window.js";
import type { UpdateKernels } from "./update-kernels.js";
import { UpdateLog, type UpdateEntry } from "./update-log.js";

export interface ParameterStoreOptions {
  /** Taken over by the store; version 0. */
  parameters: Float32Array<ArrayBuffer>;
  optimizer: OptimizerDescriptor;
  rules: AsyncRules;
  /** Compare a push's hash with its bytes (default true). */
  verifyHashes?: boolean;
}

export interface Push {
  worker: string;
  /** The worker's incarnation, as admitted. */
  epoch: number;
  /** Counts the worker's gradients; a retry repeats the number. */
  sequence: number;
  baseVersion: number;
  /** Taken over by the store: it may be changed in place. */
  gradient: Float32Array;
  /** BLAKE3 of the gradient's little-endian bytes. */
  hash?: Uint8Array;
}

export type RejectReason =
  | "unknown-worker" | "fenced" | "sequence" | "base-version" | "length" | "not-finite" | "too-large"
  | "hash" | "busy" | "failed";

export type PushResult =
  | { status: "applied"; version: number; staleness: number }
  /** Computed too long ago: pull, and compute anew. */
  | { status: "stale"; version: number }
  | { status: "duplicate"; version: number }
  | { status: "rejected"; reason: RejectReason; message: string };

export interface StoreSnapshot {
  version: number;
  /** A published vector: not to be changed. */
  parameters: Float32Array;
  moments: Float32Array[];
  logPosition: number;
  logDigest: Uint8Array;
  workers: WorkerState[];
  counters: StoreCounters;
}

export interface WorkerState extends SequenceState {
  worker: string;
  epoch: number;
}

export interface StoreCounters {
  applied: number;
  stale: number;
  duplicate: number;
  rejected: number;
  /** applied gradients by staleness, 0 to maxStaleness. */
  staleness: number[];
}

/** Gradients waiting for their turn: each holds a whole vector, so few; a worker retries "busy". */
export const PENDING_PUSHES_MAX = 64;

/** Adam squares gradients in float32; beyond 1e9 one hostile value would freeze a moment for good. */
export const GRADIENT_MAGNITUDE_MAX = 1e9;

interface Worker {
  epoch: number;
  window: SequenceWindow;
  inFlight: Map<number, Promise<PushResult>>;
}

export class ParameterStore {
  private current: Float32Array<ArrayBuffer>;
  private currentVersion = 0;
  private currentPulled = false;
  /** A vector that nobody pulled, free for the next update. */
  private spare: Float32Array<ArrayBuffer> | undefined;
  private readonly moments: Float32Array[];
  private readonly workers = new Map<string, Worker>();
  /** Pulled versions that delay compensation may need, at most maxStaleness + 1. */
  private readonly pulledVersions = new Map<number, Float32Array>();
  private log = new UpdateLog();
  private tail: Promise<unknown> = Promise.resolve();
  private pending = 0;
  private failure: string | undefined;
  private counters: StoreCounters;

  constructor(private readonly options: ParameterStoreOptions, private readonly modules: { kernels: UpdateKernels }) {
    this.current = options.parameters;
    this.moments = momentsOf(options.optimizer).map(() => new Float32Array(options.parameters.length));
    this.counters = {
      applied: 0, stale: 0, duplicate: 0, rejected: 0,
      staleness: new Array<number>(options.rules.maxStaleness + 1).fill(0),
    };
  }

  get version(): number { return this.currentVersion; }
  get logPosition(): number { return this.log.position; }
  get logDigest(): Uint8Array { return this.log.digest; }
  get statistics(): StoreCounters { return { ...this.counters, staleness: [...this.counters.staleness] }; }

  /** Kept log entries from `position` on; undefined where they were dropped. */
  entriesSince(position: number): UpdateEntry[] | undefined { return this.log.since(position); }

  /** Lets a worker push as incarnation `epoch` (default: the next one); older ones are fenced. */
  admit(worker: string, epoch?: number): { epoch: number } {
    const known = this.workers.get(worker);
    const next = epoch ?? (known?.epoch ?? 0) + 1;
    if (!Number.isSafeInteger(next) || next <= (known?.epoch ?? -1)) {
      throw new TrainingError("option", `worker "${worker}" is at epoch ${known?.epoch}, ` +
        `it cannot be admitted at ${next}`, { worker, epoch: next });
    }
    this.workers.set(worker, { epoch: next, window: new SequenceWindow(), inFlight: new Map() });
    return { epoch: next };
  }

  /** Refuses everything the worker's present incarnation still sends, also what waits already. */
  fence(worker: string): void {
    const known = this.workers.get(worker);
    if (known === undefined) return;
    this.workers.set(worker, { epoch: known.epoch + 1, window: new SequenceWindow(), inFlight: new Map() });
  }

  /** The newest parameters; the vector stays as it is for ever and must not be written to. */
  pull(): { version: number; parameters: Float32Array<ArrayBuffer> } {
    if (!this.currentPulled) {
      this.currentPulled = true;
      if (this.options.rules.delayCompensation) this.pulledVersions.set(this.currentVersion, this.current);
    }
    return { version: this.currentVersion, parameters: this.current };
  }

  /** Applies a gradient, or says why not; never throws for what a worker sent. */
  async push(push: Push): Promise<PushResult> {
    const worker = this.workers.get(push.worker);
    const refused = this.refuseAtOnce(push, worker);
    if (refused !== undefined) return this.counted(refused);
    const { inFlight } = worker!;
    const twin = inFlight.get(push.sequence);
    if (twin !== undefined) {
      const result = await twin;
      if (result.status !== "applied") return result;
      return this.counted({ status: "duplicate", version: this.currentVersion });
    }
    this.pending++;
    const work = this.tail.then(() => this.applyInTurn(push, worker!)).finally(() => {
      this.pending--;
      inFlight.delete(push.sequence);
    });
    this.tail = work;
    inFlight.set(push.sequence, work);
    return this.counted(await work);
  }

  /** A consistent copy of everything a resume needs, taken between two updates. */
  snapshot(): Promise<StoreSnapshot> {
    const taken = this.tail.then((): StoreSnapshot => {
      this.currentPulled = true; // the snapshot reads the vector for as long as it likes
      return {
        version: this.currentVersion, parameters: this.current,
        moments: this.moments.map((moment) => moment.slice()),
        logPosition: this.log.position, logDigest: this.log.digest,
        workers: [...this.workers].map(([name, { epoch, window }]) => ({ worker: name, epoch, ...window.state() })),
        counters: this.statistics,
      };
    });
    this.tail = taken.catch(() => undefined);
    return taken;
  }

  /** Replaces the state of a store that has not applied anything yet. */
  restore(snapshot: StoreSnapshot): void {
    const { length } = this.current;
    if (this.pending > 0 || this.currentVersion > 0) {
      throw new TrainingError("busy", "only a fresh parameter store can be restored");
    }
    if (snapshot.parameters.length !== length || snapshot.moments.length !== this.moments.length ||
      snapshot.moments.some((moment) => moment.length !== length)) {
      throw new TrainingError("length", `the snapshot has ${snapshot.parameters.length} parameters and ` +
        `${snapshot.moments.length} moments, the job ${length} and ${this.moments.length}`);
    }
    this.current = snapshot.parameters.slice();
    this.currentVersion = snapshot.version;
    this.currentPulled = false;
    this.moments.forEach((moment, i) => moment.set(snapshot.moments[i]!));
    this.log = new UpdateLog(snapshot.logPosition, Uint8Array.from(snapshot.logDigest));
    this.workers.clear();
    for (const { worker, epoch, ...state } of snapshot.workers) {
      this.workers.set(worker, { epoch, window: SequenceWindow.from(state), inFlight: new Map() });
    }
    const { maxStaleness } = this.options.rules;
    const staleness = new Array<number>(maxStaleness + 1).fill(0).map((_, i) => snapshot.counters.staleness[i] ?? 0);
    this.counters = { ...snapshot.counters, staleness };
  }

  private counted(result: PushResult): PushResult {
    this.counters[result.status]++;
    return result;
  }

  private refuseAtOnce(push: Push, worker: Worker | undefined): PushResult | undefined {
    const { length } = this.current;
    if (this.failure !== undefined) return reject("failed", this.failure);
    if (worker === undefined) return reject("unknown-worker", `worker "${push.worker}" was not admitted`);
    if (push.epoch !== worker.epoch) {
      return reject("fenced", `worker "${push.worker}" pushes as epoch ${push.epoch}, admitted is ${worker.epoch}`);
    }
    if (!Number.isSafeInteger(push.sequence) || push.sequence < 0) {
      return reject("sequence", `a sequence must be a whole number, got ${String(push.sequence)}`);
    }
    const known = worker.window.judge(push.sequence);
    if (known === "applied") return { status: "duplicate", version: this.currentVersion };
    if (known === "too-old") return reject("sequence", `sequence ${push.sequence} is below the window`);
    if (!Number.isSafeInteger(push.baseVersion) || push.baseVersion < 0 || push.baseVersion > this.currentVersion) {
      return reject("base-version",
        `base version ${String(push.baseVersion)} does not exist; the newest is ${this.currentVersion}`);
    }
    if (!(push.gradient instanceof Float32Array) || push.gradient.length !== length) {
      return reject("length", `a gradient has ${length} float32 elements, got ${push.gradient?.length}`);
    }
    if (this.pending >= PENDING_PUSHES_MAX && !worker.inFlight.has(push.sequence)) {
      return reject("busy", `${PENDING_PUSHES_MAX} gradients are waiting already; send it again later`);
    }
    return undefined;
  }

  /** Runs alone: the queue lets one push or snapshot in at a time. */
  private async applyInTurn(push: Push, worker: Worker): Promise<PushResult> {
    const { rules, optimizer, verifyHashes = true } = this.options;
    const { kernels } = this.modules;
    if (this.failure !== undefined) return reject("failed", this.failure);
    if (this.workers.get(push.worker) !== worker) {
      return reject("fenced", `worker "${push.worker}" was fenced while its gradient waited`);
    }
    const staleness = this.currentVersion - push.baseVersion;
    if (staleness > rules.maxStaleness) return { status: "stale", version: this.currentVersion };
    const base = this.baseOf(push, staleness);
    if (base === undefined) return { status: "stale", version: this.currentVersion };
    const { gradient } = push;
    if (push.hash !== undefined && verifyHashes && !equalBytes(kernels.blake3(bytesOf(gradient)), push.hash)) {
      return reject("hash", "the gradient's bytes do not have the stated hash");
    }
    const magnitude = kernels.largestMagnitude(gradient);
    if (!Number.isFinite(magnitude)) return reject("not-finite", "the gradient holds NaN or infinity");
    if (magnitude > GRADIENT_MAGNITUDE_MAX) {
      return reject("too-large", `the gradient reaches ${magnitude}, allowed is ${GRADIENT_MAGNITUDE_MAX}`);
    }
    const learningRate = learningRateAt(optimizer, this.currentVersion) / (1 + rules.alpha * staleness);
    const next = this.spare ?? new Float32Array(this.current.length);
    this.spare = undefined;
    next.set(this.current);
    try {
      if (rules.delayCompensation && staleness > 0) {
        kernels.delayCompensate(gradient, this.current, base, rules.delayCompensation.lambda);
      }
      await kernels.apply(optimizer, { parameters: next, gradient, moments: this.moments },
        learningRate, this.currentVersion + 1);
    } catch (error) {
      // The moments may be half-updated: only a restart from a checkpoint is safe.
      this.failure = `an update failed: ${(error as Error).message}`;
      return reject("failed", this.failure);
    }
    this.publish(next);
    worker.window.mark(push.sequence);
    this.counters.staleness[staleness]!++;
    this.log.append({
      worker: push.worker, epoch: push.epoch, sequence: push.sequence, baseVersion: push.baseVersion,
      version: this.currentVersion, learningRate, ...(push.hash && { hash: push.hash }),
    });
    return { status: "applied", version: this.currentVersion, staleness };
  }

  /** The parameters a gradient was computed at; undefined where they are needed and gone. */
  private baseOf(push: Push, staleness: number): Float32Array | undefined {
    if (staleness === 0 || !this.options.rules.delayCompensation) return this.current;
    return this.pulledVersions.get(push.baseVersion);
  }

  private publish(next: Float32Array<ArrayBuffer>): void {
    if (!this.currentPulled) this.spare = this.current;
    this.current = next;
    this.currentVersion++;
    this.currentPulled = false;
    this.pulledVersions.delete(this.currentVersion - this.options.rules.maxStaleness - 1);
  }
}

const reject = (reason: RejectReason, message: string): PushResult => ({ status: "rejected", reason, message });

export function bytesOf(vector: Float32Array): Uint8Array {
  return new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength);
}

function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
