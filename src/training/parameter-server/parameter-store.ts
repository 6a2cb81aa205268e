/**
 * Owns: one shard of a model's parameters and the order in which gradients enter it. How they meet is
 * the rules' matter (optimizer/rules.ts): applied the moment they arrive (async, ssp), or as the mean
 * of a round (sync, local).
 *
 * Invariants: `version` counts updates and never falls. A (worker, epoch, sequence) is applied at
 * most once. Published vectors, parameters and moments, never change: an update writes fresh ones and
 * publishes them whole, so a pull or a snapshot is consistent at any moment and costs nothing, and a
 * gradient that turns out to be bad is dropped by not publishing. No reply waits for anybody but an
 * active worker.
 */
import { TrainingError } from "../errors.js";
import { momentsOf, type OptimizerDescriptor } from "../optimizer/descriptor.js";
import { serverOptimizer, STALENESS_LIMIT, updateRate, type TrainingRules } from "../optimizer/rules.js";
import { isCompressed, type CompressedGradient } from "./compressed-gradient.js";
import { GradientRound, type Contribution } from "./gradient-round.js";
import type { OptimizerState, UpdateKernels } from "./update-kernels.js";
import { UpdateLog, type PushRecord, type UpdateEntry } from "./update-log.js";
import { VectorPool } from "./vector-pool.js";
import { WorkerBook, type StoreWorker, type WorkerState } from "./worker-book.js";

export interface ParameterStoreOptions {
  /** Taken over by the store; version 0. */
  parameters: Float32Array<ArrayBuffer>;
  optimizer: OptimizerDescriptor;
  rules: TrainingRules;
  /** Compare a push's hash with its bytes (default true). */
  verifyHashes?: boolean;
  /**
   * In ssp: hold the replies of those who run ahead (default true). Of a job's several servers the first alone
   * does: a worker goes on when all have answered, and two that hold could each wait for a worker the other holds.
   */
  holdsReplies?: boolean;
}

export interface ParameterStoreModules {
  kernels: UpdateKernels;
  /**
   * Whether what a push's tag names is still to be applied: asked in the push's own turn, when all that waited before
   * it is applied; if not, the push is a duplicate. (A fenced worker's last update may run on while its successor
   * pushes the same batch.)
   */
  isOpen?: (tag: string) => boolean;
  /**
   * Called in the very turn that publishes an update, by push and replay alike: what is counted here (batches
   * of units, by the pushes' tags) never differs from the version that a pull or a snapshot shows.
   */
  applied?: (entry: UpdateEntry) => void;
  /**
   * Primary to backup: called in the order of the updates, each before its pushes are answered; `gradient` (what was
   * applied: decoded, compensated, averaged) stays as it is until the promise settles. A rejection means that this
   * store is no longer the primary: it applies nothing more and says so.
   */
  replicate?: (entry: UpdateEntry, gradient: Float32Array) => Promise<void>;
}

export interface Push {
  worker: string;
  /** The worker's incarnation, as admitted. */
  epoch: number;
  /** Counts the worker's gradients; a retry repeats the number. */
  sequence: number;
  baseVersion: number;
  /** Taken over by the store, which may change it in place. Compressed only as the rules say. */
  gradient: Float32Array | CompressedGradient;
  /** BLAKE3 of the gradient's little-endian bytes, or of the compressed ones. */
  hash?: Uint8Array;
  /** What the gradient was computed from; goes into the log. */
  tag?: string;
  /** The worker has no work after this one: nobody waits for it until it pushes or is activated again. */
  last?: boolean;
}

export type RejectReason =
  | "unknown-worker" | "fenced" | "sequence" | "base-version" | "length" | "encoding" | "not-finite" | "too-large"
  | "hash" | "busy" | "failed";

/** In ssp it comes when the worker may go on, in sync and local when the round has closed. */
export type PushResult =
  | { status: "applied"; version: number; staleness: number }
  /** Computed too long ago: pull, and compute anew. */
  | { status: "stale"; version: number }
  | { status: "duplicate"; version: number }
  | { status: "rejected"; reason: RejectReason; message: string };

/** What a resume needs. An open round is not in it: its workers were not answered and push again. */
export interface StoreSnapshot {
  version: number;
  /** Published vectors: not to be changed. */
  parameters: Float32Array;
  moments: readonly Float32Array[];
  logPosition: number;
  logDigest: Uint8Array;
  workers: WorkerState[];
  counters: StoreCounters;
}

