// Owns: the deadlines of all calls of a system. Invariants: one host timer for all that end within DEADLINE_GRAIN_MS,
// and none without a call; a deadline is never early, and late by at most a grain and a round of the event loop.
import type { Clock, TaskQueue, TimerHandle } from "../host/host.js";

/** Deadlines are rounded up to this, so that thousands of calls share one timer. */
const DEADLINE_GRAIN_MS = 8;

/** The nodes of a list form a ring with its head; the head itself has no deadline. */
interface DeadlineList {
  readonly head: DeadlineNode;
  size: number;
}

interface Bucket extends DeadlineList {
  readonly grain: number;
  timer: TimerHandle;
}

/** Base of whatever has a deadline: it carries its own place in the list, so that adding allocates nothing. */
export class DeadlineNode {
  /** These three for `Deadlines` alone. */
  previousDeadline: DeadlineNode | undefined = undefined;
  nextDeadline: DeadlineNode | undefined = undefined;
  list: DeadlineList | undefined = undefined;

  /** For `start`: when it ends, if its time runs from `nowMs`. */
  deadlineFrom(_nowMs: number): number {
    throw new Error("assertion: the head of a list has no deadline");
  }

  expire(): void {
    throw new Error("assertion: the head of a list has no deadline");
  }
}

export class Deadlines {
  readonly #clock: Clock;
  readonly #tasks: TaskQueue;
  readonly #buckets = new Map<number, Bucket>();
  readonly #fresh: DeadlineList = { head: emptyRing(), size: 0 };
  #size = 0;
  #isFlushPending = false;

  constructor(clock: Clock, tasks: TaskQueue) {
    this.#clock = clock;
    this.#tasks = tasks;
  }

  get size(): number {
    return this.#size;
  }

  /**
   * The time of `node` runs from the next round of the event loop on. Most calls within a process are answered before,
   * and so cost neither a look at the clock (a sixth of such a call) nor a timer.
   */
  start(node: DeadlineNode): void {
    this.#link(node, this.#fresh);
    if (this.#isFlushPending) return;
    this.#isFlushPending = true;
    this.#tasks.macro(() => this.#flush());
  }

  /** @throws when `node` has a deadline already. */
  add(node: DeadlineNode, deadlineMs: number): void {
    const grain = Math.ceil(deadlineMs / DEADLINE_GRAIN_MS);
    this.#link(node, this.#buckets.get(grain) ?? this.#open(grain));
  }

  /** Does nothing when `node` has none. */
  remove(node: DeadlineNode): void {
    const { list } = node;
    if (list === undefined) return;
    this.#unlink(node, list);
    if (list.size === 0 && list !== this.#fresh) {
      const bucket = list as Bucket;
      this.#clock.clearTimer(bucket.timer);
      this.#buckets.delete(bucket.grain);
    }
  }

  #flush(): void {
    this.#isFlushPending = false;
    if (this.#fresh.size === 0) return;
    const nowMs = this.#clock.nowMs();
    while (this.#fresh.size > 0) {
      const node = this.#fresh.head.nextDeadline!;
      this.#unlink(node, this.#fresh);
      this.add(node, node.deadlineFrom(nowMs));
    }
  }

  #open(grain: number): Bucket {
    const bucket: Bucket = { grain, timer: undefined, head: emptyRing(), size: 0 };
    const delayMs = grain * DEADLINE_GRAIN_MS - this.#clock.nowMs();
    bucket.timer = this.#clock.setTimer(() => this.#expire(bucket), delayMs);
    this.#buckets.set(grain, bucket);
    return bucket;
  }

  #link(node: DeadlineNode, list: DeadlineList): void {
    if (node.list !== undefined) throw new Error("assertion: a deadline is set once");
    const { head } = list;
    const last = head.previousDeadline!;
    node.list = list;
    node.previousDeadline = last;
    node.nextDeadline = head;
    last.nextDeadline = node;
    head.previousDeadline = node;
    list.size += 1;
    this.#size += 1;
  }

  #unlink(node: DeadlineNode, list: DeadlineList): void {
    node.previousDeadline!.nextDeadline = node.nextDeadline;
    node.nextDeadline!.previousDeadline = node.previousDeadline;
    node.previousDeadline = undefined;
    node.nextDeadline = undefined;
    node.list = undefined;
    list.size -= 1;
    this.#size -= 1;
  }

  #expire(bucket: Bucket): void {
    this.#buckets.delete(bucket.grain);
    while (bucket.size > 0) {
      const node = bucket.head.nextDeadline!;
      this.#unlink(node, bucket);
      node.expire();
    }
  }
}

function emptyRing(): DeadlineNode {
  const head = new DeadlineNode();
  head.previousDeadline = head;
  head.nextDeadline = head;
  return head;
}
