// Owns: worker threads for CPU-heavy TypeScript: pools of interchangeable ones (piscina) and long-lived ones with
// state of their own (comlink). Invariants: a pool never blocks an event loop that serves sockets (no Atomics.wait);
// a call to a thread that ends is rejected, never left hanging; everything opened here is closed explicitly.
import { existsSync } from "node:fs";
import { availableParallelism } from "node:os";
import { fileURLToPath, pathToFileURL } from "node:url";
import { isMainThread, parentPort, Worker, type TransferListItem } from "node:worker_threads";
import { expose, releaseProxy, wrap, type Endpoint, type Remote } from "comlink";
import { Piscina } from "piscina";
import { describeError, RuntimeError } from "../core/failure.js";

/** Tasks that may wait for a thread: past it the caller must slow down rather than fill the memory. */
export const POOL_QUEUE_MAX = 1024;

export interface PoolOptions {
  /** Module whose exports are the tasks: `new URL("./work.js", import.meta.url)`. */
  readonly entry: URL;
  readonly threads?: number;
  readonly queueMax?: number;
  readonly workerData?: unknown;
}

export interface PoolRunOptions {
  /** Which export to run; default export if left out. */
  readonly name?: string;
  readonly transfer?: readonly TransferListItem[];
  readonly signal?: AbortSignal;
}

export interface Pool {
  run<T>(task: unknown, options?: PoolRunOptions): Promise<T>;
  readonly waiting: number;
  /** Resolves when the tasks given so far have finished and the threads have ended. */
  close(): Promise<void>;
}

export function createPool(options: PoolOptions): Pool {
  const threads = options.threads ?? Math.max(1, availableParallelism() - 1);
  const pool = new Piscina({
    filename: resolveThreadEntry(options.entry).href,
    minThreads: Math.min(1, threads),
    maxThreads: threads,
    maxQueue: options.queueMax ?? POOL_QUEUE_MAX,
    workerData: options.workerData,
    // Idle threads would otherwise sleep in Atomics.wait, where they hear neither messages nor sockets.
    atomics: "disabled",
  });
  return {
    run: async <T>(task: unknown, { name, transfer, signal }: PoolRunOptions = {}): Promise<T> =>
      (await pool.run(task, {
        ...(name === undefined ? {} : { name }),
        ...(transfer === undefined ? {} : { transferList: transfer as never }),
        ...(signal === undefined ? {} : { signal }),
      })) as T,
    get waiting() {
      return pool.queueSize;
    },
    close: () => pool.close({ force: false }),
  };
}

export interface ThreadOptions {
  readonly entry: URL;
  readonly workerData?: unknown;
  readonly name?: string;
  readonly transfer?: readonly TransferListItem[];
}

/** Every method of `T`, asynchronous. Data is copied; typed arrays over SharedArrayBuffer are shared. */
export type ThreadApi<T> = {
  readonly [K in keyof T as T[K] extends (...args: never[]) => unknown ? K : never]: T[K] extends (...args: infer A) => infer R
    ? (...args: A) => Promise<Awaited<R>>
    : never;
};

export interface Thread<T> {
  readonly api: ThreadApi<T>;
  /** Resolves when the thread has ended, with the error if it failed. */
  readonly ended: Promise<Error | undefined>;
  /** Releases the proxy and ends the thread; calls under way are rejected. */
  close(): Promise<void>;
}

