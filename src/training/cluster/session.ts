/**
 * Owns: a client's session with a cluster: submits a job, yields its progress, keeps the budget.
 * Invariants: close() always returns, whatever the link does; leaving the progress loop cancels
 * the job at the other end; nothing is believed that a master sends in a wrong form.
 */
import { SessionError } from "../errors.js";
import { canonicalJob, jobId, type RunPlan } from "../graph/canonical.js";
import type { Graph } from "../graph/graph.js";
import type { TrainOperation } from "../optimizer/optim.js";
import type { ClusterSpec } from "./cluster-spec.js";

export interface Progress {
  /** Updates applied so far. */
  step: number;
  epoch: number;
  loss: number;
  /** On the test set, in 0..1, where it was evaluated. */
  accuracy?: number;
  version: number;
  /** Of the last update. */
  staleness: number;
  samplesPerSecond: number;
  /** Spent so far, in the smallest money unit. */
  cost: bigint;
}

export interface SubmittedJob {
  /** The job's canonical text and its hash. */
  canonical: string;
  jobId: string;
  cluster?: ClusterSpec;
  budget?: bigint;
  feeds: Readonly<Record<string, unknown>>;
}

/** What a session needs of the network; the actors give the real one. */
export interface SessionLink {
  submit(job: SubmittedJob, signal: AbortSignal): Promise<{ taskId: string }>;
  /** Ends when the task is finished; throws when it failed. */
  progress(taskId: string, signal: AbortSignal): AsyncIterable<unknown>;
  cancel(taskId: string): Promise<void>;
  close(): Promise<void>;
}

export interface SessionOptions {
  graph: Graph;
  cluster?: ClusterSpec;
  /** Most that the run may cost; it is cancelled when a report goes beyond. */
  budget?: bigint;
  signal?: AbortSignal;
}

export interface SessionModules {
  connect(target: string, signal: AbortSignal): Promise<SessionLink>;
  /** Resolves after a time; bounds what close() waits for the other end. */
  sleep(durationMs: number): Promise<void>;
}

/** A master answers a cancel within a round trip; a second more is patience enough. */
const CLOSE_PATIENCE_MS = 2_000;

export interface RunOptions extends Partial<Omit<RunPlan, "epochs">> {
  epochs: number;
  /** Data the job names: dataset manifests, never code. */
  feeds?: Readonly<Record<string, unknown>>;
}

const DEFAULT_BATCH_SIZE = 128;

export class Session {
  private readonly abort = new AbortController();
  private closing: Promise<void> | undefined;
  private task: { id: string; done: boolean } | undefined;

  private constructor(private readonly link: SessionLink, private readonly options: SessionOptions,
    private readonly modules: Pick<SessionModules, "sleep">) {
    options.signal?.addEventListener("abort", () => this.abort.abort(), { once: true });
    if (options.signal?.aborted) this.abort.abort();
  }

  /** `target` is "tesra://host:port" of a master. */
  static async connect(target: string, options: SessionOptions, modules: SessionModules): Promise<Session> {
    if (!/^tesra:\/\/[^\s/]{1,260}$/.test(target)) {
      throw new SessionError("protocol", `"${target}" is no master's address; expected tesra://host:port`, { target });
    }
    const signal = options.signal ?? new AbortController().signal;
    return new Session(await modules.connect(target, signal), options, modules);
  }

  /** Runs a train operation; yields progress until the task is done. */
  async *run(operation: TrainOperation, run: RunOptions): AsyncGenerator<Progress, void, undefined> {
    if (this.closing !== undefined) throw new SessionError("closed", "the session is closed");
    if (this.task !== undefined && !this.task.done) throw new SessionError("busy", "the session runs a task already");
    if (operation.loss.graph !== this.options.graph) {
      throw new SessionError("protocol", "the operation belongs to another graph than the session");
    }
    const { signal } = this.abort;
    const { epochs, batchSize = DEFAULT_BATCH_SIZE, seed = 0, feeds = {} } = run;
    const canonical = canonicalJob({ operation, run: { epochs, batchSize, seed } });
    const { cluster, budget } = this.options;
    this.throwIfAborted();
    const { taskId } = await this.link.submit({
      canonical, jobId: jobId(canonical), feeds, ...(cluster && { cluster }), ...(budget !== undefined && { budget }),
    }, signal);
    const task = { id: taskId, done: false };
    this.task = task;
    try {
      let previous: Progress | undefined;
      for await (const report of this.link.progress(taskId, signal)) {
        this.throwIfAborted();
        const progress = checkProgress(report, previous);
        previous = progress;
        yield progress;
        if (budget !== undefined && progress.cost > budget) {
          throw new SessionError("budget", `the run has cost ${progress.cost}, the budget is ${budget}; it was cancelled`,
            { cost: progress.cost, budget });
        }
      }
      this.throwIfAborted();
      task.done = true;
    } finally {
      // Reached also when the caller breaks out of its loop.
      if (!task.done) await this.cancel(task);
    }
  }

  /** Cancels what runs, closes the link; always returns, and never throws. */
  close(): Promise<void> {
    this.closing ??= this.shutDown();
    return this.closing;
  }

  private async shutDown(): Promise<void> {
    if (this.task !== undefined) await this.cancel(this.task);
    this.abort.abort();
    await this.patiently(() => this.link.close());
  }

  private async cancel(task: { id: string; done: boolean }): Promise<void> {
    if (task.done) return;
    task.done = true;
    await this.patiently(() => this.link.cancel(task.id));
  }

  /** Waits for a farewell of the other end, but not for ever, and not for its success. */
  private async patiently(farewell: () => Promise<void>): Promise<void> {
    const said = Promise.resolve().then(farewell).catch(() => undefined);
    await Promise.race([said, this.modules.sleep(CLOSE_PATIENCE_MS)]);
  }

  private throwIfAborted(): void {
    if (this.abort.signal.aborted) throw new SessionError("aborted", "the run was aborted");
  }
}

function checkProgress(report: unknown, previous: Progress | undefined): Progress {
  const fail = (what: string): never => {
    throw new SessionError("protocol", `the master sent a progress report with a wrong ${what}`, { what });
  };
  if (typeof report !== "object" || report === null) return fail("form");
  const fields = report as Record<string, unknown>;
  const number = (key: string, min: number, max = Infinity): number => {
    const value = fields[key];
    return typeof value === "number" && value >= min && value <= max ? value : fail(key);
  };
  const whole = (key: string): number => {
    const value = number(key, 0, Number.MAX_SAFE_INTEGER);
    return Number.isInteger(value) ? value : fail(key);
  };
  const { accuracy, cost, loss } = fields;
  const progress: Progress = {
    step: whole("step"), epoch: number("epoch", 0), version: whole("version"), staleness: whole("staleness"),
    samplesPerSecond: number("samplesPerSecond", 0),
    // A loss may be NaN: a run that diverges must be able to say so.
    loss: typeof loss === "number" ? loss : fail("loss"),
    cost: typeof cost === "bigint" && cost >= 0n ? cost : fail("cost"),
    ...(accuracy === undefined ? {} : { accuracy: number("accuracy", 0, 1) }),
  };
  if (previous !== undefined && progress.step < previous.step) fail("step: it went back");
  return progress;
}
