// Owns one task of a direct cluster: programs, its part of runs, and the runs that it is the master of.
// Invariants: one run of a program is under way at a time, at its master, so no two servers can take two runs in
// different orders; a run ends everywhere when any server of it fails or is lost.
import type { Device, TensorArray } from "../../device/device.js";
import { handOver, Refusal, type Peer, type Ref, type Reply, type System } from "../../runtime/index.js";
import { createUpdateKernels, initialParametersOn, parameterLayout, type ClusterSpec, type JobLimits } from "../../training/index.js";
import { compilePart, PartPlan } from "../../training/cluster/part-plan.js";
import { runPart, type PartLinks, type PartResult } from "../../training/cluster/part-run.js";
import { splitProgram, type Part, type Parts } from "../../training/cluster/parts.js";
import { parseProgram, programId, type TaskName } from "../../training/cluster/program.js";
import { VariableStore } from "../../training/cluster/variable-store.js";
import { CLUSTER_ACTOR, ClusterProtocol } from "./protocol.js";
import { RunValues } from "./run-values.js";

/** Programs kept; each has an arena. The least recently used one goes. */
const PROGRAMS_MAX = 64;
/** Runs that this server has a part in, or has been sent values of. */
const RUNS_MAX = 256;
/** Values of one run that wait for their reader. */
const RUN_BYTES_MAX = 2 ** 30;
/** Ended runs that are remembered, so that late values of theirs are dropped. */
const ENDED_MAX = 4_096;
/** A server that was never seen may still be starting. */
const START_PATIENCE_MS = 20_000;
/** A lost server is seen by its link; a run may take as long as it likes. */
const RUN_TIMEOUT_MS = 24 * 3_600_000;

export interface ClusterTaskOptions {
  cluster: ClusterSpec;
  /** "/job:worker/task:0". */
  task: TaskName;
  limits: Partial<JobLimits>;
  /** Elements of variables and optimizer slots. */
  elementsMax: number;
}

export interface ClusterTaskModules {
  system: System;
  device: Device;
  /** Node ids of all tasks. */
  nodeIds: ReadonlyMap<TaskName, string>;
  /** That this task knows the cluster's secret, for one peer. */
  proof: (nodeId: string) => Uint8Array;
}

interface Loaded {
  text: string;
  parts: Parts;
  own: Part | undefined;
  plan: PartPlan | undefined;
  /** Ends when the part is free again. */
  busy: Promise<unknown>;
  /** At the master: the run before. */
  tail: Promise<unknown>;
  /** At the master: which incarnation of which server has the text. */
  defined: Map<TaskName, string>;
  runs: number;
}

type Outcome = Reply<typeof ClusterProtocol, "execute">;
type Values = { node: number; value: TensorArray }[];

export class ClusterTask {
  private readonly programs = new Map<string, Loaded>();
  private readonly runs = new Map<string, { values: RunValues; program: string | undefined }>();
  private readonly ended = new Set<string>();
  private readonly store: VariableStore;
  private readonly seen = new Set<string>();
  /** Every peer once it knows that this task belongs to the cluster. */
  private readonly entries = new WeakMap<Peer, Promise<unknown>>();
  private runCount = 0;

  constructor(private readonly options: ClusterTaskOptions, private readonly modules: ClusterTaskModules) {
    this.store = new VariableStore({ elementsMax: options.elementsMax }, { kernels: createUpdateKernels(modules.device) });
    modules.system.onPeer((peer) => this.watch(peer));
  }

  define(text: string): { program: string } {
    const program = programId(text);
    const known = this.programs.get(program);
    if (known !== undefined) {
      this.programs.delete(program); // and back, as the most recently used one
      this.programs.set(program, known);
      return { program };
    }
    const parts = splitProgram(parseProgram(text, this.options.limits));
    const { cluster } = this.options;
    for (const task of parts.parts.keys()) if (!this.modules.nodeIds.has(task)) throw new Refusal("cluster", `${task} is not in the cluster; it has ${JSON.stringify(cluster.toJSON())}`);
    this.makeRoom();
    this.programs.set(program, {
      text, parts, own: parts.parts.get(this.options.task), plan: undefined, busy: Promise.resolve(), tail: Promise.resolve(), defined: new Map(), runs: 0,
    });
    return { program };
  }

  /** As the master: all parts of one run, after the run before. */
  run(program: string, feeds: Values): Promise<Reply<typeof ClusterProtocol, "run">> {
    const loaded = this.loaded(program);
    const work = loaded.tail.catch(() => undefined).then(() => this.runParts(program, loaded, feeds));
    loaded.tail = work;
    return work;
  }

