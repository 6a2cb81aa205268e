// The GPU benchmark's scripts, run where there is no GPU: its cases on two of the CPU's instruction sets, its timings at
// small sizes, and a report that keeps what a failed step had printed.
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const run = promisify(execFile);
const script = (name: string): string => join("bench/gpu", `${name}.mjs`);
const objects = (text: string): Record<string, unknown>[] =>
  text.split("\n").filter((line) => line.startsWith("{")).map((line) => JSON.parse(line) as Record<string, unknown>);

describe("bench/gpu", () => {
  let folder: string;
  beforeAll(() => { folder = mkdtempSync(join(tmpdir(), "gpu-bench-")); });
  afterAll(() => { rmSync(folder, { recursive: true }); });

  it("compares every operation bit for bit", async () => {
    const { stdout } = await run(process.execPath, [script("check"), "--dry", "--short", "--rounds=1"]);
    const [result] = objects(stdout);
    expect(result).toMatchObject({ ok: true, rounds: 1 });
    for (const name of ["gemm", "exact", "bf16_gemm", "attention", "compression", "crm_scan", "blake3", "int8_gemm"]) {
      expect((result!.counts as Record<string, number>)[name], name).toBeGreaterThan(0);
    }
  }, 60_000);

  it("times calls and the GPT-2 step, one JSON object a line", async () => {
    const calls = objects((await run(process.execPath, [script("time"), "--dry", "--short", "--repeats=1"])).stdout);
    expect(calls.filter(({ name }) => name !== undefined)).toHaveLength(5);
    const steps = objects((await run(process.execPath, [script("gpt"), "--dry", "--short", "--steps=1"])).stdout);
    const timed = steps.filter(({ rate }) => rate !== undefined);
    expect(timed.map(({ name }) => name)).toEqual(["gpt2 bf16 b2 t64", "gpt2 f32 b2 t64"]);
    // Random tokens of 512: a loss near log(512), and bf16's beside f32's.
    for (const { losses } of timed) for (const loss of losses as number[]) expect(Math.abs(loss - Math.log(512))).toBeLessThan(0.2);
  }, 60_000);

  it("reports what a failed and a cut-short step had printed", async () => {
    const row = (name: string, rate: number) => JSON.stringify({ name, ms: 1, rate, unit: "GB/s" });
    const file = (name: string, text: string) => { writeFileSync(join(folder, name), text); };
    file("kernel-time.txt", `{"gpu":"one"}\n${row("device copy 2 GiB", 4000)}\n${row("adamw 1", 3600)}\n{"name": "cut sh`);
    file("kernel-time.status", "124\n");
    file("peers.txt", `warning\n${row("adamw 1", 3000)}\n${row("adamw 1 (compile)", 4000)}\n`);
    file("peers.status", "1\n");
    const result = join(folder, "result.json");
    const { stdout } = await run(process.execPath, [script("report"), folder, result]);
    expect(stdout).toMatch(/adamw 1 .* ratio 0.90 {2}90 % of copy/);
    const report = JSON.parse(readFileSync(result, "utf8")) as { steps: Record<string, { exit: number }>; kernels: { about: object; times: unknown[] } };
    expect(report.steps["kernel-time"]!.exit).toBe(124);
    expect(report.kernels.about).toEqual({ gpu: "one" });
    expect(report.kernels.times).toHaveLength(2);
  });

  it("refuses an unknown option with the known ones", async () => {
    await expect(run(process.execPath, [script("check"), "--rouns=2"])).rejects.toMatchObject({ code: 2, stderr: /known: --addon --seed --rounds/ });
  });
});
