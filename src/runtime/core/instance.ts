// Owns: what belongs to one start of an actor: its context with timers, watches and abort signal, each made when it
// is first used. Invariant: once closed, nothing of it reaches the actor again; late results are counted as stale.
import type { Clock, Host, Logger } from "../host/host.js";
import type { Behavior, Context, Piped, SpawnOptions, Timers } from "./behavior.js";
import type { Cell } from "./cell.js";
import { RuntimeError, type StopReason } from "./failure.js";
import type { AnyProtocol } from "./protocol.js";
import type { Ref } from "./ref.js";
import { CellTimers } from "./timers.js";
import type { TraceContext } from "./trace.js";

export class Instance implements Context {
  readonly #cell: Cell;
  readonly #host: Host;
  #timers: CellTimers | undefined;
  #abort: AbortController | undefined;
  #watches: Map<string, () => void> | undefined;
  #isClosed = false;

  constructor(cell: Cell, host: Host) {
    this.#cell = cell;
    this.#host = host;
  }

  get self(): Ref<AnyProtocol> {
    return this.#cell.ref;
  }

  get name(): string {
    return this.#cell.name;
  }

  get path(): string {
    return this.#cell.path;
  }

  get log(): Logger {
    return this.#host.logger;
  }

  get clock(): Clock {
    return this.#host.clock;
  }

  get random(): (sizeBytes: number) => Uint8Array {
    return this.#host.random;
  }

  get timers(): Timers {
    if (this.#timers === undefined) {
      this.#timers = new CellTimers(this.#host.clock, (task) => this.#post(task, undefined));
      if (this.#isClosed) this.#timers.close();
    }
    return this.#timers;
  }

  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController();
      if (this.#isClosed) this.#abort.abort();
    }
    return this.#abort.signal;
  }

  spawn<Q extends AnyProtocol>(behavior: Behavior<Q>, options: SpawnOptions = {}): Ref<Q> {
    if (this.#isClosed) throw new RuntimeError("stopped", `${this.path} has stopped and cannot spawn`);
    return this.#cell.spawnChild(behavior, options);
  }

  watch<Q extends AnyProtocol>(ref: Ref<Q>, run: (reason: StopReason) => void | Promise<void>): void {
    if (this.#isClosed) return;
    const watches = (this.#watches ??= new Map<string, () => void>());
    const key = watchKey(ref);
    this.unwatch(ref);
    const end = ref.watch((reason) => {
      if (watches.get(key) !== end) return;
      this.#post(() => {
        // An unwatch between the event and this turn still counts.
        if (watches.get(key) !== end) return undefined;
        watches.delete(key);
        return run(reason);
      }, undefined);
    });
    watches.set(key, end);
  }

  unwatch<Q extends AnyProtocol>(ref: Ref<Q>): void {
    const key = watchKey(ref);
    this.#watches?.get(key)?.();
    this.#watches?.delete(key);
  }

  pipeToSelf<T>(promise: Promise<T>, then: (outcome: Piped<T>) => void | Promise<void>): void {
    const trace = this.#cell.system.currentTrace();
    promise.then(
      (value) => this.#post(() => then({ ok: true, value }), trace),
      (error: unknown) => this.#post(() => then({ ok: false, error }), trace),
    );
  }

  stash(): boolean {
    if (this.#isClosed) return false;
    return this.#cell.stashRunning();
  }

  unstash(): void {
    if (!this.#isClosed) this.#cell.unstash();
  }

  stop(): void {
    if (!this.#isClosed) void this.#cell.stop({ code: "normal", message: "stopped itself" });
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#timers?.close();
    if (this.#watches !== undefined) {
      for (const end of this.#watches.values()) end();
      this.#watches.clear();
    }
    this.#abort?.abort();
  }

  #post(run: () => unknown, trace: TraceContext | undefined): void {
    if (this.#isClosed) this.#cell.countDeadLetter("stale", "", undefined);
    else this.#cell.postSystem(run, trace);
  }
}

function watchKey(ref: Ref<AnyProtocol>): string {
  return `${ref.nodeId ?? ""}|${ref.path}`;
}
