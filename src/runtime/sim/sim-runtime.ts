// Owns: a whole simulation: its nodes, their virtual time, network, disks and faults, under one seed.
// Invariant: what runs in it sees nothing of the real world, so the same seed gives the same events and hash.
import { createSystem, type System, type SystemOptions } from "../create-system.js";
import type { LogFields, Logger } from "../host/host.js";
import { curveKeysFromSecret, type CurveKeys } from "../remote/keys.js";
import { SimDisk } from "./disk.js";
import { EventKind, EventLog, type SimEventRecord } from "./event-log.js";
import { Faults, type SimFaultOptions } from "./faults.js";
import { SimNetwork, type SimNetworkOptions } from "./network.js";
import { SimRandom } from "./random.js";
import { Scheduler, type SimProcess } from "./scheduler.js";
import { SimTransport } from "./transport.js";

export interface SimOptions {
  /** Any whole number from 0; everything else follows from it. */
  readonly seed: number;
  readonly network?: SimNetworkOptions;
  /** Begin with `startFaults`. */
  readonly faults?: SimFaultOptions;
  /** Told of each event as it happens. */
  readonly onEvent?: (event: SimEventRecord) => void;
  /** Told of the nodes' log lines. */
  readonly onLog?: (node: string, level: string, message: string, fields: LogFields | undefined) => void;
}

/** What one start of a node has to build on. */
export interface SimBoot {
  readonly node: SimNode;
  readonly keys: CurveKeys;
  /** `tcp://<name>:7000`: where the node listens, if it does. */
  readonly endpoint: string;
  readonly disk: SimDisk;
  readonly sim: SimRuntime;
  readonly nowMs: () => number;
  readonly sleep: (ms: number) => Promise<void>;
  readonly random: (sizeBytes: number) => Uint8Array;
  readonly log: Logger;
  /** A system on the simulated clock, network and random source. */
  createSystem(options?: Partial<SystemOptions>): System;
}

export interface SimNodeOptions {
  /** 64 hex digits; default: from the seed. Fixed keys save the derivation. */
  readonly keys?: CurveKeys;
  /** Whether `faults` may crash and stall it. Default: true. */
  readonly isFaulty?: boolean;
}

const SETTLE_MS_MAX = 600_000;

export class SimNode {
  readonly name: string;
  readonly keys: CurveKeys;
  readonly endpoint: string;
  readonly disk: SimDisk;
  readonly isFaulty: boolean;
  readonly #sim: SimRuntime;
  readonly #boot: (boot: SimBoot) => void | Promise<void>;
  readonly #random: SimRandom;
  #process: SimProcess | undefined;
  #systems: System[] = [];
  starts = 0;

  constructor(sim: SimRuntime, name: string, boot: (boot: SimBoot) => void | Promise<void>, options: SimNodeOptions, random: SimRandom) {
    this.#sim = sim;
    this.name = name;
    this.#boot = boot;
    this.#random = random;
    this.keys = options.keys ?? curveKeysFromSecret(Buffer.from(random.bytes(32)).toString("hex"));
    this.endpoint = `tcp://${name}:7000`;
    this.disk = new SimDisk(random.fork("disk"));
    this.isFaulty = options.isFaulty ?? true;
  }

  get isUp(): boolean {
    return this.#process !== undefined;
  }

  /** The systems of the incarnation that runs now. */
  get systems(): readonly System[] {
    return this.#systems;
  }

  get system(): System | undefined {
    return this.#systems[0];
  }

  /** Timers and tasks that the present incarnation has pending. */
  get pendingWork(): { readonly timers: number; readonly tasks: number } {
    const process = this.#process;
    if (process === undefined) return { timers: 0, tasks: 0 };
    return { timers: process.timers.size, tasks: process.micro.length - process.microHead + process.macroPending };
  }