  async execute(program: string, run: string, number: number, feeds: Values): Promise<Outcome> {
    const loaded = this.loaded(program), { own } = loaded;
    if (own === undefined) throw new Refusal("program", `${this.options.task} has no part in this program`);
    const { values } = this.runOf(run, program);
    const before = loaded.busy;
    const work = (async (): Promise<PartResult> => {
      await before.catch(() => undefined);
      values.signal.throwIfAborted();
      loaded.plan ??= new PartPlan(this.modules.device, compilePart(own, loaded.parts.program.batchSize));
      return runPart(loaded.plan, loaded.parts.program, this.store, this.links(run, values),
        new Map(feeds.map(({ node, value }) => [node, value])), number);
    })();
    loaded.busy = work;
    try {
      const { fetched, ...result } = await work;
      return { ...result, values: [...fetched].map(([node, value]) => ({ node, value: handOver(value) })) };
    } finally {
      this.end(run);
    }
  }

  deliver(run: string, node: number, value: TensorArray): void {
    if (this.ended.has(run)) return;
    if (!this.runOf(run).values.put(node, value)) throw new Refusal("value", "this value has come before, or there is no room for it");
  }

  abort(run: string, reason: string): void {
    if (this.ended.has(run)) return;
    this.runOf(run).values.abort(new Refusal("aborted", reason));
    this.end(run);
  }

  /** The variables of this task's part, or of all parts. @returns the names of those that were made now. */
  async initialize(program: string, seed: number, everywhere: boolean): Promise<string[]> {
    const loaded = this.loaded(program);
    if (everywhere) {
      return (await this.everywhere(loaded, (ref) => ref.call("initialize", { program, seed, everywhere: false }, { timeoutMs: RUN_TIMEOUT_MS }),
        async () => ({ made: await this.initialize(program, seed, false) }))).flatMap(({ made }) => made);
    }
    const missing = loaded.own?.variables.filter(({ name, shape }) => !this.store.isInitialized(name, shape)) ?? [];
    if (missing.length === 0) return [];
    const { graph } = loaded.parts.program;
    const flat = initialParametersOn(this.modules.device, graph, seed), { parameters } = parameterLayout(graph);
    return missing.filter(({ name, shape, number }) => {
      const { offset, size } = parameters[number]!;
      return this.store.create(name, shape, () => flat.slice(offset, offset + size));
    }).map(({ name }) => name);
  }

  async uninitialized(program: string, everywhere: boolean): Promise<string[]> {
    const loaded = this.loaded(program);
    if (everywhere) {
      return (await this.everywhere(loaded, (ref) => ref.call("uninitialized", { program, everywhere: false }),
        async () => ({ names: await this.uninitialized(program, false) }))).flatMap(({ names }) => names);
    }
    return (loaded.own?.variables ?? []).filter(({ name, shape }) => !this.store.isInitialized(name, shape)).map(({ name }) => name);
  }

  close(): void {
    for (const { values } of this.runs.values()) values.abort(new Refusal("stopped", `${this.options.task} stops`));
    for (const { plan } of this.programs.values()) plan?.close();
    this.programs.clear();
  }

  private async runParts(program: string, loaded: Loaded, feeds: Values): Promise<Reply<typeof ClusterProtocol, "run">> {
    const { parts, program: { fetches } } = loaded.parts;
    const fed = new Map(feeds.map(({ node, value }) => [node, value]));
    const run = `${this.options.task}:${this.modules.system.name}:${++this.runCount}`, number = ++loaded.runs;
    let first: Error | undefined;
    const fail = (error: Error): void => {
      if (first !== undefined) return;
      first = error;
      for (const task of parts.keys()) {
        if (task === this.options.task) this.abort(run, error.message);
        else this.peerOf(task)?.ref(ClusterProtocol, CLUSTER_ACTOR).cast("abort", { run, reason: error.message.slice(0, 500) });
      }
    };
    const outcomes = await Promise.all([...parts.values()].map(async (part) => {
      try {
        const own = part.feeds.flatMap((node) => (fed.has(node) ? [{ node, value: fed.get(node)! }] : []));
        if (part.task === this.options.task) return await this.execute(program, run, number, own);
        const ref = await this.defined(part.task, loaded);
        if (first !== undefined) throw first;
        return await answer(part.task, ref.call("execute", { program, run, number, feeds: own }, { timeoutMs: RUN_TIMEOUT_MS }));
      } catch (error) {
        fail(error as Error);
        return undefined;
      }
    }));
    if (first !== undefined) throw first;
    const all = outcomes as Outcome[];
    const fetched = new Map(all.flatMap((each) => each.values.map(({ node, value }) => [node, value] as const)));
    return {
      values: fetches.map(({ id, name }) => {
        const value = fed.get(id) ?? fetched.get(id);
        if (value === undefined) throw new Refusal("option", `"${name}" must be fed`);
        return value;
      }),
      applied: sum(all.map((each) => each.applied)), stale: sum(all.map((each) => each.stale)),
      staleness: Math.max(0, ...all.map((each) => each.staleness)),
    };
  }

  private everywhere<T>(loaded: Loaded, ask: (ref: Ref<typeof ClusterProtocol>) => ReturnType<Ref<typeof ClusterProtocol>["call"]>,
    here: () => Promise<T>): Promise<T[]> {
    return Promise.all([...loaded.parts.parts.keys()].map(async (task) => {
      if (task === this.options.task) return here();
      return await answer(task, ask(await this.defined(task, loaded, true))) as T;
    }));
  }

