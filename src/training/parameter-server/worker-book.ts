/**
 * Owns: the workers of a store: which incarnation of each may push, what it has pushed, whether it has
 * work, and its clock (pushes applied), by which stale synchronous parallel holds replies.
 * Invariants: an old incarnation never comes back. Whoever waits here waits for an active worker.
 */
import { TrainingError } from "../errors.js";
import { SequenceWindow, type SequenceState } from "./sequence-window.js";

export interface WorkerState extends SequenceState {
  worker: string;
  epoch: number;
  clock: number;
}

export class StoreWorker<Result> {
  readonly window: SequenceWindow;
  readonly inFlight = new Map<number, Promise<Result>>();
  /** Has work: a round waits for it, and in ssp nobody runs further ahead of it than the slack. */
  active = false;
  /** Rounds do not wait for it all the same: it is busy for another server of the job. */
  excused = false;

  constructor(readonly name: string, readonly epoch: number, public clock = 0, window?: SequenceState) {
    this.window = window === undefined ? new SequenceWindow() : SequenceWindow.from(window);
  }
}

export class WorkerBook<Result> {
  private readonly workers = new Map<string, StoreWorker<Result>>();
  private held: { worker: StoreWorker<Result>; release: () => void }[] = [];

  get(name: string): StoreWorker<Result> | undefined { return this.workers.get(name); }

  active(): StoreWorker<Result>[] { return [...this.workers.values()].filter((worker) => worker.active); }

  /** A new incarnation, idle until it pushes or is activated. */
  admit(name: string, epoch?: number): StoreWorker<Result> {
    const known = this.workers.get(name);
    const next = epoch ?? (known?.epoch ?? 0) + 1;
    if (!Number.isSafeInteger(next) || next <= (known?.epoch ?? -1)) {
      throw new TrainingError("option", `worker "${name}" is at epoch ${known?.epoch}, ` +
        `it cannot be admitted at ${next}`, { worker: name, epoch: next });
    }
    const worker = new StoreWorker<Result>(name, next, known?.clock);
    this.workers.set(name, worker);
    return worker;
  }

  /**
   * From now on others wait for it. One that was idle takes up the clock of the slowest: it must
   * neither stop the others by the batches it did not have, nor be free to run ahead.
   */
  activate(worker: StoreWorker<Result>): void {
    if (worker.active) return;
    worker.clock = Math.max(worker.clock, this.slowest());
    worker.active = true;
  }

  rest(worker: StoreWorker<Result>): void {
    worker.active = false;
  }

  /** Resolves once the worker is at most `slack` ahead of the slowest active one. */
  near(worker: StoreWorker<Result>, slack: number): Promise<void> {
    return new Promise((release) => {
      this.held.push({ worker, release });
      this.releaseNear(slack);
    });
  }

  /** After any change of clocks or of who is active. */
  releaseNear(slack: number): void {
    const bound = this.slowest() + slack;
    // an idle worker, or one that is fenced by now, has nothing to run ahead with
    const isFree = ({ worker }: { worker: StoreWorker<Result> }): boolean =>
      !worker.active || worker.clock <= bound || this.workers.get(worker.name) !== worker;
    const free = this.held.filter(isFree);
    if (free.length === 0) return;
    this.held = this.held.filter((each) => !isFree(each));
    for (const { release } of free) release();
  }

  states(): WorkerState[] {
    return [...this.workers.values()].map(({ name, epoch, clock, window }) => ({ worker: name, epoch, clock, ...window.state() }));
  }

  restore(states: readonly WorkerState[]): void {
    this.workers.clear();
    for (const { worker, epoch, clock, ...window } of states) {
      this.workers.set(worker, new StoreWorker<Result>(worker, epoch, clock, window));
    }
  }

  /** The lowest clock of those who have work; 0 where nobody has. */
  private slowest(): number {
    let lowest = Number.POSITIVE_INFINITY;
    for (const worker of this.workers.values()) if (worker.active) lowest = Math.min(lowest, worker.clock);
    return Number.isFinite(lowest) ? lowest : 0;
  }
}