export interface StoreCounters {
  applied: number;
  stale: number;
  duplicate: number;
  rejected: number;
  /** applied gradients by staleness; the last count has all from there on. */
  staleness: number[];
}

/** Gradients waiting for their turn: each holds a whole vector, so few; a worker retries "busy". */
export const PENDING_PUSHES_MAX = 64;

/** Adam squares gradients in float32; beyond 1e9 one hostile value would freeze a moment for good. */
export const GRADIENT_MAGNITUDE_MAX = 1e9;

/** Opaque to the store, and kept with every entry of the log. */
export const TAG_LENGTH_MAX = 256;

type Worker = StoreWorker<PushResult>;
type Vector = Float32Array<ArrayBuffer>;
interface State extends OptimizerState { parameters: Vector; moments: readonly Vector[] }
/** Boxed, because an answer may come long after the turn that took the push. */
interface Taken { answer: PushResult | Promise<PushResult> }

export class ParameterStore {
  private readonly optimizer: OptimizerDescriptor;
  private state: State;
  private currentVersion = 0;
  /** Somebody holds the current parameters, or the current moments: they are not written to again. */
  private currentPulled = false;
  private momentsShared = false;
  private readonly vectors: VectorPool;
  /** Lent vectors by how many still read them. */
  private readonly readers = new Map<Float32Array, number>();
  private readonly workers = new WorkerBook<PushResult>();
  private round: GradientRound<PushResult>;
  /** Pulled versions that delay compensation may need, at most maxStaleness + 1. */
  private readonly pulledVersions = new Map<number, Float32Array>();
  private log = new UpdateLog();
  private tail: Promise<unknown> = Promise.resolve();
  private pending = 0;
  private failure: string | undefined;
  private counters: StoreCounters;

  constructor(private readonly options: ParameterStoreOptions, private readonly modules: ParameterStoreModules) {
    const { parameters, optimizer, rules } = options;
    this.optimizer = serverOptimizer(optimizer, rules);
    this.state = { parameters, moments: momentsOf(this.optimizer).map(() => new Float32Array(parameters.length)) };
    this.vectors = new VectorPool(parameters.length);
    this.round = this.newRound();
    this.counters = { applied: 0, stale: 0, duplicate: 0, rejected: 0, staleness: this.emptyHistogram() };
  }

  get version(): number { return this.currentVersion; }
  get logPosition(): number { return this.log.position; }
  get logDigest(): Uint8Array { return this.log.digest; }
  get statistics(): StoreCounters { return { ...this.counters, staleness: [...this.counters.staleness] }; }

  /** Kept log entries from `position` on; undefined where they were dropped. */
  entriesSince(position: number): UpdateEntry[] | undefined { return this.log.since(position); }

  /** Lets a worker push as incarnation `epoch` (default: the next one); older ones are fenced. It is idle at first. */
  admit(worker: string, epoch?: number): { epoch: number } {
    const known = this.workers.get(worker);
    const admitted = this.workers.admit(worker, epoch);
    if (known !== undefined) this.dismiss(known);
    return { epoch: admitted.epoch };
  }

  /** Refuses everything the worker's present incarnation still sends, also what waits already; nobody waits for it. */
  fence(worker: string): void {
    const known = this.workers.get(worker);
    if (known !== undefined) this.admit(worker, known.epoch + 1);
  }

  /** The worker has work from now on: rounds wait for it, and in ssp the others stay near it. */
  activate(worker: string, epoch: number): void {
    const known = this.incarnation(worker, epoch);
    if (known === undefined) return;
    this.workers.activate(known);
    known.excused = false;
  }

  /** The worker has no work until it pushes or is activated: nobody waits for it. */
  rest(worker: string, epoch: number): void {
    const known = this.incarnation(worker, epoch);
    if (known === undefined) return;
    this.workers.rest(known);
    this.released();
  }

  /**
   * Rounds do not wait for the worker until its next push: what it works on is in these parameters already, and it
   * repeats it for the sake of another server of the job, where it came too late.
   */
  excuse(worker: string, epoch: number): void {
    const known = this.incarnation(worker, epoch);
    if (known === undefined) return;
    known.excused = true;
    this.released();
  }

