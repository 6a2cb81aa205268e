// Owns: one actor system without its network: the root actors, the dispatcher, dead letters, traces, shutdown.
// Invariant: everything a system holds hangs on this object; two systems in a process share nothing.
import type { AsyncContext, Host, MetricSample } from "../host/host.js";
import type { Behavior, SpawnOptions } from "./behavior.js";
import { Cell, type CellReport } from "./cell.js";
import type { ChainNode, TurnNode } from "./chain.js";
import { DEAD_LETTER_REASONS, DeadLetters, type DeadLetterReason } from "./dead-letters.js";
import { Deadlines } from "./deadlines.js";
import { Dispatcher } from "./dispatcher.js";
import { RuntimeError } from "./failure.js";
import type { AnyProtocol } from "./protocol.js";
import { LocalRef, type Ref } from "./ref.js";
import {
  SHUTDOWN_DEADLINE_MS_DEFAULT, ShutdownHooks, within, type ShutdownOptions, type ShutdownPhase, type ShutdownReport,
} from "./shutdown.js";
import { guardedTracer, type Span, type TraceContext, type Tracer } from "./trace.js";

/** Share of what is left of the deadline in which queued messages are still handled; the rest is for stopping. */
const DRAIN_SHARE = 0.6;

export interface SystemReport {
  readonly name: string;
  readonly incarnation: string;
  readonly isShuttingDown: boolean;
  readonly actors: readonly CellReport[];
  readonly callsPending: number;
  readonly deadLetters: { readonly total: number; readonly byReason: Readonly<Record<DeadLetterReason, number>> };
  readonly links: readonly unknown[];
  readonly outboxes: readonly unknown[];
}

export class SystemCore {
  readonly name: string;
  readonly host: Host;
  /** Hex of 8 random bytes: another start of the same node has another one. */
  readonly incarnation: string;
  readonly roots = new Map<string, Cell>();
  readonly deadLetters = new DeadLetters();
  readonly deadlines: Deadlines;
  readonly dispatcher: Dispatcher;
  readonly asyncContext: AsyncContext<TurnNode> | undefined;
  readonly tracer: Tracer | undefined;
  /** Whether any message so far had or gets a trace context: until then nobody looks for one. */
  isTracing: boolean;
  /** The cell whose handler is on the stack right now. */
  current: Cell | undefined;
  #number = 0;
  #cellNumber = 0;
  #faults = 0;
  #restarts = 0;
  #shutdown: Promise<ShutdownReport> | undefined;
  readonly #hooks: ShutdownHooks;
  readonly #outboxReports = new Set<() => unknown>();
  readonly #unregisterMetrics: () => void;

