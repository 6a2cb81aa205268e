/**
 * Owns: the life of one task as a pure state machine: events in, commands out. A master's actor
 * journals each event, applies it, and carries out the commands.
 * Invariants: the same events give the same state and commands (so a journal replays); a transaction
 * command stays in `outstanding()` until the chain confirms it, so that a restarted master repeats
 * what may have been lost and the chain refuses what was not; samples are counted once (ShardLedger).
 */
import { SchedulerError } from "./errors.js";
import { ShardLedger, type ShardLedgerState } from "./shard-ledger.js";
import {
  type FinalPhase, isFinalPhase, type TaskCommand, type TaskEvent, type TaskPhase, type TaskTerms, type WorkerPhase,
} from "./task-events.js";

/** After so many events the journal is folded into a snapshot: bounds memory and restart time. */
export const JOURNAL_EVENTS_MAX = 4_096;
/** How long a task without any worker waits for a standby before it is given up. */
export const STANDBY_WAIT_SECONDS = 60;

interface State {
  phase: TaskPhase;
  terms: TaskTerms;
  deadline: number | undefined;
  workers: Record<string, WorkerPhase>;
  standby: string[];
  /** Never asked again for this task. */
  refused: string[];
  startedWorkers: number;
  /** Transactions that were asked for and not yet seen on chain, in order. */
  outstanding: TaskCommand[];
  /** Chain time since which nobody is working. */
  emptySince: number | undefined;
}

export interface TaskJournal {
  readonly version: 1;
  /** undefined: the first event is "opened". */
  readonly snapshot: { readonly state: State; readonly ledger: ShardLedgerState } | undefined;
  readonly events: readonly TaskEvent[];
}

export class TaskBook {
  #state: State;
  #ledger: ShardLedger;
  #base: TaskJournal["snapshot"];
  #events: TaskEvent[] = [];

  private constructor(state: State, ledger: ShardLedger) {
    this.#state = state;
    this.#ledger = ledger;
  }

  /** A task seen on chain. The first command is to match. */
  static open(terms: TaskTerms): { book: TaskBook; commands: TaskCommand[] } {
    const ledger = ShardLedger.create(terms.shardSamples, terms.epochs);
    const book = new TaskBook({
      phase: "open", terms, deadline: undefined, workers: {}, standby: [], refused: [], startedWorkers: 0,
      outstanding: [], emptySince: undefined,
    }, ledger);
    book.#events.push({ kind: "opened", terms });
    book.#state.phase = "matching";
    return { book, commands: [{ kind: "match", workers: terms.maxWorkers, except: [] }] };
  }

  /** Rebuilds a book from its journal and checks its invariants. Commands of the past are not repeated. */
  static replay(journal: TaskJournal): TaskBook {
    if (journal.version !== 1) throw new SchedulerError("bad-journal", "version", `journal version ${String(journal.version)}, expected 1`);
    const [first, ...rest] = journal.events;
    let book: TaskBook;
    if (journal.snapshot !== undefined) {
      const { state, ledger } = journal.snapshot;
      book = new TaskBook(structuredClone(state) as State, ShardLedger.restore(ledger));
      book.#base = journal.snapshot;
      for (const event of journal.events) book.apply(event);
    } else {
      if (first?.kind !== "opened") throw new SchedulerError("bad-journal", "events", "journal does not begin with opened");
      book = TaskBook.open(first.terms).book;
      for (const event of rest) book.apply(event);
    }
    book.#ledger.check();
    return book;
  }

