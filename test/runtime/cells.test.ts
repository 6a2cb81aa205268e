// Local actors: order, mailbox bounds, supervision, watches, calls, cycles, turns, shutdown.
import fc from "fast-check";
import { afterEach, describe, expect, test } from "vitest";
import { z } from "zod";
import {
  behavior, createSystem, defineProtocol, Probe, Refusal, replyLater, seededRandom, settle, silentLogger,
  VirtualClock, type StopReason, type System, type SystemOptions,
} from "../../src/runtime/index.js";

const open: System[] = [];
function system(options: Partial<SystemOptions> = {}): System {
  const made = createSystem({ name: "test", logger: silentLogger, ...options });
  open.push(made);
  return made;
}
afterEach(async () => {
  for (const each of open.splice(0)) await each.shutdown({ deadlineMs: 50 }).catch(() => undefined);
});

const Counter = defineProtocol("counter", 1, {
  call: {
    add: { request: z.object({ n: z.number() }), reply: z.number() },
    crash: { request: z.object({}), reply: z.null() },
    refuse: { request: z.object({}), reply: z.null() },
  },
  cast: { bump: z.object({ n: z.number() }), boom: z.object({}) },
});
const counter = (seen: number[] = [], starts: { count: number } = { count: 0 }) =>
  behavior(Counter, () => {
    starts.count += 1;
    let total = 0;
    return {
      call: {
        add: ({ n }) => (total += n),
        crash: () => {
          throw new Error("crashed");
        },
        refuse: () => {
          throw new Refusal("not-today", "no");
        },
      },
      cast: {
        bump: ({ n }) => void ((total += n), seen.push(n)),
        boom: () => {
          throw new Error("boom");
        },
      },
    };
  });

describe("messages", () => {
  test("casts and calls of one pair are handled in the order sent", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.boolean(), { maxLength: 200 }), async (kinds) => {
        const sys = system();
        const order: number[] = [];
        const P = defineProtocol("o", 1, {
          call: { c: { request: z.number(), reply: z.number() } },
          cast: { k: z.number() },
        });
        const ref = sys.spawn(
          behavior(P, () => ({
            call: { c: async (i: number) => (await null, order.push(i), i) },
            cast: { k: (i: number) => void order.push(i) },
          })),
        );
        const calls = kinds.map((isCall, i) => (isCall ? ref.call("c", i) : void ref.cast("k", i)));
        await Promise.all(calls);
        await settle();
        expect(order).toEqual(kinds.map((_, i) => i));
        await sys.shutdown();
      }),
      { numRuns: 30 },
    );
  });

  test("an awaited handler holds its actor; handlers never overlap", async () => {
    const sys = system();
    let inside = 0;
    let most = 0;
    const P = defineProtocol("x", 1, { call: { go: { request: z.number(), reply: z.number() } } });
    const ref = sys.spawn(
      behavior(P, () => ({
        call: {
          go: async (n: number) => {
            most = Math.max(most, ++inside);
            await new Promise((r) => setImmediate(r));
            inside -= 1;
            return n;
          },
        },
      })),
    );
    const results = await Promise.all([1, 2, 3, 4].map((n) => ref.call("go", n)));
    expect(results.map((r) => r.ok && r.value)).toEqual([1, 2, 3, 4]);
    expect(most).toBe(1);
  });

  test("replyLater frees the actor while the answer is pending", async () => {
    const sys = system();
    const P = defineProtocol("x", 1, {
      call: { slow: { request: z.null(), reply: z.string() }, quick: { request: z.null(), reply: z.string() } },
    });
    let release = (_: string): void => undefined;
    const gate = new Promise<string>((resolve) => (release = resolve));
    const ref = sys.spawn(behavior(P, () => ({ call: { slow: () => replyLater(gate), quick: () => "quick" } })));
    const slow = ref.call("slow", null);
    expect(await ref.call("quick", null)).toEqual({ ok: true, value: "quick" });
    release("slow");
    expect(await slow).toEqual({ ok: true, value: "slow" });
  });

  test("a refusal is an answer and not a fault", async () => {
    const sys = system();
    const starts = { count: 0 };
    const ref = sys.spawn(counter([], starts));
    await ref.call("add", { n: 2 });
    const refused = await ref.call("refuse", {});
    expect(refused).toMatchObject({ ok: false, error: { code: "refused", reason: "not-today" } });
    expect(await ref.call("add", { n: 1 })).toEqual({ ok: true, value: 3 });
    expect(starts.count).toBe(1);
  });
});

