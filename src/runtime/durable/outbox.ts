// Owns: the durable tier's sending side: messages that are on disk before `send` resolves and leave it when their
// handler has finished. Invariants: one synced write for all messages of a burst; nothing leaves before it is on disk;
// at least once, in order for each target, over crashes of either side; the number of messages kept is bounded.
import type { System } from "../create-system.js";
import { RuntimeError, type CallError, type CallResult } from "../core/failure.js";
import type { Delivery } from "../core/mailbox.js";
import type { AnyProtocol, CastName, Message } from "../core/protocol.js";
import type { BackoffOptions } from "../core/supervision.js";
import type { MetricSample } from "../host/host.js";
import type { Store, StoreOperation } from "../host/store.js";
import { deliverLocally } from "./local-delivery.js";
import { OutboxStore, type RejectedMessage, type StoredTarget } from "./outbox-store.js";
import { TargetQueue, type Attempt } from "./target-queue.js";

export interface OutboxOptions {
  /** Unique in its store; the same name finds the messages of the last process again. */
  readonly name: string;
  readonly store: Store;
  /** Messages to one target that may be under way. Default 64: a round trip's worth, and little to repeat. */
  readonly window?: number;
  /** Messages that may wait in the store; past it `send` rejects with "outbox-full". Default 1,000,000. */
  readonly capacity?: number;
  readonly retry?: BackoffOptions & {
    /** How long one attempt waits for its handler. Default 30,000. */
    readonly timeoutMs?: number;
    /** A message whose handler has thrown this often is rejected for good. Default: never, the queue waits for a repair. */
    readonly faultsMax?: number;
  };
  /** Runs for each message that the receiver will never take: refused, or of no protocol that it speaks. */
  readonly onRejected?: (rejected: RejectedMessage) => void;
}

/** An actor by name, on this node or another; a Ref is one. */
export interface OutboxTarget<P extends AnyProtocol> {
  readonly nodeId?: string | undefined;
  readonly path: string;
  readonly protocol: P;
}

export interface OutboxReport {
  readonly name: string;
  readonly waitingMessages: number;
  readonly oldestAgeSeconds: number;
  readonly confirmed: number;
  readonly redelivered: number;
  readonly rejected: number;
  readonly targets: number;
}

const NAME = /^[A-Za-z0-9_.-]{1,64}$/;
const IDENTITY_BYTES = 8;
const WINDOW_DEFAULT = 64;
/** The receiver keeps so many of one outbox waiting for their turn. */
const WINDOW_MAX = 256;
const CAPACITY_DEFAULT = 1_000_000;
const TIMEOUT_MS_DEFAULT = 30_000;
/** Each costs a key and a queue; an outbox is for known partners, not for the world. */
const TARGETS_MAX = 65_536;
const BACKOFF_DEFAULT = { initialMs: 50, maxMs: 5000, factor: 2, jitter: 0.3 } as const;

interface Waiter {
  readonly queue: TargetQueue;
  readonly sequence: number;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** @throws RuntimeError "bad-option", or what the store throws. */
export function createOutbox(system: System, options: OutboxOptions): Outbox {
  return new Outbox(system, options);
}

export class Outbox {
  readonly name: string;
  /** The part of `meta.delivery.outbox` that all its targets share. */
  readonly identity: string;
  readonly #system: System;
  readonly #options: OutboxOptions;
  readonly #store: OutboxStore;
  readonly #queues = new Map<string, TargetQueue>();
  readonly #targets = new Map<number, StoredTarget>();
  /** New messages; when they cannot be written, `send` rejects and they are gone. */
  #messages: StoreOperation[] = [];
  /** Targets and what was confirmed or rejected; when it cannot be written, it is tried again. */
  #upkeep: StoreOperation[] = [];
  #waiters: Waiter[] = [];
  #emptyWaiters: (() => void)[] = [];
  #isFlushPlanned = false;
  #isClosed = false;
  readonly #unregister: (() => void)[];

