// Owns: the Node implementation of Host. Invariant: no state is shared between systems; every call makes an
// independent host, and each part can be replaced by the integrator.
import { AsyncLocalStorage } from "node:async_hooks";
import { randomFillSync } from "node:crypto";
import { performance } from "node:perf_hooks";
import type { AsyncContext, Clock, Host, LogFields, Logger, Metrics, MetricSample } from "./host.js";

/** Node fires a timer longer than this at once (32-bit milliseconds), so longer delays are cut. */
const TIMER_DELAY_MS_MAX = 2 ** 31 - 1;
/** Random bytes are taken from the kernel in blocks: one call per 4 KiB instead of one per nonce. */
const RANDOM_BLOCK_BYTES = 4096;

export const nodeClock: Clock = {
  nowMs: () => performance.now(),
  calendarMs: () => Date.now(),
  setTimer: (run, delayMs) => setTimeout(run, Math.min(Math.max(delayMs, 0), TIMER_DELAY_MS_MAX)),
  clearTimer: (timer) => clearTimeout(timer as NodeJS.Timeout),
};

export function createNodeRandom(): (sizeBytes: number) => Uint8Array {
  let block = new Uint8Array(0);
  let offset = 0;
  return (sizeBytes) => {
    if (sizeBytes > RANDOM_BLOCK_BYTES) return randomFillSync(new Uint8Array(sizeBytes));
    if (offset + sizeBytes > block.length) {
      block = randomFillSync(new Uint8Array(RANDOM_BLOCK_BYTES));
      offset = 0;
    }
    const bytes = block.slice(offset, offset + sizeBytes);
    block.fill(0, offset, offset + sizeBytes);
    offset += sizeBytes;
    return bytes;
  };
}

/** Warnings and errors as JSON lines on stderr; debug and info are dropped. */
export function createStderrLogger(system: string): Logger {
  const write = (level: string) => (message: string, fields?: LogFields) => {
    process.stderr.write(`${JSON.stringify({ level, system, message, ...fields }, jsonSafe)}\n`);
  };
  return { debug: () => undefined, info: () => undefined, warn: write("warn"), error: write("error") };
}

function jsonSafe(_key: string, value: unknown): unknown {
  if (typeof value === "bigint") return value.toString();
  if (value instanceof Error) return value.stack ?? value.message;
  return value;
}

export class MetricsRegistry implements Metrics {
  readonly #collectors = new Set<() => MetricSample[]>();

  register(collect: () => MetricSample[]): () => void {
    this.#collectors.add(collect);
    return () => void this.#collectors.delete(collect);
  }

  collect(): MetricSample[] {
    return [...this.#collectors].flatMap((collect) => collect());
  }

  /** Prometheus text exposition format 0.0.4. */
  prometheusText(): string {
    const lines: string[] = [];
    const typed = new Set<string>();
    for (const sample of this.collect().sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0))) {
      if (!typed.has(sample.name)) {
        typed.add(sample.name);
        lines.push(`# TYPE ${sample.name} ${sample.kind}`);
      }
      const labels = Object.entries(sample.labels ?? {})
        .map(([key, value]) => `${key}="${value.replace(/[\\"\n]/g, (c) => (c === "\n" ? "\\n" : `\\${c}`))}"`)
        .join(",");
      lines.push(`${sample.name}${labels ? `{${labels}}` : ""} ${sample.value}`);
    }
    return `${lines.join("\n")}\n`;
  }
}

/**
 * One storage for all systems of a process: Node 20 visits every storage that was ever used at every promise, and
 * keeps it for ever, so one a system would slow the process down with each system that it has had. What a system
 * puts in is seen by that system alone.
 */
const storage = new AsyncLocalStorage<{ readonly owner: object; readonly value: unknown }>();

class NodeAsyncContext<T> implements AsyncContext<T> {
  run<R>(value: T, body: () => R): R {
    return storage.run({ owner: this, value }, body);
  }
  get(): T | undefined {
    const store = storage.getStore();
    return store?.owner === this ? (store.value as T) : undefined;
  }
}

/** A settled promise's `then` is a bare microtask; queueMicrotask makes an AsyncResource for each. */
const settled = Promise.resolve();

export function createNodeHost(system: string, parts: Partial<Host> = {}): Host {
  return {
    clock: parts.clock ?? nodeClock,
    tasks: parts.tasks ?? { micro: (run) => void settled.then(run), macro: (run) => void setImmediate(run) },
    logger: parts.logger ?? createStderrLogger(system),
    metrics: parts.metrics ?? new MetricsRegistry(),
    random: parts.random ?? createNodeRandom(),
    ...(parts.sharedMemory === undefined ? {} : { sharedMemory: parts.sharedMemory }),
    createAsyncContext: parts.createAsyncContext ?? (<T>() => new NodeAsyncContext<T>()),
  };
}
