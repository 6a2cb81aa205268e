// Random programs of spawns, casts, calls, faults, stashes and stops on a virtual clock, against what must hold for
// every one of them. A failing program is printed, shrunk, by fast-check.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import {
  behavior, createSystem, DEAD_LETTER_REASONS, defineProtocol, seededFaults, seededRandom, settle, silentLogger,
  VirtualClock, type CastResult, type Directive, type Overflow, type Ref, type StopReason, type Strategy, type System,
} from "../../src/runtime/index.js";

const Work = defineProtocol("work", 1, {
  call: { ask: { request: z.number(), reply: z.number() } },
  cast: {
    put: z.number(), slow: z.number(), fail: z.number(), keep: z.number(), release: z.number(), spawn: z.number(),
    end: z.number(),
  },
});
type WorkRef = Ref<typeof Work>;

const casts = ["put", "slow", "fail", "keep", "release", "spawn", "end"] as const;
const to = fc.nat(15);
const byMs = fc.constantFrom(0, 1, 7, 100, 2000);
const operation = fc.oneof(
  { weight: 12, arbitrary: fc.record({ do: fc.constant("cast" as const), to, name: fc.constantFrom(...casts) }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant("call" as const), to, timeoutMs: fc.constantFrom(5, 5000) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("stop" as const), to, drain: fc.boolean() }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("advance" as const), byMs }) },
);
const directive = fc.constantFrom<Directive>("restart", "restart", "resume", "escalate", "stop");
const settings = fc.record({
  strategy: fc.constantFrom<Strategy>("one-for-one", "all-for-one", "rest-for-one"),
  overflow: fc.constantFrom<Exclude<Overflow, object>>("reject", "drop-oldest", "drop-newest", "wait"),
  capacity: fc.integer({ min: 1, max: 6 }),
  stashCapacity: fc.integer({ min: 1, max: 3 }),
  maxRestarts: fc.integer({ min: 0, max: 4 }),
  childRestarts: fc.option(fc.integer({ min: 0, max: 4 }), { nil: undefined }),
  directives: fc.array(directive, { minLength: 1, maxLength: 5 }),
  onExhausted: fc.constantFrom("stop" as const, "escalate" as const),
  startFaults: fc.constantFrom(0, 0, 0.2),
  seed: fc.nat(),
});

const WITHIN_MS = 3000;

/** Counts what happens to each message, actor and watch of one program. */
class Account {
  readonly accepted = new Set<number>();
  readonly refused = new Set<number>();
  readonly handled = new Map<number, number>();
  readonly lettered = new Map<number, number>();
  readonly answers = new Map<number, number>();
  readonly ends = new Map<string, number>();
  readonly restartTimes = new Map<string, number[]>();
  spawned = 0;
  overlaps = 0;
  calls = 0;
}

interface Program {
  readonly account: Account;
  readonly system: System;
  readonly clock: VirtualClock;
  readonly roots: WorkRef[];
  readonly all: WorkRef[];
}

type Settings = typeof settings extends fc.Arbitrary<infer T> ? T : never;

function begin(options: Settings): Program {
  const clock = new VirtualClock();
  const account = new Account();
  const random = seededRandom(options.seed);
  const faults = seededFaults(options.seed, options.startFaults);
  const logger = {
    ...silentLogger,
    warn: (message: string, fields?: Readonly<Record<string, unknown>>) => {
      if (message !== "actor restarts") return;
      const times = account.restartTimes.get(String(fields!["actor"])) ?? [];
      account.restartTimes.set(String(fields!["actor"]), [...times, clock.nowMs()]);
    },
  };
  const system = createSystem({ name: "program", clock, random, logger });
  system.deadLetters.subscribe(({ reason, message }) => {
    const n = message as number;
    if (reason !== "stale") account.lettered.set(n, (account.lettered.get(n) ?? 0) + 1);
  });
  const all: WorkRef[] = [];
  let decisions = 0;
  const supervision = {
    strategy: options.strategy, maxRestarts: options.maxRestarts, withinMs: WITHIN_MS, onExhausted: options.onExhausted,
    decide: () => options.directives[decisions++ % options.directives.length]!,
  };
  const spawnOptions = {
    supervision, stashCapacity: options.stashCapacity,
    mailbox: { capacity: options.capacity, overflow: options.overflow },
    ...(options.childRestarts === undefined
      ? {}
      : { childBudget: { maxRestarts: options.childRestarts, withinMs: WITHIN_MS } }),
  };
  const note = (ref: WorkRef): WorkRef => {
    account.spawned += 1;
    const key = `${account.spawned}`;
    account.ends.set(key, 0);
    ref.watch((_: StopReason) => account.ends.set(key, account.ends.get(key)! + 1));
    all.push(ref);
    return ref;
  };
  const worker = behavior(Work, (ctx) => {
    faults.maybeThrow("factory");
    let busy = 0;
    const enter = (n: number): void => {
      if (busy > 0) account.overlaps += 1;
      account.handled.set(n, (account.handled.get(n) ?? 0) + 1);
    };
    return {
      call: { ask: (n) => (enter(n), n) },
      cast: {
        put: enter,
        slow: async (n) => {
          enter(n);
          busy += 1;
          await new Promise<void>((resolve) => clock.setTimer(resolve, 3));
          busy -= 1;
        },
        fail: () => {
          throw new Error("fail");
        },
        keep: (n) => {
          if (!ctx.stash()) enter(n);
        },
        release: (n) => {
          enter(n);
          ctx.unstash();
        },
        spawn: (n) => {
          enter(n);
          if (all.length < 16) note(ctx.spawn(worker, spawnOptions));
        },
        end: (n) => {
          enter(n);
          ctx.stop();
        },
      },
    };
  });
  const roots = [0, 1].map((i) => note(system.spawn(worker, { ...spawnOptions, name: `root${i}` })));
  return { account, system, clock, roots, all };
}

