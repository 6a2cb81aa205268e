// Owns the set-up of a clone: packages, native addon, contracts, TypeScript, data set.
// Invariant: every step is skipped when its inputs have not changed, so a second start is fast;
// two set-ups of one clone never run at the same time; nothing but npm packages (and, when it is
// missing, the Fashion-MNIST package of the Debian mirror) is downloaded.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const cacheDir = join(root, ".cache");
const lockDir = join(cacheDir, "setup.lock");
const flags = new Set(process.argv.slice(2));
const quiet = flags.has("--quiet");
const LOCK_WAIT_MS_MAX = 600_000; // a cold set-up with CUDA takes minutes; a dead owner is detected sooner

if (flags.has("--help")) {
  console.log(`Usage: npm run setup [-- --quiet] [-- --force]

Installs packages, builds the native addon (CMake with CUDA when nvcc is there, else binding.gyp,
else the plain compiler), compiles the system contracts and the TypeScript, and finds the data set.
Each step is skipped when nothing it reads has changed.

  --quiet   print only the steps that do something
  --force   redo every step

Environment: TESRA_NATIVE_BUILD=cmake|gyp|direct   TESRA_CUDA=0 (skip CUDA)   TESRA_DATA=<folder>`);
  process.exit(0);
}

const say = (text) => process.stderr.write(`setup  ${text}\n`);
const fail = (text) => { releaseLock(); process.stderr.write(`setup  failed: ${text}\n`); process.exit(1); };

const [major, minor] = process.versions.node.split(".").map(Number);
if (major < 20 || (major === 20 && minor < 17)) {
  fail(`Node ${process.versions.node} is too old; install Node 20.17 or later (20, 22 and 24 are tested).`);
}

/** Native packages are N-API, so a change of the Node version redoes nothing. */
function hashOf(paths) {
  const hash = createHash("sha256").update(`${process.platform}-${process.arch}`);
  const visit = (path) => {
    if (!existsSync(path)) return;
    if (statSync(path).isDirectory()) {
      for (const name of readdirSync(path).sort()) visit(join(path, name));
    } else hash.update(relative(root, path)).update(readFileSync(path));
  };
  paths.forEach((path) => visit(join(root, path)));
  return hash.digest("hex");
}

/** Removes what an earlier build left: a module that is gone must not load. */
function removeFilesBelow(directory, isStale) {
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) {
      removeFilesBelow(path, isStale);
      if (readdirSync(path).length === 0) rmdirSync(path);
    } else if (isStale(path)) rmSync(path);
  }
}

/** Runs `work` unless the stamp of `name` already holds `key` and `product` exists. */
function step(name, key, product, label, work) {
  const stamp = join(cacheDir, `${name}.stamp`);
  const done = !flags.has("--force") && existsSync(join(root, product)) &&
    existsSync(stamp) && readFileSync(stamp, "utf8") === key;
  if (done) { if (!quiet) say(`${label}: up to date`); return false; }
  const startMs = Date.now();
  say(`${label} ...`);
  rmSync(stamp, { force: true });
  work();
  writeFileSync(stamp, key);
  say(`${label}: done in ${((Date.now() - startMs) / 1000).toFixed(1)} s`);
  return true;
}

function run(command, args, hint, options = {}) {
  const result = spawnSync(command, args, { cwd: root, stdio: ["ignore", "pipe", "pipe"], encoding: "utf8",
    maxBuffer: 64 << 20, ...options });
  if (result.error || result.status !== 0) {
    const output = `${result.stdout ?? ""}${result.stderr ?? ""}`.trim().split("\n").slice(-25).join("\n");
    if (output) process.stderr.write(`${output}\n`);
    fail(`${command} ${args.join(" ")}: ${result.error?.message ?? `exit ${result.status}`}. ${hint}`);
  }
  return result.stdout ?? "";
}

function takeLock() {
  mkdirSync(cacheDir, { recursive: true });
  const startMs = Date.now();
  let told = false;
  for (;;) {
    try { mkdirSync(lockDir); writeFileSync(join(lockDir, "pid"), String(process.pid)); return; }
    catch (error) { if (error.code !== "EEXIST") fail(`cannot write ${cacheDir}: ${error.message}`); }
    let owner = 0;
    try { owner = Number(readFileSync(join(lockDir, "pid"), "utf8")); } catch { /* being created */ }
    let alive = owner === 0 && Date.now() - statSync(lockDir, { throwIfNoEntry: false })?.mtimeMs < 5_000;
    if (owner > 0) try { process.kill(owner, 0); alive = true; } catch { alive = false; }
    if (!alive) { rmSync(lockDir, { recursive: true, force: true }); continue; }
    if (!told) { say(`waiting for another set-up of this clone (pid ${owner})`); told = true; }
    if (Date.now() - startMs > LOCK_WAIT_MS_MAX) fail(`another set-up (pid ${owner}) holds ${lockDir}`);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200);
  }
}
function releaseLock() { rmSync(lockDir, { recursive: true, force: true }); }

takeLock();
process.on("exit", releaseLock);
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(130));

step("packages", hashOf(["package-lock.json"]), "node_modules/typescript", "packages (npm ci)", () => {
  const npm = process.env.npm_execpath?.endsWith(".js")
    ? [process.execPath, process.env.npm_execpath] : ["npm"];
  run(npm[0], [...npm.slice(1), "ci", "--ignore-scripts", "--include=dev", "--no-audit", "--no-fund"],
    "Check that the npm registry can be reached (npm ping).");
});

// it has a stamp of its own, and says itself what is missing and how to mend it
const native = spawnSync(process.execPath, ["scripts/build-native.mjs", ...["--quiet", "--force"].filter((flag) => flags.has(flag))],
  { cwd: root, stdio: ["ignore", "inherit", "inherit"] });
if (native.status !== 0) process.exit(1);

const contractSources = ["src/chain/contracts/solidity", "scripts/build-contracts.mjs", "package-lock.json"];
step("contracts", hashOf(contractSources), "src/chain/contracts/generated/artifacts.json", "system contracts (solc)",
  () => run(process.execPath, ["scripts/build-contracts.mjs"], "See the compiler's message above."));

step("typescript", hashOf(["src", "tsconfig.json", "package-lock.json"]), "dist/cli/main.js", "TypeScript (tsc)", () => {
  // in place: a network that runs from dist loads modules lazily and must find them during the build
  const listed = run(process.execPath, ["node_modules/typescript/lib/tsc.js", "-p", "tsconfig.json", "--listEmittedFiles"],
    "See the compiler's messages above.");
  const emitted = new Set(listed.split("\n").flatMap((line) => (line.startsWith("TSFILE: ") ? [resolve(line.slice(8).trim())] : [])));
  if (emitted.size === 0) fail("the TypeScript compiler listed no output.");
  const generated = join(root, "dist/chain/contracts/generated");
  removeFilesBelow(join(root, "dist"), (path) => !emitted.has(path) && dirname(path) !== generated);
  mkdirSync(generated, { recursive: true });
  cpSync(join(root, "src/chain/contracts/generated"), generated, { recursive: true });
});

const { prepareFashionMnist } = await import(pathToFileURL(join(root, "dist/cli/dataset.js")).href);
try {
  const found = await prepareFashionMnist();
  if (!quiet) say(`data set: ${found}`);
} catch (error) {
  say(`warning: ${error.message}`); // doctor and demo say the same; the rest of the project works without it
}
