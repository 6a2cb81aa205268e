// Owns: one actor system without its network: the root actors, the dispatcher, dead letters, shutdown.
// Invariant: everything a system holds hangs on this object; two systems in a process share nothing.
import type { AsyncContext, Host, MetricSample } from "../host/host.js";
import type { Behavior, SpawnOptions } from "./behavior.js";
import { Deadlines } from "./calls.js";
import { Cell, type CellReport } from "./cell.js";
import type { ChainNode } from "./chain.js";
import { DEAD_LETTER_REASONS, DeadLetters } from "./dead-letters.js";
import { Dispatcher } from "./dispatcher.js";
import { RuntimeError } from "./failure.js";
import type { AnyProtocol } from "./protocol.js";
import { LocalRef, type Ref } from "./ref.js";

export interface ShutdownOptions {
  readonly deadlineMs?: number;
}

export interface ShutdownReport {
  /** Top-level actors still busy at the deadline. */
  readonly abandoned: readonly string[];
  readonly durationMs: number;
}

/** Kubernetes kills after 30 s by default; a third of that leaves room for what embeds the runtime. */
export const SHUTDOWN_DEADLINE_MS_DEFAULT = 10_000;
/** Share of the deadline in which queued messages are still handled; the rest is for stopping. */
const DRAIN_SHARE = 0.6;

export class SystemCore {
  readonly name: string;
  readonly host: Host;
  /** Hex of 8 random bytes: another start of the same node has another one. */
  readonly incarnation: string;
  readonly roots = new Map<string, Cell>();
  readonly deadLetters = new DeadLetters();
  readonly deadlines: Deadlines;
  readonly dispatcher: Dispatcher;
  readonly asyncContext: AsyncContext<ChainNode> | undefined;
  /** The cell whose handler is on the stack right now. */
  current: Cell | undefined;
  #number = 0;
  #cellNumber = 0;
  #faults = 0;
  #restarts = 0;
  #shutdown: Promise<ShutdownReport> | undefined;
  readonly #unregisterMetrics: () => void;

  constructor(name: string, host: Host) {
    this.name = name;
    this.host = host;
    this.incarnation = Buffer.from(host.random(8)).toString("hex");
    this.deadlines = new Deadlines(host.clock);
    this.dispatcher = new Dispatcher(host.clock, host.tasks);
    this.asyncContext = host.createAsyncContext?.<ChainNode>();
    this.#unregisterMetrics = host.metrics.register(() => this.#collect());
  }

  get isShuttingDown(): boolean {
    return this.#shutdown !== undefined;
  }

  spawn<P extends AnyProtocol>(behavior: Behavior<P>, options: SpawnOptions = {}): Ref<P> {
    if (this.#shutdown !== undefined) throw new RuntimeError("shut-down", `system ${this.name} is shut down`);
    const cell = new Cell(this, undefined, behavior as unknown as Behavior<AnyProtocol>, options);
    cell.start();
    return cell.ref as unknown as Ref<P>;
  }

  /** Stops an actor of this system after the message it is handling. @returns when it has ended. */
  async stop(ref: Ref<AnyProtocol>, options: { readonly drain?: boolean } = {}): Promise<void> {
    const cell = LocalRef.cellOf(ref);
    if (cell === undefined) throw new RuntimeError("bad-option", "system.stop needs a ref of an actor of this system");
    await cell.stop({ code: "normal", message: "stopped by the system's owner" }, options.drain ?? false);
  }

  /** By path, for messages from peers and for introspection. */
  cellAt(path: string): Cell | undefined {
    let cell: Cell | undefined;
    for (const [depth, name] of path.split("/").entries()) {
      cell = depth === 0 ? this.roots.get(name) : cell?.child(name);
      if (cell === undefined) return undefined;
    }
    return cell;
  }

  currentChain(): ChainNode | undefined {
    return this.current !== undefined ? this.current.chainNode() : this.asyncContext?.get();
  }

  nextNumber(): number {
    return ++this.#number;
  }

  nextUid(): string {
    return `${this.incarnation}:${++this.#cellNumber}`;
  }

  countFault(): void {
    this.#faults += 1;
  }

  countRestart(): void {
    this.#restarts += 1;
  }

  tree(): readonly CellReport[] {
    return [...this.roots.values()].map((cell) => cell.report());
  }

  /** Root actors drain and stop, last spawned first, all under one deadline. */
  shutdown(options: ShutdownOptions = {}): Promise<ShutdownReport> {
    this.#shutdown ??= this.#stopAll(options.deadlineMs ?? SHUTDOWN_DEADLINE_MS_DEFAULT);
    return this.#shutdown;
  }

  async #stopAll(deadlineMs: number): Promise<ShutdownReport> {
    const { clock } = this.host;
    const startMs = clock.nowMs();
    const cells = [...this.roots.values()].reverse();
    const reason = { code: "shutdown", message: `system ${this.name} shuts down` } as const;
    const ended = (async () => {
      for (const cell of cells) await cell.stop(reason, true);
      return true;
    })();
    const isDrained = await this.#within(ended, deadlineMs * DRAIN_SHARE);
    if (!isDrained) {
      const stopped = Promise.all(cells.map((cell) => cell.stop(reason))).then(() => true as const);
      await this.#within(stopped, startMs + deadlineMs - clock.nowMs());
    }
    const abandoned: string[] = [];
    for (const cell of cells) if (cell.abandon()) abandoned.push(cell.path);
    if (abandoned.length > 0) this.host.logger.error("actors abandoned at the shutdown deadline", { abandoned });
    this.#unregisterMetrics();
    return { abandoned, durationMs: clock.nowMs() - startMs };
  }

  #within(done: Promise<true | boolean>, delayMs: number): Promise<boolean> {
    return new Promise((resolve) => {
      const timer = this.host.clock.setTimer(() => resolve(false), Math.max(0, delayMs));
      void done.then(() => {
        this.host.clock.clearTimer(timer);
        resolve(true);
      });
    });
  }

  #collect(): MetricSample[] {
    const system = this.name;
    const samples: MetricSample[] = [
      { name: "runtime_actor_faults_total", kind: "counter", value: this.#faults, labels: { system } },
      { name: "runtime_actor_restarts_total", kind: "counter", value: this.#restarts, labels: { system } },
      { name: "runtime_calls_pending", kind: "gauge", value: this.deadlines.size, labels: { system } },
    ];
    const counts = this.deadLetters.counts();
    for (const reason of DEAD_LETTER_REASONS) {
      const labels = { system, reason };
      samples.push({ name: "runtime_dead_letters_total", kind: "counter", value: counts[reason], labels });
    }
    const visit = (report: CellReport): void => {
      const labels = { system, actor: report.path };
      samples.push({ name: "runtime_mailbox_depth_messages", kind: "gauge", value: report.queueDepth, labels });
      samples.push({ name: "runtime_actor_messages_total", kind: "counter", value: report.processed, labels });
      report.children.forEach(visit);
    };
    this.tree().forEach(visit);
    return samples;
  }
}
