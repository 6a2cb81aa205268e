import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ShardLedger } from "../../src/scheduler/shard-ledger.js";
import { JOURNAL_EVENTS_MAX, TaskBook } from "../../src/scheduler/task-book.js";
import type { TaskCommand, TaskEvent, TaskTerms } from "../../src/scheduler/task-events.js";

const terms: TaskTerms = {
  taskId: "1", minWorkers: 2, maxWorkers: 3, allowStandby: true, acceptBy: 100, epochs: 2, shardSamples: [10, 7, 5],
};
const kinds = (commands: readonly TaskCommand[]) => commands.map((each) => each.kind);

function running(change: Partial<TaskTerms> = {}, workers = ["a", "b"], standby = ["s"]): TaskBook {
  const { book } = TaskBook.open({ ...terms, ...change });
  book.apply({ kind: "matched", workers, standby });
  for (const worker of workers) book.apply({ kind: "accepted", worker, deadline: 200 });
  book.apply({ kind: "started" });
  return book;
}

const grants = (commands: readonly TaskCommand[]) => commands.filter((each) => each.kind === "grant");

/** Plays honest workers until there is nothing to do; returns the last commands. */
function work(book: TaskBook, queue: TaskCommand[]): TaskCommand[] {
  let last: TaskCommand[] = [];
  for (let command = queue.shift(); command !== undefined; command = queue.shift()) {
    if (command.kind !== "grant") continue;
    last = book.apply({ kind: "progressed", worker: command.worker, leaseId: command.leaseId, from: command.from, to: command.to });
    queue.push(...last);
  }
  return last;
}