  /** A server that has the program's text; `patient`: one that was lost may come back. */
  private async defined(task: TaskName, loaded: Loaded, patient = false): Promise<Ref<typeof ClusterProtocol>> {
    const peer = await this.linked(task, patient);
    const ref = peer.ref(ClusterProtocol, CLUSTER_ACTOR);
    if (loaded.defined.get(task) !== peer.incarnation) {
      await answer(task, ref.call("define", { text: loaded.text }, { timeoutMs: START_PATIENCE_MS }));
      loaded.defined.set(task, peer.incarnation);
    }
    return ref;
  }

  /** Waits for a server that was never seen; one that was lost is refused at once, unless the caller is patient. */
  private async linked(task: TaskName, patient = false): Promise<Peer> {
    const peer = this.peerOf(task) ?? await this.appearing(task, patient);
    await this.entries.get(peer);
    return peer;
  }

  private appearing(task: TaskName, patient: boolean): Promise<Peer> {
    const { system, nodeIds } = this.modules;
    const nodeId = nodeIds.get(task)!;
    const lost = new Refusal("unreachable", `${task} (${this.options.cluster.tasks().find(({ job, task: n }) => task === `/job:${job}/task:${n}`)!.address}) is not reachable`);
    if (!patient && this.seen.has(nodeId)) return Promise.reject(lost);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => { stop(); reject(lost); }, START_PATIENCE_MS);
      const stop = system.onPeer((peer) => {
        if (peer.nodeId !== nodeId) return;
        clearTimeout(timer);
        stop();
        resolve(peer);
      });
    });
  }

  private peerOf(task: TaskName): Peer | undefined {
    const peer = this.modules.system.peer(this.modules.nodeIds.get(task) ?? "");
    return peer?.isUp ? peer : undefined;
  }

  private links(run: string, values: RunValues): PartLinks {
    return {
      receive: (node) => values.take(node),
      send: async (node, to, value) => {
        const peer = await this.linked(to);
        await answer(to, peer.ref(ClusterProtocol, CLUSTER_ACTOR)
          .call("deliver", { run, node, value: handOver(value) }, { timeoutMs: RUN_TIMEOUT_MS, signal: values.signal }));
      },
    };
  }

  /** A server that goes takes its runs with it: nobody waits for what it would have sent. */
  private watch(peer: Peer): void {
    const task = [...this.modules.nodeIds].find(([, nodeId]) => nodeId === peer.nodeId)?.[0];
    if (task === undefined) return;
    this.seen.add(peer.nodeId);
    if (this.entries.has(peer)) return;
    this.entries.set(peer, peer.ref(ClusterProtocol, CLUSTER_ACTOR).call("enter", { proof: this.modules.proof(peer.nodeId) }));
    peer.onDown(({ message }) => {
      for (const [run, { values, program }] of this.runs) {
        const parts = program === undefined ? undefined : this.programs.get(program)?.parts;
        if (program !== undefined && parts?.parts.has(task) !== true && parts?.program.master !== task) continue;
        values.abort(new Refusal("unreachable", `${task} was lost: ${message}`));
        if (program === undefined) this.end(run);
      }
    });
  }

  private loaded(program: string): Loaded {
    const loaded = this.programs.get(program);
    if (loaded === undefined) throw new Refusal("unknown-program", "this server has not got the program (any more); define it");
    return loaded;
  }

  private runOf(run: string, program?: string): { values: RunValues; program: string | undefined } {
    let known = this.runs.get(run);
    if (known === undefined) {
      if (this.ended.has(run)) throw new Refusal("aborted", "the run is over");
      if (this.runs.size >= RUNS_MAX) throw new Refusal("busy", `this server has a part in ${RUNS_MAX} runs already`);
      known = { values: new RunValues({ bytesMax: RUN_BYTES_MAX }), program };
      this.runs.set(run, known);
    }
    if (program !== undefined) known.program = program;
    return known;
  }

  private end(run: string): void {
    this.runs.delete(run);
    this.ended.add(run);
    if (this.ended.size > ENDED_MAX) this.ended.delete(this.ended.values().next().value!);
  }

  private makeRoom(): void {
    if (this.programs.size < PROGRAMS_MAX) return;
    const [oldest, { plan, busy }] = this.programs.entries().next().value!;
    this.programs.delete(oldest);
    if (plan !== undefined) void busy.catch(() => undefined).then(() => plan.close());
  }
}

const sum = (values: number[]): number => values.reduce((total, value) => total + value, 0);

/** The value of an answer, or a Refusal that names the server. */
async function answer<T>(task: TaskName, asked: Promise<{ ok: true; value: T } | { ok: false; error: { code: string; message: string; reason?: string } }>): Promise<T> {
  const result = await asked;
  if (result.ok) return result.value;
  const { code, message, reason } = result.error;
  throw new Refusal(reason ?? code, `${task}: ${message}`);
}
