// Owns: the interface through which the runtime sees the world (time, tasks, randomness, logs, metrics).
// Invariant: nothing under core/, wire/ or remote/ reads a clock, a random source or the process directly, so
// that a simulated host can replace all of it.

import type { SharedMemory } from "./shared-memory.js";

/** Opaque timer; only the clock that made it can clear it. */
export type TimerHandle = unknown;

export interface Clock {
  /** Monotonic milliseconds; fractions allowed, zero point arbitrary. */
  nowMs(): number;
  /** Milliseconds since 1970, for what outlives the process; without it, ages begin anew with each process. */
  calendarMs?(): number;
  setTimer(run: () => void, delayMs: number): TimerHandle;
  clearTimer(timer: TimerHandle): void;
}

/** Where the dispatcher puts its work: `micro` before I/O is polled, `macro` after it. */
export interface TaskQueue {
  micro(run: () => void): void;
  macro(run: () => void): void;
}

export type LogFields = Readonly<Record<string, unknown>>;

export interface Logger {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

export interface MetricSample {
  /** Prometheus-style, unit last: `runtime_link_sent_bytes_total`. */
  readonly name: string;
  readonly kind: "counter" | "gauge";
  readonly value: number;
  readonly labels?: Readonly<Record<string, string>>;
}

/**
 * Pull model: the runtime counts in plain fields and hands over a collector, so an unread metric costs one
 * addition. `register` returns the function that removes the collector again.
 */
export interface Metrics {
  register(collect: () => MetricSample[]): () => void;
}

/** Carries a value along asynchronous continuations; optional, used to attribute calls made after an await. */
export interface AsyncContext<T> {
  run<R>(value: T, body: () => R): R;
  get(): T | undefined;
}

export interface Host {
  readonly clock: Clock;
  readonly tasks: TaskQueue;
  readonly logger: Logger;
  readonly metrics: Metrics;
  random(sizeBytes: number): Uint8Array;
  createAsyncContext?<T>(): AsyncContext<T>;
  /** Between processes of one host; without it tensors go by the network. */
  readonly sharedMemory?: SharedMemory;
}

export const silentLogger: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

/** A uniform number in [0, 1) from the host's random bytes (32 bits are plenty for jitter). */
export function randomUnit(random: (sizeBytes: number) => Uint8Array): number {
  const bytes = random(4);
  const word = bytes[0]! | (bytes[1]! << 8) | (bytes[2]! << 16) | (bytes[3]! << 24);
  return (word >>> 0) / 2 ** 32;
}
