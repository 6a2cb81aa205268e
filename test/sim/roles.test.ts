// A whole network of roles in virtual time, a worker lost in the middle; and half an hour of the runtime's workload in which nothing grows.
import { spawn } from "node:child_process";
import { join, resolve } from "node:path";
import { expect, it } from "vitest";

const root = resolve(import.meta.dirname, "../..");

function sim(args: readonly string[]): Promise<{ code: number | null; report: Record<string, unknown>; stderr: string }> {
  return new Promise((done) => {
    const child = spawn(process.execPath, [join(root, "scripts/sim.mjs"), ...args, "--json"], { cwd: root });
    let [stdout, stderr] = ["", ""];
    child.stdout.on("data", (data: Buffer) => { stdout += data.toString(); });
    child.stderr.on("data", (data: Buffer) => { stderr += data.toString(); });
    child.on("close", (code) => done({ code, stderr, report: JSON.parse(stdout.trim().split("\n").at(-1) || "{}") as Record<string, unknown> }));
  });
}

// seed 1 crashes a worker in the middle of the run; `--roles --seeds 5` also takes the master, a PoS and the PoW node
it("a network trains and settles with its ledger conserved when a worker crashes, the same way twice", { timeout: 600_000 }, async () => {
  const { code, report, stderr } = await sim(["--roles", "--seeds", "1", "--jobs", "1"]);
  expect(code, stderr).toBe(0);
  expect(report.failures).toEqual([]);
  expect(report.profiles).toEqual({ "roles, crash of worker-1": 1 });
  expect(report.counts).toMatchObject({ settled: 1, crashed: 1, "worker-lost": 1 });
});

it("half an hour under faults leaves the heap, timers, queues and calls where they were", { timeout: 300_000 }, async () => {
  const { code, report, stderr } = await sim(["--soak-hours", "0.5"]);
  expect(code, stderr).toBe(0);
  expect(report.violations).toEqual([]);
  expect((report.rests as unknown[]).length).toBeGreaterThanOrEqual(6);
});