describe("mailbox", () => {
  const Box = defineProtocol("box", 1, {
    call: { ask: { request: z.number(), reply: z.number() } },
    cast: { put: z.number() },
  });
  const boxed = (sys: System, overflow: never | object | string, capacity = 4) => {
    const seen: number[] = [];
    const ref = sys.spawn(
      behavior(Box, () => ({ call: { ask: (n: number) => n }, cast: { put: (n: number) => void seen.push(n) } })),
      { mailbox: { capacity, overflow: overflow as "reject" } },
    );
    return { ref, seen };
  };

  test("reject tells the sender and keeps what is queued", async () => {
    const sys = system();
    const { ref, seen } = boxed(sys, "reject");
    const results = [1, 2, 3, 4, 5, 6].map((n) => ref.cast("put", n));
    expect(results).toEqual(["accepted", "accepted", "accepted", "accepted", "full", "full"]);
    expect(await ref.call("ask", 1)).toMatchObject({ ok: false, error: { code: "full" } });
    await settle();
    expect(seen).toEqual([1, 2, 3, 4]);
  });

  test("drop-oldest and drop-newest count each drop as a dead letter", async () => {
    for (const [overflow, kept] of [["drop-oldest", [3, 4, 5, 6]], ["drop-newest", [1, 2, 3, 4]]] as const) {
      const sys = system();
      const { ref, seen } = boxed(sys, overflow);
      for (const n of [1, 2, 3, 4, 5, 6]) expect(ref.cast("put", n)).toBe("accepted");
      await settle();
      expect(seen).toEqual(kept);
      expect(sys.deadLetters.counts().overflow).toBe(2);
    }
  });

  test("conflate keeps the newest message of a key, in the place of the first", async () => {
    const sys = system();
    const { ref, seen } = boxed(sys, { conflate: (_: string, n: number) => (n < 100 ? String(n % 2) : undefined) });
    for (const n of [1, 2, 101, 3, 5, 4]) expect(ref.cast("put", n)).toBe("accepted");
    await settle();
    expect(seen).toEqual([5, 4, 101]);
    expect(sys.deadLetters.counts().conflated).toBe(3);
  });

  test("wait parks a call until there is room", async () => {
    const sys = system();
    const { ref, seen } = boxed(sys, "wait", 2);
    expect([ref.cast("put", 1), ref.cast("put", 2), ref.cast("put", 3)]).toEqual(["accepted", "accepted", "full"]);
    expect(await ref.call("ask", 7)).toEqual({ ok: true, value: 7 });
    expect(seen).toEqual([1, 2]);
  });

  test("size never passes the capacity and nothing is lost uncounted, whatever the policy", async () => {
    const policies = fc.constantFrom("reject", "drop-oldest", "drop-newest", "wait");
    await fc.assert(
      fc.asyncProperty(policies, fc.integer({ min: 1, max: 20 }), fc.integer({ min: 0, max: 60 }), async (p, cap, n) => {
        const sys = system();
        const { ref, seen } = boxed(sys, p, cap);
        let full = 0;
        for (let i = 0; i < n; i++) if (ref.cast("put", i) === "full") full += 1;
        expect(sys.tree()[0]!.queueDepth).toBeLessThanOrEqual(cap);
        await settle();
        expect(seen.length + full + sys.deadLetters.total).toBe(n);
        expect([...seen].sort((a, b) => a - b)).toEqual(seen);
        await sys.shutdown();
      }),
      { numRuns: 60 },
    );
  });
});

