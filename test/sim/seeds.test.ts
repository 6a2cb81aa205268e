// Seeds of mixed faults over the runtime's protocols, each run twice; and an oracle that can say no.
import { spawn } from "node:child_process";
import { join, resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { Oracle } from "../../src/runtime/sim/workload/oracle.js";

const root = resolve(import.meta.dirname, "../..");
const SEEDS = 2_000;
/** Half the default: many short runs find more than few long ones in the same time (some 400 s of CPU for all). */
const ACTIVE_MS = 1_000;
const TIMEOUT_MS = 900_000;

interface Report {
  seeds: number; failed: number; profiles: Record<string, number>; counts: Record<string, number>;
  failures: { seed: number; violations: string[]; replay: string }[];
}

function sim(args: readonly string[]): Promise<{ code: number | null; stdout: string; stderr: string }> {
  return new Promise((done) => {
    const child = spawn(process.execPath, [join(root, "scripts/sim.mjs"), ...args], { cwd: root });
    let [stdout, stderr] = ["", ""];
    child.stdout.on("data", (data: Buffer) => { stdout += data.toString(); });
    child.stderr.on("data", (data: Buffer) => { stderr += data.toString(); });
    child.on("close", (code) => done({ code, stdout, stderr }));
  });
}

describe("npm run sim", () => {
  it(`${SEEDS} seeds: every oracle holds, both runs of a seed have one hash`, { timeout: TIMEOUT_MS }, async () => {
    const { code, stdout, stderr } = await sim(["--seeds", String(SEEDS), "--active-ms", String(ACTIVE_MS), "--jobs", "2", "--json"]);
    expect(code, stderr).toBe(0);
    const report = JSON.parse(stdout.trim().split("\n").at(-1)!) as Report;
    expect(report.failures).toEqual([]);
    expect(report.seeds).toBe(SEEDS);
    for (const profile of ["calm", "flaky", "crashes", "stalls", "mixed"]) expect(report.profiles[profile]).toBeGreaterThan(50);
    const happened = [
      "fault cut", "fault half-open", "fault clog", "fault partition", "fault crash", "fault stall", "fault replay", "calls: ok", "calls: timeout",
      "calls: aborted", "calls: refused", "calls: fault", "calls: cycle", "calls: unreachable", "calls: stopped", "calls: full", "watches",
      "dead letters: overflow", "dead letters: conflated", "dead letters: stopped", "dead letters: fault", "dead letters: undeliverable",
    ];
    expect(happened.filter((what) => !(report.counts[what]! > 0))).toEqual([]);
  });

  it("one seed again gives the same hash; a bad option says what was expected", { timeout: 60_000 }, async () => {
    const [first, second, bad] = await Promise.all([sim(["--seed", "7", "--json"]), sim(["--seed", "7", "--json"]), sim(["--seeds", "x"])]);
    const read = ({ stdout }: { stdout: string }) => JSON.parse(stdout) as { hash: string; replay: string };
    expect(read(first).hash).toBe(read(second).hash);
    expect(read(first).replay).toBe("npm run sim -- --seed 7");
    expect(bad).toMatchObject({ code: 2, stderr: expect.stringContaining("--seeds expects a number") as string });
  });
});

describe("oracle", () => {
  const message = (n: number) => ({ id: `x/${n}`, from: "x", stream: "b/sink/message", n });
  const verdictOf = (what: (oracle: Oracle) => void): string => {
    const oracle = new Oracle(() => 0);
    oracle.isCalm = true;
    what(oracle);
    oracle.finish();
    return oracle.violations.join("; ");
  };

  it.each([
    ["pair order", /pair order/, (oracle: Oracle) => { oracle.handled(message(2), true); oracle.handled(message(1), true); }],
    ["a duplicate", /handled twice/, (oracle: Oracle) => { oracle.handled(message(1), false); oracle.handled(message(1), false); }],
    ["a loss", /neither handled nor counted/, (oracle: Oracle) => oracle.accepted(message(1), true)],
    ["handled and dead", /handled and is a dead letter/, (oracle: Oracle) => { oracle.handled(message(1), true); oracle.deadLetter("overflow", message(1)); }],
    ["dead twice", /dead letter twice/, (oracle: Oracle) => { oracle.deadLetter("stopped", message(1)); oracle.deadLetter("stopped", message(1)); }],
    ["a call for ever", /never settled/, (oracle: Oracle) => oracle.called("c", "x", 10)],
    ["a call twice", /settled twice/, (oracle: Oracle) => { oracle.called("c", "x", 10); oracle.settled("c", "timeout", undefined); oracle.settled("c", "timeout", undefined); }],
    ["another's answer", /got the answer to d/, (oracle: Oracle) => { oracle.called("c", "x", 10); oracle.callRuns("c"); oracle.settled("c", "ok", "d"); }],
    ["a call handled twice", /handled twice/, (oracle: Oracle) => { oracle.callRuns("c"); oracle.callRuns("c"); }],
    ["a watch twice", /fired 2 times/, (oracle: Oracle) => { const { fire } = oracle.watched("x", "t"); fire(); fire(); }],
    ["a watch never", /never fired/, (oracle: Oracle) => void oracle.watched("x", "t")],
    ["a watch taken back", /after it had been taken back/, (oracle: Oracle) => { const { fire, takeBack } = oracle.watched("x", "t"); takeBack(); fire(); }],
  ] as const)("sees %s", (_name, expected, what) => expect(verdictOf(what)).toMatch(expected));

  it("asks nothing of an incarnation that crashed", () => {
    expect(verdictOf((oracle) => {
      oracle.accepted(message(1), true);
      oracle.called("c", "x", 10);
      oracle.watched("x", "t");
      oracle.crashed("x");
    })).toBe("");
  });
});
