// What must not go wrong when things go wrong: constructors that throw, endless ends, silent loops, budgets, overflow,
// escalation. Every case is one that actor systems are known to get wrong.
import { describe, expect, test } from "vitest";
import { z } from "zod";
import {
  behavior, defineProtocol, seededRandom, settle, VirtualClock, type Context, type Logger, type StopReason,
  type SupervisionOptions,
} from "../../src/runtime/index.js";
import { Dispatcher } from "../../src/runtime/core/dispatcher.js";
import { testSystem } from "./systems.js";

const P = defineProtocol("p", 1, {
  call: { hang: { request: z.null(), reply: z.null() }, ask: { request: z.null(), reply: z.number() } },
  cast: { boom: z.null(), work: z.number() },
});
const boom = (): never => {
  throw new Error("boom");
};
const idle = { call: { hang: () => null, ask: () => 1 }, cast: { boom, work: () => undefined } };

function recordingLogger(): Logger & { readonly lines: string[] } {
  const lines: string[] = [];
  const write = (message: string): void => void lines.push(message);
  return { lines, debug: () => undefined, info: () => undefined, warn: write, error: write };
}

describe("a constructor that fails", () => {
  test.each([
    ["throws", () => boom()],
    ["rejects", () => Promise.reject(new Error("boom"))],
    ["returns nothing", () => undefined],
    ["resolves with nothing", () => Promise.resolve(undefined)],
  ])("that %s is a fault: watchers hear, callers are answered, nothing lives on", async (_, create) => {
    const clock = new VirtualClock();
    const system = testSystem({ clock });
    const reasons: StopReason[] = [];
    const ref = system.spawn(behavior(P, create as never), { name: "x", supervision: { maxRestarts: 2 } });
    ref.watch((reason) => reasons.push(reason));
    const call = ref.call("ask", null, { timeoutMs: 60_000 });
    expect(ref.cast("work", 1)).toBe("accepted");
    await clock.advance(30_000);
    expect(reasons).toMatchObject([{ code: "restart-budget" }]);
    expect(await call).toMatchObject({ error: { code: "stopped" } });
    expect(system.deadLetters.counts().stopped).toBe(2);
    expect(system.inspect().actors).toEqual([]);
    expect(clock.pendingTimers).toBe(0);
    expect(() => system.spawn(behavior(P, create as never), { name: "x" })).not.toThrow(); // the name is free again
  });

  test("timers, watches and children made before the throw are gone with it", async () => {
    const clock = new VirtualClock();
    const system = testSystem({ clock });
    let ticks = 0;
    let children = 0;
    const child = behavior(P, () => {
      children += 1;
      return { ...idle, stopped: () => void (children -= 1) };
    });
    const ref = system.spawn(
      behavior(P, (ctx) => {
        ctx.timers.every("t", 1, () => void (ticks += 1));
        ctx.spawn(child);
        return boom();
      }),
      { supervision: { maxRestarts: 3 } },
    );
    await clock.advance(30_000);
    expect(ref.cast("work", 1)).toBe("stopped");
    expect([ticks, children]).toEqual([0, 0]);
    expect(clock.pendingTimers).toBe(0);
  });
});

