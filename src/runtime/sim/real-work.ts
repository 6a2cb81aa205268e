// Owns: the wait for real work that simulated code started: files, compression, native kernels, immediates.
// Invariant: the next event happens only when none is under way; libuv's pool must have one thread
// (UV_THREADPOOL_SIZE=1), so that work ends in the order in which it was begun.
import { createHook } from "node:async_hooks";
import { stat } from "node:fs/promises";
import type { Quiesce } from "./scheduler.js";

/** Resources that wait for nothing outside of this thread, or that are no one-off work. */
const NO_WORK = new Set(["PROMISE", "TickObject", "Microtask", "AsyncContextFrame"]);
/** So many rounds through the pool without any sign of work show that there is none. */
const QUIET_ROUNDS = 2;

export interface RealWork {
  /** For work on threads of its own, which Node does not know of: seen to end in the order of its start. */
  hold<T>(work: Promise<T>): Promise<T>;
  readonly quiesce: Quiesce;
  /** To be wrapped around what the simulator itself does with the event loop. */
  ignore<T>(run: () => T): T;
  stop(): void;
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
  const hook = createHook({
    init: (id, type) => {
      if (ignored > 0 || NO_WORK.has(type)) return;
      work.add(id);
      signs += 1;
    },
    before: (id) => {
      if (work.has(id)) signs += 1;
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
  const round = (): Promise<void> => ignore(() => stat("/").then(() => undefined));
  let held = 0;
  let lastHeld: Promise<unknown> = Promise.resolve();
  const hold = <T>(work: Promise<T>): Promise<T> => {
    const before = lastHeld;
    signs += 1;
    held += 1;
    const ended = (async () => {
      try {
        return await work;
      } finally {
        await before;
        held -= 1;
        signs += 1;
      }
    })();
    lastHeld = ended.catch(() => undefined);
    return ended;
  };
  const settle = async (): Promise<void> => {
    for (let quiet = 0; quiet < QUIET_ROUNDS; ) {
      while (held > 0) await lastHeld;
      seen = signs;
      await round();
      await new Promise<void>((resolve) => void ignore(() => setImmediate(resolve)));
      quiet = signs === seen ? quiet + 1 : 0;
    }
    seen = signs;
  };
  return { quiesce: () => (signs === seen ? undefined : settle()), hold, ignore, stop: () => void hook.disable() };
}
