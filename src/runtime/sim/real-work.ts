// Owns: the wait for real work that simulated code started: files, compression, native kernels.
// Invariants: the next event happens only when none is under way; ends come in one order: those of libuv's pool in
// that of their starts (one thread, UV_THREADPOOL_SIZE=1), those of held work one at a time, when the pool is idle.
import { createHook } from "node:async_hooks";
import { stat } from "node:fs/promises";
import { setImmediate } from "node:timers";
import type { Quiesce } from "./scheduler.js";

/** Resources that wait for nothing outside of this thread, or that are no one-off work. */
const NO_WORK = new Set(["PROMISE", "TickObject", "Microtask", "AsyncContextFrame"]);
/**
 * Requests that are called back exactly once. Some take several turns of the pool before that and give no sign in
 * between (a recursive mkdir goes through it once a level), so only the call tells their end.
 */
const ONE_OFF = new Set(["FSREQPROMISE", "FSREQCALLBACK", "FILEHANDLECLOSEREQ"]);
/** Other work takes one turn of the pool: so many rounds through it without a sign show that there is none. */
const QUIET_ROUNDS = 2;

export interface RealWork {
  /** For work on threads of its own, which Node does not know of: seen to end in the order of its start. */
  hold<T>(work: Promise<T>): Promise<T>;
  readonly quiesce: Quiesce;
  /** To be wrapped around what the simulator itself does with the event loop. */
  ignore<T>(run: () => T): T;
  stop(): void;
}

interface Held {
  readonly ended: Promise<unknown>;
  readonly release: () => void;
}

export function watchRealWork(): RealWork {
  if (process.env.UV_THREADPOOL_SIZE !== "1") {
    throw new Error("real work in a simulation needs UV_THREADPOOL_SIZE=1 in the environment of the process, set before it starts");
  }
  let signs = 0;
  let seen = 0;
  let ignored = 0;
  /** Ids of resources that stand for work; small, and gone with the watch. */
  const work = new Set<number>();
  /** Those of one-off requests that have not been called back. */
  const open = new Set<number>();
  const held: Held[] = [];
  const hook = createHook({
    init: (id, type) => {
      if (ignored > 0 || NO_WORK.has(type)) return;
      work.add(id);
      if (ONE_OFF.has(type)) open.add(id);
      signs += 1;
    },
    before: (id) => {
      if (!work.has(id)) return;
      open.delete(id);
      signs += 1;
    },
  });
  hook.enable();
  const ignore = <T>(run: () => T): T => {
    ignored += 1;
    try {
      return run();
    } finally {
      ignored -= 1;
    }
  };
  /** Once through the pool, and once through the event loop. */
  const round = async (): Promise<void> => {
    await ignore(() => stat("/"));
    await new Promise<void>((resolve) => void ignore(() => setImmediate(resolve)));
  };
  const hold = <T>(work: Promise<T>): Promise<T> => {
    signs += 1;
    const ended = work.then(() => undefined, () => undefined);
    const turn = new Promise<void>((release) => void held.push({ ended, release }));
    return turn.then(() => work);
  };
  /** Until the pool has nothing to do: only then is nothing left that could race with work on other threads. */
  const drainPool = async (): Promise<void> => {
    for (let quiet = 0; quiet < QUIET_ROUNDS; ) {
      seen = signs;
      await round();
      quiet = signs === seen && open.size === 0 ? quiet + 1 : 0;
    }
  };
  const settle = async (): Promise<void> => {
    for (;;) {
      await drainPool();
      const next = held.shift();
      if (next === undefined) return;
      await next.ended;
      next.release();
    }
  };
  return {
    quiesce: () => (signs === seen && open.size === 0 && held.length === 0 ? undefined : settle()),
    hold, ignore, stop: () => void hook.disable(),
  };
}
