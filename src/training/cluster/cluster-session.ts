/**
 * Owns: a client's session with a direct cluster (white paper 2.6): fetches and training steps as programs
 * of the graph. Invariants: close() always returns; a run that fails or is aborted leaves the session
 * usable; a server's answer in a wrong form is an error, never a value.
 */
import type { TensorArray } from "../../device/device.js";
import { GraphError, SessionError, TrainingError } from "../errors.js";
import { feedsByName, type Feeds } from "../fetch-plan.js";
import type { Graph, Tensor } from "../graph/graph.js";
import { BATCH, elementsOf, type ArrayOf, type DType } from "../graph/ops.js";
import type { TrainOperation } from "../optimizer/optim.js";
import { canonicalProgram, trainPart, type Program, type TaskName } from "./program.js";

/** What a run gives back: a tensor, a list or a record of them. */
export type Fetches = Tensor | readonly Tensor[] | Readonly<Record<string, Tensor>>;
/** The values in the shape in which they were asked for, typed by the tensors. */
export type Fetched<F extends Fetches> = F extends Tensor<infer D extends DType> ? ArrayOf<D>
  : { -readonly [K in keyof F]: F[K] extends Tensor<infer D extends DType> ? ArrayOf<D> : never };

export interface ClusterRun {
  feeds?: Feeds;
  signal?: AbortSignal;
}

export interface TrainRun {
  /** The same feeds for every step, or a function of the step, from 0. */
  feeds?: Feeds | ((step: number) => Feeds | Promise<Feeds>);
  steps: number;
  signal?: AbortSignal;
}

export interface TrainReport {
  /** From 1. */
  step: number;
  loss: number;
  /** Rows classified correctly, where the operation counts them. */
  correct?: number;
  /** The largest of the step's updates: how many others came between its read and its update. */
  staleness: number;
  /** Updates that were dropped because they had become too old. */
  stale: number;
}

export interface InitializeOptions {
  /** Of the first values; default 0. */
  seed?: number;
}

export interface RunReply { values: TensorArray[]; applied: number; stale: number; staleness: number }

/** What a session needs of the network; the actors give the real one. Rejects with SessionError. */
export interface ClusterLink {
  /** The server that this client speaks to. */
  readonly master: TaskName;
  define(text: string, signal: AbortSignal): Promise<string>;
  run(program: string, feeds: { node: number; value: TensorArray }[], signal: AbortSignal): Promise<RunReply>;
  initialize(program: string, seed: number, signal: AbortSignal): Promise<string[]>;
  uninitialized(program: string, signal: AbortSignal): Promise<string[]>;
  close(): Promise<void>;
}

export class ClusterSession {
  private readonly abort = new AbortController();
  /** Program id by text. */
  private readonly defined = new Map<string, Promise<string>>();

  constructor(private readonly graph: Graph, private readonly link: ClusterLink, signal?: AbortSignal) {
    signal?.addEventListener("abort", () => this.abort.abort(), { once: true });
    if (signal?.aborted) this.abort.abort();
  }

  /** Gives the graph's variables their first values, those that have none yet; one client does it for all. @returns their names. */
  async initialize({ seed = 0 }: InitializeOptions = {}): Promise<string[]> {
    const fetches = this.graph.variables();
    if (fetches.length === 0) return [];
    return this.withProgram({ graph: this.graph, fetches, feeds: [], master: this.link.master },
      (program) => this.link.initialize(program, seed, this.signal()));
  }

  /** Names of the graph's variables that no client has initialized. */
  async uninitializedVariables(): Promise<string[]> {
    const fetches = this.graph.variables();
    if (fetches.length === 0) return [];
    return this.withProgram({ graph: this.graph, fetches, feeds: [], master: this.link.master },
      (program) => this.link.uninitialized(program, this.signal()));
  }

  /** Runs what the fetches need, and nothing else. */
  run<const F extends Fetches>(fetches: F, options?: ClusterRun): Promise<Fetched<F>>;
  /** Trains: one report a step. Leaving the loop ends it. */
  run(operation: TrainOperation, options: TrainRun): AsyncGenerator<TrainReport, void, undefined>;
  run(what: Fetches | TrainOperation, options: ClusterRun | TrainRun = {}): unknown {
    return isOperation(what) ? this.train(what, options as TrainRun) : this.fetch(what, options as ClusterRun);
  }

  /** Ends what runs and closes the link; always returns, and never throws. */
  async close(): Promise<void> {
    this.abort.abort();
    await this.link.close().catch(() => undefined);
  }