  /** The newest parameters; the vector stays as it is for ever and must not be written to. */
  pull(): { version: number; parameters: Float32Array<ArrayBuffer> } {
    this.readers.delete(this.state.parameters);
    if (!this.currentPulled) {
      this.currentPulled = true;
      if (this.compensation !== undefined) this.pulledVersions.set(this.currentVersion, this.state.parameters);
    }
    return { version: this.currentVersion, parameters: this.state.parameters };
  }

  /**
   * The newest parameters for somebody who says when the vector was read (sent, copied): it stays as it is until
   * `release`, and a later update may then be written to its memory.
   */
  lend(): { version: number; parameters: Float32Array<ArrayBuffer>; release: () => void } {
    const { parameters } = this.state;
    if (this.currentPulled || this.compensation !== undefined) return { ...this.pull(), release: () => undefined };
    this.readers.set(parameters, (this.readers.get(parameters) ?? 0) + 1);
    let isRead = false;
    const release = (): void => {
      const readers = this.readers.get(parameters);
      if (isRead || readers === undefined) return; // pulled meanwhile: it stays for ever
      isRead = true;
      if (readers > 1) this.readers.set(parameters, readers - 1);
      else {
        this.readers.delete(parameters);
        if (this.state.parameters !== parameters) this.vectors.give(parameters);
      }
    };
    return { version: this.currentVersion, parameters, release };
  }

  /** Applies a gradient, or says why not; never throws for what a worker sent. */
  async push(push: Push): Promise<PushResult> {
    const worker = this.workers.get(push.worker);
    const refused = this.refuseAtOnce(push, worker);
    if (refused !== undefined) {
      if (refused.status === "duplicate" && push.last) this.rest(push.worker, push.epoch);
      return this.counted(refused);
    }
    const { inFlight } = worker!;
    const twin = inFlight.get(push.sequence);
    if (twin !== undefined) {
      const result = await twin;
      if (result.status !== "applied") return result;
      return this.counted({ status: "duplicate", version: this.currentVersion });
    }
    this.workers.activate(worker!);
    worker!.excused = false;
    this.pending++;
    const taken = this.inTurn(() => this.take(push, worker!)).finally(() => { this.pending--; });
    const answer = taken.then((each) => each.answer).finally(() => { inFlight.delete(push.sequence); });
    inFlight.set(push.sequence, answer);
    return this.counted(await answer);
  }

  /** On a backup: the primary's update, to the same bits. Throws TrainingError "replay" where it is not the next one. */
  replay(entry: UpdateEntry, gradient: Float32Array): Promise<void> {
    return this.inTurn(async () => {
      if (entry.position !== this.log.position || entry.version !== this.currentVersion + 1) {
        throw new TrainingError("replay", `the next update is number ${this.log.position} and makes version ` +
          `${this.currentVersion + 1}, got number ${entry.position} for ${entry.version}`,
        { position: this.log.position, version: this.currentVersion });
      }
      if (gradient.length !== this.length) {
        throw new TrainingError("length", `a gradient has ${this.length} float32 elements, got ${gradient.length}`);
      }
      const next = this.freshState();
      await this.update(gradient, next, entry.learningRate);
      const { position: _, ...rest } = entry;
      for (const { worker, epoch } of entry.pushes) {
        if ((this.workers.get(worker)?.epoch ?? -1) < epoch) this.admit(worker, epoch);
      }
      this.publish(next, rest);
    });
  }

  /** A consistent view of everything a resume needs, taken between two updates. */
  snapshot(): Promise<StoreSnapshot> {
    return this.inTurn(() => {
      this.pull(); // the snapshot reads the vectors for as long as it likes
      this.momentsShared = true;
      return {
        version: this.currentVersion, parameters: this.state.parameters, moments: this.state.moments,
        logPosition: this.log.position, logDigest: this.log.digest,
        workers: this.workers.states(), counters: this.statistics,
      };
    });
  }

  /** Replaces the state of a store that has not applied anything yet. */
  restore(snapshot: StoreSnapshot): void {
    if (this.pending > 0 || this.currentVersion > 0) {
      throw new TrainingError("busy", "only a fresh parameter store can be restored");
    }
    this.install(snapshot);
  }

  /** On a backup: takes the primary's state in place of its own, in turn; updates from there on come by `replay`. */
  adopt(snapshot: StoreSnapshot): Promise<void> {
    return this.inTurn(() => { this.install(snapshot); });
  }

