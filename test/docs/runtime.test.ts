// docs/runtime.md is true: its first program runs, its limits are the code's, its metrics are those that are there.
import { execFile } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { DEAD_LETTER_REASONS } from "../../src/runtime/core/dead-letters.js";
import { SHUTDOWN_PHASES } from "../../src/runtime/core/shutdown.js";
import { SUPERVISION_DEFAULTS } from "../../src/runtime/core/supervision.js";
import * as entry from "../../src/runtime/index.js";
import * as limits from "../../src/runtime/wire/limits.js";

const root = resolve(import.meta.dirname, "../..");
const text = readFileSync(join(root, "docs/runtime.md"), "utf8");
const sources = readdirSync(join(root, "src/runtime"), { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".ts")).map((name) => readFileSync(join(root, "src/runtime", name), "utf8")).join("\n");

describe("docs/runtime.md", () => {
  it("begins with a program of ten lines that runs", async () => {
    const program = /```js\n([\s\S]*?)```/.exec(text)![1]!;
    expect(program.trim().split("\n").filter((line) => line !== "").length).toBeLessThanOrEqual(10);
    const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", program], { cwd: root, timeout: 20_000 });
    expect(stdout).toContain("{ ok: true, value: 2 }");
  });

  it("README.md's program runs too", async () => {
    const program = /```js\n([\s\S]*?)```/.exec(readFileSync(join(root, "README.md"), "utf8"))![1]!;
    const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", program], { cwd: root, timeout: 20_000 });
    expect(stdout).toContain("{ ok: true, value: 2 }");
  });

  it("lists every limit with its value", () => {
    const listed = [...text.matchAll(/^\| `([A-Z_]+)` \| ([\d,]+) \|/gm)].map(([, name, value]) => [name!, Number(value!.replaceAll(",", ""))]);
    expect(Object.fromEntries(listed)).toEqual({ ...limits });
  });

  it("lists every metric", () => {
    const listed = [...text.matchAll(/^\| `(runtime_[a-z_]+)` \| (counter|gauge) \|/gm)].map(([, name, kind]) => `${name} ${kind}`);
    const made = [...sources.matchAll(/name: "(runtime_[a-z_]+)",\s*kind: "(counter|gauge)"/g)].map(([, name, kind]) => `${name} ${kind}`);
    expect(made.length).toBeGreaterThan(10);
    expect(listed.sort()).toEqual([...new Set(made)].sort());
    for (const metric of made) expect(metric).toMatch(/_(total counter|bytes gauge|messages gauge|seconds gauge|pending gauge|open gauge|barred gauge)$/);
  });

  it("names every error code, dead-letter reason, shutdown phase and default", () => {
    const codes = /export type CallErrorCode =([\s\S]*?);/.exec(sources)![1]!.match(/"[a-z-]+"/g)!;
    for (const code of codes) expect(text).toContain(`| \`${code.slice(1, -1)}\` |`);
    for (const reason of DEAD_LETTER_REASONS) expect(text).toContain(`\`${reason}\``);
    for (const phase of SHUTDOWN_PHASES) expect(text).toContain(`"${phase}"`);
    const { maxRestarts, withinMs, backoff } = SUPERVISION_DEFAULTS;
    expect(text).toContain(`(${maxRestarts} within ${withinMs / 1000} s)`);
    expect(text).toContain(`(${backoff.initialMs} ms, ${backoff.maxMs / 1000} s, ${backoff.factor}, ${backoff.jitter})`);
  });

  it("names only what the entry exports", () => {
    const named = new Set([...text.matchAll(/`(?:new )?(create\w+|curveKeys|handOver|simRuntime|parseTraceparent|replyLater|exposeThread|seededRandom|settle|Probe|VirtualClock|MetricsRegistry|Refusal)\b/g)].map((match) => match[1]!));
    expect(named.size).toBeGreaterThan(8);
    expect([...named].filter((name) => !(name in entry))).toEqual([]);
  });
});
