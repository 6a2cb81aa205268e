// Owns: one actor: its mailbox, current instance, children, restarts and end.
// Invariants: state moves only through Lifecycle; at most one handler runs at a time, awaited handlers included;
// every message ends in a handler, a dead letter or both (a fault); watchers hear of the end exactly once.
import type { Behavior, Meta, SpawnOptions } from "./behavior.js";
import { Deferred } from "./behavior.js";
import { PendingCall, type CallOptions } from "./calls.js";
import { chainHolds, type ChainNode } from "./chain.js";
import type { DeadLetterReason } from "./dead-letters.js";
import {
  describeError,
  Refusal,
  RuntimeError,
  type CallError,
  type CallResult,
  type CastResult,
  type StopReason,
} from "./failure.js";
import { Instance } from "./instance.js";
import { Lifecycle, type CellState } from "./lifecycle.js";
import { Mailbox, type Envelope, type ReplySlot, type Sender } from "./mailbox.js";
import type { AnyProtocol } from "./protocol.js";
import { LocalRef, type Ref } from "./ref.js";
import {
  backoffDelayMs,
  createSupervision,
  RestartBudget,
  SUPERVISION_DEFAULTS,
  type Directive,
  type Supervision,
} from "./supervision.js";
import type { SystemCore } from "./system.js";
import { randomUnit, type TimerHandle } from "../host/host.js";

/** A turn ends after this many messages … */
export const TURN_MESSAGES_MAX = 64;
/** … or after this long, so that one actor cannot hold the others up. */
export const TURN_MS_MAX = 1;
/** The clock is read every so many messages at most; quick handlers would otherwise pay for it. */
const CLOCK_STRIDE_MAX = 16;

const LOCAL_META: Meta = Object.freeze({ sender: undefined, deadline: undefined });
const NAME = /^[A-Za-z0-9_.$-]{1,128}$/;

type Handler = (message: unknown, meta: Meta) => unknown;
interface HandlerTable {
  readonly call?: Readonly<Record<string, Handler>>;
  readonly cast?: Readonly<Record<string, Handler>>;
  readonly stopped?: (reason: StopReason) => unknown;
}

export interface CellReport {
  readonly path: string;
  readonly protocol: string;
  readonly state: CellState;
  readonly queueDepth: number;
  readonly queueCapacity: number;
  readonly processed: number;
  readonly restarts: number;
  readonly isBusy: boolean;
  readonly children: readonly CellReport[];
}

export class Cell {
  readonly name: string;
  readonly path: string;
  readonly uid: string;
  readonly ref: Ref<AnyProtocol>;
  readonly protocol: AnyProtocol;
  readonly isRemote: boolean;
  readonly #system: SystemCore;
  readonly #parent: Cell | undefined;
  readonly #behavior: Behavior<AnyProtocol>;
  readonly #supervision: Supervision;
  readonly #budget: RestartBudget;
  readonly #childBudget: RestartBudget | undefined;
  readonly #lifecycle = new Lifecycle();
  readonly #mailbox: Mailbox;
  readonly #children = new Map<string, Cell>();
  readonly #watchers = new Set<(reason: StopReason) => void>();
  readonly #stopWaiters: (() => void)[] = [];
  readonly #whenIdle: (() => void)[] = [];
  #instance: Instance | undefined;
  #handlers: HandlerTable = {};
  #backoffTimer: TimerHandle;
  #isScheduled = false;
  #isInHandler = false;
  #isAwaiting = false;
  #awaitingSlot: ReplySlot | undefined;
  #isDraining = false;
  #isStopRequested = false;
  #stopReason: StopReason | undefined;
  #turn = 0;
  #turnChain: ChainNode | undefined;
  #childNumber = 0;
  #processed = 0;
  #restarts = 0;