describe("ends that take long", () => {
  test("an actor that cannot end yet costs no turns while it waits", async () => {
    const clock = new VirtualClock();
    let turns = 0;
    const original = Dispatcher.prototype.enqueue;
    Dispatcher.prototype.enqueue = function (cell) {
      turns += 1;
      original.call(this, cell);
    };
    try {
      const system = testSystem({ clock });
      let release = (): void => undefined;
      const ref = system.spawn(
        behavior(P, () => ({
          call: { hang: () => new Promise<null>((resolve) => (release = () => resolve(null))), ask: () => 1 },
          cast: { boom, work: () => undefined },
        })),
      );
      void ref.call("hang", null, { timeoutMs: 600_000 });
      ref.cast("work", 1);
      await settle();
      const stopped = system.stop(ref, { drain: true });
      const before = turns;
      for (let i = 0; i < 20; i++) await settle();
      await clock.advance(10_000);
      expect(turns - before).toBe(0);
      release();
      await stopped;
      expect(turns - before).toBeLessThanOrEqual(2);
    } finally {
      Dispatcher.prototype.enqueue = original;
    }
  });

  test("a drain that begins during the backoff handles what waits, after the restart", async () => {
    const clock = new VirtualClock();
    const system = testSystem({ clock });
    const seen: number[] = [];
    const ref = system.spawn(
      behavior(P, () => ({ call: { hang: () => null, ask: () => 1 }, cast: { boom, work: (n) => void seen.push(n) } })),
    );
    ref.cast("boom", null);
    ref.cast("work", 1);
    await settle();
    const stopped = system.stop(ref, { drain: true });
    expect(ref.cast("work", 2)).toBe("stopped");
    await clock.advance(1000);
    await stopped;
    expect(seen).toEqual([1]);
  });

  test("stop during the backoff ends at once and leaves no timer", async () => {
    const clock = new VirtualClock();
    const system = testSystem({ clock });
    const ref = system.spawn(behavior(P, () => boom()), { supervision: { backoff: { initialMs: 5000 } } });
    await settle();
    expect(clock.pendingTimers).toBe(1);
    await system.stop(ref);
    expect(clock.pendingTimers).toBe(0);
  });

  test("a `stopped` handler that hangs holds the shutdown to its deadline and no longer", async () => {
    const clock = new VirtualClock();
    const system = testSystem({ clock });
    system.spawn(
      behavior(P, () => ({
        call: { hang: () => null, ask: () => 1 },
        cast: { boom, work: () => undefined },
        stopped: () => new Promise<void>(() => undefined),
      })),
      { name: "hangs" },
    );
    const down = system.shutdown({ deadlineMs: 500 });
    await clock.advance(500);
    expect(await down).toMatchObject({ abandoned: ["hangs"], durationMs: 500 });
    expect(clock.pendingTimers).toBe(0);
  });
});