  /** Plain JSON: everything needed to replay. */
  journal(): TaskJournal {
    return structuredClone({ version: 1 as const, snapshot: this.#base, events: this.#events });
  }

  get phase(): TaskPhase {
    return this.#state.phase;
  }

  get deadline(): number | undefined {
    return this.#state.deadline;
  }

  get terms(): TaskTerms {
    return this.#state.terms;
  }

  get samplesDone(): number {
    return this.#ledger.samplesDone;
  }

  get samplesTotal(): number {
    return this.#ledger.samplesTotal;
  }

  samplesDoneIn(epoch: number): number {
    return this.#ledger.samplesDoneIn(epoch);
  }

  workerPhase(worker: string): WorkerPhase | undefined {
    return this.#state.workers[worker];
  }

  /** The lease that a receipt of `worker` for these samples belongs to, if it is the next in order. */
  leaseFor(worker: string, range: { epoch: number; shard: number; from: number; to: number }): number | undefined {
    const lease = this.#ledger.leaseOf(worker);
    const fits = lease !== undefined && lease.epoch === range.epoch && lease.shard === range.shard
      && lease.from === range.from && range.to <= lease.to && range.to > range.from;
    return fits ? lease.id : undefined;
  }

  /** Transactions asked for and not yet seen on chain: what a restarted master sends again. */
  outstanding(): readonly TaskCommand[] {
    return this.#state.outstanding;
  }

  /** What every worker of the task is to it now. */
  workers(): { worker: string; phase: WorkerPhase }[] {
    return Object.entries(this.#state.workers).map(([worker, phase]) => ({ worker, phase }));
  }

  /** What was asked of a worker and is not done: what a restarted master asks again when the worker is back. */
  pendingOf(worker: string): TaskCommand[] {
    const { phase } = this.#state;
    const each = this.#state.workers[worker];
    if (isFinalPhase(phase)) return each === undefined || each === "assigned" ? [] : [{ kind: "delete-data", worker }];
    if (each === "accepted") return [{ kind: "prepare", worker }];
    if (each !== "ready") return [];
    if (phase !== "running") return [{ kind: "stop-worker", worker }];
    const lease = this.#ledger.leaseOf(worker);
    if (lease === undefined) return [];
    const { id, epoch, shard, from, to } = lease;
    return [{ kind: "grant", worker, leaseId: id, epoch, shard, from, to }];
  }

  /** The search for workers that is under way: a restarted master begins it again. */
  pendingMatch(): TaskCommand[] {
    const wanted = this.#wanted();
    if (this.#state.phase !== "matching" || wanted === 0) return [];
    return [{ kind: "match", workers: wanted, except: [...Object.keys(this.#state.workers), ...this.#state.refused] }];
  }

  /**
   * Applies one event. Events that come late or twice (the chain and the network repeat themselves)
   * change nothing and give no command.
   */
  apply(event: TaskEvent): TaskCommand[] {
    this.#journal(event);
    if (isFinalPhase(this.#state.phase)) return [];
    const commands = this.#react(event);
    for (const each of commands) if (isTransaction(each)) this.#expect(each);
    return commands;
  }

  #react(event: TaskEvent): TaskCommand[] {
    switch (event.kind) {
      case "opened": throw new SchedulerError("bad-event", "kind", "this task is already open");
      case "matched": return this.#matched(event.workers, event.standby);
      case "accepted": return this.#accepted(event.worker, event.deadline);
      case "declined": return this.#declined(event.worker);
      case "started": return this.#started();
      case "ready": return this.#ready(event.worker);
      case "progressed": return this.#progressed(event.worker, event.leaseId, event.from, event.to);
      case "lost": return this.#lost(event.worker, event.reason);
      case "aborted": return this.#confirm("abort", event.worker), this.#gone(event.worker);
      case "released": return this.#confirm("abort", event.worker), this.#gone(event.worker);
      case "receipts-posted": return this.#receiptsPosted();
      case "stop-requested": return this.#stopRequested();
      case "closed": return this.#closed(event.phase);
      case "tick": return this.#tick(event.time);
    }
  }

  #matched(workers: readonly string[], standby: readonly string[]): TaskCommand[] {
    const { workers: known, refused, terms } = this.#state;
    const isNew = (each: string) => known[each] === undefined && !refused.includes(each);
    this.#state.standby = [...standby].filter(isNew);
    const wanted = this.#wanted();
    const chosen = workers.filter(isNew).slice(0, wanted);
    if (this.#state.phase !== "matching" && !(this.#isWorking && terms.allowStandby)) return [];
    return this.#assign(chosen);
  }

  /** The chain decides who is in: one that was taken for declined may have accepted after all. */
  #accepted(worker: string, deadline: number): TaskCommand[] {
    const before = this.#state.workers[worker];
    if (before !== undefined && before !== "assigned") return [];
    this.#state.workers[worker] = "accepted";
    this.#state.deadline ??= deadline;
    this.#confirmAssigned();
    return [{ kind: "prepare", worker }, ...this.#startWhenComplete()];
  }

  #declined(worker: string): TaskCommand[] {
    if (this.#state.workers[worker] !== "assigned") return [];
    delete this.#state.workers[worker];
    this.#state.refused.push(worker);
    this.#confirmAssigned();
    const commands = this.#startWhenComplete();
    return commands.length > 0 ? commands : this.#replace();
  }

  /** The gang is complete when everybody asked has answered and there are enough. */
  #startWhenComplete(): TaskCommand[] {
    if (this.#state.phase !== "matching" || this.#count("assigned") > 0 || this.#count("lost") > 0) return [];
    if (this.#active().length < this.#state.terms.minWorkers) return [];
    this.#state.phase = "accepted";
    return [{ kind: "start" }];
  }

  #started(): TaskCommand[] {
    if (this.#state.phase !== "accepted") return [];
    this.#confirm("start");
    this.#state.phase = "running";
    this.#state.startedWorkers = this.#active().length + this.#count("lost");
    return [...this.#abortLost(), ...this.#grantAll()];
  }

  #ready(worker: string): TaskCommand[] {
    const phase = this.#state.workers[worker];
    if (phase !== "accepted" && phase !== "ready") return [];
    this.#state.workers[worker] = "ready";
    return this.#state.phase === "running" ? this.#grant(worker) : [];
  }

  #progressed(worker: string, leaseId: number, from: number, to: number): TaskCommand[] {
    if (!this.#isWorking && this.#state.phase !== "stopping") return [];
    const verdict = this.#ledger.advance(worker, leaseId, from, to);
    if (!verdict.ok || this.#state.phase !== "running") return [];
    if (!verdict.isAllDone) return verdict.isLeaseDone ? this.#grant(worker) : [];
    this.#state.phase = "finishing";
    return [...this.#stopWorkers(), { kind: "post-final-receipts" }];
  }

  #lost(worker: string, reason: string): TaskCommand[] {
    const phase = this.#state.workers[worker];
    if (phase === "assigned") return this.#declined(worker);
    if (phase !== "accepted" && phase !== "ready") return [];
    // All samples are in: its work is done, and leaving now harms nobody.
    if (this.#state.phase === "finishing" || this.#state.phase === "stopping") return [];
    this.#state.workers[worker] = "lost";
    this.#ledger.release(worker);
    // Between start and its confirmation the chain would take the abort for a harmless leaving.
    if (this.#state.phase === "accepted") return [];
    const commands: TaskCommand[] = [{ kind: "abort", worker, reason }];
    if (this.#state.phase === "running" && !this.#state.terms.allowStandby) return commands;
    return [...commands, ...this.#grantAll()];
  }

  /** The chain has dropped a worker: find another for its place. */
  #gone(worker: string): TaskCommand[] {
    const phase = this.#state.workers[worker];
    if (phase === undefined || phase === "gone") return [];
    this.#ledger.release(worker);
    this.#state.workers[worker] = "gone";
    if (this.#state.phase === "running" && !this.#state.terms.allowStandby) return []; // "closed" follows
    const start = this.#startWhenComplete();
    return start.length > 0 ? start : [...this.#replace(), ...this.#grantAll()];
  }

  #receiptsPosted(): TaskCommand[] {
    this.#confirm("post-final-receipts");
    if (this.#state.phase === "finishing") return [{ kind: "settle" }];
    if (this.#state.phase === "stopping") return [{ kind: "finish-stop" }];
    return [];
  }

  #stopRequested(): TaskCommand[] {
    if (this.#state.phase === "stopping") return [];
    this.#state.phase = "stopping";
    this.#state.outstanding = [];
    return [...this.#stopWorkers(), { kind: "post-final-receipts" }];
  }

  #closed(phase: FinalPhase): TaskCommand[] {
    this.#state.phase = phase;
    this.#state.outstanding = [];
    const held = Object.entries(this.#state.workers).filter(([, each]) => each !== "assigned");
    return held.map(([worker]) => ({ kind: "delete-data", worker }));
  }

  #tick(time: number): TaskCommand[] {
    const { phase, terms, deadline } = this.#state;
    if ((phase === "matching" || phase === "accepted") && time > terms.acceptBy) return this.#once({ kind: "expire" });
    if (deadline === undefined) return [];
    const isUnfinished = phase === "running"
      || (phase === "finishing" && this.#isOutstanding({ kind: "post-final-receipts" }));
    if (isUnfinished && this.#active().length > 0) {
      this.#state.emptySince = undefined;
      if (time <= deadline || this.#isOutstanding({ kind: "late" })) return [];
      return [...this.#stopWorkers(), { kind: "late" }];
    }
    if (phase !== "running" || this.#count("lost") > 0) return [];
    this.#state.emptySince ??= time;
    const isHopeless = !terms.allowStandby || time > deadline || time - this.#state.emptySince > STANDBY_WAIT_SECONDS;
    return isHopeless ? this.#once({ kind: "fail" }) : [];
  }

  #assign(workers: readonly string[]): TaskCommand[] {
    if (workers.length === 0) return [];
    for (const each of workers) this.#state.workers[each] = "assigned";
    return [{ kind: "assign", workers: [...workers] }];
  }

  /** Fills free places from the standby list, and asks for matching when it runs out. */
  #replace(): TaskCommand[] {
    const { phase, terms } = this.#state;
    if (phase !== "matching" && !(phase === "running" && terms.allowStandby)) return [];
    const wanted = this.#wanted();
    const chosen = this.#state.standby.splice(0, wanted);
    const commands = this.#assign(chosen);
    const short = wanted - chosen.length;
    if (short > 0) {
      commands.push({ kind: "match", workers: short, except: [...Object.keys(this.#state.workers), ...this.#state.refused] });
    }
    return commands;
  }

  /** How many more workers the task has places for. */
  #wanted(): number {
    const { phase, terms, startedWorkers } = this.#state;
    const places = phase === "running" ? startedWorkers : terms.maxWorkers;
    return Math.max(0, places - this.#active().length - this.#count("assigned") - this.#count("lost"));
  }

  #abortLost(): TaskCommand[] {
    return Object.entries(this.#state.workers).filter(([, phase]) => phase === "lost")
      .map(([worker]) => ({ kind: "abort", worker, reason: "lost before the start" }));
  }

  #grant(worker: string): TaskCommand[] {
    const lease = this.#ledger.grant(worker);
    if (lease === undefined) return [];
    const { id, epoch, shard, from, to } = lease;
    return [{ kind: "grant", worker, leaseId: id, epoch, shard, from, to }];
  }

  /** Samples came back, or the task has started: give them to whoever is ready and idle. */
  #grantAll(): TaskCommand[] {
    if (this.#state.phase !== "running") return [];
    return Object.entries(this.#state.workers)
      .filter(([worker, phase]) => phase === "ready" && this.#ledger.leaseOf(worker) === undefined)
      .flatMap(([worker]) => this.#grant(worker));
  }

  #stopWorkers(): TaskCommand[] {
    return this.#active().map((worker) => ({ kind: "stop-worker", worker }));
  }

  #active(): string[] {
    return Object.entries(this.#state.workers)
      .filter(([, phase]) => phase === "accepted" || phase === "ready").map(([worker]) => worker);
  }

  #count(phase: WorkerPhase): number {
    return Object.values(this.#state.workers).filter((each) => each === phase).length;
  }

  get #isWorking(): boolean {
    return this.#state.phase === "running" || this.#state.phase === "finishing";
  }

  #expect(command: TaskCommand): void {
    if (!this.#isOutstanding(command)) this.#state.outstanding.push(command);
  }

  #once(command: TaskCommand): TaskCommand[] {
    return this.#isOutstanding(command) ? [] : [command];
  }

  #isOutstanding(command: TaskCommand): boolean {
    const key = transactionKey(command);
    return this.#state.outstanding.some((each) => transactionKey(each) === key);
  }

  #confirm(kind: TaskCommand["kind"], worker?: string): void {
    this.#state.outstanding = this.#state.outstanding.filter((each) =>
      each.kind !== kind || (worker !== undefined && "worker" in each && each.worker !== worker));
  }

  /** An assignment is confirmed once nobody in it is still only assigned. */
  #confirmAssigned(): void {
    this.#state.outstanding = this.#state.outstanding.filter((each) => each.kind !== "assign"
      || each.workers.some((worker) => this.#state.workers[worker] === "assigned"));
  }

  #journal(event: TaskEvent): void {
    if (this.#events.length >= JOURNAL_EVENTS_MAX) {
      this.#base = structuredClone({ state: this.#state, ledger: this.#ledger.snapshot() });
      this.#events = [];
    }
    this.#events.push(event);
  }
}

function isTransaction(command: TaskCommand): boolean {
  return !["match", "prepare", "grant", "stop-worker", "delete-data"].includes(command.kind);
}

function transactionKey(command: TaskCommand): string {
  return "worker" in command ? `${command.kind} ${command.worker}`
    : command.kind === "assign" ? `assign ${command.workers.join(" ")}` : command.kind;
}