describe("TaskBook", () => {
  it("goes from open to settled, each sample done once an epoch", () => {
    const { book, commands } = TaskBook.open(terms);
    expect(commands).toEqual([{ kind: "match", workers: 3, except: [] }]);
    expect(book.apply({ kind: "matched", workers: ["a", "b"], standby: [] })).toEqual([{ kind: "assign", workers: ["a", "b"] }]);
    expect(kinds(book.apply({ kind: "accepted", worker: "a", deadline: 200 }))).toEqual(["prepare"]);
    expect(kinds(book.apply({ kind: "accepted", worker: "b", deadline: 200 }))).toEqual(["prepare", "start"]);
    expect(book.outstanding()).toEqual([{ kind: "start" }]);
    book.apply({ kind: "ready", worker: "a" });
    const first = [...book.apply({ kind: "started" }), ...book.apply({ kind: "ready", worker: "b" })];
    expect(grants(first)).toHaveLength(2);
    const last = work(book, first);
    expect(kinds(last)).toEqual(["stop-worker", "stop-worker", "post-final-receipts"]);
    expect(book.samplesDone).toBe(44);
    expect(kinds(book.apply({ kind: "receipts-posted" }))).toEqual(["settle"]);
    expect(kinds(book.apply({ kind: "closed", phase: "settled" }))).toEqual(["delete-data", "delete-data"]);
    expect(book.outstanding()).toEqual([]);
    expect(book.apply({ kind: "tick", time: 1_000 })).toEqual([]);
  });

  it("gives a lost worker's remaining samples to the others at once and a standby its place", () => {
    const book = running();
    const [lease] = grants(book.apply({ kind: "ready", worker: "a" }));
    book.apply({ kind: "ready", worker: "b" });
    if (lease?.kind !== "grant") throw new Error("no lease");
    book.apply({ kind: "progressed", worker: "a", leaseId: lease.leaseId, from: 0, to: 4 });
    expect(kinds(book.apply({ kind: "lost", worker: "a", reason: "link" }))).toEqual(["abort"]);
    expect(book.apply({ kind: "lost", worker: "a", reason: "link" })).toEqual([]);
    expect(book.apply({ kind: "aborted", worker: "a" })).toEqual([{ kind: "assign", workers: ["s"] }]);
    expect(book.apply({ kind: "accepted", worker: "s", deadline: 200 })).toEqual([{ kind: "prepare", worker: "s" }]);
    const [takeover] = grants(book.apply({ kind: "ready", worker: "s" }));
    expect(takeover).toMatchObject({ worker: "s", shard: 0, epoch: 0, from: 4, to: 10 });
    // the dead one's lease counts no more
    book.apply({ kind: "progressed", worker: "a", leaseId: lease.leaseId, from: 4, to: 10 });
    expect(book.samplesDone).toBe(4);
  });

  it("without standby aborts and waits for the chain to close the task", () => {
    const book = running({ allowStandby: false });
    expect(book.apply({ kind: "lost", worker: "a", reason: "link" })).toEqual([{ kind: "abort", worker: "a", reason: "link" }]);
    expect(book.apply({ kind: "aborted", worker: "a" })).toEqual([]);
    expect(kinds(book.apply({ kind: "closed", phase: "aborted" }))).toContain("delete-data");
    expect(book.phase).toBe("aborted");
  });

  it("asks matching again when no standby is left, and gives up after the wait", () => {
    const book = running({}, ["a", "b"], []);
    for (const worker of ["a", "b"]) {
      book.apply({ kind: "lost", worker, reason: "link" });
      expect(kinds(book.apply({ kind: "aborted", worker }))).toContain("match");
    }
    expect(book.apply({ kind: "tick", time: 50 })).toEqual([]);
    expect(book.apply({ kind: "tick", time: 110 })).toEqual([]);
    expect(kinds(book.apply({ kind: "tick", time: 111 }))).toEqual(["fail"]);
    expect(book.apply({ kind: "tick", time: 112 })).toEqual([]); // asked once
    expect(book.outstanding()).toContainEqual({ kind: "fail" });
  });

  it("declares late after the deadline, once", () => {
    const book = running();
    expect(book.apply({ kind: "tick", time: 200 })).toEqual([]);
    expect(kinds(book.apply({ kind: "tick", time: 201 }))).toEqual(["stop-worker", "stop-worker", "late"]);
    expect(book.apply({ kind: "tick", time: 202 })).toEqual([]);
  });

  it("stops when the client says so, posting what was done", () => {
    const book = running();
    expect(kinds(book.apply({ kind: "stop-requested" }))).toEqual(["stop-worker", "stop-worker", "post-final-receipts"]);
    expect(book.apply({ kind: "ready", worker: "a" })).toEqual([]);
    expect(kinds(book.apply({ kind: "receipts-posted" }))).toEqual(["finish-stop"]);
  });

  it("starts with fewer when one declines, and takes it back when the chain says it accepted", () => {
    const { book } = TaskBook.open(terms);
    book.apply({ kind: "matched", workers: ["a", "b", "c"], standby: [] });
    book.apply({ kind: "accepted", worker: "a", deadline: 200 });
    book.apply({ kind: "accepted", worker: "b", deadline: 200 });
    expect(kinds(book.apply({ kind: "declined", worker: "c" }))).toEqual(["start"]);
    expect(kinds(book.apply({ kind: "accepted", worker: "c", deadline: 200 }))).toEqual(["prepare"]);
    book.apply({ kind: "started" });
    expect(grants(book.apply({ kind: "ready", worker: "c" }))).toHaveLength(1);
  });

  it("expires what never started", () => {
    const { book } = TaskBook.open(terms);
    expect(book.apply({ kind: "tick", time: 100 })).toEqual([]);
    expect(kinds(book.apply({ kind: "tick", time: 101 }))).toEqual(["expire"]);
  });

  const names = fc.constantFrom("a", "b", "c", "d", "s");
  const events: fc.Arbitrary<TaskEvent> = fc.oneof(
    fc.record({ kind: fc.constant("matched" as const), workers: fc.uniqueArray(names), standby: fc.uniqueArray(names) }),
    fc.record({ kind: fc.constant("accepted" as const), worker: names, deadline: fc.constant(200) }),
    fc.record({ kind: fc.constant("declined" as const), worker: names }),
    fc.constant<TaskEvent>({ kind: "started" }),
    fc.record({ kind: fc.constant("ready" as const), worker: names }),
    fc.record({ kind: fc.constant("lost" as const), worker: names, reason: fc.constant("link") }),
    fc.record({ kind: fc.constant("aborted" as const), worker: names }),
    fc.record({ kind: fc.constant("progressed" as const), worker: names, leaseId: fc.integer({ min: 1, max: 20 }),
      from: fc.integer({ min: 0, max: 9 }), to: fc.integer({ min: 0, max: 12 }) }),
    fc.constant<TaskEvent>({ kind: "receipts-posted" }),
    fc.record({ kind: fc.constant("tick" as const), time: fc.integer({ min: 0, max: 250 }) }),
  );

  it("in any order of events never double-counts, never runs two leases on one sample, and replays", () => {
    fc.assert(fc.property(fc.array(events, { maxLength: 80 }), fc.boolean(), (list, allowStandby) => {
      const book = running({ allowStandby });
      const held = new Map<string, TaskCommand>();
      for (const event of list) {
        for (const command of book.apply(event)) if (command.kind === "grant") held.set(command.worker, command);
        // honest progress in between, as the workers would report it
        for (const [worker, lease] of held) {
          if (lease.kind !== "grant" || event.kind !== "ready") continue;
          book.apply({ kind: "progressed", worker, leaseId: lease.leaseId, from: lease.from, to: lease.from + 1 });
        }
      }
      expect(book.samplesDone).toBeLessThanOrEqual(book.samplesTotal);
      const text = JSON.stringify(book.journal());
      const again = TaskBook.replay(JSON.parse(text) as ReturnType<TaskBook["journal"]>);
      expect(JSON.stringify(again.journal())).toBe(text);
      expect([again.phase, again.samplesDone, again.outstanding()]).toEqual([book.phase, book.samplesDone, book.outstanding()]);
    }), { numRuns: 200 });
  });

  it("folds a long journal into a snapshot and still replays", () => {
    const book = running();
    for (let time = 0; time < JOURNAL_EVENTS_MAX + 10; time += 1) book.apply({ kind: "tick", time: 1 });
    const journal = book.journal();
    expect(journal.events.length).toBeLessThanOrEqual(JOURNAL_EVENTS_MAX);
    const again = TaskBook.replay(JSON.parse(JSON.stringify(journal)) as typeof journal);
    expect(grants(again.apply({ kind: "ready", worker: "a" }))).toHaveLength(1);
  });

  it("refuses a journal that is none", () => {
    expect(() => TaskBook.replay({ version: 1, snapshot: undefined, events: [] })).toThrow(/begin with opened/);
    const broken = { version: 1 as const, snapshot: undefined, events: [{ kind: "opened" as const, terms: { ...terms, shardSamples: [0] } }] };
    expect(() => TaskBook.replay(broken)).toThrow(/positive/);
  });
});