  private get length(): number { return this.state.parameters.length; }
  private get compensation(): { lambda: number } | undefined {
    const { rules } = this.options;
    return rules.mode === "async" ? rules.delayCompensation : undefined;
  }

  private install(snapshot: StoreSnapshot): void {
    const { length } = this;
    const count = this.state.moments.length;
    if (snapshot.parameters.length !== length || snapshot.moments.length !== count ||
      snapshot.moments.some((moment) => moment.length !== length)) {
      throw new TrainingError("length", `the snapshot has ${snapshot.parameters.length} parameters and ` +
        `${snapshot.moments.length} moments, the job ${length} and ${count}`);
    }
    this.state = { parameters: snapshot.parameters.slice(), moments: snapshot.moments.map((moment) => moment.slice()) };
    this.currentVersion = snapshot.version;
    this.currentPulled = this.momentsShared = false;
    this.pulledVersions.clear();
    this.log = new UpdateLog(snapshot.logPosition, Uint8Array.from(snapshot.logDigest));
    this.workers.restore(snapshot.workers);
    const staleness = this.emptyHistogram().map((_, i) => snapshot.counters.staleness[i] ?? 0);
    this.counters = { ...snapshot.counters, staleness };
  }

  private emptyHistogram(): number[] {
    const { rules } = this.options;
    const largest = rules.mode === "async" ? rules.maxStaleness : rules.mode === "ssp" ? STALENESS_LIMIT : 0;
    return new Array<number>(largest + 1).fill(0);
  }

  private newRound(): GradientRound<PushResult> {
    const { rules } = this.options;
    return new GradientRound(rules.mode === "sync" ? rules.workers - rules.backups : Number.POSITIVE_INFINITY);
  }

  private incarnation(worker: string, epoch: number): Worker | undefined {
    const known = this.workers.get(worker);
    return known?.epoch === epoch ? known : undefined;
  }

  /** An incarnation that is over: what it has in the round does not count. */
  private dismiss(worker: Worker): void {
    const message = `worker "${worker.name}" was fenced while its gradient waited`;
    this.round.withdraw(worker)?.settle(reject("fenced", message));
    this.released();
  }

  /** After a change of who is waited for. */
  private released(): void {
    const { rules } = this.options;
    if (rules.mode === "ssp") this.workers.releaseNear(rules.slack);
    if (rules.mode === "sync" || rules.mode === "local") void this.inTurn(() => this.closeRound());
  }

  private inTurn<T>(work: () => T | Promise<T>): Promise<T> {
    const done = this.tail.then(work);
    this.tail = done.catch(() => undefined);
    return done;
  }

  private counted(result: PushResult): PushResult {
    this.counters[result.status]++;
    return result;
  }

  private refuseAtOnce(push: Push, worker: Worker | undefined): PushResult | undefined {
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
    if ((push.tag?.length ?? 0) > TAG_LENGTH_MAX) return reject("encoding", `a tag has at most ${TAG_LENGTH_MAX} characters`);
    const refused = this.refuseForm(push.gradient);
    if (refused !== undefined) return refused;
    if (this.pending >= PENDING_PUSHES_MAX && !worker.inFlight.has(push.sequence)) {
      return reject("busy", `${PENDING_PUSHES_MAX} gradients are waiting already; send it again later`);
    }
    return undefined;
  }

  private refuseForm(gradient: Push["gradient"]): PushResult | undefined {
    const { compression } = this.options.rules;
    const { length } = this;
    if (gradient?.length !== length) return reject("length", `a gradient has ${length} float32 elements, got ${gradient?.length}`);
    if (!isCompressed(gradient)) return undefined;
    if (gradient.kind !== compression?.kind || !(gradient.bytes instanceof Uint8Array)) {
      return reject("encoding", `gradients come as ${compression?.kind ?? "float32"} under the rules, got ${String(gradient.kind)}`);
    }
    return undefined;
  }

