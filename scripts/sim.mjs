// Owns `npm run sim`: many seeds of the simulator in worker processes, each run twice; soaks; replays.
// Invariant: a seed that fails is told with the command that repeats it, and makes the exit code 1.
import { fork } from "node:child_process";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const here = fileURLToPath(import.meta.url);
const dist = join(dirname(here), "..", "dist");
const load = (path) => import(pathToFileURL(join(dist, path)).href);

const HELP = `Usage: npm run sim -- [options]

Runs the runtime's actors under a seeded virtual clock, scheduler and network: delays, lost connections, stalls,
asymmetric partitions, replays, crashes with torn writes. Every seed runs twice and must give the same event hash.

  --seeds N        how many seeds (default 100)
  --start S        the first one (default 1)
  --seed S         one seed alone: prints its verdict and, when it fails, its last events
  --active-ms M    virtual time under faults of each seed (default 2000)
  --roles          seeds of a whole network of roles: it trains and settles a task (many seconds a run)
  --soak-hours H   one long run under periodic faults: nothing may grow
  --time-limit S   stop after so many seconds; seeds not run are no failure
  --jobs J         worker processes (default: one a core)
  --trace          with --seed: print every event
  --json           the last line of stdout is one JSON object
  --help

Examples:
  npm run sim -- --seeds 2000
  npm run sim -- --seeds 1000000 --start 5000 --time-limit 3600
  npm run sim -- --seed 42 --trace
  npm run sim -- --roles --seeds 3
  npm run sim -- --soak-hours 24

Exit code: 0 all is well, 1 a seed failed, 2 a bad option.`;

const NUMBERS = { "--seeds": 100, "--start": 1, "--seed": undefined, "--active-ms": undefined, "--soak-hours": undefined,
  "--time-limit": undefined, "--jobs": undefined };
const FLAGS = ["--json", "--trace", "--roles", "--help", "--worker", "--once"];
/** Seeds that a worker takes at a time: asking for more costs less than a run. */
const CHUNK_SEEDS = 8;
const FAILURES_TOLD_MAX = 5;
const TAIL_EVENTS_TOLD = 60;

/** Native and file work of the roles runs on libuv's pool; one thread makes its order that of its start. */
const childEnv = { ...process.env, UV_THREADPOOL_SIZE: "1" };

function usageError(text) {
  process.stderr.write(`sim: ${text}\nTry: npm run sim -- --help\n`);
  process.exit(2);
}

function parse(args) {
  const options = { ...NUMBERS };
  for (let i = 0; i < args.length; i++) {
    const [name, inline] = args[i].split("=", 2);
    if (FLAGS.includes(name)) options[name] = true;
    else if (name in NUMBERS) {
      const text = inline ?? args[(i += 1)];
      const value = Number(text);
      const isFine = text !== undefined && text !== "" && (name === "--soak-hours" || name === "--time-limit" ? value > 0 : Number.isSafeInteger(value) && value >= 0);
      if (!isFine) usageError(`${name} expects a number, got ${JSON.stringify(text)}`);
      options[name] = value;
    } else usageError(`unknown option ${args[i]}`);
  }
  if (options["--seeds"] === 0 || options["--jobs"] === 0) usageError("--seeds and --jobs expect at least 1");
  return options;
}

const options = parse(process.argv.slice(2));
if (options["--help"]) {
  console.log(HELP);
  process.exit(0);
}

function replayCommand(seed) {
  const extra = options["--active-ms"] === undefined ? "" : ` --active-ms ${options["--active-ms"]}`;
  return `npm run sim -- ${options["--roles"] ? "--roles " : ""}--seed ${seed}${extra}`;
}

async function seedRunner() {
  if (options["--roles"]) return runRolesApart;
  const { runSeed } = await load("runtime/sim/workload/workload.js");
  const activeMs = options["--active-ms"];
  return (seed, onEvent) => runSeed({ seed, onEvent, ...(activeMs === undefined ? {} : { activeMs }) });
}

/** Packages of the roles keep caches in their modules: each run has a process of its own, which begins with none. */
function runRolesApart(seed, onEvent) {
  return new Promise((resolve, reject) => {
    const child = fork(here, ["--roles", "--once", "--seed", String(seed), ...(onEvent ? ["--trace"] : [])],
      { stdio: ["ignore", "inherit", "inherit", "ipc"], env: childEnv });
    let result;
    child.on("message", (message) => { result = message; });
    child.on("exit", (code) => (result ? resolve(result) : reject(new Error(`the run of seed ${seed} ended with exit code ${code}`))));
  });
}

async function once() {
  const { runRoleSeed } = await load("actors/simulation/role-network.js");
  const onEvent = options["--trace"] ? (event) => console.log(line(event)) : undefined;
  const result = await runRoleSeed({ seed: options["--seed"], ...(onEvent ? { onEvent } : {}) });
  process.send(result, () => process.exit(0));
}

/** Runs a seed twice. */
async function judge(run, seed, onEvent) {
  const first = await run(seed, onEvent);
  const second = await run(seed);
  const violations = [...first.violations];
  if (first.hash !== second.hash) violations.push(`the event hash of the second run is ${second.hash}, of the first ${first.hash}`);
  return { ...first, violations, isOk: violations.length === 0 };
}

const line = ({ atMs, kind, node, detail }) => `${atMs.toFixed(3).padStart(12)} ms  ${kind.padEnd(8)} ${node.padEnd(10)} ${detail}`;

function tell(result) {
  process.stderr.write(`\nseed ${result.seed} (${result.profile}) FAILED:\n`);
  for (const violation of result.violations) process.stderr.write(`  ${violation}\n`);
  process.stderr.write(`last events:\n${result.tail.slice(-TAIL_EVENTS_TOLD).map((event) => `  ${line(event)}`).join("\n")}\n`);
  process.stderr.write(`replay: ${replayCommand(result.seed)}\n`);
}

