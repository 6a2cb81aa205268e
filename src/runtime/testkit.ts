// Owns: what tests of actors need: a clock that moves only when told, a probe that records what it is sent, faults
// that come by seed.
// Public as part of the runtime entry. Invariant: with a VirtualClock no real time passes between cause and effect.
import { behavior, type Behavior, type Meta } from "./core/behavior.js";
import type { AnyProtocol, CastName } from "./core/protocol.js";
import { randomUnit, type Clock, type TimerHandle } from "./host/host.js";

interface VirtualTimer {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
}

export class VirtualClock implements Clock {
  #nowMs = 0;
  #order = 0;
  readonly #timers = new Set<VirtualTimer>();

  nowMs(): number {
    return this.#nowMs;
  }

  setTimer(run: () => void, delayMs: number): TimerHandle {
    const timer: VirtualTimer = { atMs: this.#nowMs + Math.max(0, delayMs), order: this.#order++, run };
    this.#timers.add(timer);
    return timer;
  }

  clearTimer(timer: TimerHandle): void {
    this.#timers.delete(timer as VirtualTimer);
  }

  get pendingTimers(): number {
    return this.#timers.size;
  }

  /** Fires due timers in time order, and lets actors and promises settle before and after each. */
  async advance(byMs: number): Promise<void> {
    const endMs = this.#nowMs + byMs;
    await settle();
    for (;;) {
      const next = this.#next(endMs);
      if (next === undefined) break;
      this.#timers.delete(next);
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      next.run();
      await settle();
    }
    this.#nowMs = endMs;
    await settle();
  }

  #next(endMs: number): VirtualTimer | undefined {
    let next: VirtualTimer | undefined;
    for (const timer of this.#timers) {
      if (timer.atMs > endMs) continue;
      if (next === undefined || timer.atMs < next.atMs || (timer.atMs === next.atMs && timer.order < next.order)) {
        next = timer;
      }
    }
    return next;
  }
}

/** Rounds through the event loop that let every ready actor finish its burst and every settled promise run. */
const SETTLE_ROUNDS = 4;

/** Waits until ready actors have run; involves no time. */
export async function settle(rounds = SETTLE_ROUNDS): Promise<void> {
  for (let i = 0; i < rounds; i++) await new Promise<void>((resolve) => setImmediate(resolve));
}

export interface ProbeEntry<P extends AnyProtocol> {
  readonly name: CastName<P>;
  readonly message: unknown;
  readonly meta: Meta;
}

/** An actor that records every cast of its protocol; calls are answered by `answers`. */
export class Probe<P extends AnyProtocol> {
  readonly behavior: Behavior<P>;
  readonly received: ProbeEntry<P>[] = [];
  readonly #waiters: { readonly count: number; readonly resolve: (entries: ProbeEntry<P>[]) => void }[] = [];

  constructor(protocol: P, answers: Record<string, (message: never, meta: Meta) => unknown> = {}) {
    const cast: Record<string, (message: unknown, meta: Meta) => void> = {};
    for (const name of Object.keys(protocol.cast)) {
      cast[name] = (message, meta) => this.#record({ name: name as CastName<P>, message, meta });
    }
    const handlers = { call: answers, cast } as unknown;
    this.behavior = behavior(protocol, () => handlers as never);
  }

  /** Resolves when at least `count` casts have come in since the probe was made. */
  expect(count: number): Promise<ProbeEntry<P>[]> {
    if (this.received.length >= count) return Promise.resolve(this.received.slice(0, count));
    return new Promise((resolve) => this.#waiters.push({ count, resolve }));
  }

  #record(entry: ProbeEntry<P>): void {
    this.received.push(entry);
    for (const waiter of this.#waiters.splice(0)) {
      if (this.received.length >= waiter.count) waiter.resolve(this.received.slice(0, waiter.count));
      else this.#waiters.push(waiter);
    }
  }
}

/** A seeded stand-in for the host's random bytes (mulberry32): same seed, same bytes. Not for keys. */
export function seededRandom(seed: number): (sizeBytes: number) => Uint8Array {
  let state = seed >>> 0;
  return (sizeBytes) =>
    Uint8Array.from({ length: sizeBytes }, () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = state;
      t = Math.imul(t ^ (t >>> 15), t | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return ((t ^ (t >>> 14)) >>> 0) & 0xff;
    });
}

export interface SeededFaults {
  /** Throws a SeededFault with the rate's probability; `where` is part of its message. */
  maybeThrow(where: string): void;
  /** How many were thrown so far. */
  readonly count: number;
}

export class SeededFault extends Error {
  constructor(where: string, number: number) {
    super(`seeded fault ${number} in ${where}`);
    this.name = "SeededFault";
  }
}

/**
 * Faults for handlers and factories under test: same seed, same ones.
 * @param rate share of the calls to `maybeThrow` that throw, 0 to 1
 */
export function seededFaults(seed: number, rate: number): SeededFaults {
  if (!(rate >= 0 && rate <= 1)) throw new TypeError(`the rate of seeded faults must be from 0 to 1, got ${rate}`);
  const random = seededRandom(seed);
  let count = 0;
  return {
    get count() {
      return count;
    },
    maybeThrow: (where) => {
      if (randomUnit(random) < rate) throw new SeededFault(where, ++count);
    },
  };
}
