// What the core offers to links and outboxes: room after "full", confirmed casts, callers that give up, introspection.
import { describe, expect, test } from "vitest";
import { z } from "zod";
import {
  behavior, defineProtocol, Refusal, settle, VirtualClock, type CallError, type Delivery, type System,
} from "../../src/runtime/index.js";
import type { Cell } from "../../src/runtime/core/cell.js";
import type { ReplySlot } from "../../src/runtime/core/mailbox.js";
import { LocalRef } from "../../src/runtime/core/ref.js";
import { testSystem } from "./systems.js";

const Box = defineProtocol("box", 1, {
  call: { hang: { request: z.null(), reply: z.null() }, ask: { request: z.number(), reply: z.number() } },
  cast: { put: z.number(), slow: z.number(), refuse: z.null(), boom: z.null() },
});

function box(system: System, capacity = 2) {
  const seen: number[] = [];
  const deliveries: (Delivery | undefined)[] = [];
  const aborts: string[] = [];
  let release = (): void => undefined;
  const ref = system.spawn(
    behavior(Box, () => ({
      call: {
        hang: (_, meta) => {
          const { signal } = meta;
          expect(meta.signal).toBe(signal);
          return new Promise<null>((resolve) => {
            signal!.addEventListener("abort", () => {
              aborts.push((signal!.reason as Error).message);
              resolve(null);
            });
            release = () => resolve(null);
          });
        },
        ask: (n) => n,
      },
      cast: {
        put: (n, meta) => void (seen.push(n), deliveries.push(meta.delivery)),
        slow: (n) => new Promise<void>((resolve) => (release = () => (seen.push(n), resolve()))),
        refuse: () => {
          throw new Refusal("no", "not this one");
        },
        boom: () => {
          throw new Error("boom");
        },
      },
    })),
    { name: "box", mailbox: { capacity, overflow: "wait" } },
  );
  return { ref, cell: LocalRef.cellOf(ref) as Cell, seen, deliveries, aborts, release: () => release() };
}

class Slot implements ReplySlot {
  readonly outcomes: (string | null)[] = [];
  readonly deadlineMs = Infinity;
  readonly delivery: Delivery;
  constructor(sequence: number) {
    this.delivery = { outbox: "o", sequence };
  }
  get isDone(): boolean {
    return this.outcomes.length > 0;
  }
  succeed(): void {
    this.outcomes.push(null);
  }
  fail(error: CallError): void {
    this.outcomes.push(error.code);
  }
  onCancel(): void {}
}

describe("room", () => {
  test("waiters run one per free place, in order, and none is forgotten", async () => {
    const system = testSystem();
    const { cell, seen } = box(system);
    expect(cell.holdsSenders).toBe(true);
    for (const n of [1, 2]) expect(cell.deliverCast("put", n, undefined)).toBe("accepted");
    for (const n of [3, 4, 5, 6]) {
      expect(cell.deliverCast("put", n, undefined)).toBe("full");
      cell.whenRoom(() => expect(cell.deliverCast("put", n, undefined)).toBe("accepted"));
    }
    const takeBack = cell.whenRoom(() => seen.push(-1));
    takeBack();
    await settle();
    expect(seen).toEqual([1, 2, 3, 4, 5, 6]);
    expect(system.inspect().actors[0]).toMatchObject({ rejected: 4, queueDepth: 0 });
  });

  test("with room at hand a waiter runs soon; when the actor stops it learns so", async () => {
    const system = testSystem();
    const { ref, cell, release } = box(system);
    let runs = 0;
    cell.whenRoom(() => (runs += 1));
    cell.whenRoom(() => (runs += 1))();
    expect(runs).toBe(0);
    await settle();
    expect(runs).toBe(1);
    cell.deliverCast("slow", 0, undefined);
    await settle();
    for (const n of [1, 2]) cell.deliverCast("put", n, undefined);
    const results: string[] = [];
    cell.whenRoom(() => results.push(cell.deliverCast("put", 3, undefined)));
    const stopped = system.stop(ref);
    expect(results).toEqual(["stopped"]);
    release();
    await stopped;
  });
});