async function worker() {
  const run = await seedRunner();
  let seed;
  process.on("uncaughtException", (error) => {
    const text = `threw past the simulation: ${error.stack}`;
    process.send({ results: [{ seed, profile: "?", hash: "", events: 0, virtualMs: 0, violations: [text], counts: {}, tail: [], isOk: false }] },
      () => process.exit(1));
  });
  process.on("message", async ({ seeds }) => {
    const results = [];
    for (seed of seeds) {
      const result = await judge(run, seed);
      results.push(result.isOk ? { ...result, tail: [] } : result);
    }
    process.send({ results });
  });
  process.send({ results: [] });
}

async function many() {
  const { "--seeds": seeds, "--start": start, "--time-limit": limit } = options;
  const jobs = Math.min(options["--jobs"] ?? availableParallelism(), seeds);
  const chunk = options["--roles"] ? 1 : CHUNK_SEEDS;
  const startMs = performance.now();
  const counts = {};
  const profiles = {};
  const failures = [];
  let [next, done, events, virtualMs] = [start, 0, 0, 0];
  let toldMs = startMs;
  const isOver = () => next >= start + seeds || (limit !== undefined && performance.now() - startMs > limit * 1000);
  const progress = () => {
    const now = performance.now();
    if (now - toldMs < (process.stderr.isTTY ? 1_000 : 20_000)) return;
    toldMs = now;
    process.stderr.write(`sim  ${done}/${seeds} seeds, ${(done / ((now - startMs) / 1000)).toFixed(1)} seeds/s, ${failures.length} failed\n`);
  };
  const take = (result) => {
    done += 1;
    events += result.events;
    virtualMs += result.virtualMs;
    profiles[result.profile] = (profiles[result.profile] ?? 0) + 1;
    for (const [key, count] of Object.entries(result.counts)) counts[key] = (counts[key] ?? 0) + count;
    if (result.isOk) return;
    failures.push({ seed: result.seed, violations: result.violations, replay: replayCommand(result.seed) });
    if (failures.length <= FAILURES_TOLD_MAX) tell(result);
  };
  await Promise.all(Array.from({ length: jobs }, () => new Promise((resolve) => {
    const child = fork(here, [...process.argv.slice(2), "--worker"], { stdio: ["ignore", "inherit", "inherit", "ipc"], env: childEnv });
    let given = [];
    child.on("message", ({ results }) => {
      results.forEach(take);
      given = [];
      progress();
      if (isOver()) {
        child.disconnect();
        return;
      }
      given = Array.from({ length: Math.min(chunk, start + seeds - next) }, () => next++);
      child.send({ seeds: given });
    });
    child.on("exit", (code, signal) => {
      if (given.length > 0) {
        const violations = [`the worker ended (${signal ?? `exit code ${code}`}) while it ran one of these seeds: ${given.join(", ")}`];
        failures.push({ seed: given[0], violations, replay: replayCommand(given[0]) });
        process.stderr.write(`sim  ${violations[0]}\n`);
      }
      resolve();
    });
  })));
  const seconds = (performance.now() - startMs) / 1000;
  const report = {
    seeds: done, start, failed: failures.length, seconds: Number(seconds.toFixed(1)), seedsPerSecond: Number((done / seconds).toFixed(2)),
    virtualHoursPerSecond: Number(((2 * virtualMs) / 3_600_000 / seconds).toFixed(3)), eventsPerSecond: Math.round((2 * events) / seconds),
    profiles, counts, failures,
  };
  process.stderr.write(`sim  ${done} seeds, each twice, in ${report.seconds} s: ${report.seedsPerSecond} seeds/s, ` +
    `${report.eventsPerSecond} events/s, ${report.virtualHoursPerSecond} virtual hours/s; ${failures.length} failed\n`);
  if (options["--json"]) console.log(JSON.stringify(report));
  process.exitCode = failures.length > 0 ? 1 : 0;
}

async function one() {
  const run = await seedRunner();
  const print = options["--trace"] ? (event) => console.log(line(event)) : undefined;
  const result = await judge(run, options["--seed"], print);
  if (!result.isOk) tell(result);
  process.stderr.write(`sim  seed ${result.seed} (${result.profile}): ${result.events} events, hash ${result.hash}, ${result.isOk ? "all is well" : "FAILED"}\n`);
  if (options["--json"]) console.log(JSON.stringify({ ...result, tail: undefined, replay: replayCommand(result.seed) }));
  process.exitCode = result.isOk ? 0 : 1;
}

if (options["--once"]) await once();
else if (options["--worker"]) await worker();
else if (options["--soak-hours"] !== undefined) {
  const { runSoak } = await load("runtime/sim/workload/soak.js");
  const startMs = performance.now();
  const result = await runSoak({ seed: options["--seed"] ?? options["--start"], hours: options["--soak-hours"],
    onProgress: (text) => process.stderr.write(`sim  ${text}\n`) });
  const seconds = (performance.now() - startMs) / 1000;
  for (const violation of result.violations) process.stderr.write(`sim  ${violation}\n`);
  process.stderr.write(`sim  ${result.virtualHours} virtual hours in ${seconds.toFixed(1)} s, ${result.events} events, hash ${result.hash}: ` +
    `${result.violations.length === 0 ? "nothing grew, nothing was left" : "FAILED"}\n`);
  if (options["--json"]) console.log(JSON.stringify({ ...result, seconds }));
  process.exitCode = result.violations.length === 0 ? 0 : 1;
} else if (options["--seed"] !== undefined) await one();
else await many();
