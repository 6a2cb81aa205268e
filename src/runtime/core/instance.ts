// Owns: what belongs to one start of an actor: its context, handlers, timers, watches and abort signal.
// Invariant: once closed, nothing of it reaches the actor again; late results are counted as stale.
import type { Host } from "../host/host.js";
import type { Behavior, Context, Handlers, Piped, SpawnOptions } from "./behavior.js";
import type { Cell } from "./cell.js";
import { RuntimeError, type StopReason } from "./failure.js";
import type { AnyProtocol } from "./protocol.js";
import type { Ref } from "./ref.js";
import { CellTimers } from "./timers.js";

export class Instance {
  readonly timers: CellTimers;
  readonly context: Context;
  handlers: Handlers<AnyProtocol> | undefined;
  readonly #cell: Cell;
  readonly #abort = new AbortController();
  readonly #watches = new Map<string, () => void>();
  #isClosed = false;

  constructor(cell: Cell, host: Host) {
    this.#cell = cell;
    const post = (task: () => unknown): void => this.#post(task);
    this.timers = new CellTimers(host.clock, post);
    this.context = {
      self: cell.ref,
      name: cell.name,
      path: cell.path,
      log: host.logger,
      clock: host.clock,
      random: host.random,
      timers: this.timers,
      signal: this.#abort.signal,
      spawn: <Q extends AnyProtocol>(behavior: Behavior<Q>, options?: SpawnOptions): Ref<Q> => {
        if (this.#isClosed) throw new RuntimeError("stopped", `${cell.path} has stopped and cannot spawn`);
        return cell.spawnChild(behavior, options);
      },
      watch: (ref, run) => this.#watch(ref.nodeId, ref.path, (fire) => ref.watch(fire), run),
      unwatch: (ref) => this.#unwatch(watchKey(ref.nodeId, ref.path)),
      pipeToSelf: (promise, then) => this.#pipe(promise, then),
      stop: () => {
        if (!this.#isClosed) cell.stop({ code: "normal", message: "stopped itself" });
      },
    };
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.timers.close();
    for (const end of this.#watches.values()) end();
    this.#watches.clear();
    this.#abort.abort();
  }

  #post(task: () => unknown): void {
    if (this.#isClosed) this.#cell.countStale();
    else this.#cell.postSystem(task);
  }

  #watch(
    nodeId: string | undefined,
    path: string,
    subscribe: (fire: (reason: StopReason) => void) => () => void,
    run: (reason: StopReason) => void | Promise<void>,
  ): void {
    if (this.#isClosed) return;
    const key = watchKey(nodeId, path);
    this.#unwatch(key);
    const end = subscribe((reason) => {
      if (this.#watches.get(key) !== end) return;
      this.#post(() => {
        // An unwatch between the event and this turn still counts.
        if (this.#watches.get(key) !== end) return undefined;
        this.#watches.delete(key);
        return run(reason);
      });
    });
    this.#watches.set(key, end);
  }

  #unwatch(key: string): void {
    this.#watches.get(key)?.();
    this.#watches.delete(key);
  }

  #pipe<T>(promise: Promise<T>, then: (outcome: Piped<T>) => void | Promise<void>): void {
    promise.then(
      (value) => this.#post(() => then({ ok: true, value })),
      (error: unknown) => this.#post(() => then({ ok: false, error })),
    );
  }
}

function watchKey(nodeId: string | undefined, path: string): string {
  return `${nodeId ?? ""}|${path}`;
}
