// Owns: the messages of one outbox for one actor: which are under way, and when to try again. Invariants: messages
// leave in the order of their numbers; after any failure the next run begins with the first that is not confirmed;
// a message leaves the store only confirmed or rejected for good.
import { describeError, type CallError, type CallResult } from "../core/failure.js";
import { backoffDelayMs, type BackoffOptions } from "../core/supervision.js";
import { randomUnit, type Host, type TimerHandle } from "../host/host.js";
import type { StoreOperation } from "../host/store.js";
import type { OutboxStore, StoredMessage, StoredTarget } from "./outbox-store.js";

/** Answers of the receiver that another attempt would only repeat. */
const FINAL_CODES: ReadonlySet<CallError["code"]> = new Set(["refused", "protocol", "too-large"]);

export interface QueueOptions {
  readonly number: number;
  readonly target: StoredTarget;
  readonly window: number;
  readonly backoff: Required<BackoffOptions>;
  readonly faultsMax: number;
}

export interface Attempt {
  readonly sequence: number;
  readonly run: number;
  /** The number before it in its run, 0 for the first. */
  readonly previous: number;
  readonly message: StoredMessage;
}

export interface QueueModules {
  readonly host: Host;
  readonly store: OutboxStore;
  /** Written with the next batch. */
  readonly write: (operations: readonly StoreOperation[]) => void;
  readonly deliver: (attempt: Attempt) => Promise<CallResult<unknown>>;
  /** Whether an attempt has a chance now; when that changes, `wake` is called. */
  readonly isReachable: () => boolean;
  readonly onRejected: (attempt: Attempt, error: CallError) => void;
}

export class TargetQueue {
  readonly number: number;
  readonly target: StoredTarget;
  readonly #options: QueueOptions;
  readonly #modules: QueueModules;
  /** Under way or answered out of turn, by number. */
  readonly #flying = new Map<number, StoredMessage>();
  /** The first that is not confirmed, the next to leave, the last that the store has, the last given out. */
  #first: number;
  #next: number;
  #stored: number;
  #last: number;
  #run: number;
  #previous = 0;
  /** Answered ahead of the first. */
  readonly #done = new Set<number>();
  #failures = 0;
  #faults = 0;
  #sentMax = 0;
  #timer: TimerHandle;
  #oldestAtMs: number | undefined;
  #isClosed = false;
  confirmed = 0;
  rejected = 0;
  redelivered = 0;

  constructor(options: QueueOptions, modules: QueueModules) {
    this.#options = options;
    this.#modules = modules;
    this.number = options.number;
    this.target = options.target;
    this.#last = modules.store.lastSequence(options.number);
    this.#stored = this.#last;
    this.#first = modules.store.firstSequence(options.number) ?? this.#last + 1;
    this.#next = this.#first;
    // Higher than any run of an earlier queue in this process; the receiver turns lower ones away.
    this.#run = Math.ceil(modules.host.clock.nowMs()) + 1;
  }

  get depth(): number {
    return this.#last - this.#first + 1 - this.#done.size;
  }

  /** When the oldest message that is not confirmed was sent; undefined when there is none. */
  get oldestAtMs(): number | undefined {
    if (this.depth === 0) return undefined;
    this.#oldestAtMs ??= this.#read(this.#first)?.sentAtMs;
    return this.#oldestAtMs;
  }

  /** The number of the next message, … */
  get nextSequence(): number {
    return this.#last + 1;
  }

  /** … given to it when it is on its way to the disk. */
  take(): void {
    this.#last += 1;
  }

  /** Everything up to `sequence` is on disk. */
  onStored(sequence: number): void {
    this.#stored = Math.max(this.#stored, sequence);
    this.#pump();
  }

  /** `sequence` never came to be on disk: it is passed over, because one given twice would be a lost message. */
  drop(sequence: number): void {
    this.#stored = Math.max(this.#stored, sequence);
    this.#settle(sequence);
  }