  constructor(name: string, host: Host, tracer?: Tracer) {
    this.name = name;
    this.host = host;
    this.tracer = tracer === undefined ? undefined : guardedTracer(tracer, host.logger);
    this.isTracing = tracer !== undefined;
    this.incarnation = Buffer.from(host.random(8)).toString("hex");
    this.deadlines = new Deadlines(host.clock, host.tasks);
    this.dispatcher = new Dispatcher(host.clock, host.tasks);
    this.asyncContext = host.createAsyncContext?.<TurnNode>();
    this.#hooks = new ShutdownHooks(host.clock, host.logger);
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
  stop(ref: Ref<AnyProtocol>, options?: { readonly drain?: boolean }): Promise<void> {
    const cell = LocalRef.cellOf(ref);
    if (cell === undefined) {
      return Promise.reject(new RuntimeError("bad-option", "system.stop needs a ref of an actor of this system"));
    }
    return cell.stop({ code: "normal", message: "stopped by the system's owner" }, options?.drain ?? false);
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

  nextNumber(): number {
    return ++this.#number;
  }

  nextCellNumber(): number {
    return ++this.#cellNumber;
  }

  // --- what an outgoing message carries ----------------------------------------------------------------------------

  currentChain(): ChainNode | undefined {
    return this.current !== undefined ? this.current.turnNode() : this.asyncContext?.get();
  }

  /** The trace context of the turn that runs now, also after its awaits. */
  currentTrace(): TraceContext | undefined {
    if (!this.isTracing) return undefined;
    return this.current !== undefined ? this.current.turnTrace : this.asyncContext?.get()?.trace;
  }

  /** With a tracer: a span for a message on its way out, to be ended by the caller. */
  traceOut(kind: "call" | "cast", target: string, name: string): Span | undefined {
    if (this.tracer === undefined) return undefined;
    return this.tracer.startSpan(`${target}.${name}`, kind, this.currentTrace(), { system: this.name, target, name });
  }

  traceHandler(target: string, name: string, parent: TraceContext | undefined): Span | undefined {
    if (this.tracer === undefined) return undefined;
    return this.tracer.startSpan(`${target}.${name}`, "handler", parent, { system: this.name, target, name });
  }

  // --- accounts ----------------------------------------------------------------------------------------------------

  countFault(): void {
    this.#faults += 1;
  }

  countRestart(): void {
    this.#restarts += 1;
  }

  tree(): readonly CellReport[] {
    return [...this.roots.values()].map((cell) => cell.report());
  }

  /** Everything at this instant; it walks the whole tree, so it is for people and health checks. */
  inspect(): SystemReport {
    return {
      name: this.name,
      incarnation: this.incarnation,
      isShuttingDown: this.isShuttingDown,
      actors: this.tree(),
      callsPending: this.deadlines.size,
      deadLetters: { total: this.deadLetters.total, byReason: this.deadLetters.counts() },
      links: [],
      outboxes: [...this.#outboxReports].map((read) => read()),
    };
  }

  /** An outbox shows itself in `inspect()`. @returns the function that takes it out again. */
  addOutboxReport(read: () => unknown): () => void {
    this.#outboxReports.add(read);
    return () => void this.#outboxReports.delete(read);
  }

  // --- shutdown ----------------------------------------------------------------------------------------------------

  /** `run` takes part in the shutdown, in its phase. @returns the function that takes it back. */
  onShutdown(phase: ShutdownPhase, name: string, run: () => void | Promise<void>): () => void {
    if (this.#shutdown !== undefined) throw new RuntimeError("shut-down", `system ${this.name} is shut down`);
    return this.#hooks.add(phase, name, run);
  }

  /** Hooks and actors in order (see SHUTDOWN_PHASES), all under one deadline. Safe to call twice. */
  shutdown(options: ShutdownOptions = {}): Promise<ShutdownReport> {
    this.#shutdown ??= this.#goDown(options.deadlineMs ?? SHUTDOWN_DEADLINE_MS_DEFAULT);
    return this.#shutdown;
  }

  /** Gives the links' last frames `leftMs` to leave, and closes them. */
  protected closeLinks(_leftMs: number): Promise<void> {
    return Promise.resolve();
  }

  async #goDown(deadlineMs: number): Promise<ShutdownReport> {
    const { clock } = this.host;
    const startMs = clock.nowMs();
    const leftMs = (): number => startMs + deadlineMs - clock.nowMs();
    await this.#hooks.run("refuse-input", leftMs());
    await this.#hooks.run("before-actors", leftMs());
    const abandoned = await this.#stopActors(leftMs);
    await this.#hooks.run("after-actors", leftMs());
    await this.closeLinks(leftMs());
    await this.#hooks.run("after-links", leftMs());
    this.#unregisterMetrics();
    return { abandoned, unfinished: this.#hooks.unfinished, durationMs: clock.nowMs() - startMs };
  }

  /** Root actors drain and stop, last spawned first. @returns the paths of those that did not. */
  async #stopActors(leftMs: () => number): Promise<string[]> {
    const { clock, logger } = this.host;
    const cells = [...this.roots.values()].reverse();
    const reason = { code: "shutdown", message: `system ${this.name} shuts down` } as const;
    const drained = (async () => {
      for (const cell of cells) await cell.stop(reason, true);
    })();
    if (!(await within(clock, drained, leftMs() * DRAIN_SHARE))) {
      await within(clock, Promise.all(cells.map((cell) => cell.stop(reason))), leftMs());
    }
    const abandoned = cells.filter((cell) => cell.abandon()).map((cell) => cell.path);
    if (abandoned.length > 0) logger.error("actors abandoned at the shutdown deadline", { abandoned });
    return abandoned;
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
      samples.push({ name: "runtime_stash_depth_messages", kind: "gauge", value: report.stashDepth, labels });
      samples.push({ name: "runtime_actor_messages_total", kind: "counter", value: report.processed, labels });
      samples.push({ name: "runtime_mailbox_rejected_total", kind: "counter", value: report.rejected, labels });
      report.children.forEach(visit);
    };
    this.tree().forEach(visit);
    return samples;
  }
}
