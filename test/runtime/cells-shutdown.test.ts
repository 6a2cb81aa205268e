// Coordinated shutdown: the order of its phases, one deadline over all, and a report that names what did not finish.
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { behavior, defineProtocol, settle, VirtualClock, type ShutdownPhase } from "../../src/runtime/index.js";
import { testSystem } from "./systems.js";

const P = defineProtocol("p", 1, {
  call: { hang: { request: z.null(), reply: z.null() } },
  cast: { work: z.number() },
});
const never = (): Promise<never> => new Promise(() => undefined);

describe("coordinated shutdown", () => {
  test("phases run in order around the actors, each once", async () => {
    const system = testSystem();
    const events: string[] = [];
    for (const phase of ["after-links", "after-actors", "before-actors", "refuse-input"] as const) {
      system.onShutdown(phase, phase, async () => {
        await settle(1);
        events.push(phase);
      });
    }
    const ref = system.spawn(
      behavior(P, () => ({
        call: { hang: () => null },
        cast: { work: (n) => void events.push(`work${n}`) },
        stopped: () => void events.push("stopped"),
      })),
    );
    system.onShutdown("before-actors", "last work", () => void ref.cast("work", 1));
    const takeBack = system.onShutdown("before-actors", "taken back", () => void events.push("taken back"));
    takeBack();
    const [first, second] = await Promise.all([system.shutdown(), system.shutdown()]);
    expect(first).toBe(second);
    expect(first).toMatchObject({ abandoned: [], unfinished: [] });
    expect(events.filter((each) => !each.startsWith("work"))).toEqual([
      "refuse-input", "before-actors", "stopped", "after-actors", "after-links",
    ]);
    expect(events.indexOf("work1")).toBeGreaterThan(events.indexOf("refuse-input"));
    expect(events.indexOf("work1")).toBeLessThan(events.indexOf("stopped"));
    expect(() => system.onShutdown("after-links", "late", () => undefined)).toThrow(/shut down/);
  });

  test("hooks that hang or throw are named, and the rest still happens under the one deadline", async () => {
    const clock = new VirtualClock();
    const system = testSystem({ clock });
    let isClosed = false;
    system.onShutdown("refuse-input", "hangs", never);
    system.onShutdown("refuse-input", "throws", () => {
      throw new Error("no");
    });
    system.onShutdown("before-actors", "rejects", () => Promise.reject(new Error("never")));
    system.onShutdown("after-links", "close store", () => void (isClosed = true));
    const ref = system.spawn(behavior(P, () => ({ call: { hang: never }, cast: { work: () => undefined } })), {
      name: "stuck",
    });
    void ref.call("hang", null, { timeoutMs: 60_000 });
    await settle();
    const startMs = clock.nowMs();
    const down = system.shutdown({ deadlineMs: 1000 });
    await clock.advance(1000);
    const report = await down;
    expect(report.abandoned).toEqual(["stuck"]);
    const named = report.unfinished.map(({ phase, name, reason }) => [phase, name, reason]);
    expect(named).toEqual([
      ["refuse-input", "throws", "failed"],
      ["refuse-input", "hangs", "deadline"],
      ["before-actors", "rejects", "failed"],
    ]);
    expect(isClosed).toBe(true);
    expect(report.durationMs).toBeLessThanOrEqual(1000);
    expect(clock.nowMs() - startMs).toBe(1000);
    expect(clock.pendingTimers).toBe(0);
  });

  test("a phase that does not exist is refused with the list of those that do", () => {
    const system = testSystem();
    const late = (): unknown => system.onShutdown("later" as ShutdownPhase, "x", () => undefined);
    expect(late).toThrow(/refuse-input, before-actors/);
  });
});