describe("confirmed casts", () => {
  test("are answered when their handler has ended, with its fault or its refusal", async () => {
    const clock = new VirtualClock();
    const system = testSystem({ clock });
    const { cell, seen, deliveries, release } = box(system, 8);
    const slots = ["put", "refuse", "boom", "slow"].map((name, i) => {
      const slot = new Slot(i);
      expect(cell.deliverConfirmed(name, i, slot, undefined)).toBe("accepted");
      return slot;
    });
    await clock.advance(1000);
    expect(slots.map((slot) => slot.outcomes)).toEqual([[null], ["refused"], ["fault"], []]);
    expect(deliveries).toEqual([{ outbox: "o", sequence: 0 }]);
    release();
    await settle();
    expect(slots[3]!.outcomes).toEqual([null]);
    expect(seen).toEqual([0, 3]);
  });

  test("that found no room or no actor leave their slot alone", async () => {
    const system = testSystem();
    const { ref, cell } = box(system, 1);
    const slots = [new Slot(0), new Slot(1), new Slot(2)];
    expect(cell.deliverConfirmed("put", 1, slots[0]!, undefined)).toBe("accepted");
    expect(cell.deliverConfirmed("put", 2, slots[1]!, undefined)).toBe("full");
    await settle();
    await system.stop(ref);
    expect(cell.deliverConfirmed("put", 3, slots[2]!, undefined)).toBe("stopped");
    expect(slots.map((slot) => slot.outcomes)).toEqual([[null], [], []]);
    expect(system.deadLetters.total).toBe(0);
  });
});

describe("meta.signal", () => {
  test("aborts when the caller times out or aborts, and not after an answer", async () => {
    const clock = new VirtualClock();
    const system = testSystem({ clock });
    const { ref, aborts, release } = box(system);
    const late = ref.call("hang", null, { timeoutMs: 100 });
    await clock.advance(200);
    expect(await late).toMatchObject({ error: { code: "timeout" } });
    expect(aborts).toHaveLength(1);
    expect(aborts[0]).toContain("no reply within 100 ms");

    const abort = new AbortController();
    const dropped = ref.call("hang", null, { signal: abort.signal });
    await settle();
    abort.abort();
    expect(await dropped).toMatchObject({ error: { code: "aborted" } });
    expect(aborts).toHaveLength(2);

    const answered = ref.call("hang", null, { timeoutMs: 100 });
    await settle();
    release();
    expect(await answered).toEqual({ ok: true, value: null });
    await clock.advance(1000);
    expect(aborts).toHaveLength(2);
    expect(clock.pendingTimers).toBe(0);
  });

  test("read after the caller gave up it is aborted already; a cast has none", async () => {
    const clock = new VirtualClock();
    const system = testSystem({ clock });
    const P = defineProtocol("p", 1, {
      call: { late: { request: z.null(), reply: z.null() } },
      cast: { note: z.null() },
    });
    const seen: unknown[] = [];
    let go = (): void => undefined;
    const ref = system.spawn(
      behavior(P, () => ({
        call: {
          late: async (_, meta) => {
            await new Promise<void>((resolve) => (go = resolve));
            seen.push(meta.signal!.aborted);
            return null;
          },
        },
        cast: { note: (_, meta) => void seen.push(meta.signal) },
      })),
    );
    const call = ref.call("late", null, { timeoutMs: 10 });
    await clock.advance(50);
    await call;
    go();
    await settle();
    ref.cast("note", null);
    await settle();
    expect(seen).toEqual([true, undefined]);
  });
});

describe("inspect", () => {
  test("shows the tree, what each actor lost and why, and calls under way", async () => {
    const clock = new VirtualClock();
    const system = testSystem({ clock, name: "node-a" });
    const { ref } = box(system, 2);
    ref.cast("boom", null);
    await clock.advance(1000);
    void ref.call("hang", null, { timeoutMs: 60_000 });
    await settle();
    for (const n of [1, 2, 3]) ref.cast("put", n);
    const report = system.inspect();
    expect(report).toMatchObject({
      name: "node-a", incarnation: system.incarnation, isShuttingDown: false, callsPending: 1, links: [], outboxes: [],
      deadLetters: { total: 1, byReason: { fault: 1, overflow: 0 } },
    });
    expect(report.actors).toEqual([
      {
        path: "box", protocol: "box/1", state: "running", queueDepth: 2, queueCapacity: 2, stashDepth: 0, rejected: 1,
        deadLetters: { fault: 1 }, processed: 2, restarts: 1, isBusy: true, children: [],
      },
    ]);
    const end = system.addOutboxReport(() => ({ name: "orders", waiting: 3 }));
    expect(system.inspect().outboxes).toEqual([{ name: "orders", waiting: 3 }]);
    end();
    expect(system.inspect().outboxes).toEqual([]);
  });
});