describe("supervision", () => {
  test("a fault restarts the actor, dead-letters the offender and keeps what is queued", async () => {
    const clock = new VirtualClock();
    const sys = system({ clock, random: seededRandom(1) });
    const seen: number[] = [];
    const starts = { count: 0 };
    const ref = sys.spawn(counter(seen, starts), { name: "c" });
    ref.cast("bump", { n: 1 });
    ref.cast("boom", {});
    ref.cast("bump", { n: 2 });
    await clock.advance(0);
    expect(sys.tree()[0]).toMatchObject({ state: "suspended", queueDepth: 1 });
    await clock.advance(100);
    expect(seen).toEqual([1, 2]);
    expect(starts.count).toBe(2);
    expect(sys.deadLetters.counts().fault).toBe(1);
    const sum = ref.call("add", { n: 0 });
    await settle();
    expect(await sum).toEqual({ ok: true, value: 2 }); // state is new: only the 2 counts
  });

  test("a failing call answers fault", async () => {
    const sys = system();
    const ref = sys.spawn(counter());
    expect(await ref.call("crash", {})).toMatchObject({ ok: false, error: { code: "fault" } });
  });

  test("backoff grows, is jittered, and the budget ends it", async () => {
    const clock = new VirtualClock();
    const sys = system({ clock, random: seededRandom(7) });
    const at: number[] = [];
    const P = defineProtocol("p", 1, { cast: { x: z.null() } });
    const reasons: StopReason[] = [];
    const ref = sys.spawn(
      behavior(P, () => {
        at.push(clock.nowMs());
        throw new Error("never starts");
      }),
      { supervision: { maxRestarts: 4, withinMs: 60_000, backoff: { initialMs: 100, factor: 2, maxMs: 300, jitter: 0.1 } } },
    );
    ref.watch((reason) => reasons.push(reason));
    await clock.advance(5000);
    expect(at.length).toBe(5); // first start and four restarts
    const gaps = at.slice(1).map((t, i) => t - at[i]!);
    for (const [i, nominal] of [100, 200, 300, 300].entries()) {
      expect(gaps[i]).toBeGreaterThanOrEqual(nominal * 0.9);
      expect(gaps[i]).toBeLessThanOrEqual(nominal * 1.1);
    }
    expect(reasons).toMatchObject([{ code: "restart-budget" }]);
    expect(ref.cast("x", null)).toBe("stopped");
    expect(sys.tree()).toEqual([]);
    expect(clock.pendingTimers).toBe(0);
  });

  test("the budget is a sliding window: slow failures go on for ever", async () => {
    const clock = new VirtualClock();
    const sys = system({ clock });
    const starts = { count: 0 };
    const ref = sys.spawn(counter([], starts), {
      supervision: { maxRestarts: 2, withinMs: 1000, backoff: { initialMs: 1, maxMs: 1 } },
    });
    for (let i = 0; i < 10; i++) {
      ref.cast("boom", {});
      await clock.advance(600);
    }
    expect(starts.count).toBe(11);
  });

  test("directives: resume keeps the state, stop ends, escalate hands the fault to the parent", async () => {
    const clock = new VirtualClock();
    const sys = system({ clock });
    const resumed = sys.spawn(counter(), { supervision: { decide: () => "resume" } });
    resumed.cast("bump", { n: 5 });
    resumed.cast("boom", {});
    const sum = resumed.call("add", { n: 1 });
    await settle();
    expect(await sum).toEqual({ ok: true, value: 6 });

    const ended = sys.spawn(counter(), { supervision: { decide: () => "stop" } });
    const reasons: StopReason[] = [];
    ended.watch((reason) => reasons.push(reason));
    ended.cast("boom", {});
    await settle();
    expect(reasons).toMatchObject([{ code: "fault", message: "boom" }]);

    let parents = 0;
    const Parent = defineProtocol("parent", 1, { cast: { poke: z.null() } });
    const parent = sys.spawn(
      behavior(Parent, (ctx) => {
        parents += 1;
        const child = ctx.spawn(counter(), { name: "child", supervision: { decide: () => "escalate" } });
        return { cast: { poke: () => void child.cast("boom", {}) } };
      }),
      { name: "parent" },
    );
    parent.cast("poke", null);
    await clock.advance(1000);
    expect(parents).toBe(2);
    expect(sys.tree().find((each) => each.path === "parent")!.children).toHaveLength(1);
  });

  test.each([
    ["one-for-one", [1, 2, 1]],
    ["all-for-one", [2, 2, 2]],
    ["rest-for-one", [1, 2, 2]],
  ] as const)("%s restarts the right siblings", async (strategy, expected) => {
    const clock = new VirtualClock();
    const sys = system({ clock });
    const starts = [{ count: 0 }, { count: 0 }, { count: 0 }];
    const Parent = defineProtocol("parent", 1, { cast: { poke: z.null() } });
    const parent = sys.spawn(
      behavior(Parent, (ctx) => {
        const children = starts.map((each) => ctx.spawn(counter([], each), { supervision: { strategy } }));
        return { cast: { poke: () => void children[1]!.cast("boom", {}) } };
      }),
    );
    parent.cast("poke", null);
    await clock.advance(1000);
    expect(starts.map((each) => each.count)).toEqual(expected);
  });

  test("a shared child budget faults the parent", async () => {
    const clock = new VirtualClock();
    const sys = system({ clock });
    let parents = 0;
    const Parent = defineProtocol("parent", 1, { cast: { poke: z.number() } });
    const parent = sys.spawn(
      behavior(Parent, (ctx) => {
        parents += 1;
        const children = [ctx.spawn(counter()), ctx.spawn(counter())];
        return { cast: { poke: (i: number) => void children[i]!.cast("boom", {}) } };
      }),
      { childBudget: { maxRestarts: 2, withinMs: 60_000 } },
    );
    for (const i of [0, 1, 0]) {
      parent.cast("poke", i);
      await clock.advance(200);
    }
    expect(parents).toBe(2);
  });

  test("a restart stops children, cancels timers and tells the old instance", async () => {
    const clock = new VirtualClock();
    const sys = system({ clock });
    const events: string[] = [];
    let ticks = 0;
    const P = defineProtocol("p", 1, { cast: { boom: z.null() } });
    const ref = sys.spawn(
      behavior(P, (ctx) => {
        const id = events.filter((e) => e === "start").length;
        events.push("start");
        ctx.signal.addEventListener("abort", () => events.push(`abort${id}`));
        if (id === 0) ctx.timers.every("t", 10, () => void (ticks += 1));
        ctx.spawn(counter(), { name: "kid" });
        return {
          cast: {
            boom: () => {
              throw new Error("x");
            },
          },
          stopped: (reason) => void events.push(`stopped${id}:${reason.code}`),
        };
      }),
    );
    await clock.advance(25);
    expect(ticks).toBe(2);
    ref.cast("boom", null);
    await clock.advance(500);
    expect(ticks).toBe(2);
    expect(events).toEqual(["start", "abort0", "stopped0:restart", "start"]);
    const down = sys.shutdown();
    await clock.advance(0);
    await down;
    expect(events.slice(4)).toEqual(["abort1", "stopped1:shutdown"]);
    expect(clock.pendingTimers).toBe(0);
  });
});