  /** Runs alone: the queue lets one push, replay or snapshot in at a time. */
  private async take(push: Push, worker: Worker): Promise<Taken> {
    const { rules } = this.options;
    if (this.failure !== undefined) return { answer: reject("failed", this.failure) };
    if (this.workers.get(push.worker) !== worker) return { answer: fenced(worker) };
    if (this.modules.isOpen?.(push.tag ?? "") === false) {
      if (push.last) this.rest(push.worker, push.epoch);
      return { answer: { status: "duplicate", version: this.currentVersion } };
    }
    const staleness = this.currentVersion - push.baseVersion;
    const isRound = rules.mode === "sync" || rules.mode === "local";
    if (isRound && staleness === 0 && this.round.has(worker)) return { answer: this.answerAfterRound(worker) };
    const base = this.baseOf(push.baseVersion, staleness);
    if (base === undefined) return { answer: { status: "stale", version: this.currentVersion } };
    const received = await this.receive(push);
    if (!(received instanceof Float32Array)) return { answer: received };
    const record: PushRecord = {
      worker: push.worker, epoch: push.epoch, sequence: push.sequence, baseVersion: push.baseVersion,
      tag: push.tag ?? "", ...(push.hash && { hash: push.hash }),
    };
    return isRound ? this.contribute(push, worker, record, received) : this.applyAlone(push, worker, record, received, base);
  }

  /** The parameters a gradient was computed at; undefined where it is too old, or they are needed and gone. */
  private baseOf(version: number, staleness: number): Float32Array | undefined {
    const { rules } = this.options;
    if (staleness === 0 || rules.mode === "ssp") return this.state.parameters;
    if (rules.mode !== "async" || staleness > rules.maxStaleness) return undefined;
    return rules.delayCompensation === undefined ? this.state.parameters : this.pulledVersions.get(version);
  }

  /** Checks the hash and decodes. */
  private async receive({ gradient, hash }: Push): Promise<Float32Array | PushResult> {
    const { kernels } = this.modules;
    const compressed = isCompressed(gradient);
    try {
      if (hash !== undefined && this.options.verifyHashes !== false &&
        !equalBytes(await kernels.blake3(compressed ? gradient.bytes : bytesOf(gradient)), hash)) {
        return reject("hash", "the gradient's bytes do not have the stated hash");
      }
      if (!compressed) return gradient;
      const decoded = this.vectors.take();
      return await kernels.decode(gradient, decoded).then(() => decoded, (error: Error) => {
        this.vectors.give(decoded);
        return reject("encoding", `the compressed gradient is damaged: ${error.message}`);
      });
    } catch (error) {
      return reject("failed", `a gradient could not be read: ${(error as Error).message}`);
    }
  }

  private async applyAlone(push: Push, worker: Worker, record: PushRecord, gradient: Float32Array, base: Float32Array): Promise<Taken> {
    const { rules } = this.options;
    const staleness = this.currentVersion - push.baseVersion;
    const learningRate = updateRate(this.options.optimizer, rules, this.currentVersion, staleness);
    let next: State;
    try {
      next = this.freshState();
      if (this.compensation && staleness > 0) {
        await this.modules.kernels.delayCompensate(gradient, this.state.parameters, base, this.compensation.lambda);
      }
      const refused = refuseMagnitude(await this.update(gradient, next, learningRate));
      if (refused !== undefined) {
        this.recycle(next);
        this.vectors.give(gradient);
        return { answer: refused };
      }
    } catch (error) {
      return { answer: reject("failed", `an update failed: ${(error as Error).message}`) };
    }
    const entry = this.publish(next, { version: this.currentVersion + 1, learningRate, pushes: [record] });
    if (push.last) this.workers.rest(worker);
    const result: PushResult = { status: "applied", version: this.currentVersion, staleness };
    const replicated = this.replicated(entry, gradient);
    if (rules.mode !== "ssp") return { answer: replicated.then(() => this.failed() ?? result) };
    this.workers.releaseNear(rules.slack);
    const mayGoOn = push.last || this.options.holdsReplies === false ? undefined : this.workers.near(worker, rules.slack);
    return { answer: Promise.all([replicated, mayGoOn]).then(() => this.failed() ?? result) };
  }

  private async contribute(push: Push, worker: Worker, record: PushRecord, gradient: Float32Array): Promise<Taken> {
    const refused = refuseMagnitude(await this.modules.kernels.largestMagnitude(gradient));
    if (refused !== undefined) return { answer: refused };
    if (this.workers.get(worker.name) !== worker) return { answer: fenced(worker) };
    const answer = new Promise<PushResult>((settle) => this.round.add({ worker, record, gradient, settle }));
    if (push.last) this.workers.rest(worker); // its gradient stays in the round
    await this.closeRound();
    return { answer };
  }

