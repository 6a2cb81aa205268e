// Owns: when actors run. Invariant: one burst of turns lasts about BURST_MS before the event loop gets its chance,
// however many actors are ready and even when they wake one another through microtasks.
import type { Clock, TaskQueue } from "../host/host.js";

/** Sockets and heartbeats wait at most about this long behind busy actors. */
export const BURST_MS = 5;
const COMPACT_AT = 1024;
/** Turns that may follow one another without a look at the clock, as long as they are quick. */
const CLOCK_STRIDE_MAX = 4;
const QUICK_MS = BURST_MS / 50;

export interface Runnable {
  /** `startMs`: about the time now; never later. */
  run(startMs: number): void;
}

export class Dispatcher {
  readonly #clock: Clock;
  readonly #tasks: TaskQueue;
  /** Ready ones lie from #head to #tail. The array is kept when it runs empty: shrinking it costs more than a turn. */
  #ready: (Runnable | undefined)[] = [];
  #head = 0;
  #tail = 0;
  #isArmed = false;
  #isRunning = false;
  #isMacroPending = false;
  #isSpent = false;
  #burstStartMs = 0;
  #checkedAtMs = 0;
  #stride = 1;
  #unchecked = 0;
  readonly #runMicro = (): void => this.#run();
  readonly #runMacro = (): void => this.#afterIo();

  constructor(clock: Clock, tasks: TaskQueue) {
    this.#clock = clock;
    this.#tasks = tasks;
  }

  enqueue(cell: Runnable): void {
    this.#ready[this.#tail++] = cell;
    if (!this.#isArmed) this.#arm();
  }

  #arm(): void {
    this.#isArmed = true;
    if (!this.#isMacroPending) this.#startBurst();
    if (!this.#isSpent) this.#tasks.micro(this.#runMicro);
  }

  #startBurst(): void {
    this.#burstStartMs = this.#clock.nowMs();
    this.#checkedAtMs = this.#burstStartMs;
    this.#stride = 1;
    this.#unchecked = 0;
    this.#isSpent = false;
    this.#isMacroPending = true;
    this.#tasks.macro(this.#runMacro);
  }

  #afterIo(): void {
    this.#isMacroPending = false;
    this.#isSpent = false;
    if (this.#head < this.#tail) {
      this.#startBurst();
      this.#run();
    }
  }

  #run(): void {
    if (this.#isRunning) return;
    this.#isRunning = true;
    try {
      while (this.#head < this.#tail) {
        const cell = this.#ready[this.#head]!;
        this.#ready[this.#head++] = undefined;
        if (this.#head >= COMPACT_AT) this.#compact();
        cell.run(this.#checkedAtMs);
        this.#unchecked += 1;
        if (this.#unchecked >= this.#stride && this.#isBurstOver()) {
          this.#isSpent = true;
          break;
        }
      }
    } finally {
      this.#isRunning = false;
    }
    if (this.#head === this.#tail) {
      this.#head = 0;
      this.#tail = 0;
      this.#isArmed = false;
    }
    // Otherwise the burst is spent and the pending macro task goes on where this one stopped.
  }

  #isBurstOver(): boolean {
    const nowMs = this.#clock.nowMs();
    this.#stride = nowMs - this.#checkedAtMs < QUICK_MS ? Math.min(this.#stride * 2, CLOCK_STRIDE_MAX) : 1;
    this.#checkedAtMs = nowMs;
    this.#unchecked = 0;
    return nowMs - this.#burstStartMs >= BURST_MS;
  }

  #compact(): void {
    this.#ready = this.#ready.slice(this.#head, this.#tail);
    this.#tail -= this.#head;
    this.#head = 0;
  }
}
