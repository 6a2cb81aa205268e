// Owns: the caller's side of a call: its promise, deadline and abort signal. Invariant: a call settles exactly once,
// and whatever settles it releases the deadline entry and the abort listener; the callee's side hears of it only
// when the caller gave up.
import type { Clock } from "../host/host.js";
import { DeadlineNode, type Deadlines } from "./deadlines.js";
import { type CallError, type CallResult } from "./failure.js";
import type { ReplySlot } from "./mailbox.js";
import type { Span } from "./trace.js";

export interface CallOptions {
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /** The caller does not wait in its handler for this call, so it must not count for call cycles. */
  readonly detached?: boolean;
}

export const CALL_TIMEOUT_MS_DEFAULT = 5000;

type Settle = (result: CallResult<unknown>) => void;

/** What few calls have: they pay for it alone. */
class CallExtras {
  /** Ends listening to the caller's own signal. */
  unlisten: (() => void) | undefined = undefined;
  onCancel: ((error: CallError) => void) | undefined = undefined;
  onSettled: ((isAnswered: boolean) => void) | undefined = undefined;
  span: Span | undefined = undefined;
}

// One executor for all promises in place of a closure for each: `new Promise` runs it before it returns.
let captured: Settle | undefined;
const capture = (resolve: Settle): void => {
  captured = resolve;
};

export class PendingCall extends DeadlineNode implements ReplySlot {
  readonly promise: Promise<CallResult<unknown>>;
  #deadlineMs: number | undefined;
  #settle: Settle | undefined;
  readonly #clock: Clock;
  readonly #deadlines: Deadlines;
  readonly #path: string;
  readonly #name: string;
  readonly #timeoutMs: number;
  #extras: CallExtras | undefined;
  #givenUp: CallError | undefined;

  constructor(path: string, name: string, options: CallOptions | undefined, clock: Clock, deadlines: Deadlines) {
    super();
    const timeoutMs = options === undefined ? undefined : options.timeoutMs;
    this.#path = path;
    this.#name = name;
    this.#timeoutMs = timeoutMs === undefined ? CALL_TIMEOUT_MS_DEFAULT : Math.max(0, timeoutMs);
    this.#clock = clock;
    this.#deadlines = deadlines;
    this.promise = new Promise(capture);
    this.#settle = captured;
    deadlines.start(this);
    if (options !== undefined && options.signal !== undefined) this.#listen(options.signal);
  }

  get isDone(): boolean {
    return this.#settle === undefined;
  }

  /** Fixed by the first who asks, or by the next round of the event loop. */
  get deadlineMs(): number {
    return this.#deadlineMs === undefined ? this.deadlineFrom(this.#clock.nowMs()) : this.#deadlineMs;
  }

  override deadlineFrom(nowMs: number): number {
    return (this.#deadlineMs ??= nowMs + this.#timeoutMs);
  }

  get delivery(): undefined {
    return undefined;
  }

  /** Set by a link, to forget its correlation entry and, when the caller gave up, to tell the other side. */
  set onSettled(listener: (isAnswered: boolean) => void) {
    (this.#extras ??= new CallExtras()).onSettled = listener;
  }

  /** Ends with the call. */
  set span(span: Span) {
    (this.#extras ??= new CallExtras()).span = span;
  }

  succeed(value: unknown): void {
    if (this.#settle !== undefined) this.#finish({ ok: true, value }, undefined);
  }

  fail(error: CallError): void {
    if (this.#settle !== undefined) this.#finish({ ok: false, error }, undefined);
  }

  override expire(): void {
    this.#giveUp({
      code: "timeout",
      message: `call ${this.#path}.${this.#name} had no reply within ${this.#timeoutMs} ms`,
    });
  }

  onCancel(listener: (error: CallError) => void): void {
    if (this.#givenUp !== undefined) listener(this.#givenUp);
    else if (this.#settle !== undefined) (this.#extras ??= new CallExtras()).onCancel = listener;
  }

  #listen(signal: AbortSignal): void {
    const onAbort = (): void =>
      this.#giveUp({ code: "aborted", message: `call ${this.#path}.${this.#name} was aborted by its caller` });
    if (signal.aborted) {
      onAbort();
      return;
    }
    signal.addEventListener("abort", onAbort, { once: true });
    (this.#extras ??= new CallExtras()).unlisten = () => signal.removeEventListener("abort", onAbort);
  }

  #giveUp(error: CallError): void {
    if (this.#settle === undefined) return;
    this.#givenUp = error;
    this.#finish({ ok: false, error }, error);
  }

  #finish(result: CallResult<unknown>, givenUp: CallError | undefined): void {
    const settle = this.#settle!;
    const extras = this.#extras;
    this.#settle = undefined;
    this.#deadlines.remove(this);
    if (extras === undefined) {
      settle(result);
      return;
    }
    this.#extras = undefined;
    extras.unlisten?.();
    extras.span?.end(result.ok ? undefined : result.error);
    extras.onSettled?.(givenUp === undefined);
    settle(result);
    if (givenUp !== undefined) extras.onCancel?.(givenUp);
  }
}