  /** The target can be reached again: no reason to sit out the pause. */
  wake(): void {
    if (this.#timer !== undefined) this.#modules.host.clock.clearTimer(this.#timer);
    this.#timer = undefined;
    this.#pump();
  }

  close(): void {
    this.#isClosed = true;
    if (this.#timer !== undefined) this.#modules.host.clock.clearTimer(this.#timer);
    this.#timer = undefined;
  }

  #pump(): void {
    while (
      !this.#isClosed && this.#timer === undefined && this.#flying.size < this.#options.window &&
      this.#next <= this.#stored && this.#modules.isReachable()
    ) {
      const sequence = this.#next;
      this.#next += 1;
      if (this.#done.has(sequence)) continue;
      const message = this.#read(sequence);
      if (message === undefined) {
        this.#settle(sequence); // its write failed, or it was answered out of turn before a restart
        this.#modules.write([]);
        continue;
      }
      if (sequence <= this.#sentMax) this.redelivered += 1;
      else this.#sentMax = sequence;
      const attempt: Attempt = { sequence, run: this.#run, previous: this.#previous, message };
      this.#previous = sequence;
      this.#flying.set(sequence, message);
      void this.#modules.deliver(attempt).then((result) => this.#onResult(attempt, result));
    }
  }

  #onResult(attempt: Attempt, result: CallResult<unknown>): void {
    if (this.#isClosed) return;
    const { sequence, run } = attempt;
    const isKnown = sequence >= this.#first && !this.#done.has(sequence);
    if (result.ok) {
      // Handled is handled, whichever run asked for it.
      if (!isKnown) return;
      this.confirmed += 1;
      this.#modules.write([this.#modules.store.remove(this.number, sequence)]);
      this.#settle(sequence);
    } else if (run !== this.#run || !isKnown) return;
    else if (FINAL_CODES.has(result.error.code)) this.#reject(attempt, result.error);
    else if (this.#isPoison(attempt, result.error)) {
      this.#reject(attempt, result.error);
      this.#beginRun(); // for the receiver this one has failed
    } else this.#again(result.error);
    this.#pump();
  }

  /** A message whose handler has failed too often for the owner's patience. */
  #isPoison({ sequence }: Attempt, { code }: CallError): boolean {
    if (code !== "fault" || sequence !== this.#first) return false;
    this.#faults += 1;
    return this.#faults >= this.#options.faultsMax;
  }

  #reject(attempt: Attempt, error: CallError): void {
    this.rejected += 1;
    this.#modules.write(this.#modules.store.reject(this.number, attempt.sequence, attempt.message, error));
    this.#settle(attempt.sequence);
    this.#modules.onRejected(attempt, error);
  }

  #settle(sequence: number): void {
    this.#flying.delete(sequence);
    this.#done.add(sequence);
    this.#failures = 0;
    while (this.#done.delete(this.#first)) {
      this.#first += 1;
      this.#faults = 0;
      this.#oldestAtMs = undefined;
    }
    this.#next = Math.max(this.#next, this.#first);
  }

  #again(error: CallError): void {
    const { host } = this.#modules;
    this.#beginRun();
    this.#failures += 1;
    const delayMs = backoffDelayMs(this.#options.backoff, this.#failures, randomUnit(host.random));
    const { nodeId, path } = this.target;
    host.logger.info("outbox tries again", { nodeId, path, delayMs, code: error.code, message: error.message });
    this.#timer ??= host.clock.setTimer(() => {
      this.#timer = undefined;
      this.#pump();
    }, delayMs);
  }

  #beginRun(): void {
    this.#run += 1;
    this.#previous = 0;
    this.#next = this.#first;
    this.#flying.clear();
  }

  #read(sequence: number): StoredMessage | undefined {
    try {
      return this.#modules.store.read(this.number, sequence);
    } catch (error) {
      this.#modules.host.logger.error("outbox cannot read a message", { sequence, error: describeError(error) });
      return undefined;
    }
  }
}
