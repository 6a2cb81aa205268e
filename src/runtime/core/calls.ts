// Owns: the caller's side of a call: its promise, deadline and abort signal. Invariant: a call settles exactly once,
// and whatever settles it releases the deadline entry and the abort listener.
import type { Clock, TimerHandle } from "../host/host.js";
import { failed, type CallError, type CallResult } from "./failure.js";
import type { ReplySlot } from "./mailbox.js";

export interface CallOptions {
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /** The caller does not wait in its handler for this call, so it must not count for call cycles. */
  readonly detached?: boolean;
}

export const CALL_TIMEOUT_MS_DEFAULT = 5000;
/** Deadlines are rounded up to this, so that thousands of calls share one timer. */
const DEADLINE_GRAIN_MS = 8;

interface Expiring {
  expire(): void;
}

/** Groups deadlines into buckets with one host timer each: O(1) to add and to cancel. */
export class Deadlines {
  readonly #clock: Clock;
  readonly #buckets = new Map<number, { readonly calls: Set<Expiring>; readonly timer: TimerHandle }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  add(call: Expiring, deadlineMs: number): number {
    const grain = Math.ceil(deadlineMs / DEADLINE_GRAIN_MS);
    let bucket = this.#buckets.get(grain);
    if (bucket === undefined) {
      const delayMs = grain * DEADLINE_GRAIN_MS - this.#clock.nowMs();
      bucket = { calls: new Set(), timer: this.#clock.setTimer(() => this.#expire(grain), delayMs) };
      this.#buckets.set(grain, bucket);
    }
    bucket.calls.add(call);
    return grain;
  }

  remove(call: Expiring, grain: number): void {
    const bucket = this.#buckets.get(grain);
    if (bucket === undefined) return;
    bucket.calls.delete(call);
    if (bucket.calls.size === 0) {
      this.#clock.clearTimer(bucket.timer);
      this.#buckets.delete(grain);
    }
  }

  get size(): number {
    let size = 0;
    for (const bucket of this.#buckets.values()) size += bucket.calls.size;
    return size;
  }

  #expire(grain: number): void {
    const bucket = this.#buckets.get(grain);
    if (bucket === undefined) return;
    this.#buckets.delete(grain);
    for (const call of bucket.calls) call.expire();
  }
}

export class PendingCall implements ReplySlot, Expiring {
  readonly promise: Promise<CallResult<unknown>>;
  readonly deadlineMs: number;
  #settle: ((result: CallResult<unknown>) => void) | undefined;
  readonly #deadlines: Deadlines;
  readonly #grain: number;
  readonly #label: string;
  readonly #timeoutMs: number;
  readonly #signal: AbortSignal | undefined;
  readonly #onAbort: (() => void) | undefined;
  /** Set by a link to forget its correlation entry. */
  onSettled: (() => void) | undefined;

  constructor(label: string, options: CallOptions | undefined, clock: Clock, deadlines: Deadlines) {
    this.#label = label;
    this.#timeoutMs = Math.max(0, options?.timeoutMs ?? CALL_TIMEOUT_MS_DEFAULT);
    this.#deadlines = deadlines;
    this.deadlineMs = clock.nowMs() + this.#timeoutMs;
    this.promise = new Promise((resolve) => {
      this.#settle = resolve;
    });
    this.#grain = deadlines.add(this, this.deadlineMs);
    const signal = options?.signal;
    if (signal !== undefined) {
      this.#signal = signal;
      this.#onAbort = () => this.fail({ code: "aborted", message: `call ${label} was aborted by its caller` });
      if (signal.aborted) this.#onAbort();
      else signal.addEventListener("abort", this.#onAbort, { once: true });
    }
  }

  get isDone(): boolean {
    return this.#settle === undefined;
  }

  succeed(value: unknown): void {
    this.#finish({ ok: true, value });
  }

  fail(error: CallError): void {
    this.#finish({ ok: false, error });
  }

  expire(): void {
    this.#finish(failed("timeout", `call ${this.#label} had no reply within ${this.#timeoutMs} ms`));
  }

  #finish(result: CallResult<unknown>): void {
    const settle = this.#settle;
    if (settle === undefined) return;
    this.#settle = undefined;
    this.#deadlines.remove(this, this.#grain);
    if (this.#onAbort !== undefined) this.#signal!.removeEventListener("abort", this.#onAbort);
    this.onSettled?.();
    settle(result);
  }
}