/** Starts a thread whose entry calls `exposeThread(api)`. The thread lives until `close`, referenced or not. */
export function createThread<T extends object>(options: ThreadOptions): Thread<T> {
  const worker = new Worker(resolveThreadEntry(options.entry), {
    workerData: options.workerData,
    ...(options.name === undefined ? {} : { name: options.name }),
    ...(options.transfer === undefined ? {} : { transferList: [...options.transfer] }),
  });
  const remote = wrap<T>(nodeEndpoint(worker));
  let failure: Error | undefined;
  let hasEnded = false;
  const rejecters = new Set<(error: Error) => void>();
  const ended = new Promise<Error | undefined>((resolve) => {
    worker.once("error", (error) => {
      failure = new RuntimeError("thread-failed", `thread ${options.entry.pathname} failed: ${describeError(error)}`, undefined, {
        cause: error,
      });
    });
    worker.once("exit", () => {
      hasEnded = true;
      const error = failure ?? new RuntimeError("thread-failed", `thread ${options.entry.pathname} has ended`);
      for (const reject of rejecters) reject(error);
      rejecters.clear();
      resolve(failure);
    });
  });

  const invoke = (name: string, args: unknown[]): Promise<unknown> =>
    new Promise((resolve, reject) => {
      if (hasEnded) {
        reject(failure ?? new RuntimeError("thread-failed", `thread ${options.entry.pathname} has ended`));
        return;
      }
      rejecters.add(reject);
      const methods = remote as unknown as Record<string, (...args: unknown[]) => Promise<unknown>>;
      methods[name]!(...args)
        .then(resolve, reject)
        .finally(() => rejecters.delete(reject));
    });

  const api = new Proxy(Object.create(null) as object, {
    // `then` must stay undefined, or awaiting the api would call the thread.
    get: (_target, name) => (typeof name === "string" && name !== "then" ? (...args: unknown[]) => invoke(name, args) : undefined),
  }) as ThreadApi<T>;

  let closing: Promise<void> | undefined;
  return {
    api,
    ended,
    close: () => {
      closing ??= (async () => {
        if (!hasEnded) {
          (remote as Remote<T> & { [releaseProxy]: () => void })[releaseProxy]();
          await worker.terminate();
        }
        await ended;
      })();
      return closing;
    },
  };
}

/** To be called once in the entry of a thread. */
export function exposeThread(api: object): void {
  if (isMainThread || parentPort === null) {
    throw new RuntimeError("thread-failed", "exposeThread belongs into the entry module of a worker thread");
  }
  expose(api, nodeEndpoint(parentPort));
}

interface MessageSource {
  postMessage(message: unknown, transfer?: readonly TransferListItem[]): void;
  on(event: "message", listener: (data: unknown) => void): unknown;
  off(event: "message", listener: (data: unknown) => void): unknown;
}

/** comlink speaks to browser message ports; this is the same for Node's. */
function nodeEndpoint(source: MessageSource): Endpoint {
  const listeners = new Map<unknown, (data: unknown) => void>();
  return {
    postMessage: (message, transfer) => source.postMessage(message, transfer as TransferListItem[] | undefined),
    addEventListener: (_type, handler) => {
      const listener = (data: unknown): void => {
        const event = { data } as MessageEvent;
        if (typeof handler === "function") handler(event as never);
        else handler.handleEvent(event as never);
      };
      source.on("message", listener);
      listeners.set(handler, listener);
    },
    removeEventListener: (_type, handler) => {
      const listener = listeners.get(handler);
      if (listener !== undefined) source.off("message", listener);
      listeners.delete(handler);
    },
  };
}

/**
 * Threads load plain JavaScript. From `src/` (tests) the built file is meant: `src/a/b.js` becomes `dist/a/b.js`.
 * @throws RuntimeError "thread-failed" when there is none.
 */
export function resolveThreadEntry(entry: URL): URL {
  const path = fileURLToPath(entry);
  if (existsSync(path) && !path.endsWith(".ts")) return entry;
  const at = path.lastIndexOf("/src/");
  const built = at < 0 ? undefined : `${path.slice(0, at)}/dist/${path.slice(at + 5)}`.replace(/\.ts$/, ".js");
  if (built !== undefined && existsSync(built)) return pathToFileURL(built);
  throw new RuntimeError("thread-failed", `the thread entry ${path} does not exist`, "build first: npm run build");
}
