// A whole network of roles in virtual time, each seed twice; and hours of the runtime's workload in which nothing grows.
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

// seeds 1 to 3 crash a worker, the master and a PoS node in the middle of the run
it("a network trains and settles, whoever crashes, and both runs of a seed have one hash", { timeout: 900_000 }, async () => {
  const { code, report, stderr } = await sim(["--roles", "--seeds", "3", "--jobs", "1"]);
  expect(code, stderr).toBe(0);
  expect(report.failures).toEqual([]);
  expect(Object.keys(report.profiles as object).sort()).toEqual(
    ["roles, crash of master", "roles, crash of pos-1", "roles, crash of worker-1"]);
  expect(report.counts).toMatchObject({ settled: 3, crashed: 3, "worker-lost": 1 });
});

it("an hour under faults leaves the heap, timers, queues and calls where they were", { timeout: 300_000 }, async () => {
  const { code, report, stderr } = await sim(["--soak-hours", "1"]);
  expect(code, stderr).toBe(0);
  expect(report.violations).toEqual([]);
  expect((report.rests as unknown[]).length).toBeGreaterThanOrEqual(6);
});
