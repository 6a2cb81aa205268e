// Owns: the process-wide clock, timers and chance of Node while a simulation runs, for packages that know no host.
// Invariants: only code that runs inside a simulated process sees the virtual ones; `restore` puts everything back.
// The runtime itself needs none of this: it takes all of the world from its host.
import { AsyncLocalStorage } from "node:async_hooks";
import { createRequire, syncBuiltinESMExports } from "node:module";
import type { TimerHandle } from "../host/host.js";
import type { SimRandom } from "./random.js";
import type { Scheduler, SimProcess } from "./scheduler.js";

/** What Date.now() says at virtual time 0: a fixed day, so that dates do not depend on when a seed runs. */
export const SIM_EPOCH_MS = 1_800_000_000_000;

type Callback = (...args: unknown[]) => void;

class SimTimeout {
  handle: TimerHandle;
  readonly process: SimProcess;
  constructor(process: SimProcess) {
    this.process = process;
  }
  ref(): this {
    return this;
  }
  unref(): this {
    return this;
  }
  hasRef(): boolean {
    return true;
  }
}

class SimImmediate {
  isCleared = false;
  ref(): this {
    return this;
  }
  unref(): this {
    return this;
  }
  hasRef(): boolean {
    return true;
  }
}

/** Makes the globals virtual for everything that runs in a simulated process. @returns what puts them back. */
export function virtualizeGlobals(scheduler: Scheduler, random: SimRandom): () => void {
  const current = new AsyncLocalStorage<SimProcess>();
  scheduler.around = (process, run) => (process === undefined ? run() : current.run(process, run));
  // streams apart: packages that keep numbers in a module (viem's ids) draw fewer of them in a second run
  const numbers = random.fork("Math.random");
  const bytes = random.fork("crypto");
  const undo: (() => void)[] = [];
  const replace = (target: object, name: string, make: (real: (...args: never[]) => unknown) => unknown): void => {
    const had = Object.getOwnPropertyDescriptor(target, name);
    const real = (target as Record<string, (...args: never[]) => unknown>)[name]!;
    Object.defineProperty(target, name, { value: make(real.bind(target) as never), configurable: true, writable: true, enumerable: had?.enumerable ?? true });
    undo.push(() => (had === undefined ? void delete (target as Record<string, unknown>)[name] : void Object.defineProperty(target, name, had)));
  };
  /** In a simulated process `virtual` answers, elsewhere the real function. */
  const virtual = (target: object, name: string, answer: (process: SimProcess, args: unknown[]) => unknown): void =>
    replace(target, name, (real) => (...args: unknown[]) => {
      const process = current.getStore();
      return process === undefined ? (real as (...all: unknown[]) => unknown)(...args) : answer(process, args);
    });

  virtual(Date, "now", (process) => SIM_EPOCH_MS + Math.floor(scheduler.localMs(process)));
  virtual(performance, "now", (process) => scheduler.localMs(process));
  virtual(Math, "random", () => numbers.unit());
  virtual(globalThis, "setTimeout", (process, [run, delayMs, ...args]) => {
    const timeout = new SimTimeout(process);
    timeout.handle = scheduler.clockOf(process).setTimer(() => (run as Callback)(...args), Number(delayMs ?? 1));
    return timeout;
  });
  virtual(globalThis, "setInterval", (process, [run, periodMs, ...args]) => {
    const timeout = new SimTimeout(process);
    const clock = scheduler.clockOf(process);
    const plan = (): void => {
      timeout.handle = clock.setTimer(() => {
        plan();
        (run as Callback)(...args);
      }, Number(periodMs ?? 1));
    };
    plan();
    return timeout;
  });
  // a real one would race with files: whether it or the end of a read comes first is a matter of real time
  virtual(globalThis, "setImmediate", (process, [run, ...args]) => {
    const immediate = new SimImmediate();
    scheduler.tasksOf(process).macro(() => {
      if (!immediate.isCleared) (run as Callback)(...args);
    });
    return immediate;
  });
  replace(globalThis, "clearImmediate", (real) => (immediate: unknown) => {
    if (immediate instanceof SimImmediate) immediate.isCleared = true;
    else (real as (immediate: unknown) => void)(immediate);
  });
  for (const name of ["clearTimeout", "clearInterval"] as const) {
    replace(globalThis, name, (real) => (timer: unknown) => {
      if (timer instanceof SimTimeout) scheduler.clockOf(timer.process).clearTimer(timer.handle);
      else (real as (timer: unknown) => void)(timer);
    });
  }
  const crypto = createRequire(import.meta.url)("node:crypto") as object;
  virtual(crypto, "randomBytes", (_process, [size]) => Buffer.from(bytes.bytes(size as number)));
  virtual(globalThis.crypto, "getRandomValues", (_process, [array]) => {
    const view = array as ArrayBufferView;
    new Uint8Array(view.buffer, view.byteOffset, view.byteLength).set(bytes.bytes(view.byteLength));
    return array;
  });
  syncBuiltinESMExports();
  return () => {
    scheduler.around = undefined;
    for (const each of undo.reverse()) each();
    syncBuiltinESMExports();
  };
}