describe("watch", () => {
  test("fires exactly once, also for an actor that has stopped already", async () => {
    const sys = system();
    const target = sys.spawn(counter());
    const P = defineProtocol("w", 1, { cast: { go: z.null() } });
    let fired = 0;
    const watcher = sys.spawn(
      behavior(P, (ctx) => {
        ctx.watch(target, () => void (fired += 1));
        ctx.watch(target, () => void (fired += 1)); // replaces the first
        return { cast: { go: () => ctx.watch(target, () => void (fired += 10)) } };
      }),
    );
    await sys.stop(target);
    await settle();
    expect(fired).toBe(1);
    watcher.cast("go", null);
    await settle();
    expect(fired).toBe(11);
  });

  test("unwatch before the turn keeps it silent", async () => {
    const sys = system();
    const target = sys.spawn(counter());
    const fired: StopReason[] = [];
    const end = target.watch((reason) => fired.push(reason));
    end();
    await sys.stop(target);
    await settle();
    expect(fired).toEqual([]);
  });
});

describe("calls", () => {
  const Slow = defineProtocol("slow", 1, {
    call: { hang: { request: z.null(), reply: z.null() }, quick: { request: z.null(), reply: z.number() } },
  });

  test("timeout, abort and a message that nobody waits for any more", async () => {
    const clock = new VirtualClock();
    const sys = system({ clock });
    let handled = 0;
    let release = (): void => undefined;
    const ref = sys.spawn(
      behavior(Slow, () => ({
        call: { hang: () => new Promise<null>((r) => (release = () => r(null))), quick: () => ++handled },
      })),
    );
    const hung = ref.call("hang", null, { timeoutMs: 100 });
    const late = ref.call("quick", null, { timeoutMs: 50 });
    const abort = new AbortController();
    const aborted = ref.call("quick", null, { timeoutMs: 10_000, signal: abort.signal });
    abort.abort();
    expect(await aborted).toMatchObject({ error: { code: "aborted" } });
    await clock.advance(200);
    expect(await hung).toMatchObject({ error: { code: "timeout" } });
    expect(await late).toMatchObject({ error: { code: "timeout" } });
    release();
    await settle();
    expect(handled).toBe(0);
    expect(sys.deadLetters.counts().expired).toBe(2);
    expect(clock.pendingTimers).toBe(0);
    expect(await ref.call("quick", null, { signal: AbortSignal.abort() })).toMatchObject({ error: { code: "aborted" } });
  });

  test("queued calls of a stopping actor are answered", async () => {
    const sys = system();
    const ref = sys.spawn(behavior(Slow, (ctx) => ({ call: { hang: () => (ctx.stop(), null), quick: () => 1 } })));
    const [first, second] = await Promise.all([ref.call("hang", null), ref.call("quick", null)]);
    expect(first).toEqual({ ok: true, value: null });
    expect(second).toMatchObject({ error: { code: "stopped" } });
    expect(await ref.call("quick", null)).toMatchObject({ error: { code: "stopped" } });
  });

  test("a cycle of awaiting calls fails at once, over any number of hops and after an await", async () => {
    for (const hops of [1, 2, 3, 5]) {
      const sys = system();
      const Ring = defineProtocol("ring", 1, { call: { go: { request: z.number(), reply: z.string() } } });
      const refs: ReturnType<typeof spawn>[] = [];
      const spawn = (i: number) =>
        sys.spawn(
          behavior(Ring, () => ({
            call: {
              go: async (left: number) => {
                await new Promise((r) => setImmediate(r));
                if (left === 0) return "end";
                const answer = await refs[(i + 1) % hops]!.call("go", left - 1, { timeoutMs: 20_000 });
                return answer.ok ? answer.value : answer.error.code;
              },
            },
          })),
        );
      for (let i = 0; i < hops; i++) refs.push(spawn(i));
      const started = performance.now();
      expect(await refs[0]!.call("go", hops, { timeoutMs: 20_000 })).toEqual({ ok: true, value: "cycle" });
      expect(await refs[0]!.call("go", hops - 1, { timeoutMs: 20_000 })).toEqual({ ok: true, value: "end" });
      expect(performance.now() - started).toBeLessThan(5000);
    }
  });

  test("piping a call to oneself is no cycle", async () => {
    const sys = system();
    const A = defineProtocol("a", 1, {
      call: { start: { request: z.null(), reply: z.null() }, back: { request: z.null(), reply: z.number() } },
    });
    const outcomes: unknown[] = [];
    const a = sys.spawn(
      behavior(A, (ctx) => ({
        call: {
          start: () => (ctx.pipeToSelf(b.call("start", null), (r) => void outcomes.push(r)), null),
          back: () => 42,
        },
      })),
    );
    const b = sys.spawn(
      behavior(A, () => ({
        call: {
          start: async () => {
            const r = await a.call("back", null);
            if (!r.ok) throw new Error(r.error.code);
            return null;
          },
          back: () => 0,
        },
      })),
    );
    await a.call("start", null);
    await settle(8);
    expect(outcomes).toEqual([{ ok: true, value: { ok: true, value: null } }]);
  });
});

