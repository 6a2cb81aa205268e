// The examples run as their head comments say, from the built package, and print what they promise.
import { execFile } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { parse } from "smol-toml";
import { afterAll, describe, expect, it } from "vitest";
import { NodeConfigSchema, ROLES } from "../../src/actors/node/config.js";
import { checkGenesis, type Genesis } from "../../src/chain/genesis.js";

const root = resolve(import.meta.dirname, "../..");

const folder = mkdtempSync(join(tmpdir(), "tesra-examples-"));
/** What is printed is compared as text, so no colours, whatever this environment asks for. */
const { FORCE_COLOR: _, ...plain } = process.env;
const env = { ...plain, NO_COLOR: "1" };
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** What each example prints when it did its work. */
const EXAMPLES: Record<string, { args?: string[]; prints: RegExp[]; timeoutMs: number }> = {
  "runtime/supervised-counter.mjs": {
    timeoutMs: 20_000, prints: [/after the restart: \{ ok: true, value: 5 \} \(start 2\)/, /abandoned: \[\]/],
  },
  "runtime/two-process-ping.mjs": {
    timeoutMs: 30_000, prints: [/ping 41: \{ ok: true, value: 42 \}/, /there and back: true/, /killed: \{ code: 'unreachable'/,
      /another incarnation: true/, /the old ref: unreachable - a new one: \{ ok: true, value: 2 \}/],
  },
  "runtime/work-pulling.mjs": {
    // the queue holds eight, and one more for the moment in which a killed worker's job comes back
    timeoutMs: 60_000, prints: [/300 results, all right: true; deepest queue: [89]\b/, /jobs given: 30[0-9], taken back from the killed worker: [01]/],
  },
  "runtime/simulated-test.mjs": { timeoutMs: 60_000, prints: [/10 seeds, each run twice with the same events; every payment counted once over \d+ retries/] },
  "runtime/durable-outbox.mjs": {
    timeoutMs: 60_000,
    prints: [/200 payments on disk before there is a link/, /reliable alert: accepted - to the process that is gone: stopped/, /confirmed 200, coins 1000 of 1000, alerts 1/],
  },
  "runtime/hono-service.mjs": {
    timeoutMs: 30_000,
    prints: [/\[ 200, \{ pixels: 409600 \} \] \[ 422, \{ error: 'too-wide' \} \] \[ 400/, /a burst of 300: true true/, /path: 'resizer', state: 'running'/,
      /metrics: runtime_actor_messages_total\{system="images",actor="resizer"\} \d+/, /shut down: \{ abandoned: \[\], unfinished: \[\]/],
  },
  "training/local-mlp.mjs": {
    // ten classes: chance is 10 %
    timeoutMs: 60_000, prints: [/535824 parameters/, /epoch 2: loss 0\.\d+, test accuracy (?:[7-9]\d|100)\.\d %/],
  },
  "training/gpt2-text.mjs": {
    timeoutMs: 60_000, // the loss begins at log 256 = 5.5
    prints: [/28 tensors, 120\d{3} weights/, /step 1: loss 5\.\d+\nstep 60: loss [0-3]\.\d+/, /sampled: ".+"/, /tokens\/s sampled/, /written and read back: true/],
  },
  "training/onnx-finetune.mjs": {
    timeoutMs: 60_000, prints: [/pytorch .*12 weights/, /step 1: loss 2\.\d+\nstep 40: loss 0\.\d+/, /(1[6-9]|20) of 20 right; exported \d+ bytes, read back within (0|\de-)/],
  },
  "network/create-network.mjs": { args: [folder], timeoutMs: 30_000, prints: [/supernet node --config/, /supernet submit/] },
  "network/session.mjs": {
    timeoutMs: 120_000,
    prints: [/task 1 opened in block \d+/, /settled: 24576 samples, test accuracy (?:[89]\d|100)\.\d %/, /payment/, /what came in less what went out: 0 wei/],
  },
};
const HELPERS = ["training/synthetic.mjs"];

describe("examples", () => {
  it("are all run here", () => {
    const found = readdirSync(join(root, "examples"), { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".mjs"));
    expect(found.filter((name) => !HELPERS.includes(name)).sort()).toEqual(Object.keys(EXAMPLES).sort());
  });

  it.each(Object.entries(EXAMPLES))("%s", { timeout: 130_000 }, async (name, { args = [], prints, timeoutMs }) => {
    const { stdout } = await promisify(execFile)(process.execPath, [join("examples", name), ...args], { cwd: root, timeout: timeoutMs, env });
    for (const expected of prints) expect(stdout).toMatch(expected);
  });

  it("create-network writes files that nodes take", () => {
    checkGenesis(JSON.parse(readFileSync(join(folder, "genesis.json"), "utf8")) as Genesis);
    for (const role of ROLES) {
      const config = NodeConfigSchema.parse(parse(readFileSync(join(folder, `${role}.toml`), "utf8")));
      expect([config.role, config.bootstrap.length]).toEqual([role, role === "master" ? 0 : 1]);
    }
  });
});

describe("docs/operations.md", () => {
  const text = readFileSync(join(root, "docs/operations.md"), "utf8");
  const blocks = [...text.matchAll(/```toml\n([\s\S]*?)```/g)].map((match) => match[1]!);

  it("shows configurations that a node takes", () => {
    const roles = blocks.map((block) => NodeConfigSchema.parse(parse(block)).role);
    expect(roles).toEqual(["pos", "master", "worker", "pow"]);
  });

  it("documents every field of a configuration", () => {
    for (const field of Object.keys(NodeConfigSchema.shape)) expect(text).toMatch(new RegExp(`^\\[*${field}\\b|\`${field} `, "m"));
  });
});
