/**
 * Owns: who works on which samples. A lease is a range of one shard in one epoch, held by one worker.
 * Invariant: in each epoch every sample is counted exactly once: a range is either queued, leased or
 * done; what a lost worker had not yet done returns to the queue, and its old lease counts no more.
 */
import { requireInput, SchedulerError } from "./errors.js";

/** A range of samples to do. */
export interface Range {
  readonly epoch: number;
  readonly shard: number;
  readonly from: number;
  readonly to: number;
}

export interface Lease extends Range {
  /** Rises with each grant: a later grant of the same samples fences the earlier one. */
  readonly id: number;
  readonly worker: string;
}

export interface ShardLedgerState {
  shardSamples: number[];
  epochs: number;
  /** The epoch from which grants are made. */
  epoch: number;
  nextLease: number;
  queue: Range[];
  leases: Lease[];
  /** Samples counted in each epoch. */
  done: number[];
  /** Who worked last on each shard; null: nobody, or a worker that is gone. */
  owners: (string | null)[];
}

export type AdvanceVerdict =
  | { ok: true; samples: number; isLeaseDone: boolean; isAllDone: boolean }
  | { ok: false; code: "unknown-lease" | "not-holder" | "not-next"; message: string };

/** At most two epochs are queued at a time; these bound a task's ledger to some MiB. */
export const SHARDS_MAX = 65_536;
export const EPOCHS_MAX = 100_000;

export class ShardLedger {
  readonly #state: ShardLedgerState;

  private constructor(state: ShardLedgerState) {
    this.#state = state;
  }

  /** Samples of each shard, in the manifest's order. */
  static create(shardSamples: readonly number[], epochs: number): ShardLedger {
    requireInput(shardSamples.length > 0 && shardSamples.length <= SHARDS_MAX, "shardSamples",
      `expected 1 to ${SHARDS_MAX} shards, got ${shardSamples.length}`);
    requireInput(shardSamples.every((each) => Number.isSafeInteger(each) && each > 0), "shardSamples",
      "expected a positive whole number of samples in each shard");
    requireInput(Number.isInteger(epochs) && epochs > 0 && epochs <= EPOCHS_MAX, "epochs",
      `expected 1 to ${EPOCHS_MAX}, got ${epochs}`);
    const ledger = new ShardLedger({
      shardSamples: [...shardSamples], epochs, epoch: -1, nextLease: 1, queue: [], leases: [],
      done: new Array<number>(epochs).fill(0), owners: new Array<string | null>(shardSamples.length).fill(null),
    });
    ledger.#openEpoch();
    return ledger;
  }

  static restore(state: ShardLedgerState): ShardLedger {
    return new ShardLedger(structuredClone(state));
  }

  snapshot(): ShardLedgerState {
    return structuredClone(this.#state);
  }

  /**
   * The next range for a worker, or undefined when there is nothing to do now. A worker keeps its shards
   * over the epochs, because each new one costs a key and a transfer and widens what the worker sees
   * (white paper 3.6: no node holds more than its part). It goes one epoch ahead of the slowest before
   * it takes over another's shard, so that nobody waits.
   */
  grant(worker: string): Lease | undefined {
    const state = this.#state;
    const held = state.leases.find((each) => each.worker === worker);
    if (held !== undefined) return held;
    let at = this.#choose(worker);
    if (at === undefined && state.queue.length < state.shardSamples.length && this.#openEpoch()) at = this.#choose(worker);
    const range = state.queue.splice(at ?? 0, 1)[0];
    if (range === undefined) return undefined;
    const lease: Lease = { ...range, id: state.nextLease, worker };
    state.nextLease += 1;
    state.leases.push(lease);
    state.owners[range.shard] = worker;
    return lease;
  }

  /** The oldest range of the worker's own shards, else of a shard that nobody works on. */
  #choose(worker: string): number | undefined {
    const { queue, owners } = this.#state;
    const own = queue.findIndex((range) => owners[range.shard] === worker);
    const at = own >= 0 ? own : queue.findIndex((range) => owners[range.shard] === null);
    return at < 0 ? undefined : at;
  }

  /** Samples [from, to) of a lease are done; only the next ones in order can be. */
  advance(worker: string, leaseId: number, from: number, to: number): AdvanceVerdict {
    const index = this.#state.leases.findIndex((each) => each.id === leaseId);
    const lease = this.#state.leases[index];
    if (lease === undefined) {
      return { ok: false, code: "unknown-lease", message: `lease ${leaseId} is over or was never granted` };
    }
    if (lease.worker !== worker) {
      return { ok: false, code: "not-holder", message: `lease ${leaseId} is held by ${lease.worker}` };
    }
    if (from !== lease.from || to <= from || to > lease.to) {
      return { ok: false, code: "not-next", message: `expected samples from ${lease.from} to at most ${lease.to}, got ${from} to ${to}` };
    }
    const isLeaseDone = to === lease.to;
    if (isLeaseDone) this.#state.leases.splice(index, 1);
    else this.#state.leases[index] = { ...lease, from: to };
    this.#state.done[lease.epoch]! += to - from;
    return { ok: true, samples: to - from, isLeaseDone, isAllDone: this.isAllDone };
  }

  /** A worker is gone: what it had not done goes first in the queue, oldest epoch ahead. */
  release(worker: string): Range[] {
    const lost = this.#state.leases.filter((each) => each.worker === worker);
    this.#state.leases = this.#state.leases.filter((each) => each.worker !== worker);
    const ranges = lost.map(({ epoch, shard, from, to }) => ({ epoch, shard, from, to }));
    this.#state.queue.unshift(...ranges);
    this.#state.owners = this.#state.owners.map((owner) => (owner === worker ? null : owner));
    return ranges;
  }

  leaseOf(worker: string): Lease | undefined {
    return this.#state.leases.find((each) => each.worker === worker);
  }

  get isAllDone(): boolean {
    const { epochs, epoch, queue, leases } = this.#state;
    return epoch === epochs - 1 && queue.length === 0 && leases.length === 0;
  }

  get samplesDone(): number {
    return this.#state.done.reduce((total, each) => total + each, 0);
  }

  get samplesTotal(): number {
    return this.#samplesPerEpoch * this.#state.epochs;
  }

  samplesDoneIn(epoch: number): number {
    return this.#state.done[epoch] ?? 0;
  }

  get #samplesPerEpoch(): number {
    return this.#state.shardSamples.reduce((total, each) => total + each, 0);
  }

  #openEpoch(): boolean {
    const state = this.#state;
    if (state.epoch + 1 >= state.epochs) return false;
    state.epoch += 1;
    state.queue.push(...state.shardSamples.map((samples, shard) => ({ epoch: state.epoch, shard, from: 0, to: samples })));
    return true;
  }

  /** Throws when the invariant is broken; called by the journal after a restore. */
  check(): void {
    const { done, queue, leases, epoch } = this.#state;
    for (let each = 0; each < done.length; each += 1) {
      const open = [...queue, ...leases].filter((range) => range.epoch === each)
        .reduce((total, range) => total + range.to - range.from, 0);
      const expected = each <= epoch ? this.#samplesPerEpoch : 0;
      if (done[each]! + open !== expected) {
        throw new SchedulerError("bad-journal", "ledger",
          `epoch ${each}: ${done[each]} done + ${open} open samples, expected ${expected}`);
      }
    }
  }
}