  private async fetch(fetches: Fetches, { feeds = {}, signal }: ClusterRun): Promise<unknown> {
    const single = "graph" in fetches && "op" in fetches;
    const tensors = single ? [fetches as Tensor] : Object.values(fetches as Record<string, Tensor>);
    const { values } = await this.step({ fetches: tensors }, feeds, signal);
    if (single) return values[0];
    if (Array.isArray(fetches)) return values;
    return Object.fromEntries(Object.keys(fetches).map((key, i) => [key, values[i]]));
  }

  private async *train(operation: TrainOperation, options: TrainRun): AsyncGenerator<TrainReport, void, undefined> {
    const { feeds = {}, steps, signal } = options;
    if (!Number.isSafeInteger(steps) || steps < 1) throw new TrainingError("option", `steps must be a positive integer, got ${String(steps)}`);
    const { loss, correct } = operation;
    const program = { fetches: [loss, ...(correct ? [correct] : [])], train: trainPart(operation) };
    for (let step = 0; step < steps; step++) {
      const { values, staleness, stale } = await this.step(program, typeof feeds === "function" ? await feeds(step) : feeds, signal);
      yield {
        step: step + 1, loss: values[0]![0]!, ...(correct && { correct: values[1]![0]! }), staleness, stale,
      };
    }
  }

  private async step(what: Pick<Program, "fetches" | "train">, given: Feeds, signal: AbortSignal | undefined): Promise<RunReply> {
    for (const tensor of what.fetches) {
      if (tensor.graph !== this.graph) throw new GraphError("name", `${tensor.toString()} belongs to another graph than the session`);
    }
    const fed = [...feedsByName(given)].map(([name, value]) => ({ tensor: this.graph.getTensorByName(name), value }))
      .sort((a, b) => a.tensor.id - b.tensor.id);
    const batchSize = batchOf(fed);
    const program: Program = {
      graph: this.graph, ...what, feeds: fed.map(({ tensor }) => tensor), master: this.link.master, ...(batchSize !== undefined && { batchSize }),
    };
    const reply = await this.withProgram(program, (id) =>
      this.link.run(id, fed.map(({ tensor, value }) => ({ node: tensor.id, value })), this.signal(signal)));
    what.fetches.forEach((tensor, i) => {
      const value = reply.values[i];
      const elements = elementsOf(tensor.shape.map((size) => (size === BATCH ? batchSize ?? 1 : size)));
      if (value?.length !== elements) throw new SessionError("protocol", `the cluster sent ${value?.length ?? "no"} elements for ${tensor.toString()}`);
    });
    return reply;
  }

  /** A server that has forgotten the program, or was started anew, is given it again. */
  private async withProgram<T>(program: Program, work: (id: string) => Promise<T>): Promise<T> {
    const text = canonicalProgram(program);
    for (let attempt = 0; ; attempt++) {
      let id = this.defined.get(text);
      if (id === undefined) {
        id = this.link.define(text, this.signal());
        this.defined.set(text, id);
        id.catch(() => this.defined.delete(text));
      }
      try {
        return await work(await id);
      } catch (error) {
        if (attempt > 0 || !(error instanceof SessionError) || error.fields.reason !== "unknown-program") throw error;
        this.defined.delete(text);
      }
    }
  }

  private signal(own?: AbortSignal): AbortSignal {
    if (this.abort.signal.aborted) throw new SessionError("closed", "the session is closed");
    return own === undefined ? this.abort.signal : AbortSignal.any([own, this.abort.signal]);
  }
}

function isOperation(what: Fetches | TrainOperation): what is TrainOperation {
  return "optimizer" in what && "rules" in what;
}

/** The batch that the feeds agree on; undefined where no feed has one. */
function batchOf(fed: readonly { tensor: Tensor; value: TensorArray }[]): number | undefined {
  let batch: number | undefined;
  for (const { tensor, value } of fed) {
    if (tensor.shape[0] !== BATCH) continue;
    const row = elementsOf(tensor.shape.slice(1)), rows = value.length / row;
    if (!Number.isInteger(rows) || rows < 1) {
      throw new TrainingError("batch-size", `"${tensor.name}" has rows of ${row} elements, got ${value.length}`, { name: tensor.name });
    }
    if (batch !== undefined && rows !== batch) {
      throw new TrainingError("batch-size", `"${tensor.name}" is fed ${rows} rows, another placeholder ${batch}`, { name: tensor.name });
    }
    batch = rows;
  }
  return batch;
}