  /** A worker's second gradient at one version cannot enter the round, and before its end there is nothing to pull. */
  private async answerAfterRound(worker: Worker): Promise<PushResult> {
    await this.round.over(worker);
    return this.workers.get(worker.name) === worker ? { status: "stale", version: this.currentVersion } : fenced(worker);
  }

  private async closeRound(): Promise<void> {
    const round = this.round;
    const contributions = round.complete(this.workers.active().filter((worker) => !worker.excused));
    if (contributions === undefined) return;
    this.round = this.newRound();
    const settle = (result: PushResult | Promise<PushResult>): void => {
      for (const each of contributions) void Promise.resolve(result).then(each.settle);
      round.end();
    };
    const learningRate = updateRate(this.options.optimizer, this.options.rules, this.currentVersion, 0);
    let next: State, gradient: Vector;
    try {
      next = this.freshState();
      gradient = this.vectors.take();
      await this.modules.kernels.mean(contributions.map((each) => each.gradient), gradient);
      const refused = refuseMagnitude(await this.update(gradient, next, learningRate));
      if (refused !== undefined) return settle(refused);
    } catch (error) {
      return settle(reject("failed", `an update failed: ${(error as Error).message}`));
    }
    for (const each of contributions) this.vectors.give(each.gradient);
    const entry = this.publish(next, {
      version: this.currentVersion + 1, learningRate, pushes: contributions.map((each: Contribution<PushResult>) => each.record),
    });
    const result: PushResult = { status: "applied", version: this.currentVersion, staleness: 0 };
    settle(this.replicated(entry, gradient).then(() => this.failed() ?? result));
  }

  private update(gradient: Float32Array, next: State, learningRate: number): Promise<number> {
    return this.modules.kernels.update(this.optimizer, this.state, gradient, next, learningRate, this.currentVersion + 1);
  }

  private async replicated(entry: UpdateEntry, gradient: Float32Array): Promise<void> {
    try {
      await this.modules.replicate?.(entry, gradient);
      this.vectors.give(gradient);
    } catch (error) {
      this.failure ??= `this store is no longer the primary: ${(error as Error).message}`;
    }
  }

  private failed(): PushResult | undefined {
    return this.failure === undefined ? undefined : reject("failed", this.failure);
  }

  private freshState(): State {
    return { parameters: this.vectors.take(), moments: this.state.moments.map(() => this.vectors.take()) };
  }

  private recycle({ parameters, moments }: State): void {
    for (const vector of [parameters, ...moments]) this.vectors.give(vector);
  }

  private publish(next: State, entry: Omit<UpdateEntry, "position">): UpdateEntry {
    const { rules } = this.options;
    if (!this.currentPulled && !this.readers.has(this.state.parameters)) this.vectors.give(this.state.parameters);
    if (!this.momentsShared) for (const moment of this.state.moments) this.vectors.give(moment);
    this.state = next;
    this.currentVersion = entry.version;
    this.currentPulled = this.momentsShared = false;
    if (rules.mode === "async") this.pulledVersions.delete(this.currentVersion - rules.maxStaleness - 1);
    for (const { worker, epoch, sequence, baseVersion } of entry.pushes) {
      const known = this.workers.get(worker);
      if (known?.epoch === epoch) { // fenced while the update ran: it is applied, and nobody can repeat it
        known.window.mark(sequence);
        known.clock++;
      }
      const { staleness } = this.counters;
      staleness[Math.min(staleness.length - 1, this.currentVersion - 1 - baseVersion)]!++;
    }
    const full = this.log.append(entry);
    this.modules.applied?.(full);
    return full;
  }
}

const reject = (reason: RejectReason, message: string): PushResult => ({ status: "rejected", reason, message });

const fenced = (worker: Worker): PushResult => reject("fenced", `worker "${worker.name}" was fenced while its gradient waited`);

function refuseMagnitude(magnitude: number): PushResult | undefined {
  if (!Number.isFinite(magnitude)) return reject("not-finite", "the gradient holds NaN or infinity");
  if (magnitude > GRADIENT_MAGNITUDE_MAX) {
    return reject("too-large", `the gradient reaches ${magnitude}, allowed is ${GRADIENT_MAGNITUDE_MAX}`);
  }
  return undefined;
}

export function bytesOf(vector: Float32Array): Uint8Array {
  return new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength);
}

function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
