// The measuring command end to end on our side alone: shape of its JSON and its errors, never a speed.
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, describe, expect, it } from "vitest";

const root = resolve(import.meta.dirname, "../..");
const directory = mkdtempSync(join(tmpdir(), "bench-"));
afterAll(() => rmSync(directory, { recursive: true }));

interface Row {
  line: string;
  name: string;
  unit: string;
  runs: number;
  ours: number;
  oursMin: number;
  oursMax: number;
  peer: null;
  ratio: null;
  isReached: null;
  reason: string;
  load: number[];
}

function bench(...args: string[]): Promise<{ code: number | string | undefined; stdout: string; stderr: string }> {
  return new Promise((resolved) => {
    execFile(process.execPath, [join(root, "bench/main.mjs"), ...args], { cwd: root }, (error, stdout, stderr) => {
      resolved({ code: error === null ? 0 : (error.code ?? error.signal ?? undefined), stdout, stderr });
    });
  });
}

describe("bench runtime", () => {
  it("measures our side alone and writes JSON", { timeout: 60_000 }, async () => {
    const output = join(directory, "runtime.json");
    const { code, stdout, stderr } = await bench(
      "runtime",
      "--quick",
      "--no-peers",
      "--runs",
      "1",
      "--only",
      "cast,ask,remote-ask-ipc",
      "--json",
      "--output",
      output,
    );
    expect(code, stderr).toBe(0);
    const report = JSON.parse(stdout.trim().split("\n").at(-1)!) as {
      suite: string;
      machine: { versions: { node: string } };
      results: Row[];
    };
    expect(JSON.parse(readFileSync(output, "utf8"))).toEqual(report);
    expect(report.suite).toBe("runtime");
    expect(report.machine.versions.node).toBe(process.versions.node);
    expect(report.results.map(({ line, unit }) => `${line} ${unit}`)).toEqual([
      "cast msg/s",
      "ask ask/s",
      "ask-window ask/s",
      "remote-ask-ipc us",
      "remote-ask-ipc us",
    ]);
    for (const row of report.results) {
      expect(row.ours).toBeGreaterThan(0);
      expect(row).toMatchObject({ runs: 1, peer: null, ratio: null, isReached: null, reason: "peers left out" });
      expect(row.oursMin).toBeLessThanOrEqual(row.oursMax);
      expect(stderr).toContain(row.name);
    }
  });

  it("names the lines there are when one is asked for that is not there", async () => {
    const { code, stderr } = await bench("runtime", "--only", "nothing");
    expect(code).toBe(2);
    expect(stderr).toContain('no line "nothing"');
    expect(stderr).toContain("spawn-stop");
  });

  it("rejects an unknown suite and a bad count of runs", async () => {
    expect(await bench("nothing")).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("training, runtime") as string,
    });
    expect(await bench("runtime", "--runs", "0")).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("from 1 to 100") as string,
    });
  });
});
