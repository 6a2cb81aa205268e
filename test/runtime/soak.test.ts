// The soak of bench/runtime/soak.mjs, short: links are cut, a process is killed, actors crash, and nothing is left behind.
import { execFile } from "node:child_process";
import { resolve } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";

const root = resolve(import.meta.dirname, "../..");

test("twelve seconds of traffic, cuts and kills leave no handle, timer, call, actor or byte behind", { timeout: 120_000 }, async () => {
  const { stdout } = await promisify(execFile)(
    process.execPath, ["--expose-gc", "bench/runtime/soak.mjs", "--minutes", "0.2"], { cwd: root, timeout: 110_000 },
  ).catch((error: { stdout: string; stderr: string; message: string }) => {
    if (error.stdout) return error;
    throw new Error(`${error.message}\n${error.stderr}`);
  });
  const { totals, outcomes, problems } = JSON.parse(stdout) as {
    totals: Record<"calls" | "kills" | "cuts" | "crashes" | "watches" | "watchesFired", number>;
    outcomes: Record<string, number>;
    problems: string[];
  };
  expect(problems).toEqual([]);
  for (const name of ["calls", "kills", "cuts", "crashes", "watches"] as const) expect(totals[name], name).toBeGreaterThan(0);
  expect(outcomes["ok"]).toBeGreaterThan(outcomes["unreachable"] ?? 0);
});
