// The examples run as their head comments say, from the built package, and print what they promise.
import { execFile } from "node:child_process";
import { readdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";

const root = resolve(import.meta.dirname, "../..");

/** What each example prints when it did its work. */
const EXAMPLES: Record<string, { args?: string[]; prints: RegExp[]; timeoutMs: number }> = {
  "runtime/supervised-counter.mjs": {
    timeoutMs: 20_000, prints: [/after the restart: \{ ok: true, value: 5 \} \(start 2\)/, /abandoned: \[\]/],
  },
  "runtime/two-process-ping.mjs": {
    timeoutMs: 30_000, prints: [/ping 41: \{ ok: true, value: 42 \}/, /there and back: true/, /killed: \{ code: 'unreachable'/],
  },
  "training/local-mlp.mjs": {
    // ten classes: chance is 10 %
    timeoutMs: 60_000, prints: [/535824 parameters/, /epoch 2: loss 0\.\d+, test accuracy (?:[7-9]\d|100)\.\d %/],
  },
  "network/session.mjs": {
    timeoutMs: 120_000,
    prints: [/task 1 opened in block \d+/, /settled: 24576 samples, test accuracy (?:[3-9]\d|100)\.\d %/, /payment/, /what came in less what went out: 0 wei/],
  },
};
const HELPERS = ["training/synthetic.mjs"];

describe("examples", () => {
  it("are all run here", () => {
    const found = readdirSync(join(root, "examples"), { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".mjs"));
    expect(found.filter((name) => !HELPERS.includes(name)).sort()).toEqual(Object.keys(EXAMPLES).sort());
  });

  it.each(Object.entries(EXAMPLES))("%s", { timeout: 130_000 }, async (name, { args = [], prints, timeoutMs }) => {
    const { stdout } = await promisify(execFile)(process.execPath, [join("examples", name), ...args], { cwd: root, timeout: timeoutMs });
    for (const expected of prints) expect(stdout).toMatch(expected);
  });
});
