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

export class PendingCall extends DeadlineNode implements ReplySlot {
  readonly promise: Promise<CallResult<unknown>>;
  readonly deadlineMs: number;
  #settle: ((result: CallResult<unknown>) => void) | undefined;
  readonly #deadlines: Deadlines;
  readonly #path: string;
  readonly #name: string;
  readonly #timeoutMs: number;
  #signal: AbortSignal | undefined;
  #onAbort: (() => void) | undefined;
  #onCancel: ((error: CallError) => void) | undefined;
  #givenUp: CallError | undefined;
  /** Set by a link, to forget its correlation entry and, when the caller gave up, to tell the other side. */
  onSettled: ((isAnswered: boolean) => void) | undefined;
  /** Ended with the call. */
  span: Span | undefined;

  constructor(path: string, name: string, options: CallOptions | undefined, clock: Clock, deadlines: Deadlines) {
    super();
    this.#path = path;
    this.#name = name;
    this.#timeoutMs = Math.max(0, options?.timeoutMs ?? CALL_TIMEOUT_MS_DEFAULT);
    this.#deadlines = deadlines;
    this.deadlineMs = clock.nowMs() + this.#timeoutMs;
    this.promise = new Promise((resolve) => {
      this.#settle = resolve;
    });
    deadlines.add(this, this.deadlineMs);
    const signal = options?.signal;
    if (signal !== undefined) this.#listen(signal);
  }

  get isDone(): boolean {
    return this.#settle === undefined;
  }

  get delivery(): undefined {
    return undefined;
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
    else if (this.#settle !== undefined) this.#onCancel = listener;
  }

  #listen(signal: AbortSignal): void {
    const onAbort = (): void =>
      this.#giveUp({ code: "aborted", message: `call ${this.#path}.${this.#name} was aborted by its caller` });
    if (signal.aborted) {
      onAbort();
      return;
    }
    this.#signal = signal;
    this.#onAbort = onAbort;
    signal.addEventListener("abort", onAbort, { once: true });
  }

  #giveUp(error: CallError): void {
    if (this.#settle === undefined) return;
    this.#givenUp = error;
    this.#finish({ ok: false, error }, error);
  }

  #finish(result: CallResult<unknown>, givenUp: CallError | undefined): void {
    const settle = this.#settle!;
    const onCancel = this.#onCancel;
    this.#settle = undefined;
    this.#onCancel = undefined;
    this.#deadlines.remove(this);
    if (this.#onAbort !== undefined) this.#signal!.removeEventListener("abort", this.#onAbort);
    if (this.span !== undefined) this.span.end(result.ok ? undefined : result.error);
    if (this.onSettled !== undefined) this.onSettled(givenUp === undefined);
    settle(result);
    if (givenUp !== undefined && onCancel !== undefined) onCancel(givenUp);
  }
}
