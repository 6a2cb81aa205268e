// Owns: one actor: its name, mailbox, state and the ways in; how it runs is in turns.ts, how it fails and starts anew
// in restarts.ts, how it ends in ending.ts. Those three and this file alone write its fields.
// Invariants: state moves only through lifecycle.ts; at most one handler runs at a time, awaited handlers included;
// every message ends in a handler, a dead letter or both (a fault); watchers hear of the end exactly once.
// What few actors need is made when it is first needed: an actor is spawned and stopped in a few microseconds.
import type { Behavior, SpawnOptions } from "./behavior.js";
import { PendingCall, type CallOptions } from "./calls.js";
import { chainHolds, type ChainNode, type TurnNode } from "./chain.js";
import type { DeadLetterReason } from "./dead-letters.js";
import type { Runnable } from "./dispatcher.js";
import { abandon, stop, watch } from "./ending.js";
import { RuntimeError, type CallError, type CallResult, type CastResult, type StopReason } from "./failure.js";
import { NO_HANDLERS, type Handler, type HandlersByName, type HandlerTable } from "./handlers.js";
import type { Instance } from "./instance.js";
import { isOver, type CellState } from "./lifecycle.js";
import {
  Envelope, Mailbox, originOf, type DropReason, type MailboxOwner, type Origin, type ReplySlot, type Sender,
} from "./mailbox.js";
import type { AnyProtocol } from "./protocol.js";
import { LocalRef, type Ref } from "./ref.js";
import { fault, startInstance } from "./restarts.js";
import { createSupervision, SUPERVISION_DEFAULTS, RestartBudget, type Supervision } from "./supervision.js";
import { Stash, STASH_CAPACITY_DEFAULT } from "./stash.js";
import type { SystemCore } from "./system.js";
import type { TraceContext } from "./trace.js";
import { failCycle, runTurn } from "./turns.js";
import type { TimerHandle } from "../host/host.js";

const NAME = /^[A-Za-z0-9_.$-]{1,128}$/;

export interface CellReport {
  readonly path: string;
  readonly protocol: string;
  readonly state: CellState;
  readonly queueDepth: number;
  readonly queueCapacity: number;
  readonly stashDepth: number;
  /** Messages that found the mailbox full and were not taken; their senders know. */
  readonly rejected: number;
  /** Messages of this actor that became dead letters, by reason; only reasons that occurred. */
  readonly deadLetters: Readonly<Partial<Record<DeadLetterReason, number>>>;
  readonly processed: number;
  readonly restarts: number;
  readonly isBusy: boolean;
  readonly children: readonly CellReport[];
}

export class Cell implements Runnable, MailboxOwner {
  readonly system: SystemCore;
  readonly parent: Cell | undefined;
  readonly behavior: Behavior<AnyProtocol>;
  readonly supervision: Supervision;
  readonly mailbox: Mailbox;
  readonly name: string;
  readonly path: string;
  readonly isRemote: boolean;
  readonly ref: Ref<AnyProtocol>;
  readonly #number: number;
  readonly #options: SpawnOptions;
  #uid: string | undefined;
  #budget: RestartBudget | undefined;
  #childBudget: RestartBudget | undefined;
  #stash: Stash | undefined;
  state: CellState = "starting";
  instance: Instance | undefined;
  handlers: HandlerTable = NO_HANDLERS;
  children: Map<string, Cell> | undefined;
  childNumber = 0;
  // turns.ts
  isScheduled = false;
  isInHandler = false;
  isAwaiting = false;
  /** The user message that is being handled and has not been stashed. */
  running: Envelope | undefined;
  turn = 0;
  turnChain: ChainNode | undefined;
  turnTrace: TraceContext | undefined;
  lastName: string | undefined;
  lastTable: HandlersByName | undefined;
  lastHandler: Handler | undefined;
  isLastAsync = false;
  whenIdle: (() => void)[] | undefined;
  roomWaiters: (() => void)[] | undefined;
  processed = 0;
  #rejected = 0;
  #letters: Partial<Record<DeadLetterReason, number>> | undefined;
  // restarts.ts
  backoffTimer: TimerHandle;
  restarts = 0;
  /** Waits suspended for what its parent decides; "spent": must not simply go on. */
  escalation: "resumable" | "spent" | undefined;
  // ending.ts
  isDraining = false;
  isStopRequested = false;
  stopReason: StopReason | undefined;
  watchers: Set<(reason: StopReason) => void> | undefined;
  stopWaiters: (() => void)[] | undefined;