  constructor(system: System, options: OutboxOptions) {
    const { name, window = WINDOW_DEFAULT, capacity = CAPACITY_DEFAULT } = options;
    if (!NAME.test(name)) throw new RuntimeError("bad-option", `an outbox's name must match ${NAME}, got "${name}"`);
    if (!Number.isSafeInteger(window) || window < 1 || window > WINDOW_MAX) {
      throw new RuntimeError("bad-option", `an outbox's window must be from 1 to ${WINDOW_MAX}, got ${window}`);
    }
    if (!Number.isSafeInteger(capacity) || capacity < 1) {
      throw new RuntimeError("bad-option", `an outbox's capacity must be an integer from 1, got ${capacity}`);
    }
    this.name = name;
    this.#system = system;
    this.#options = options;
    this.#store = new OutboxStore(options.store, name);
    const random = this.#store.identity(() => Buffer.from(system.host.random(IDENTITY_BYTES)).toString("hex"));
    this.identity = `${name}:${random}`;
    for (const { number, target } of this.#store.targets()) this.#openQueue(number, target);
    this.#unregister = [
      system.onPeer((peer) => {
        for (const queue of this.#queues.values()) if (queue.target.nodeId === peer.nodeId) queue.wake();
      }),
      system.host.metrics.register(() => this.#collect()),
      system.addOutboxReport(() => this.report()),
      system.onShutdown("after-links", `outbox ${name}`, () => this.close()),
    ];
    for (const queue of this.#queues.values()) queue.wake();
  }

  /** Messages that are not confirmed. */
  get size(): number {
    let size = 0;
    for (const queue of this.#queues.values()) size += queue.depth;
    return size;
  }

  /**
   * Resolves when the message is on disk. It is handled at least once after that, whatever crashes.
   * @throws RuntimeError "outbox-full" or "shut-down", WireError when the message cannot be sent to another node, or
   * what the store throws; nothing is kept then.
   */
  send<P extends AnyProtocol, N extends CastName<P>>(target: OutboxTarget<P>, name: N, message: Message<P, N>): Promise<void> {
    return new Promise((resolve, reject) => {
      const { protocol, nodeId, path } = target;
      if (this.#isClosed) throw new RuntimeError("shut-down", `outbox ${this.name} is closed`);
      if (!Object.hasOwn(protocol.cast as object, name)) {
        throw new RuntimeError("bad-option", `${protocol.name}/${protocol.version} has no cast "${name}"`);
      }
      if (this.size >= (this.#options.capacity ?? CAPACITY_DEFAULT)) {
        throw new RuntimeError("outbox-full", `outbox ${this.name} holds ${this.size} messages that are not confirmed`);
      }
      const queue = this.#queueFor({ nodeId, path });
      const sequence = queue.nextSequence;
      const { version, compatibleFrom } = protocol;
      const trace = this.#system.currentTrace();
      const stored = {
        name, message, sentAtMs: this.#calendarMs(), trace, protocol: { name: protocol.name, version, compatibleFrom },
      };
      this.#messages.push(...this.#store.add(queue.number, sequence, stored));
      queue.take();
      this.#waiters.push({ queue, sequence, resolve, reject });
      this.#planFlush();
    });
  }

  /** Resolves when everything sent so far is confirmed or rejected. */
  whenEmpty(): Promise<void> {
    if (this.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#emptyWaiters.push(resolve));
  }

  /** Messages that were rejected for good, oldest first, until they are taken out. */
  rejected(limit = 100): RejectedMessage[] {
    return this.#store.rejected(this.#targets, limit);
  }

  removeRejected({ target, sequence }: RejectedMessage): void {
    const queue = this.#queues.get(keyOf(target));
    if (queue !== undefined) this.#write([this.#store.removeRejected(queue.number, sequence)]);
  }

  report(): OutboxReport {
    let oldestAtMs = Number.POSITIVE_INFINITY;
    const sums = { waitingMessages: 0, confirmed: 0, redelivered: 0, rejected: 0 };
    for (const queue of this.#queues.values()) {
      sums.waitingMessages += queue.depth;
      sums.confirmed += queue.confirmed;
      sums.redelivered += queue.redelivered;
      sums.rejected += queue.rejected;
      if (!this.#isClosed) oldestAtMs = Math.min(oldestAtMs, queue.oldestAtMs ?? Number.POSITIVE_INFINITY);
    }
    const oldestAgeSeconds = oldestAtMs === Number.POSITIVE_INFINITY ? 0 : Math.max(0, this.#calendarMs() - oldestAtMs) / 1000;
    return { name: this.name, oldestAgeSeconds, targets: this.#queues.size, ...sums };
  }

  /** Writes what is due and stops delivering; the store stays open. What is not confirmed waits for the next process. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#flush();
    this.#isClosed = true;
    for (const queue of this.#queues.values()) queue.close();
    for (const unregister of this.#unregister) unregister();
    for (const resolve of this.#emptyWaiters.splice(0)) resolve();
  }

  #queueFor(target: StoredTarget): TargetQueue {
    const known = this.#queues.get(keyOf(target));
    if (known !== undefined) return known;
    if (this.#queues.size >= TARGETS_MAX) {
      throw new RuntimeError("outbox-full", `outbox ${this.name} has ${TARGETS_MAX} targets`, "use another outbox");
    }
    const number = this.#targets.size + 1;
    this.#upkeep.push(this.#store.addTarget(number, target));
    return this.#openQueue(number, target);
  }

  #openQueue(number: number, target: StoredTarget): TargetQueue {
    const { window = WINDOW_DEFAULT, retry = {}, onRejected } = this.#options;
    const { nodeId } = target;
    const { host } = this.#system;
    this.#targets.set(number, target);
    const queue = new TargetQueue(
      {
        number,
        target,
        // An actor of this system is asked one at a time: there is no way to be filled.
        window: nodeId === undefined ? 1 : window,
        backoff: {
          initialMs: retry.initialMs ?? BACKOFF_DEFAULT.initialMs,
          maxMs: retry.maxMs ?? BACKOFF_DEFAULT.maxMs,
          factor: retry.factor ?? BACKOFF_DEFAULT.factor,
          jitter: retry.jitter ?? BACKOFF_DEFAULT.jitter,
        },
        faultsMax: retry.faultsMax ?? Number.POSITIVE_INFINITY,
      },
      {
        host,
        store: this.#store,
        write: (operations) => this.#write(operations),
        deliver: (attempt) => this.#deliver(queue, attempt),
        isReachable: () => nodeId === undefined || this.#system.peer(nodeId)?.isUp === true,
        onRejected: (attempt, error) => {
          const { sequence, message } = attempt;
          host.logger.warn("outbox message rejected", { outbox: this.name, path: target.path, sequence, code: error.code });
          onRejected?.({ ...message, target, sequence, error });
        },
      },
    );
    this.#queues.set(keyOf(target), queue);
    return queue;
  }

  #deliver(queue: TargetQueue, { sequence, run, previous, message: stored }: Attempt): Promise<CallResult<unknown>> {
    const { nodeId, path } = queue.target;
    const { name, protocol, message, trace } = stored;
    const delivery: Delivery = { outbox: `${this.identity}:${queue.number}`, sequence };
    const timeoutMs = this.#options.retry?.timeoutMs ?? TIMEOUT_MS_DEFAULT;
    if (nodeId === undefined) return deliverLocally(this.#system, path, protocol, name, message, delivery, trace);
    const peer = this.#system.peer(nodeId);
    if (peer === undefined) {
      const error: CallError = { code: "unreachable", message: `node ${nodeId.slice(0, 8)} is not linked` };
      return Promise.resolve({ ok: false, error });
    }
    return peer.confirmTo({ delivery, run, previous, trace }, { protocol, path, name }, message, { timeoutMs, detached: true });
  }

  #write(operations: readonly StoreOperation[]): void {
    this.#upkeep.push(...operations);
    this.#planFlush();
  }

  #planFlush(): void {
    if (this.#isFlushPlanned) return;
    this.#isFlushPlanned = true;
    // After I/O was polled: all that one round of the event loop sends shares one wait for the disk.
    this.#system.host.tasks.macro(() => {
      this.#isFlushPlanned = false;
      this.#flush();
    });
  }

  #flush(): void {
    if (this.#isClosed) return;
    const operations = [...this.#upkeep, ...this.#messages];
    const waiters = this.#waiters;
    this.#messages = [];
    this.#waiters = [];
    try {
      // A confirmation lost in a power cut costs a repeat; only messages must wait for the disk.
      if (operations.length > 0) this.#store.write(operations, waiters.length > 0);
      this.#upkeep = [];
    } catch (error) {
      this.#system.host.logger.error("outbox cannot write", { outbox: this.name, error });
      for (const { queue, sequence, reject } of waiters.splice(0)) {
        queue.drop(sequence);
        reject(error);
      }
    }
    for (const { queue, sequence, resolve } of waiters) {
      resolve();
      queue.onStored(sequence);
    }
    if (this.#emptyWaiters.length > 0 && this.size === 0) for (const resolve of this.#emptyWaiters.splice(0)) resolve();
  }

  /** Outlives the process, unlike the clock's zero point. */
  #calendarMs(): number {
    const { clock } = this.#system.host;
    return clock.calendarMs?.() ?? clock.nowMs();
  }

  #collect(): MetricSample[] {
    const { waitingMessages, oldestAgeSeconds, confirmed, redelivered, rejected } = this.report();
    const labels = { system: this.#system.name, outbox: this.name };
    return [
      { name: "runtime_outbox_depth_messages", kind: "gauge", value: waitingMessages, labels },
      { name: "runtime_outbox_oldest_age_seconds", kind: "gauge", value: oldestAgeSeconds, labels },
      { name: "runtime_outbox_confirmed_total", kind: "counter", value: confirmed, labels },
      { name: "runtime_outbox_redeliveries_total", kind: "counter", value: redelivered, labels },
      { name: "runtime_outbox_rejected_total", kind: "counter", value: rejected, labels },
    ];
  }
}

function keyOf({ nodeId, path }: StoredTarget): string {
  return `${nodeId ?? ""}|${path}`;
}
