// Owns: what an actor's author writes: a factory from context to handlers.
// Invariant: handlers of one actor never overlap; an async handler holds its actor until its promise settles.
import type { Clock, Logger } from "../host/host.js";
import type { StopReason } from "./failure.js";
import type { Delivery, MailboxOptions, Sender } from "./mailbox.js";
import type { AnyProtocol, CallName, CastName, Message, Reply, Request } from "./protocol.js";
import type { Ref } from "./ref.js";
import type { RestartBudgetOptions, SupervisionOptions } from "./supervision.js";
import type { TraceContext } from "./trace.js";

export interface Meta {
  /** Present when the message came over a link. */
  readonly sender: Sender | undefined;
  /** For calls: when the caller stops waiting, on the system's clock. */
  readonly deadline: number | undefined;
  /** For calls: aborted when the caller gives up (timeout, abort, its link lost). Made when it is first read. */
  readonly signal: AbortSignal | undefined;
  /** The trace that this message belongs to; what the handler sends carries it on by itself. */
  readonly trace: TraceContext | undefined;
  /** For messages out of an outbox: equal when the same message is delivered again. */
  readonly delivery: Delivery | undefined;
}

/** A call answered after its handler returned; the actor goes on with other messages meanwhile. */
export class Deferred<T> {
  readonly promise: Promise<T>;
  constructor(promise: Promise<T>) {
    this.promise = promise;
  }
}

/** Returned by a call handler: reply when `promise` settles without holding the actor. A rejection answers "fault". */
export function replyLater<T>(promise: Promise<T>): Deferred<T> {
  return new Deferred(promise);
}

export type CallHandlers<P extends AnyProtocol> = {
  readonly [N in CallName<P>]: (
    message: Request<P, N>,
    meta: Meta,
  ) => Reply<P, N> | Promise<Reply<P, N>> | Deferred<Reply<P, N>>;
};

export type CastHandlers<P extends AnyProtocol> = {
  readonly [N in CastName<P>]: (message: Message<P, N>, meta: Meta) => void | Promise<void>;
};

export type Handlers<P extends AnyProtocol> = {
  /** Last word of an instance, also before a restart (`reason.code === "restart"`). */
  readonly stopped?: (reason: StopReason) => void | Promise<void>;
} & ([CallName<P>] extends [never] ? { readonly call?: undefined } : { readonly call: CallHandlers<P> }) &
  ([CastName<P>] extends [never] ? { readonly cast?: undefined } : { readonly cast: CastHandlers<P> });

export interface Behavior<P extends AnyProtocol> {
  readonly protocol: P;
  readonly create: (ctx: Context<P>) => Handlers<P> | Promise<Handlers<P>>;
}

/** The factory runs at each start and restart; what it throws is a fault of the actor. */
export function behavior<P extends AnyProtocol>(
  protocol: P,
  create: (ctx: Context<P>) => Handlers<P> | Promise<Handlers<P>>,
): Behavior<P> {
  return Object.freeze({ protocol, create });
}

export interface SpawnOptions {
  /** Unique among siblings; default: a number with a `$` before it. */
  readonly name?: string;
  readonly mailbox?: MailboxOptions;
  /** How many messages `ctx.stash` may hold. Default: STASH_CAPACITY_DEFAULT. */
  readonly stashCapacity?: number;
  /** How this actor's own faults are treated. */
  readonly supervision?: SupervisionOptions;
  /** Restarts that all children of this actor may use together; past it this actor itself is at fault. */
  readonly childBudget?: RestartBudgetOptions;
  /** Whether peers may reach it by name. Default: true for top-level actors, false for children. */
  readonly remote?: boolean;
}

export interface Timers {
  /** Setting a key again replaces its timer. Callbacks run as turns of the actor. */
  once(key: string, delayMs: number, run: () => void | Promise<void>): void;
  /** At most one tick waits in the mailbox: a slow actor skips ticks instead of piling them up. */
  every(key: string, periodMs: number, run: () => void | Promise<void>): void;
  cancel(key: string): void;
}

export type Piped<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly error: unknown };

export interface Context<P extends AnyProtocol = AnyProtocol> {
  readonly self: Ref<P>;
  readonly name: string;
  readonly path: string;
  readonly log: Logger;
  readonly clock: Clock;
  readonly random: (sizeBytes: number) => Uint8Array;
  readonly timers: Timers;
  /** Aborted when this instance stops or restarts. */
  readonly signal: AbortSignal;
  spawn<Q extends AnyProtocol>(behavior: Behavior<Q>, options?: SpawnOptions): Ref<Q>;
  /** `run` is a turn of this actor and happens exactly once, also when `ref` has already stopped. */
  watch<Q extends AnyProtocol>(ref: Ref<Q>, run: (reason: StopReason) => void | Promise<void>): void;
  unwatch<Q extends AnyProtocol>(ref: Ref<Q>): void;
  /** Runs `then` with the outcome as a turn of this actor. */
  pipeToSelf<T>(promise: Promise<T>, then: (outcome: Piped<T>) => void | Promise<void>): void;
  /**
   * Keeps the message that is being handled, for later; a call goes on waiting for its answer.
   * @returns false when the stash is full: the message is then handled as if nothing had been asked.
   * @throws RuntimeError "no-message" outside the handler of a message.
   */
  stash(): boolean;
  /** Puts all stashed messages back, in front of the mailbox and in the order in which they came. A restart does so too. */
  unstash(): void;
  stop(): void;
}