  /** A new incarnation: `boot` runs in it. */
  start(): void {
    if (this.#process !== undefined) throw new Error(`node ${this.name} runs already`);
    const { scheduler } = this.#sim;
    const process = scheduler.process(this.name);
    this.#process = process;
    this.starts += 1;
    this.#systems = [];
    scheduler.at(scheduler.nowMs, EventKind.start, process, () => {
      this.#sim.record(EventKind.start, process, this.starts, undefined);
      const booted = this.#boot(this.#bootOf(process));
      if (booted instanceof Promise) {
        booted.catch((error: unknown) => {
          if (process.isAlive) scheduler.fail(error);
        });
      }
    });
  }

  /** Ends at once, whatever it is doing; all that it held in memory is lost. */
  crash(options: { readonly isPowerLoss?: boolean } = {}): void {
    const process = this.#process;
    if (process === undefined) return;
    const isPowerLoss = options.isPowerLoss ?? false;
    this.#sim.record(EventKind.crash, process, isPowerLoss ? 1 : 0, undefined);
    this.#sim.onCrash?.(this, this.#systems);
    this.#process = undefined;
    this.#systems = [];
    this.#sim.scheduler.kill(process);
    this.#sim.network.drop(process, isPowerLoss);
    this.disk.crash();
  }

  /** Does not run for so long: timers and frames of that time come late, all at once. */
  stall(forMs: number): void {
    if (this.#process !== undefined) this.#process.localMs = Math.max(this.#process.localMs, this.#sim.scheduler.nowMs + forMs);
  }

  #bootOf(process: SimProcess): SimBoot {
    const { scheduler, network } = this.#sim;
    const clock = scheduler.clockOf(process);
    const tasks = scheduler.tasksOf(process);
    const stream = this.#random.fork(`start ${this.starts}`);
    const random = (sizeBytes: number): Uint8Array => stream.bytes(sizeBytes);
    const log = this.#sim.loggerOf(process);
    return {
      node: this, keys: this.keys, endpoint: this.endpoint, disk: this.disk, sim: this.#sim, random, log,
      nowMs: () => clock.nowMs(),
      sleep: (ms) => new Promise((resolve) => void clock.setTimer(resolve, ms)),
      createSystem: (options = {}) => {
        const system = createSystem({
          name: this.name, logger: log, clock, tasks, random, transport: () => Promise.resolve(new SimTransport(network, process)), ...options,
        });
        this.#systems.push(system);
        return system;
      },
    };
  }
}

/**
 * Actors under a seeded clock, scheduler and network. A seed that fails fails again.
 *
 * @example
 * const sim = simRuntime({ seed: 7, faults: { cutEveryMs: 2_000, crashEveryMs: 10_000 } });
 * const server = sim.node("server", async ({ createSystem, endpoint, keys }) => {
 *   const system = createSystem();
 *   system.spawn(counter, { name: "counter" });           // your behaviour, unchanged
 *   await system.listen({ endpoint, keys, allow: "any" });
 * });
 * sim.node("client", async ({ createSystem, keys, sleep }) => {
 *   const system = createSystem();
 *   const peer = await system.connect({ endpoint: server.endpoint, serverKey: server.keys.publicKey, keys, timeoutMs: 60_000 });
 *   for (;;) {
 *     peer.ref(CounterProtocol, "counter").cast("add", { by: 1 });
 *     await sleep(10);                                     // virtual: takes no time
 *   }
 * });
 * sim.startFaults();
 * await sim.run(60_000);                                   // a minute of theirs
 * sim.heal();
 * await sim.shutdown();
 * console.log(sim.hash, sim.leftovers());                  // same seed, same hash; nothing left over
 */
export function simRuntime(options: SimOptions): SimRuntime {
  return new SimRuntime(options);
}

export class SimRuntime {
  readonly seed: number;
  readonly random: SimRandom;
  readonly scheduler: Scheduler;
  readonly network: SimNetwork;
  readonly faults: Faults;
  readonly nodes = new Map<string, SimNode>();
  /** Told before a node's incarnation is lost. */
  onCrash: ((node: SimNode, systems: readonly System[]) => void) | undefined;
  readonly #root: SimRandom;
  readonly #log: EventLog;
  readonly #onLog: SimOptions["onLog"];