type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

async function run(program: Program, operations: readonly Operation[]): Promise<void> {
  const { account, all, clock, system } = program;
  for (const [n, each] of operations.entries()) {
    if (each.do === "advance") {
      await clock.advance(each.byMs);
      continue;
    }
    const ref = all[each.to % all.length]!;
    if (each.do === "stop") void system.stop(ref, { drain: each.drain });
    else if (each.do === "cast") {
      const result: CastResult = ref.cast(each.name, n);
      (result === "accepted" ? account.accepted : account.refused).add(n);
    } else {
      account.calls += 1;
      account.accepted.add(n);
      void ref.call("ask", n, { timeoutMs: each.timeoutMs }).then((result) => {
        account.answers.set(n, (account.answers.get(n) ?? 0) + 1);
        if (!result.ok && result.error.code === "full") account.refused.add(n);
      });
    }
  }
}

/** The most restarts that any window of WITHIN_MS holds. */
function mostWithin(times: readonly number[]): number {
  return Math.max(0, ...times.map((end) => times.filter((time) => time <= end && end - time < WITHIN_MS).length));
}

describe("any program of actors", () => {
  test("each message has one end, each watch fires once, bounds hold, none is left", { timeout: 60_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(settings, fc.array(operation, { maxLength: 80 }), async (options, operations) => {
        const program = begin(options);
        const { account, system, clock } = program;
        await run(program, operations);
        await clock.advance(20_000);
        const bound = (reports: ReturnType<System["tree"]>): void => {
          for (const report of reports) {
            expect(report.stashDepth).toBeLessThanOrEqual(options.stashCapacity);
            expect(report.queueDepth).toBe(0); // nobody is busy any more
            expect(["running", "stopped"]).toContain(report.state); // and nobody is left suspended
            bound(report.children);
          }
        };
        bound(system.tree());
        const down = system.shutdown({ deadlineMs: 1000 });
        await clock.advance(1000);
        expect((await down).abandoned).toEqual([]);
        await settle();
        for (const n of account.accepted) {
          const handled = account.handled.get(n) ?? 0;
          const lettered = account.lettered.get(n) ?? 0;
          const isRefusedCall = account.refused.has(n);
          expect([n, handled + lettered]).toEqual([n, isRefusedCall && lettered === 0 ? 0 : 1]);
        }
        for (const n of account.refused) expect(account.handled.get(n) ?? 0).toBe(0);
        expect([...account.answers.values()].every((count) => count === 1)).toBe(true);
        expect(account.answers.size).toBe(account.calls);
        expect(account.overlaps).toBe(0);
        expect([...account.ends.values()].every((count) => count === 1)).toBe(true);
        for (const times of account.restartTimes.values()) {
          expect(mostWithin(times)).toBeLessThanOrEqual(options.maxRestarts);
        }
        expect(system.tree()).toEqual([]);
        expect(clock.pendingTimers).toBe(0);
        const { byReason, total } = system.inspect().deadLetters;
        expect(DEAD_LETTER_REASONS.reduce((sum, reason) => sum + byReason[reason], 0)).toBe(total);
      }),
      { numRuns: 300 },
    );
  });
});
