// Owns: virtual time and the one order in which everything of a simulation happens: timers, tasks, frames, faults.
// Invariants: one event at a time, and all promise jobs that it left have run before the next; no real time passes
// into anything; the order is a pure function of the seed.
import type { Clock, TaskQueue, TimerHandle } from "../host/host.js";
import { EventKind, type EventLog } from "./event-log.js";
import type { SimRandom } from "./random.js";

/** Node's own limits for a timer: 1 ms at least, 32-bit milliseconds at most. */
const TIMER_DELAY_MS_MIN = 1;
const TIMER_DELAY_MS_MAX = 2 ** 31 - 1;
/**
 * Events a slice: each has an immediate of its own, between which Node runs all promise jobs; a slice goes through
 * the event loop once, which costs more than the hops.
 */
const SLICE_EVENTS = 64;
/** Reading the clock stands for work done: the cheapest and the dearest machine, in ms a read. */
const READ_COST_MS = [0.0005, 0.02] as const;
/** A timer fires up to this late, as on a machine that has other things to do. */
const TIMER_SLACK_MS = 0.5;
/** Between a burst and the macro task that ends it, one look at the sockets. */
const MACRO_DELAY_MS = 0.05;
/** Micro tasks without one step of time: past it something wakes itself for ever. */
const TASKS_AT_ONE_INSTANT_MAX = 1_000_000;

export interface SimEvent {
  readonly atMs: number;
  readonly tie: number;
  readonly order: number;
  readonly kind: EventKind;
  readonly process: SimProcess | undefined;
  readonly run: () => void;
  isCancelled: boolean;
}

/** One incarnation of a node: its CPU, its tasks, its timers. Dead ones take part in nothing. */
export class SimProcess {
  readonly index: number;
  readonly name: string;
  /** Its own clock: ahead of the world's while it is busy. */
  localMs: number;
  readonly readCostMs: number;
  isAlive = true;
  readonly timers = new Set<SimEvent>();
  readonly micro: (() => void)[] = [];
  microHead = 0;
  macroPending = 0;

  constructor(index: number, name: string, localMs: number, readCostMs: number) {
    this.index = index;
    this.name = name;
    this.localMs = localMs;
    this.readCostMs = readCostMs;
  }
}

export interface RunOptions {
  readonly untilMs: number;
  /** Asked after each event; true ends the run early. */
  readonly isDone?: () => boolean;
}

/** Waits for work outside the event loop (files, native code); undefined when there is none. */
export type Quiesce = () => Promise<void> | undefined;

export class Scheduler {
  readonly #random: SimRandom;
  readonly #log: EventLog;
  readonly #heap: SimEvent[] = [];
  readonly #ready: SimProcess[] = [];
  #nowMs = 0;
  #order = 0;
  #processes = 0;
  #instantTasks = 0;
  #sliceId = 0;
  #left = 0;
  #active: { readonly options: RunOptions; readonly resolve: () => void; readonly reject: (error: unknown) => void } | undefined;
  #failure: { readonly error: unknown } | undefined;
  quiesce: Quiesce | undefined;
  /** Runs what belongs to a process in a context of its own. */
  around: ((process: SimProcess | undefined, run: () => void) => void) | undefined;
  /** Wrapped around the scheduler's own hops through the event loop. */
  hop: (run: () => void) => void = (run) => run();

  constructor(random: SimRandom, log: EventLog) {
    this.#random = random;
    this.#log = log;
  }

  get nowMs(): number {
    return this.#nowMs;
  }

  get pendingEvents(): number {
    return this.#heap.length;
  }