describe("ShardLedger", () => {
  it("counts each sample of each epoch exactly once, whoever dies when", () => {
    const step = fc.record({ worker: fc.constantFrom("a", "b", "c"), dies: fc.boolean(), part: fc.integer({ min: 1, max: 9 }) });
    fc.assert(fc.property(fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 5 }),
      fc.integer({ min: 1, max: 3 }), fc.array(step, { maxLength: 60 }), (shards, epochs, steps) => {
        const ledger = ShardLedger.create(shards, epochs);
        const counted = new Map<string, number>();
        const advance = (worker: string, part: number) => {
          const lease = ledger.grant(worker);
          if (lease === undefined) return false;
          const to = Math.min(lease.to, lease.from + part);
          expect(ledger.advance(worker, lease.id, lease.from, to).ok).toBe(true);
          for (let sample = lease.from; sample < to; sample += 1) {
            const key = `${lease.epoch} ${lease.shard} ${sample}`;
            counted.set(key, (counted.get(key) ?? 0) + 1);
          }
          expect(ledger.advance(worker, lease.id, lease.from, to).ok).toBe(false); // said twice, counted once
          return true;
        };
        for (const { worker, dies, part } of steps) {
          if (dies) ledger.release(worker);
          else advance(worker, part);
          ledger.check();
        }
        while (!ledger.isAllDone) if (!["a", "b", "c"].some((worker) => advance(worker, 4))) throw new Error("stuck");
        expect([...counted.values()].every((each) => each === 1)).toBe(true);
        expect(counted.size).toBe(shards.reduce((total, each) => total + each, 0) * epochs);
        expect(ledger.samplesDone).toBe(counted.size);
      }), { numRuns: 100 });
  });

  it("keeps each worker on its own shards over the epochs, and hands a lost worker's to the others", () => {
    const ledger = ShardLedger.create([4, 4, 4, 4], 3);
    const seen = { a: new Set<number>(), b: new Set<number>() };
    const work = (worker: "a" | "b"): void => {
      const lease = ledger.grant(worker)!;
      seen[worker].add(lease.shard);
      expect(ledger.advance(worker, lease.id, lease.from, lease.to).ok).toBe(true);
      ledger.check();
    };
    for (let i = 0; i < 2; i += 1) (work("a"), work("b"));
    expect([...seen.a].filter((shard) => seen.b.has(shard))).toEqual([]);
    for (let i = 0; i < 2; i += 1) work("a"); // a is faster: one epoch ahead, on the same shards
    expect(seen.a.size).toBe(2);
    ledger.release("b");
    while (!ledger.isAllDone) work("a");
    expect(seen.a.size).toBe(4);
    expect(ledger.samplesDone).toBe(48);
  });

  it("does not let one worker report another's lease", () => {
    const ledger = ShardLedger.create([5], 1);
    const lease = ledger.grant("a")!;
    expect(ledger.advance("b", lease.id, 0, 5)).toMatchObject({ ok: false, code: "not-holder" });
    expect(ledger.advance("a", lease.id, 1, 5)).toMatchObject({ ok: false, code: "not-next" });
    expect(ledger.advance("a", lease.id, 0, 6)).toMatchObject({ ok: false, code: "not-next" });
  });
});
