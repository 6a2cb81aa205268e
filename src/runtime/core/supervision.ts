// Owns: the rules by which a failing actor is resumed, restarted, stopped or escalated.
// Invariant: within any window of `withinMs` an actor restarts at most `maxRestarts` times.
import type { Clock } from "../host/host.js";

export type Directive = "resume" | "restart" | "stop" | "escalate";

/**
 * Who is restarted with a failing child: itself; all children of its parent; itself and those spawned after it.
 */
export type Strategy = "one-for-one" | "all-for-one" | "rest-for-one";

export interface BackoffOptions {
  readonly initialMs?: number;
  readonly maxMs?: number;
  readonly factor?: number;
  /** Share of the delay that is random: 0.2 spreads a delay over [0.8, 1.2]. */
  readonly jitter?: number;
}

export interface RestartBudgetOptions {
  readonly maxRestarts?: number;
  readonly withinMs?: number;
}

export interface SupervisionOptions extends RestartBudgetOptions {
  readonly strategy?: Strategy;
  readonly backoff?: BackoffOptions;
  /** Default: restart. */
  readonly decide?: (error: unknown) => Directive;
  /** What follows when the budget is used up. Default: stop. */
  readonly onExhausted?: "stop" | "escalate";
}

export interface Supervision {
  readonly strategy: Strategy;
  readonly maxRestarts: number;
  readonly withinMs: number;
  readonly backoff: Required<BackoffOptions>;
  readonly decide: (error: unknown) => Directive;
  readonly onExhausted: "stop" | "escalate";
}

/** OTP's usual intensity (a handful of restarts within seconds) with a first delay below human notice. */
export const SUPERVISION_DEFAULTS = {
  maxRestarts: 5,
  withinMs: 30_000,
  backoff: { initialMs: 20, maxMs: 10_000, factor: 2, jitter: 0.2 },
} as const;

export function createSupervision(options: SupervisionOptions | undefined): Supervision {
  return options === undefined ? DEFAULT_SUPERVISION : makeSupervision(options);
}

function makeSupervision(options: SupervisionOptions): Supervision {
  const supervision: Supervision = {
    strategy: options.strategy ?? "one-for-one",
    maxRestarts: options.maxRestarts ?? SUPERVISION_DEFAULTS.maxRestarts,
    withinMs: options.withinMs ?? SUPERVISION_DEFAULTS.withinMs,
    backoff: { ...SUPERVISION_DEFAULTS.backoff, ...options.backoff },
    decide: options.decide ?? (() => "restart"),
    onExhausted: options.onExhausted ?? "stop",
  };
  if (!Number.isSafeInteger(supervision.maxRestarts) || supervision.maxRestarts < 0) {
    throw new TypeError(`supervision.maxRestarts must be an integer from 0, got ${supervision.maxRestarts}`);
  }
  const { initialMs, maxMs, factor, jitter } = supervision.backoff;
  if (!(initialMs >= 0 && maxMs >= initialMs && factor >= 1 && jitter >= 0 && jitter <= 1)) {
    throw new TypeError("supervision.backoff needs 0 <= initialMs <= maxMs, factor >= 1, 0 <= jitter <= 1");
  }
  return Object.freeze(supervision);
}

/** Shared by all actors that ask for nothing else: most. */
const DEFAULT_SUPERVISION = makeSupervision({});

export class RestartBudget {
  readonly #clock: Clock;
  readonly #max: number;
  readonly #withinMs: number;
  #times: number[] = [];

  constructor(clock: Clock, max: number, withinMs: number) {
    this.#clock = clock;
    this.#max = max;
    this.#withinMs = withinMs;
  }

  /** @returns how many restarts the window now holds, or undefined when the budget is used up. */
  take(): number | undefined {
    const now = this.#clock.nowMs();
    this.#times = this.#times.filter((time) => now - time < this.#withinMs);
    if (this.#times.length >= this.#max) return undefined;
    this.#times.push(now);
    return this.#times.length;
  }
}

/** Delay before the `attempt`-th restart (from 1) of a window; `unit` is uniform in [0, 1). */
export function backoffDelayMs(backoff: Required<BackoffOptions>, attempt: number, unit: number): number {
  const base = Math.min(backoff.initialMs * backoff.factor ** (attempt - 1), backoff.maxMs);
  return base * (1 - backoff.jitter + 2 * backoff.jitter * unit);
}
