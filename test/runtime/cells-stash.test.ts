// Messages put aside by their actor: order, answers, bounds, restarts and the end.
import { describe, expect, test } from "vitest";
import { z } from "zod";
import {
  behavior, defineProtocol, RuntimeError, settle, VirtualClock, type Context, type SpawnOptions, type System,
} from "../../src/runtime/index.js";
import { testSystem } from "./systems.js";

const Door = defineProtocol("door", 1, {
  call: { ask: { request: z.number(), reply: z.string() } },
  cast: { put: z.number(), open: z.null(), boom: z.null() },
});

/** Handles nothing but `open` before it is open. */
function spawnDoor(system: System, options: SpawnOptions = {}, openAfterStart = 1) {
  const seen: (number | string)[] = [];
  const refused: number[] = [];
  let starts = 0;
  const ref = system.spawn(
    behavior(Door, (ctx) => {
      starts += 1;
      let isOpen = starts > openAfterStart;
      const keep = (n: number): boolean => {
        if (isOpen) return false;
        if (ctx.stash()) return true;
        refused.push(n);
        return false;
      };
      return {
        call: {
          ask: (n: number) => {
            if (keep(n)) return "not sent";
            seen.push(`ask${n}`);
            return `answer ${n}`;
          },
        },
        cast: {
          put: (n: number) => void (keep(n) || seen.push(n)),
          open: () => {
            isOpen = true;
            ctx.unstash();
          },
          boom: () => {
            throw new Error("boom");
          },
        },
      };
    }),
    { name: "door", ...options },
  );
  return { ref, seen, refused };
}

describe("stash", () => {
  test("stashed messages come back in order, before what arrived since; a stashed call is answered", async () => {
    const system = testSystem();
    const { ref, seen } = spawnDoor(system);
    ref.cast("put", 1);
    const answer = ref.call("ask", 2);
    ref.cast("put", 3);
    await settle();
    expect(seen).toEqual([]);
    expect(system.inspect().actors[0]).toMatchObject({ stashDepth: 3, queueDepth: 0 });
    ref.cast("open", null);
    ref.cast("put", 4);
    expect(await answer).toEqual({ ok: true, value: "answer 2" });
    await settle();
    expect(seen).toEqual([1, "ask2", 3, 4]);
    expect(system.deadLetters.total).toBe(0);
  });

  test("a full stash says so and the handler goes on", async () => {
    const system = testSystem();
    const { ref, seen, refused } = spawnDoor(system, { stashCapacity: 2 });
    for (const n of [1, 2, 3]) ref.cast("put", n);
    await settle();
    expect(refused).toEqual([3]);
    ref.cast("open", null);
    await settle();
    expect(seen).toEqual([3, 1, 2]);
  });

  test("outlives a restart: a new instance gets the messages first", async () => {
    const clock = new VirtualClock();
    const system = testSystem({ clock });
    const { ref, seen } = spawnDoor(system);
    ref.cast("put", 1);
    const answer = ref.call("ask", 2, { timeoutMs: 60_000 });
    ref.cast("boom", null);
    ref.cast("put", 3);
    await clock.advance(1000);
    expect(seen).toEqual([1, "ask2", 3]);
    expect(await answer).toMatchObject({ ok: true });
  });

  test("ends as dead letters with its actor, and its calls are answered", async () => {
    const system = testSystem();
    const { ref } = spawnDoor(system);
    ref.cast("put", 1);
    const answer = ref.call("ask", 2);
    await settle();
    await system.stop(ref);
    expect(await answer).toMatchObject({ error: { code: "stopped" } });
    expect(system.deadLetters.counts().stopped).toBe(2);
  });

  test("a handler that stashes and then throws has handled its message: it is not seen again", async () => {
    const clock = new VirtualClock();
    const system = testSystem({ clock });
    let handled = 0;
    const ref = system.spawn(
      behavior(Door, (ctx) => ({
        call: { ask: () => "" },
        cast: {
          put: () => {
            handled += 1;
            ctx.stash();
            throw new Error("after all");
          },
          open: () => ctx.unstash(),
          boom: () => undefined,
        },
      })),
    );
    ref.cast("put", 1);
    await clock.advance(1000);
    ref.cast("open", null);
    await clock.advance(1000);
    expect(handled).toBe(1);
    expect(system.deadLetters.counts().fault).toBe(1);
  });

  test("an async handler may stash after an await; outside a handler stash is an error", async () => {
    const system = testSystem();
    let context: Context | undefined;
    const seen: number[] = [];
    let isOpen = false;
    const ref = system.spawn(
      behavior(Door, (ctx) => {
        context = ctx as unknown as Context;
        return {
          call: { ask: () => "" },
          cast: {
            put: async (n: number) => {
              await new Promise((resolve) => setImmediate(resolve));
              if (isOpen) seen.push(n);
              else ctx.stash();
            },
            open: () => {
              isOpen = true;
              ctx.unstash();
            },
            boom: () => undefined,
          },
        };
      }),
    );
    for (const n of [1, 2]) ref.cast("put", n);
    await settle(8);
    expect(() => context!.stash()).toThrow(RuntimeError);
    ref.cast("open", null);
    await settle(8);
    expect(seen).toEqual([1, 2]);
  });

  test("a stash of no size is refused at once", async () => {
    const clock = new VirtualClock();
    const system = testSystem({ clock });
    const { ref } = spawnDoor(system, { stashCapacity: 0, supervision: { decide: () => "stop" } });
    const reasons: string[] = [];
    ref.watch((reason) => reasons.push(reason.message));
    ref.cast("put", 1);
    await settle();
    expect(reasons[0]).toContain("stashCapacity");
  });
});