  constructor(system: SystemCore, parent: Cell | undefined, behavior: Behavior<AnyProtocol>, options: SpawnOptions) {
    const siblings = parent === undefined ? system.roots : (parent.children ??= new Map<string, Cell>());
    let { name } = options;
    if (name === undefined) name = `$${parent === undefined ? system.nextNumber() : ++parent.childNumber}`;
    else if (!NAME.test(name)) throw new RuntimeError("bad-name", `an actor's name must match ${NAME}, got "${name}"`);
    const path = parent === undefined ? name : `${parent.path}/${name}`;
    if (siblings.has(name)) {
      throw new RuntimeError("name-taken", `an actor named ${path} exists already`, "choose another name or stop it");
    }
    this.system = system;
    this.parent = parent;
    this.behavior = behavior;
    this.name = name;
    this.path = path;
    this.isRemote = options.remote ?? parent === undefined;
    this.#options = options;
    this.#number = system.nextCellNumber();
    this.supervision = createSupervision(options.supervision);
    this.mailbox = new Mailbox(options.mailbox, this);
    this.ref = new LocalRef(this, behavior.protocol, path);
    siblings.set(name, this);
  }

  get protocol(): AnyProtocol {
    return this.behavior.protocol;
  }

  /** Unique among all systems: incarnation and number. */
  get uid(): string {
    return (this.#uid ??= `${this.system.incarnation}:${this.#number}`);
  }

  get budget(): RestartBudget {
    const { maxRestarts, withinMs } = this.supervision;
    return (this.#budget ??= new RestartBudget(this.system.host.clock, maxRestarts, withinMs));
  }

  /** Restarts that all children may use together; undefined: each has only its own. */
  get childBudget(): RestartBudget | undefined {
    if (this.#options.childBudget === undefined) return undefined;
    const { maxRestarts, withinMs } = { ...SUPERVISION_DEFAULTS, ...this.#options.childBudget };
    return (this.#childBudget ??= new RestartBudget(this.system.host.clock, maxRestarts, withinMs));
  }

  get siblings(): Map<string, Cell> {
    return this.parent === undefined ? this.system.roots : this.parent.children!;
  }

  /** Runs the factory for the first time. Separate from the constructor so that the cell is registered by then. */
  start(): void {
    startInstance(this);
  }

  spawnChild<Q extends AnyProtocol>(behavior: Behavior<Q>, options: SpawnOptions): Ref<Q> {
    const child = new Cell(this.system, this, behavior as unknown as Behavior<AnyProtocol>, options);
    child.start();
    return child.ref as unknown as Ref<Q>;
  }

  child(name: string): Cell | undefined {
    return this.children?.get(name);
  }

  // --- messages in -------------------------------------------------------------------------------------------------

  cast(name: string, message: unknown): CastResult {
    const { system } = this;
    if (!system.isTracing) return this.deliverCast(name, message, undefined);
    const span = system.traceOut("cast", this.path, name);
    const trace = span === undefined ? system.currentTrace() : span.context;
    const result = this.deliverCast(name, message, originOf(undefined, undefined, trace));
    span?.end(result === "accepted" ? undefined : result);
    return result;
  }

  /** A cast starts a new chain: its sender does not wait. Not dead-lettered when "full": the sender knows. */
  deliverCast(name: string, message: unknown, origin: Origin | undefined): CastResult {
    if (origin !== undefined && origin.trace !== undefined) this.system.isTracing = true;
    if (this.isStopRequested) {
      this.countDeadLetter("stopped", name, message);
      return "stopped";
    }
    if (this.mailbox.push(new Envelope(name, message, undefined, origin)) === "full") {
      this.#rejected += 1;
      return "full";
    }
    this.schedule();
    return "accepted";
  }

  /** A cast whose handler's end `slot` waits for; `slot` is left alone unless the message was accepted. */
  deliverConfirmed(
    name: string,
    message: unknown,
    slot: ReplySlot,
    sender: Sender | undefined,
    trace?: TraceContext,
  ): CastResult {
    if (trace !== undefined) this.system.isTracing = true;
    if (this.isStopRequested) return "stopped";
    if (!this.mailbox.hasRoom) {
      this.#rejected += 1;
      return "full";
    }
    this.mailbox.push(new Envelope(name, message, slot, originOf(sender, undefined, trace)));
    this.schedule();
    return "accepted";
  }

  call(name: string, message: unknown, options: CallOptions | undefined): Promise<CallResult<unknown>> {
    const { system } = this;
    const call = new PendingCall(this.path, name, options, system.host.clock, system.deadlines);
    if (call.isDone) return call.promise;
    const chain = options !== undefined && options.detached === true ? undefined : system.currentChain();
    let trace: TraceContext | undefined;
    if (system.isTracing) {
      const span = system.traceOut("call", this.path, name);
      if (span !== undefined) call.span = span;
      trace = span === undefined ? system.currentTrace() : span.context;
    }
    this.deliverCall(name, message, call, undefined, chain, trace);
    return call.promise;
  }

  /** Always settles `slot`, now or later. */
  deliverCall(
    name: string,
    message: unknown,
    slot: ReplySlot,
    sender: Sender | undefined,
    chain: ChainNode | undefined,
    trace?: TraceContext,
  ): void {
    if (trace !== undefined) this.system.isTracing = true;
    if (this.isStopRequested) {
      this.countDeadLetter("stopped", name, message);
      slot.fail({ code: "stopped", message: `${this.path} is not running` });
      return;
    }
    const envelope = new Envelope(name, message, slot, originOf(sender, chain, trace));
    if (chain !== undefined && this.isAwaiting && chainHolds(chain, this.uid, this.turn)) {
      failCycle(this, envelope);
      return;
    }
    if (this.mailbox.push(envelope) === "full") {
      this.#rejected += 1;
      slot.fail({ code: "full", message: `the mailbox of ${this.path} is full (${this.mailbox.capacity})` });
      return;
    }
    this.schedule();
  }

  postSystem(run: () => unknown, trace?: TraceContext): void {
    this.mailbox.pushSystem({ run, trace });
    this.schedule();
  }

  /** A link holds back casts that found this mailbox full, and with them their sender's credit. */
  get holdsSenders(): boolean {
    return this.mailbox.overflow === "wait";
  }

  /**
   * Runs `listener` once: when there is room, or when the actor stops (a delivery then says so). One listener a free
   * place, in the order of registration, out of this actor's turn: it should only deliver.
   * @returns the function that takes it back.
   */
  whenRoom(listener: () => void): () => void {
    if (this.isStopRequested || this.mailbox.hasRoom) {
      let isTaken = false;
      this.system.host.tasks.micro(() => {
        if (!isTaken) listener();
      });
      return () => void (isTaken = true);
    }
    const waiters = (this.roomWaiters ??= []);
    waiters.push(listener);
    return () => {
      const at = waiters.indexOf(listener);
      if (at >= 0) waiters.splice(at, 1);
    };
  }

  offerRoom(): void {
    const waiters = this.roomWaiters!;
    while (waiters.length > 0 && (this.isStopRequested || this.mailbox.hasRoom)) {
      const listener = waiters.shift()!;
      try {
        listener();
      } catch (error) {
        this.system.host.logger.error("whenRoom listener failed", { actor: this.path, error });
      }
    }
    if (waiters.length === 0 && this.roomWaiters === waiters) this.roomWaiters = undefined;
  }

  // --- turns -------------------------------------------------------------------------------------------------------

  get canRun(): boolean {
    return this.state === "running" && !this.isAwaiting;
  }

  schedule(): void {
    if (this.isScheduled || this.isInHandler || this.isAwaiting || this.state !== "running") return;
    this.isScheduled = true;
    this.system.dispatcher.enqueue(this);
  }

  /** Schedules a turn if there is something to do in it. */
  kick(): void {
    if (this.isDraining || !this.mailbox.isEmpty) this.schedule();
  }

  run(startMs: number): void {
    runTurn(this, startMs);
  }

  /** Names this actor's present turn; calls made in it carry the node. */
  turnNode(): TurnNode {
    return { actor: this.uid, turn: this.turn, parent: this.turnChain, trace: this.turnTrace };
  }

  afterIdle(run: () => void): void {
    if (this.isInHandler || this.isAwaiting) (this.whenIdle ??= []).push(run);
    else run();
  }

  becameIdle(): void {
    while (this.whenIdle !== undefined && !this.isAwaiting && !this.isInHandler) {
      const run = this.whenIdle.shift()!;
      if (this.whenIdle.length === 0) this.whenIdle = undefined;
      run();
    }
  }

  stashRunning(): boolean {
    const { running } = this;
    if (running === undefined) {
      throw new RuntimeError("no-message", `${this.path} handles no message now`, "call stash() in a handler, once");
    }
    this.#stash ??= new Stash(this.#options.stashCapacity ?? STASH_CAPACITY_DEFAULT);
    if (!this.#stash.add(running)) return false;
    this.running = undefined;
    return true;
  }

  get stash(): Stash | undefined {
    return this.#stash;
  }

  unstash(): void {
    if (this.#stash === undefined || this.#stash.size === 0) return;
    this.mailbox.putBack(this.#stash.take());
    this.schedule();
  }

  // --- faults and the end ------------------------------------------------------------------------------------------

  fault(error: unknown): void {
    fault(this, error, false);
  }

  /** With `drain`, messages already queued are handled first. @returns when the actor has ended. */
  stop(reason: StopReason, drain = false): Promise<void> {
    return stop(this, reason, drain);
  }

  /** Ends without waiting for anything; for the shutdown deadline. @returns whether something was abandoned. */
  abandon(): boolean {
    return abandon(this);
  }

  get isOver(): boolean {
    return isOver(this.state);
  }

  watch(listener: (reason: StopReason) => void): () => void {
    return watch(this, listener);
  }

  // --- accounts ----------------------------------------------------------------------------------------------------

  countDeadLetter(reason: DeadLetterReason, name: string, message: unknown, count = 1): void {
    const letters = (this.#letters ??= {});
    letters[reason] = (letters[reason] ?? 0) + count;
    this.system.deadLetters.add(reason, this.path, name, message, count);
  }

  /** The message was not handled and will not be; whoever waits for it learns why. */
  refuse(envelope: Envelope, reason: DeadLetterReason, error: CallError): void {
    this.countDeadLetter(reason, envelope.name, envelope.message);
    envelope.slot?.fail(error);
  }

  dropped(envelope: Envelope, reason: DropReason): void {
    this.refuse(envelope, reason, { code: "full", message: `the mailbox of ${this.path} dropped the message` });
  }

  conflateFailed(error: unknown): void {
    this.system.host.logger.error("conflate failed", { actor: this.path, error });
  }

  report(): CellReport {
    const { mailbox } = this;
    return {
      path: this.path,
      protocol: `${this.protocol.name}/${this.protocol.version}`,
      state: this.state,
      queueDepth: mailbox.size + mailbox.waitingSize,
      queueCapacity: mailbox.capacity,
      stashDepth: this.#stash?.size ?? 0,
      rejected: this.#rejected,
      deadLetters: { ...this.#letters },
      processed: this.processed,
      restarts: this.restarts,
      isBusy: this.isAwaiting,
      children: this.children === undefined ? [] : [...this.children.values()].map((child) => child.report()),
    };
  }
}
