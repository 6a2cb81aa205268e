// Owns what tracing costs while it is off, and with a recorder on: three builds of the same workload take turns in one
// process, a few milliseconds each, so that a difference of a few per cent shows through the machine's other work.
// "untraced" is a copy of the build in which every branch on `isTracing` is `false`. Figures are by CPU time.
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { workloads } from "./local-workloads.mjs";
import { print, sideArguments } from "./timing.mjs";

/** cast, call, currentTrace and the turn each ask once. */
const BRANCHES_MIN = 4;
/** One turn of one build: short against what else comes and goes, long against the clock's grain. */
const STRETCH_US = 10_000;

const { measure, seconds } = sideArguments(["cast", "ask", "askWindow"]);
const folder = mkdtempSync(join(tmpdir(), "bench-untraced-"));
// A copy of the modules each: what one build sends through them must not shape the code that another runs.
const traced = await copyOfRuntime("traced");
const builds = {
  ours: contender(await copyOfRuntime("ours")),
  untraced: contender(await copyOfRuntime("untraced", withoutBranches)),
  traced: contender(traced, { tracer: traced.createSpanRecorder(traced.createNodeHost("bench")) }),
};

for (const each of Object.values(builds)) await calibrate(each);
const rounds = [];
const end = performance.now() + seconds * 1000;
while (performance.now() < end || rounds.length < 10) {
  const round = {};
  // Every other round backwards: whoever comes second finds a warmer cache and an older heap.
  const names = Object.keys(builds);
  for (const name of rounds.length % 2 === 0 ? names : names.reverse()) round[name] = await stretch(builds[name]);
  rounds.push(round);
}
for (const { system } of Object.values(builds)) await system.shutdown();
rmSync(folder, { recursive: true });

const median = (xs) => xs.sort((a, b) => a - b)[xs.length >> 1];
const ours = median(rounds.map((round) => round.ours));
// A peer's figure is ours over the median ratio, so that the suite's division gives that ratio back.
const against = (name) => ({ perSecond: ours / median(rounds.map((round) => round.ours / round[name])) });
print({ perSecond: ours }, undefined, { untraced: against("untraced"), traced: against("traced") });

function contender(build, options = {}) {
  const system = build.createSystem({ name: "bench", logger: build.silentLogger, ...options });
  return { system, ...workloads(build)[measure](system), count: 0 };
}

async function calibrate(each) {
  each.count = each.first ?? 64;
  const { first = 64 } = each;
  for (let warm = 0; warm < 20; warm++) {
    const perSecond = await stretch(each);
    each.count = Math.max(first, Math.round((perSecond * STRETCH_US) / 1e6 / first) * first);
  }
}

async function stretch({ go, count }) {
  const start = process.cpuUsage();
  await go(count);
  const { user, system } = process.cpuUsage(start);
  return (count / (user + system)) * 1e6;
}

async function copyOfRuntime(name, change = () => undefined) {
  const copy = join(folder, name, "runtime");
  const root = fileURLToPath(new URL("../..", import.meta.url));
  cpSync(join(root, "dist/runtime"), copy, { recursive: true });
  writeFileSync(join(folder, name, "package.json"), '{ "type": "module" }');
  symlinkSync(join(root, "node_modules"), join(folder, name, "node_modules"));
  change(join(copy, "core"));
  return import(pathToFileURL(join(copy, "index.js")));
}

function withoutBranches(core) {
  let branches = 0;
  for (const name of readdirSync(core)) {
    if (!name.endsWith(".js")) continue;
    const file = join(core, name);
    const text = readFileSync(file, "utf8");
    writeFileSync(
      file,
      text.replace(/\b(?:[a-z]+\.)*isTracing\b(?= ?[)&|?])/g, () => ((branches += 1), "false")),
    );
  }
  if (branches < BRANCHES_MIN) throw new Error(`only ${branches} branches on isTracing in ${core}: mend the pattern`);
}