  process(name: string): SimProcess {
    return new SimProcess(this.#processes++, name, this.#nowMs, this.#random.between(...READ_COST_MS));
  }

  kill(process: SimProcess): void {
    process.isAlive = false;
    for (const timer of process.timers) timer.isCancelled = true;
    process.timers.clear();
    process.micro.length = 0;
    process.microHead = 0;
  }

  /** Events at one instant run in an order drawn from the seed. */
  at(atMs: number, kind: EventKind, process: SimProcess | undefined, run: () => void): SimEvent {
    const event: SimEvent = {
      atMs: Math.max(atMs, this.#nowMs), tie: this.#random.word(), order: this.#order++, kind, process, run, isCancelled: false,
    };
    this.#push(event);
    return event;
  }

  clockOf(process: SimProcess): Clock {
    return {
      nowMs: () => this.localMs(process),
      setTimer: (run, delayMs) => this.#setTimer(process, run, delayMs),
      clearTimer: (timer) => this.#clearTimer(process, timer),
    };
  }

  tasksOf(process: SimProcess): TaskQueue {
    return {
      micro: (run) => {
        if (!process.isAlive) return;
        if (process.microHead === process.micro.length) this.#ready.push(process);
        process.micro.push(run);
      },
      macro: (run) => {
        if (!process.isAlive) return;
        process.macroPending += 1;
        this.at(this.localMs(process) + MACRO_DELAY_MS * this.#random.unit(), EventKind.macro, process, () => {
          process.macroPending -= 1;
          run();
        });
      },
    };
  }

  /** The time on a process's own clock. While events run, each look at it costs a little of it. */
  localMs(process: SimProcess): number {
    if (process.localMs < this.#nowMs) process.localMs = this.#nowMs;
    if (this.#active !== undefined && process.isAlive) process.localMs += process.readCostMs;
    return process.localMs;
  }

  /** Ends the run that is under way: what simulated code threw past everything. */
  fail(error: unknown): void {
    this.#failure ??= { error };
  }

  /** Lets events happen until the virtual time is reached, or `isDone`. @throws what an event threw. */
  run(options: RunOptions): Promise<void> {
    if (this.#active !== undefined) throw new Error("the simulation is running already: await the last run first");
    return new Promise((resolve, reject) => {
      this.#active = { options, resolve, reject };
      this.hop(() => void setImmediate(() => this.#slice()));
    });
  }

  #slice(): void {
    const id = ++this.#sliceId;
    this.#left = SLICE_EVENTS;
    const pump = (): void => {
      if (id === this.#sliceId) this.#pump();
    };
    this.hop(() => {
      for (let i = 0; i < SLICE_EVENTS; i++) setImmediate(pump);
    });
  }

  #pump(): void {
    const waiting = this.quiesce?.();
    if (waiting !== undefined) {
      this.#sliceId += 1;
      waiting.then(() => this.#slice(), (error: unknown) => this.#finish({ error }));
      return;
    }
    try {
      const isOver = this.#failure !== undefined || this.#active!.options.isDone?.() === true || !this.#step(this.#active!.options.untilMs);
      if (isOver) {
        this.#finish(this.#failure);
        return;
      }
    } catch (error) {
      this.#finish({ error });
      return;
    }
    this.#left -= 1;
    if (this.#left === 0) this.#slice();
  }

  #finish(failure: { readonly error: unknown } | undefined): void {
    const active = this.#active!;
    this.#sliceId += 1;
    this.#active = undefined;
    this.#failure = undefined;
    if (failure === undefined) active.resolve();
    else active.reject(failure.error);
  }

  /** @returns false when nothing is left to do before `untilMs`. */
  #step(untilMs: number): boolean {
    while (this.#ready.length > 0) {
      const at = this.#ready.length === 1 ? 0 : this.#random.below(this.#ready.length);
      const process = this.#ready[at]!;
      if (process.microHead === process.micro.length) {
        process.micro.length = 0;
        process.microHead = 0;
        this.#ready.splice(at, 1);
        continue;
      }
      const run = process.micro[process.microHead++]!;
      if (++this.#instantTasks > TASKS_AT_ONE_INSTANT_MAX) {
        throw new Error(`${TASKS_AT_ONE_INSTANT_MAX} tasks at ${this.#nowMs} ms without a step of time: ${process.name} wakes itself for ever`);
      }
      this.#log.record(EventKind.micro, process.index, process.name, this.#nowMs, 0);
      this.#enter(process, run);
      return true;
    }
    for (;;) {
      const event = this.#heap[0];
      if (event === undefined || event.atMs > untilMs) {
        this.#nowMs = Math.max(this.#nowMs, untilMs);
        return false;
      }
      this.#pop();
      const { process } = event;
      if (event.isCancelled || process?.isAlive === false) continue;
      if (event.atMs > this.#nowMs) {
        this.#nowMs = event.atMs;
        this.#instantTasks = 0;
      }
      process?.timers.delete(event);
      if (event.kind === EventKind.timer || event.kind === EventKind.macro) {
        this.#log.record(event.kind, process?.index ?? -1, process?.name ?? "world", this.#nowMs, event.order);
      }
      this.#enter(process, event.run);
      return true;
    }
  }

  #enter(process: SimProcess | undefined, run: () => void): void {
    if (this.around === undefined) run();
    else this.around(process, run);
  }

  #setTimer(process: SimProcess, run: () => void, delayMs: number): TimerHandle {
    const boundMs = delayMs >= TIMER_DELAY_MS_MIN ? Math.min(delayMs, TIMER_DELAY_MS_MAX) : TIMER_DELAY_MS_MIN; // also for NaN
    const dueMs = this.localMs(process) + boundMs + TIMER_SLACK_MS * this.#random.unit();
    if (!process.isAlive) return undefined;
    const event = this.at(dueMs, EventKind.timer, process, run);
    process.timers.add(event);
    return event;
  }

  #clearTimer(process: SimProcess, handle: TimerHandle): void {
    const event = handle as SimEvent | undefined;
    if (event === undefined) return;
    event.isCancelled = true;
    process.timers.delete(event);
  }

  // --- a binary heap by (time, tie, order) -------------------------------------------------------------------------

  #push(event: SimEvent): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(event);
    while (at > 0) {
      const up = (at - 1) >> 1;
      if (!isBefore(event, heap[up]!)) break;
      heap[at] = heap[up]!;
      at = up;
    }
    heap[at] = event;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    const size = heap.length;
    if (size === 0) return;
    let at = 0;
    for (;;) {
      let down = 2 * at + 1;
      if (down >= size) break;
      if (down + 1 < size && isBefore(heap[down + 1]!, heap[down]!)) down += 1;
      if (!isBefore(heap[down]!, last)) break;
      heap[at] = heap[down]!;
      at = down;
    }
    heap[at] = last;
  }
}

function isBefore(a: SimEvent, b: SimEvent): boolean {
  if (a.atMs !== b.atMs) return a.atMs < b.atMs;
  return a.tie !== b.tie ? a.tie < b.tie : a.order < b.order;
}