  constructor(options: SimOptions) {
    if (!Number.isSafeInteger(options.seed) || options.seed < 0) {
      throw new TypeError(`seed must be a whole number from 0 to 2^53 - 1, got ${String(options.seed)}`);
    }
    this.seed = options.seed;
    this.#root = new SimRandom(options.seed, "simulation");
    this.#log = new EventLog(options.onEvent);
    this.#onLog = options.onLog;
    this.random = this.#root.fork("workload");
    this.scheduler = new Scheduler(this.#root.fork("scheduler"), this.#log);
    this.network = new SimNetwork(options.network ?? {}, { scheduler: this.scheduler, random: this.#root.fork("network"), log: this.#log });
    this.faults = new Faults(options.faults ?? {}, {
      scheduler: this.scheduler, random: this.#root.fork("faults"), network: this.network,
      targets: () => [...this.nodes.values()].filter(({ isFaulty }) => isFaulty),
      note: (kind, detail) => this.record(EventKind.fault, undefined, 0, `${kind} ${detail}`),
    });
  }

  get nowMs(): number {
    return this.scheduler.nowMs;
  }

  /** Over every event so far: kinds, nodes, times, frame bytes. */
  get hash(): string {
    return this.#log.digest();
  }

  get eventCount(): number {
    return this.#log.count;
  }

  /** Adds a node and starts it; `boot` runs again at each restart. */
  node(name: string, boot: (boot: SimBoot) => void | Promise<void>, options: SimNodeOptions = {}): SimNode {
    if (this.nodes.has(name)) throw new Error(`a node named ${name} exists already`);
    const node = new SimNode(this, name, boot, options, this.#root.fork(`node ${name}`));
    this.nodes.set(name, node);
    node.start();
    return node;
  }

  /** Lets virtual time pass. @throws what simulated code threw past every handler. */
  run(forMs: number, isDone?: () => boolean): Promise<void> {
    const untilMs = this.nowMs + forMs;
    return this.scheduler.run(isDone === undefined ? { untilMs } : { untilMs, isDone });
  }

  /** Lets time pass until `promise` settles. @throws when it has not within `withinMs`. */
  async settle<T>(promise: Promise<T>, withinMs = SETTLE_MS_MAX): Promise<T> {
    let isSettled = false;
    const note = (): void => {
      isSettled = true;
    };
    promise.then(note, note);
    await this.run(withinMs, () => isSettled);
    if (!isSettled) throw new Error(`not settled within ${withinMs} ms of virtual time`);
    return promise;
  }

  /** Runs once at that virtual time, outside of every node. */
  at(atMs: number, run: () => void): void {
    this.scheduler.at(atMs, EventKind.note, undefined, run);
  }

  startFaults(): void {
    this.faults.start();
  }

  /** Ends all faults; nodes that are down start again. */
  heal(): void {
    this.faults.heal();
  }

  /** Puts something of the test's own into the event hash. */
  note(text: string): void {
    this.record(EventKind.note, undefined, 0, text);
  }

  tail(): SimEventRecord[] {
    return this.#log.tail();
  }

  /** Shuts the systems of all running nodes down, in virtual time. */
  async shutdown(deadlineMs = 10_000): Promise<void> {
    const closing = [...this.nodes.values()].flatMap(({ systems }) => systems.map((system) => system.shutdown({ deadlineMs })));
    await this.settle(Promise.all(closing));
    await this.run(CLOSE_MS);
  }

  /** What a clean end must not leave; empty when all is well. */
  leftovers(): string[] {
    const left: string[] = [];
    for (const node of this.nodes.values()) {
      const { timers, tasks } = node.pendingWork;
      if (timers > 0) left.push(`${node.name}: ${timers} timers`);
      if (tasks > 0) left.push(`${node.name}: ${tasks} tasks`);
    }
    if (this.network.openConnections > 0) left.push(`${this.network.openConnections} connections`);
    if (this.network.openListeners > 0) left.push(`${this.network.openListeners} listeners`);
    return left;
  }

  record(kind: EventKind, process: SimProcess | undefined, value: number, text: string | undefined): void {
    this.#log.record(kind, process?.index ?? -1, process?.name ?? "world", this.nowMs, value, text);
  }

  loggerOf(process: SimProcess): Logger {
    const write = (level: string) => (message: string, fields?: LogFields): void => {
      if (!process.isAlive) return;
      this.record(EventKind.log, process, 0, `${level} ${message}`);
      this.#onLog?.(process.name, level, message, fields);
    };
    return { debug: () => undefined, info: write("info"), warn: write("warn"), error: write("error") };
  }
}

/** After a shutdown the last frames and hang-ups arrive. */
const CLOSE_MS = 60_000;