describe("fairness and shutdown", () => {
  test("busy actors cannot starve the event loop", async () => {
    const sys = system();
    const Ball = defineProtocol("ball", 1, { cast: { hit: z.null() } });
    let isOver = false;
    const refs: { cast: (n: "hit", m: null) => unknown }[] = [];
    for (let i = 0; i < 2; i++) {
      refs.push(sys.spawn(behavior(Ball, () => ({ cast: { hit: () => void (isOver || refs[1 - i]!.cast("hit", null)) } }))));
    }
    const gaps: number[] = [];
    refs[0]!.cast("hit", null);
    let last = performance.now();
    for (let i = 0; i < 20; i++) {
      await new Promise((r) => setTimeout(r, 0));
      gaps.push(performance.now() - last);
      last = performance.now();
    }
    isOver = true;
    expect(gaps.sort((a, b) => a - b)[10]).toBeLessThan(60);
  });

  test("shutdown drains, stops in reverse order, and refuses new work", async () => {
    const sys = system();
    const order: string[] = [];
    const P = defineProtocol("p", 1, { cast: { x: z.number() } });
    const make = (name: string) =>
      sys.spawn(
        behavior(P, () => ({
          cast: {
            x: async (n: number) => {
              await new Promise((r) => setImmediate(r));
              order.push(`${name}${n}`);
            },
          },
          stopped: () => void order.push(`${name}!`),
        })),
        { name },
      );
    const [a, b] = [make("a"), make("b")];
    for (const n of [1, 2]) (a.cast("x", n), b.cast("x", n));
    const report = await sys.shutdown();
    expect(report.abandoned).toEqual([]);
    expect(order.filter((e) => e.startsWith("b"))).toEqual(["b1", "b2", "b!"]);
    expect(order.filter((e) => e.startsWith("a"))).toEqual(["a1", "a2", "a!"]);
    expect(order.indexOf("b!")).toBeLessThan(order.indexOf("a!"));
    expect(a.cast("x", 3)).toBe("stopped");
    expect(() => make("c")).toThrow(/shut down/);
  });

  test("past the deadline the rest is abandoned and reported", async () => {
    const clock = new VirtualClock();
    const sys = system({ clock });
    const P = defineProtocol("p", 1, { call: { hang: { request: z.null(), reply: z.null() } } });
    const ref = sys.spawn(behavior(P, () => ({ call: { hang: () => new Promise<null>(() => undefined) } })), { name: "stuck" });
    const call = ref.call("hang", null, { timeoutMs: 60_000 });
    await settle();
    const down = sys.shutdown({ deadlineMs: 1000 });
    await clock.advance(1001);
    expect((await down).abandoned).toEqual(["stuck"]);
    expect(await call).toMatchObject({ error: { code: "stopped" } });
    expect(clock.pendingTimers).toBe(0);
  });

  test("a probe records and answers", async () => {
    const sys = system();
    const probe = new Probe(Counter, { add: () => 9 });
    const ref = sys.spawn(probe.behavior);
    ref.cast("bump", { n: 4 });
    expect((await probe.expect(1))[0]).toMatchObject({ name: "bump", message: { n: 4 } });
    expect(await ref.call("add", { n: 1 })).toEqual({ ok: true, value: 9 });
  });
});