  constructor(system: SystemCore, parent: Cell | undefined, behavior: Behavior<AnyProtocol>, options: SpawnOptions) {
    const siblings = parent === undefined ? system.roots : parent.#children;
    const name = options.name ?? `$${parent === undefined ? system.nextNumber() : ++parent.#childNumber}`;
    if (!NAME.test(name)) throw new RuntimeError("bad-name", `an actor's name must match ${NAME}, got "${name}"`);
    const path = parent === undefined ? name : `${parent.path}/${name}`;
    if (siblings.has(name)) {
      throw new RuntimeError("name-taken", `an actor named ${path} exists already`, "choose another name or stop it");
    }
    this.#system = system;
    this.#parent = parent;
    this.#behavior = behavior;
    this.name = name;
    this.path = path;
    this.uid = system.nextUid();
    this.protocol = behavior.protocol;
    this.isRemote = options.remote ?? parent === undefined;
    this.#supervision = createSupervision(options.supervision);
    this.#budget = new RestartBudget(system.host.clock, this.#supervision.maxRestarts, this.#supervision.withinMs);
    if (options.childBudget !== undefined) {
      const { maxRestarts, withinMs } = { ...SUPERVISION_DEFAULTS, ...options.childBudget };
      this.#childBudget = new RestartBudget(system.host.clock, maxRestarts, withinMs);
    }
    this.#mailbox = new Mailbox(options.mailbox ?? {}, (envelope, reason) => {
      this.#deadLetter(envelope, reason);
      envelope.slot?.fail({ code: "full", message: `the mailbox of ${path} dropped the call` });
    });
    this.ref = new LocalRef(this, behavior.protocol, path);
    siblings.set(name, this);
  }

  get state(): CellState {
    return this.#lifecycle.state;
  }

  /** Runs the factory for the first time. Separate from the constructor so that the cell is registered by then. */
  start(): void {
    this.#startInstance();
  }

  spawnChild<Q extends AnyProtocol>(behavior: Behavior<Q>, options: SpawnOptions = {}): Ref<Q> {
    const child = new Cell(this.#system, this, behavior as unknown as Behavior<AnyProtocol>, options);
    child.start();
    return child.ref as unknown as Ref<Q>;
  }

  child(name: string): Cell | undefined {
    return this.#children.get(name);
  }

  // --- messages in -------------------------------------------------------------------------------------------------

  /** A cast starts a new chain: its sender does not wait. */
  deliverCast(name: string, message: unknown, sender: Sender | undefined): CastResult {
    if (this.#isStopRequested) {
      this.#system.deadLetters.add("stopped", this.path, name, message);
      return "stopped";
    }
    const result = this.#mailbox.push({ name, message, slot: undefined, sender, chain: undefined });
    if (result === "accepted") this.#schedule();
    return result;
  }

  call(name: string, message: unknown, options: CallOptions | undefined): Promise<CallResult<unknown>> {
    const { clock } = this.#system.host;
    const call = new PendingCall(`${this.path}.${name}`, options, clock, this.#system.deadlines);
    const chain = options?.detached === true ? undefined : this.#system.currentChain();
    if (!call.isDone) this.deliverCall(name, message, call, undefined, chain);
    return call.promise;
  }

  deliverCall(
    name: string,
    message: unknown,
    slot: ReplySlot,
    sender: Sender | undefined,
    chain: ChainNode | undefined,
  ): void {
    if (this.#isStopRequested) {
      this.#system.deadLetters.add("stopped", this.path, name, message);
      slot.fail({ code: "stopped", message: `${this.path} is not running` });
      return;
    }
    const envelope: Envelope = { name, message, slot, sender, chain };
    if (chain !== undefined && this.#isAwaiting && chainHolds(chain, this.uid, this.#turn)) {
      this.#failCycle(envelope);
      return;
    }
    if (this.#mailbox.push(envelope) === "full") {
      slot.fail({ code: "full", message: `the mailbox of ${this.path} is full (${this.#mailbox.capacity})` });
      return;
    }
    this.#schedule();
  }

  postSystem(task: () => unknown): void {
    this.#mailbox.pushSystem(task);
    this.#schedule();
  }

  countStale(): void {
    this.#system.deadLetters.add("stale", this.path, "", undefined);
  }

  // --- turns -------------------------------------------------------------------------------------------------------

  get #canRun(): boolean {
    return this.#lifecycle.state === "running" && !this.#isAwaiting;
  }

  #schedule(): void {
    if (this.#isScheduled || this.#isInHandler || !this.#canRun) return;
    this.#isScheduled = true;
    this.#system.dispatcher.enqueue(this);
  }

  turn(): void {
    this.#isScheduled = false;
    const { clock } = this.#system.host;
    let checkedAtMs = clock.nowMs();
    const endMs = checkedAtMs + TURN_MS_MAX;
    let count = 0;
    let stride = 1;
    let nextCheck = 1;
    while (this.#canRun && count < TURN_MESSAGES_MAX) {
      const task = this.#mailbox.shiftSystem();
      if (task !== undefined) this.#runSystem(task);
      else {
        const envelope = this.#mailbox.shift();
        if (envelope === undefined) break;
        this.#runUser(envelope);
      }
      count += 1;
      if (count === nextCheck) {
        const now = clock.nowMs();
        if (now >= endMs) break;
        stride = now - checkedAtMs < TURN_MS_MAX / 8 ? Math.min(stride * 2, CLOCK_STRIDE_MAX) : 1;
        checkedAtMs = now;
        nextCheck = count + stride;
      }
    }
    if (!this.#canRun) return;
    if (this.#mailbox.systemSize > 0 || this.#mailbox.size > 0) this.#schedule();
    else if (this.#isDraining) this.#beginStop();
  }

  #runSystem(task: () => unknown): void {
    this.#execute(undefined, task, undefined, LOCAL_META);
  }

  #runUser(envelope: Envelope): void {
    const { slot } = envelope;
    if (slot !== undefined && slot.isDone) {
      this.#deadLetter(envelope, "expired");
      return;
    }
    const table = slot === undefined ? this.#handlers.cast : this.#handlers.call;
    const handler = table?.[envelope.name];
    if (handler === undefined) {
      this.#deadLetter(envelope, "malformed");
      slot?.fail({ code: "protocol", message: `${this.path} has no handler for "${envelope.name}"` });
      return;
    }
    const meta =
      slot === undefined && envelope.sender === undefined
        ? LOCAL_META
        : { sender: envelope.sender, deadline: slot?.deadlineMs };
    this.#execute(envelope, handler, table, meta);
  }

  #execute(envelope: Envelope | undefined, handler: Handler, owner: unknown, meta: Meta): void {
    const system = this.#system;
    this.#turn += 1;
    this.#processed += 1;
    this.#turnChain = envelope?.chain;
    const instance = this.#instance;
    const outer = system.current;
    system.current = this;
    this.#isInHandler = true;
    let result: unknown;
    try {
      result =
        system.asyncContext !== undefined && isAsyncFunction(handler)
          ? system.asyncContext.run(this.chainNode(), () => handler.call(owner, envelope?.message, meta))
          : handler.call(owner, envelope?.message, meta);
    } catch (error) {
      system.current = outer;
      this.#isInHandler = false;
      this.#failed(envelope, error);
      this.#becameIdle();
      return;
    }
    system.current = outer;
    this.#isInHandler = false;
    if (isThenable(result)) {
      this.#isAwaiting = true;
      this.#awaitingSlot = envelope?.slot;
      this.#failCyclesQueued();
      const finish = (run: () => void): void => {
        if (this.#instance !== instance || !this.#isAwaiting) return; // forced to stop meanwhile
        this.#isAwaiting = false;
        this.#awaitingSlot = undefined;
        run();
        this.#becameIdle();
        this.#schedule();
        if (this.#isDraining && this.#canRun && this.#mailbox.size === 0 && this.#mailbox.systemSize === 0) {
          this.#beginStop();
        }
      };
      result.then(
        (value) => finish(() => envelope?.slot?.succeed(value)),
        (error: unknown) => finish(() => this.#failed(envelope, error)),
      );
      return;
    }
    if (envelope?.slot !== undefined) {
      if (result instanceof Deferred) answerLater(envelope.slot, result, this.path);
      else envelope.slot.succeed(result);
    }
    if (this.#whenIdle.length > 0) this.#becameIdle();
  }

  /** Names this actor's present turn; calls made in it carry the node. */
  chainNode(): ChainNode {
    return { actor: this.uid, turn: this.#turn, parent: this.#turnChain };
  }

  #failCyclesQueued(): void {
    if (this.#mailbox.size === 0 && this.#mailbox.waitingSize === 0) return;
    const uid = this.uid;
    const turn = this.#turn;
    const caught = this.#mailbox.extract((e) => e.slot !== undefined && chainHolds(e.chain, uid, turn));
    for (const envelope of caught) this.#failCycle(envelope);
  }

  #failCycle(envelope: Envelope): void {
    this.#deadLetter(envelope, "cycle");
    envelope.slot!.fail({
      code: "cycle",
      message: `${this.path} waits for this very call: it cannot answer "${envelope.name}" before its own call returns`,
    });
  }

  #afterIdle(run: () => void): void {
    if (this.#isInHandler || this.#isAwaiting) this.#whenIdle.push(run);
    else run();
  }

  #becameIdle(): void {
    while (this.#whenIdle.length > 0 && !this.#isAwaiting && !this.#isInHandler) this.#whenIdle.shift()!();
  }

  // --- start, fault, restart ---------------------------------------------------------------------------------------

  #startInstance(): void {
    const instance = new Instance(this, this.#system.host);
    this.#instance = instance;
    const outer = this.#system.current;
    this.#system.current = this;
    this.#turn += 1;
    this.#turnChain = undefined;
    this.#isInHandler = true;
    const ready = (handlers: HandlerTable): void => {
      this.#handlers = handlers;
      this.#lifecycle.to("running");
    };
    try {
      const made: unknown = this.#behavior.create(instance.context);
      if (isThenable(made)) {
        this.#isAwaiting = true;
        const finish = (run: () => void): void => {
          if (this.#instance !== instance || !this.#isAwaiting) return;
          this.#isAwaiting = false;
          run();
          this.#becameIdle();
          this.#kick();
        };
        made.then(
          (handlers) => finish(() => ready(handlers as HandlerTable)),
          (error: unknown) => finish(() => this.#failed(undefined, error, true)),
        );
      } else ready(made as HandlerTable);
    } catch (error) {
      this.#isInHandler = false;
      this.#system.current = outer;
      this.#failed(undefined, error, true);
      this.#becameIdle();
      return;
    }
    this.#isInHandler = false;
    this.#system.current = outer;
    this.#becameIdle();
    this.#kick();
  }

  #kick(): void {
    if (this.#mailbox.size > 0 || this.#mailbox.systemSize > 0 || this.#isDraining) this.#schedule();
  }

  #failed(envelope: Envelope | undefined, error: unknown, isStart = false): void {
    if (error instanceof Refusal && envelope?.slot !== undefined) {
      envelope.slot.fail({
        code: "refused",
        message: error.message,
        reason: error.reason,
        ...(error.data === undefined ? {} : { data: error.data }),
      });
      return;
    }
    if (envelope !== undefined) {
      this.#deadLetter(envelope, "fault");
      envelope.slot?.fail({ code: "fault", message: `${this.path} failed: ${describeError(error)}` });
    }
    this.fault(error, isStart);
  }

  /** Something went wrong in this actor (or in a child that escalated): its supervision decides. */
  fault(error: unknown, isStart = false): void {
    if (this.#lifecycle.isOver) return;
    this.#lifecycle.to("suspended");
    let directive: Directive;
    try {
      directive = this.#supervision.decide(error);
    } catch {
      directive = "stop";
    }
    if (directive === "resume" && isStart) directive = "stop"; // there is no instance to resume
    this.#system.countFault();
    this.#system.host.logger.warn("actor failed", { actor: this.path, directive, error });
    if (this.#isStopRequested && directive !== "resume") directive = "stop";
    if (directive === "resume") {
      this.#lifecycle.to("running");
      this.#kick();
    } else if (directive === "restart") this.#restartGroup(error);
    else if (directive === "escalate") this.#escalate(error);
    else this.stop({ code: "fault", message: describeError(error) });
  }

  #escalate(error: unknown): void {
    const parent = this.#parent;
    if (parent === undefined) this.stop({ code: "fault", message: describeError(error) });
    else parent.#afterIdle(() => parent.fault(new Error(`child ${this.path} escalated`, { cause: error })));
  }

  #restartGroup(error: unknown): void {
    const attempt = this.#budget.take();
    const parent = this.#parent;
    const shared = parent === undefined ? undefined : parent.#childBudget;
    const isParentSpent = shared !== undefined && shared.take() === undefined;
    if (attempt === undefined) {
      this.#system.host.logger.error("restart budget used up", { actor: this.path, error });
      if (this.#supervision.onExhausted === "escalate") this.#escalate(error);
      else this.stop({ code: "restart-budget", message: `restarted too often: ${describeError(error)}` });
      return;
    }
    if (isParentSpent) {
      this.#escalate(error);
      return;
    }
    const { host } = this.#system;
    const delayMs = backoffDelayMs(this.#supervision.backoff, attempt, randomUnit(host.random));
    host.logger.warn("actor restarts", { actor: this.path, attempt, delayMs });
    this.#restart(delayMs);
    for (const sibling of this.#siblingsAlong()) sibling.#afterIdle(() => sibling.#restartAlong(delayMs));
  }

  #siblingsAlong(): Cell[] {
    const { strategy } = this.#supervision;
    if (strategy === "one-for-one") return [];
    const all = [...(this.#parent === undefined ? this.#system.roots : this.#parent.#children).values()];
    return strategy === "all-for-one" ? all.filter((cell) => cell !== this) : all.slice(all.indexOf(this) + 1);
  }

  #restartAlong(delayMs: number): void {
    if (this.#lifecycle.state !== "running" || this.#isStopRequested) return; // already restarting or ending
    this.#lifecycle.to("suspended");
    this.#restart(delayMs);
  }

  /** From suspended: end the instance and its children, wait, start anew. Queued messages stay queued. */
  #restart(delayMs: number): void {
    this.#restarts += 1;
    this.#system.countRestart();
    const instance = this.#instance!;
    const readyAtMs = this.#system.host.clock.nowMs() + delayMs;
    const proceed = (): void => {
      if (this.#instance !== instance || this.#lifecycle.state !== "suspended") return;
      const waitMs = Math.max(0, readyAtMs - this.#system.host.clock.nowMs());
      this.#backoffTimer = this.#system.host.clock.setTimer(() => {
        this.#backoffTimer = undefined;
        if (this.#lifecycle.state !== "suspended") return;
        this.#lifecycle.to("restarting");
        this.#startInstance();
      }, waitMs);
    };
    void this.#endInstance({ code: "restart", message: "restarts after a fault" }).then(proceed);
  }

  async #endInstance(reason: StopReason): Promise<void> {
    const instance = this.#instance;
    const stopped = this.#handlers.stopped;
    this.#handlers = {};
    const stale = this.#mailbox.clearSystem();
    if (stale > 0) this.#system.deadLetters.add("stale", this.path, "", undefined, stale);
    instance?.close();
    for (const child of [...this.#children.values()].reverse()) {
      await child.stop({ code: reason.code === "shutdown" ? "shutdown" : "parent", message: `${this.path} ended` });
    }
    if (stopped === undefined) return;
    try {
      await stopped(reason);
    } catch (error) {
      this.#system.host.logger.warn("stopped handler failed", { actor: this.path, error });
    }
  }

  // --- end ---------------------------------------------------------------------------------------------------------

  /** With `drain`, messages already queued are handled first. @returns when the actor has ended. */
  stop(reason: StopReason, drain = false): Promise<void> {
    if (this.#lifecycle.state === "stopped") return Promise.resolve();
    const ended = new Promise<void>((resolve) => this.#stopWaiters.push(resolve));
    const isFirst = !this.#isStopRequested;
    this.#isStopRequested = true;
    this.#stopReason ??= reason;
    if (drain && isFirst && !this.#lifecycle.isOver) {
      this.#isDraining = true;
      this.#kick();
    } else if (!this.#lifecycle.isOver) {
      this.#isDraining = false;
      // Tell a handler that is still awaiting something that there is no point any more.
      if (this.#isAwaiting) this.#instance?.close();
      this.#afterIdle(() => this.#beginStop());
    }
    return ended;
  }

  #beginStop(): void {
    if (this.#lifecycle.isOver) return;
    this.#isDraining = false;
    this.#lifecycle.to("stopping");
    if (this.#backoffTimer !== undefined) this.#system.host.clock.clearTimer(this.#backoffTimer);
    this.#refuseQueued();
    void this.#endInstance(this.#stopReason!).then(() => this.#finish());
  }

  /** Ends without waiting for anything; for the shutdown deadline. @returns whether something was abandoned. */
  abandon(): boolean {
    let isAbandoned = false;
    for (const child of [...this.#children.values()]) isAbandoned = child.abandon() || isAbandoned;
    if (this.#lifecycle.state === "stopped") return isAbandoned;
    this.#isStopRequested = true;
    this.#isAwaiting = false;
    this.#awaitingSlot?.fail({ code: "stopped", message: `${this.path} was abandoned at the shutdown deadline` });
    this.#stopReason = { code: "abandoned", message: "still busy at the shutdown deadline" };
    if (this.#backoffTimer !== undefined) this.#system.host.clock.clearTimer(this.#backoffTimer);
    this.#instance?.close();
    this.#refuseQueued();
    this.#finish();
    return true;
  }

  #refuseQueued(): void {
    for (const envelope of this.#mailbox.drain()) {
      this.#deadLetter(envelope, "stopped");
      envelope.slot?.fail({ code: "stopped", message: `${this.path} stopped before it could answer` });
    }
  }

  #finish(): void {
    if (this.#lifecycle.state === "stopped") return;
    this.#lifecycle.to("stopped");
    const siblings = this.#parent === undefined ? this.#system.roots : this.#parent.#children;
    if (siblings.get(this.name) === this) siblings.delete(this.name);
    this.#instance = undefined;
    this.#handlers = {};
    const reason = this.#stopReason!;
    for (const watcher of [...this.#watchers]) this.#notify(watcher, reason);
    this.#watchers.clear();
    for (const resolve of this.#stopWaiters.splice(0)) resolve();
  }

  watch(listener: (reason: StopReason) => void): () => void {
    let isTaken = false;
    const once = (reason: StopReason): void => {
      if (isTaken) return;
      isTaken = true;
      listener(reason);
    };
    if (this.#lifecycle.state === "stopped") {
      this.#system.host.tasks.micro(() => this.#notify(once, this.#stopReason!));
    } else this.#watchers.add(once);
    return () => {
      isTaken = true;
      this.#watchers.delete(once);
    };
  }

  #notify(watcher: (reason: StopReason) => void, reason: StopReason): void {
    try {
      watcher(reason);
    } catch (error) {
      this.#system.host.logger.error("watcher failed", { actor: this.path, error });
    }
  }

  #deadLetter(envelope: Envelope, reason: DeadLetterReason): void {
    this.#system.deadLetters.add(reason, this.path, envelope.name, envelope.message);
  }

  report(): CellReport {
    return {
      path: this.path,
      protocol: `${this.protocol.name}/${this.protocol.version}`,
      state: this.#lifecycle.state,
      queueDepth: this.#mailbox.size + this.#mailbox.waitingSize,
      queueCapacity: this.#mailbox.capacity,
      processed: this.#processed,
      restarts: this.#restarts,
      isBusy: this.#isAwaiting,
      children: [...this.#children.values()].map((child) => child.report()),
    };
  }
}

const AsyncFunction = (async () => undefined).constructor;

function isAsyncFunction(handler: Handler): boolean {
  return handler instanceof AsyncFunction;
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === "object" && value !== null && typeof (value as { then?: unknown }).then === "function";
}

function answerLater(slot: ReplySlot, answer: Deferred<unknown>, path: string): void {
  answer.promise.then(
    (value) => slot.succeed(value),
    (error: unknown) => slot.fail(asCallError(error, path)),
  );
}

function asCallError(error: unknown, path: string): CallError {
  if (error instanceof Refusal) {
    return { code: "refused", message: error.message, reason: error.reason, data: error.data };
  }
  return { code: "fault", message: `${path} failed: ${describeError(error)}` };
}
