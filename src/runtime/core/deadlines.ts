// Owns: the deadlines of all calls of a system. Invariant: one host timer for all that end within DEADLINE_GRAIN_MS,
// and none without a call for longer than one round of the event loop.
import type { Clock, TaskQueue, TimerHandle } from "../host/host.js";

/** Deadlines are rounded up to this, so that thousands of calls share one timer. */
const DEADLINE_GRAIN_MS = 8;

interface Bucket {
  readonly grain: number;
  timer: TimerHandle;
  /** Ring of a doubly linked list; the bucket's own node is its head. */
  readonly head: DeadlineNode;
  size: number;
}

/** Base of whatever has a deadline: it carries its own place in the list, so that adding allocates nothing. */
export class DeadlineNode {
  /** For `Deadlines` alone. */
  previousDeadline: DeadlineNode | undefined = undefined;
  nextDeadline: DeadlineNode | undefined = undefined;
  bucket: Bucket | undefined = undefined;

  expire(): void {
    throw new Error("assertion: the head of a list of deadlines has none itself");
  }
}

export class Deadlines {
  readonly #clock: Clock;
  readonly #tasks: TaskQueue;
  readonly #buckets = new Map<number, Bucket>();
  #newest: Bucket | undefined;
  #size = 0;
  #isSweepPending = false;

  constructor(clock: Clock, tasks: TaskQueue) {
    this.#clock = clock;
    this.#tasks = tasks;
  }

  get size(): number {
    return this.#size;
  }

  /** @throws when `node` is in the list already. */
  add(node: DeadlineNode, deadlineMs: number): void {
    if (node.bucket !== undefined) throw new Error("assertion: a deadline is added once");
    const grain = Math.ceil(deadlineMs / DEADLINE_GRAIN_MS);
    let bucket = this.#newest;
    if (bucket === undefined || bucket.grain !== grain) {
      bucket = this.#buckets.get(grain) ?? this.#open(grain);
      this.#newest = bucket;
    }
    const { head } = bucket;
    const last = head.previousDeadline!;
    node.bucket = bucket;
    node.previousDeadline = last;
    node.nextDeadline = head;
    last.nextDeadline = node;
    head.previousDeadline = node;
    bucket.size += 1;
    this.#size += 1;
  }

  /** Does nothing when `node` is not in the list. */
  remove(node: DeadlineNode): void {
    const { bucket } = node;
    if (bucket === undefined) return;
    this.#unlink(node, bucket);
    // Calls that follow one another each leave an empty bucket: its timer is kept for the next call of the round.
    if (bucket.size === 0 && !this.#isSweepPending) {
      this.#isSweepPending = true;
      this.#tasks.macro(() => this.#sweep());
    }
  }

  #open(grain: number): Bucket {
    const head = new DeadlineNode();
    head.previousDeadline = head;
    head.nextDeadline = head;
    const bucket: Bucket = { grain, timer: undefined, head, size: 0 };
    const delayMs = grain * DEADLINE_GRAIN_MS - this.#clock.nowMs();
    bucket.timer = this.#clock.setTimer(() => this.#expire(bucket), delayMs);
    this.#buckets.set(grain, bucket);
    return bucket;
  }

  #unlink(node: DeadlineNode, bucket: Bucket): void {
    node.previousDeadline!.nextDeadline = node.nextDeadline;
    node.nextDeadline!.previousDeadline = node.previousDeadline;
    node.previousDeadline = undefined;
    node.nextDeadline = undefined;
    node.bucket = undefined;
    bucket.size -= 1;
    this.#size -= 1;
  }

  #forget(bucket: Bucket): void {
    this.#buckets.delete(bucket.grain);
    if (this.#newest === bucket) this.#newest = undefined;
  }

  #sweep(): void {
    this.#isSweepPending = false;
    for (const bucket of this.#buckets.values()) {
      if (bucket.size > 0) continue;
      this.#clock.clearTimer(bucket.timer);
      this.#forget(bucket);
    }
  }

  #expire(bucket: Bucket): void {
    this.#forget(bucket);
    while (bucket.size > 0) {
      const node = bucket.head.nextDeadline!;
      this.#unlink(node, bucket);
      node.expire();
    }
  }
}