describe("restarts", () => {
  test("no crash loop is silent: every fault, restart and the end are logged", async () => {
    const clock = new VirtualClock();
    const logger = recordingLogger();
    const system = testSystem({ clock, logger });
    system.spawn(behavior(P, () => boom()), { supervision: { maxRestarts: 3 } });
    await clock.advance(30_000);
    const count = (message: string): number => logger.lines.filter((each) => each === message).length;
    expect(count("actor failed")).toBe(4);
    expect(count("actor restarts")).toBe(3);
    expect(count("restart budget used up")).toBe(1);
  });

  test("the jitter of the backoff comes from the host: same seed, same instants", async () => {
    const run = async (seed: number): Promise<number[]> => {
      const clock = new VirtualClock();
      const system = testSystem({ clock, random: seededRandom(seed) });
      const at: number[] = [];
      system.spawn(behavior(P, () => (at.push(clock.nowMs()), boom())));
      await clock.advance(30_000);
      return at;
    };
    const [first, again, other] = [await run(1), await run(1), await run(2)];
    expect(first).toEqual(again);
    expect(first).not.toEqual(other);
  });

  /** A parent with children a and b that fail on demand, and c that takes its time to end; `decide` is the parent's. */
  function family(decide: SupervisionOptions["decide"], child: SupervisionOptions) {
    const clock = new VirtualClock();
    const system = testSystem({ clock });
    const parents: Context[] = [];
    const seen: string[] = [];
    const worker = (name: string) =>
      behavior(P, () => ({
        call: { hang: () => null, ask: () => 1 },
        cast: { boom, work: (n) => void seen.push(`${name}${n}`) },
        stopped: () => (name === "c" ? settle(2) : undefined),
      }));
    const parent = system.spawn(
      behavior(P, (ctx) => {
        parents.push(ctx as unknown as Context);
        const children = ["a", "b", "c"].map((name) => ctx.spawn(worker(name), { name, supervision: child }));
        return {
          call: { hang: () => null, ask: () => 1 },
          cast: {
            boom: () => void children.slice(0, 2).forEach((each) => each.cast("boom", null)),
            work: (n) => void children.forEach((each) => each.cast("work", n)),
          },
        };
      }),
      { name: "parent", supervision: decide === undefined ? {} : { decide } },
    );
    return { clock, system, parent, parents, seen };
  }

  test("children that escalate in the same turn restart the parent once", async () => {
    const { clock, parent, parents, seen } = family(undefined, { decide: () => "escalate" });
    parent.cast("boom", null);
    await clock.advance(1000);
    expect(parents).toHaveLength(2);
    parent.cast("work", 1);
    await clock.advance(0);
    expect([...seen].sort()).toEqual(["a1", "b1", "c1"]);
  });

  test("children whose parent resumes after their escalation go on, and are not left suspended", async () => {
    const { clock, system, parent, parents, seen } = family(() => "resume", { decide: () => "escalate" });
    parent.cast("boom", null);
    parent.cast("work", 1);
    await clock.advance(1000);
    expect(parents).toHaveLength(1);
    expect([...seen].sort()).toEqual(["a1", "b1", "c1"]);
    expect(system.tree()[0]!.children.map((each) => each.state)).toEqual(["running", "running", "running"]);
  });

  test("children that used their budget up end when the parent resumes", async () => {
    const { clock, system, parent } = family(() => "resume", { maxRestarts: 0, onExhausted: "escalate" });
    parent.cast("boom", null);
    await clock.advance(1000);
    expect(system.tree()[0]!.children.map((each) => each.path)).toEqual(["parent/c"]);
    expect(system.tree()[0]!.state).toBe("running");
  });

  test("escalation past the top ends the top", async () => {
    const { clock, system, parent } = family(() => "escalate", { decide: () => "escalate" });
    const reasons: StopReason[] = [];
    parent.watch((reason) => reasons.push(reason));
    parent.cast("boom", null);
    await clock.advance(1000);
    expect(reasons).toMatchObject([{ code: "fault" }]);
    expect(reasons[0]!.message).toContain("boom");
    expect(system.tree()).toEqual([]);
  });

  test("a shared budget is charged by all children, and refills", async () => {
    const clock = new VirtualClock();
    const system = testSystem({ clock });
    let parents = 0;
    const child = behavior(P, () => idle);
    const parent = system.spawn(
      behavior(P, (ctx) => {
        parents += 1;
        const children = [0, 1, 2].map(() => ctx.spawn(child, { supervision: { maxRestarts: 100 } }));
        return {
          call: { hang: () => null, ask: () => 1 },
          cast: { boom, work: (n) => void children[n]!.cast("boom", null) },
        };
      }),
      { childBudget: { maxRestarts: 3, withinMs: 10_000 } },
    );
    for (let round = 0; round < 5; round++) {
      for (const n of [0, 1, 2]) parent.cast("work", n);
      await clock.advance(11_000);
    }
    expect(parents).toBe(1); // three a window is within the budget, for ever
    for (const n of [0, 1, 2, 0]) {
      parent.cast("work", n);
      await clock.advance(500);
    }
    expect(parents).toBe(2);
  });

  test("a decide that throws stops the actor and says why", async () => {
    const logger = recordingLogger();
    const system = testSystem({ logger });
    const ref = system.spawn(
      behavior(P, () => idle),
      { supervision: { decide: boom } },
    );
    ref.cast("boom", null);
    await settle();
    expect(ref.cast("work", 1)).toBe("stopped");
    expect(logger.lines).toContain("supervision.decide failed; the actor stops");
  });
});

describe("senders", () => {
  test("feel nothing of a full mailbox, a conflate that throws, or a listener that throws", async () => {
    const system = testSystem();
    system.deadLetters.subscribe(boom);
    const make = (overflow: "drop-oldest" | { conflate: () => never }) =>
      system.spawn(
        behavior(P, () => idle),
        { mailbox: { capacity: 1, overflow } },
      );
    const dropping = make("drop-oldest");
    for (let i = 0; i < 3; i++) expect(dropping.cast("work", i)).toBe("accepted");
    const conflating = make({ conflate: boom });
    expect([conflating.cast("work", 1), conflating.cast("work", 2)]).toEqual(["accepted", "full"]);
    await settle();
    expect(system.deadLetters.counts().overflow).toBe(2);
  });

  test("a watcher that throws does not keep the others from hearing", async () => {
    const system = testSystem();
    const heard: string[] = [];
    const ref = system.spawn(behavior(P, () => idle));
    ref.watch(boom);
    ref.watch((reason) => heard.push(reason.code));
    await system.stop(ref);
    await settle();
    expect(heard).toEqual(["normal"]);
  });
});
