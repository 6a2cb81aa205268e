// Owns: when actors run. Invariant: one burst of turns lasts about BURST_MS before the event loop gets its chance,
// however many actors are ready and even when they wake one another through microtasks.
import type { Clock, TaskQueue } from "../host/host.js";

/** Sockets and heartbeats wait at most about this long behind busy actors. */
export const BURST_MS = 5;
const COMPACT_AT = 1024;

export interface Runnable {
  /** `startMs`: the time now. */
  run(startMs: number): void;
}

export class Dispatcher {
  readonly #clock: Clock;
  readonly #tasks: TaskQueue;
  #ready: Runnable[] = [];
  #head = 0;
  #isArmed = false;
  #isRunning = false;
  #isMacroPending = false;
  #isSpent = false;
  #burstStartMs = 0;
  readonly #runMicro = (): void => this.#run();
  readonly #runMacro = (): void => this.#afterIo();

  constructor(clock: Clock, tasks: TaskQueue) {
    this.#clock = clock;
    this.#tasks = tasks;
  }

  enqueue(cell: Runnable): void {
    this.#ready.push(cell);
    if (!this.#isArmed) this.#arm();
  }

  #arm(): void {
    this.#isArmed = true;
    if (!this.#isMacroPending) this.#startBurst();
    if (!this.#isSpent) this.#tasks.micro(this.#runMicro);
  }

  #startBurst(): void {
    this.#burstStartMs = this.#clock.nowMs();
    this.#isSpent = false;
    this.#isMacroPending = true;
    this.#tasks.macro(this.#runMacro);
  }

  #afterIo(): void {
    this.#isMacroPending = false;
    this.#isSpent = false;
    if (this.#head < this.#ready.length) {
      this.#startBurst();
      this.#run();
    }
  }

  #run(): void {
    if (this.#isRunning) return;
    this.#isRunning = true;
    let nowMs = this.#clock.nowMs();
    try {
      while (this.#head < this.#ready.length) {
        const cell = this.#ready[this.#head]!;
        this.#head += 1;
        if (this.#head >= COMPACT_AT) {
          this.#ready = this.#ready.slice(this.#head);
          this.#head = 0;
        }
        cell.run(nowMs);
        nowMs = this.#clock.nowMs();
        if (nowMs - this.#burstStartMs >= BURST_MS) {
          this.#isSpent = true;
          break;
        }
      }
    } finally {
      this.#isRunning = false;
    }
    if (this.#head >= this.#ready.length) {
      this.#ready.length = 0;
      this.#head = 0;
      this.#isArmed = false;
    }
    // Otherwise the burst is spent and the pending macro task goes on where this one stopped.
  }
}
