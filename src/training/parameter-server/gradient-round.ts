/**
 * Owns: the gradients of one version that wait for each other: one round of synchronous training.
 * Invariants: one gradient a worker. A round waits for active workers alone, so it closes whatever the
 * others do; whoever waits is answered when it ends.
 */
import type { PushRecord } from "./update-log.js";
import type { StoreWorker } from "./worker-book.js";

export interface Contribution<Result> {
  worker: StoreWorker<Result>;
  record: PushRecord;
  gradient: Float32Array;
  settle: (result: Result) => void;
}

export class GradientRound<Result> {
  private contributions: Contribution<Result>[] = [];
  private waiting: { worker: StoreWorker<Result>; release: () => void }[] = [];

  /** `quorum`: gradients that make an update; a round of fewer workers closes with what they have. */
  constructor(private readonly quorum: number) {}

  has(worker: StoreWorker<Result>): boolean {
    return this.contributions.some((each) => each.worker === worker);
  }

  add(contribution: Contribution<Result>): void {
    this.contributions.push(contribution);
  }

  /** Resolves when this round has ended or the worker was withdrawn. */
  over(worker: StoreWorker<Result>): Promise<void> {
    return new Promise((release) => this.waiting.push({ worker, release }));
  }

  /** Takes a worker out; gives its gradient back, where it has one here. */
  withdraw(worker: StoreWorker<Result>): Contribution<Result> | undefined {
    const found = this.contributions.find((each) => each.worker === worker);
    this.contributions = this.contributions.filter((each) => each !== found);
    for (const each of this.waiting) if (each.worker === worker) each.release();
    return found;
  }

  /** The gradients in the order of their arrival; undefined while it must wait for more of `expected`. */
  complete(expected: readonly StoreWorker<Result>[]): Contribution<Result>[] | undefined {
    const awaited = expected.filter((worker) => !this.has(worker)).length;
    const present = this.contributions.length;
    return present === 0 || present < Math.min(this.quorum, present + awaited) ? undefined : this.contributions;
  }

  end(): void {
    for (const { release } of this.waiting) release();
  }
}
