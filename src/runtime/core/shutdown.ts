// Owns: the order in which a system goes down and the time each step may take. Invariants: one deadline over all of
// it; a hook that fails or comes too late is named in the report and holds up nothing after it; hooks run once.
import type { Clock, Logger } from "../host/host.js";
import { describeError, RuntimeError } from "./failure.js";

/**
 * - `refuse-input`: stop taking work from outside (close HTTP servers, leave load balancers)
 * - `before-actors`: finish what needs the actors
 * - then the actors drain and stop
 * - `after-actors`: close what the actors used; links still carry messages
 * - then the links flush and close
 * - `after-links`: the last words: close stores, flush metrics and traces
 */
export const SHUTDOWN_PHASES = ["refuse-input", "before-actors", "after-actors", "after-links"] as const;
export type ShutdownPhase = (typeof SHUTDOWN_PHASES)[number];

export interface ShutdownOptions {
  readonly deadlineMs?: number;
}

export interface UnfinishedHook {
  readonly phase: ShutdownPhase;
  readonly name: string;
  readonly reason: "deadline" | "failed";
  readonly message: string;
}

export interface ShutdownReport {
  /** Top-level actors still busy at the deadline. */
  readonly abandoned: readonly string[];
  readonly unfinished: readonly UnfinishedHook[];
  readonly durationMs: number;
}

/** Kubernetes kills after 30 s by default; a third of that leaves room for what embeds the runtime. */
export const SHUTDOWN_DEADLINE_MS_DEFAULT = 10_000;
/** Share of what is left of the deadline that one phase's hooks may use: no phase can starve the later ones. */
const PHASE_SHARE = 0.5;

interface Hook {
  readonly name: string;
  readonly run: () => void | Promise<void>;
}

export class ShutdownHooks {
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #hooks = new Map<ShutdownPhase, Set<Hook>>(SHUTDOWN_PHASES.map((phase) => [phase, new Set()]));
  readonly unfinished: UnfinishedHook[] = [];

  constructor(clock: Clock, logger: Logger) {
    this.#clock = clock;
    this.#logger = logger;
  }

  add(phase: ShutdownPhase, name: string, run: () => void | Promise<void>): () => void {
    const hooks = this.#hooks.get(phase);
    if (hooks === undefined) {
      const phases = SHUTDOWN_PHASES.join(", ");
      throw new RuntimeError("bad-option", `a shutdown phase must be one of ${phases}, got "${String(phase)}"`);
    }
    const hook: Hook = { name, run };
    hooks.add(hook);
    return () => void hooks.delete(hook);
  }

  /** All hooks of a phase at once. @returns when each has ended or its share of `leftMs` has passed. */
  async run(phase: ShutdownPhase, leftMs: number): Promise<void> {
    const hooks = [...this.#hooks.get(phase)!];
    if (hooks.length === 0) return;
    const pending = new Set(hooks);
    const ended = hooks.map(async (hook) => {
      try {
        await hook.run();
      } catch (error) {
        this.#note({ phase, name: hook.name, reason: "failed", message: describeError(error) });
      }
      pending.delete(hook);
    });
    const shareMs = Math.max(0, leftMs * PHASE_SHARE);
    if (await within(this.#clock, Promise.all(ended), shareMs)) return;
    for (const { name } of pending) {
      this.#note({ phase, name, reason: "deadline", message: `not done after ${Math.round(shareMs)} ms` });
    }
  }

  #note(hook: UnfinishedHook): void {
    this.unfinished.push(hook);
    this.#logger.error("shutdown hook did not finish", { ...hook });
  }
}

/** @returns whether `done` resolved within `delayMs`. */
export function within(clock: Clock, done: Promise<unknown>, delayMs: number): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = clock.setTimer(() => resolve(false), Math.max(0, delayMs));
    void done.then(() => {
      clock.clearTimer(timer);
      resolve(true);
    });
  });
}
