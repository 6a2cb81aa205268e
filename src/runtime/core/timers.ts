// Owns: one actor instance's timers. Invariant: none survives its instance, and at most one expiry per key waits.
import type { Clock, TimerHandle } from "../host/host.js";
import type { Timers } from "./behavior.js";

interface Entry {
  handle: TimerHandle;
  isQueued: boolean;
}

export class CellTimers implements Timers {
  readonly #clock: Clock;
  readonly #post: (task: () => unknown) => void;
  readonly #entries = new Map<string, Entry>();
  #isClosed = false;

  constructor(clock: Clock, post: (task: () => unknown) => void) {
    this.#clock = clock;
    this.#post = post;
  }

  get size(): number {
    return this.#entries.size;
  }

  once(key: string, delayMs: number, run: () => void | Promise<void>): void {
    this.#set(key, delayMs, (entry) => {
      this.#post(() => {
        if (this.#entries.get(key) !== entry) return undefined;
        this.#entries.delete(key);
        return run();
      });
    });
  }

  every(key: string, periodMs: number, run: () => void | Promise<void>): void {
    if (!(periodMs > 0)) throw new TypeError(`timers.every needs a period above 0 ms, got ${periodMs}`);
    const tick = (entry: Entry): void => {
      entry.handle = this.#clock.setTimer(() => tick(entry), periodMs);
      if (entry.isQueued) return;
      entry.isQueued = true;
      this.#post(() => {
        entry.isQueued = false;
        return this.#entries.get(key) === entry ? run() : undefined;
      });
    };
    this.#set(key, periodMs, tick);
  }

  cancel(key: string): void {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    this.#clock.clearTimer(entry.handle);
    this.#entries.delete(key);
  }

  close(): void {
    this.#isClosed = true;
    for (const key of [...this.#entries.keys()]) this.cancel(key);
  }

  #set(key: string, delayMs: number, fire: (entry: Entry) => void): void {
    this.cancel(key);
    if (this.#isClosed) return;
    const entry: Entry = { handle: undefined, isQueued: false };
    this.#entries.set(key, entry);
    entry.handle = this.#clock.setTimer(() => fire(entry), delayMs);
  }
}
