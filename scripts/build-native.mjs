// Builds the native addon to build/Release/tesra_native.node with whatever this machine has:
// CMake (cmake-js), else node-gyp bundled with npm, else one g++ or clang++ command a file.
// Downloads nothing. Skips when sources, tools and options are those of the last good build.
//   TESRA_NATIVE_BUILD=cmake|gyp|direct  choose the way      TESRA_CUDA=0  leave CUDA out
//   TESRA_SANITIZE=1  ASan + UBSan build in build/sanitize (cmake or direct)
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync, copyFileSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const require = createRequire(join(root, "package.json"));
const sanitize = process.env.TESRA_SANITIZE === "1";
const buildDirectory = join(root, sanitize ? "build/sanitize" : "build");
const target = join(buildDirectory, "Release/tesra_native.node");
const stampFile = join(buildDirectory, "tesra-native.stamp.json");
const logFile = join(buildDirectory, "tesra-native.log");
const force = process.argv.includes("--force");
const quiet = process.argv.includes("--quiet");
const say = (line) => { if (!quiet) console.log(`native: ${line}`); };

function works(command, args = ["--version"]) {
  const r = spawnSync(command, args, { encoding: "utf8" });
  return r.status === 0 ? `${r.stdout}${r.stderr}`.split("\n")[0].trim() : undefined;
}
function firstWorking(candidates) {
  for (const c of candidates) {
    if (!c) continue;
    const version = works(c);
    if (version) return { command: c, version };
  }
  return undefined;
}
function files(directory) {
  return readdirSync(directory, { withFileTypes: true }).flatMap((e) => {
    const path = join(directory, e.name);
    return e.isDirectory() ? files(path) : [path];
  }).sort();
}
function nodeHeaders() {
  const prefix = join(dirname(process.execPath), "..");
  const candidates = [process.env.npm_config_nodedir, prefix, "/usr", "/usr/local"];
  return candidates.find((d) => d && existsSync(join(d, "include/node/node_api.h")));
}
function npmNodeGyp() {
  const prefix = join(dirname(process.execPath), "..");
  const candidates = [
    process.env.npm_execpath && join(dirname(process.env.npm_execpath), "../node_modules/node-gyp/bin/node-gyp.js"),
    join(prefix, "lib/node_modules/npm/node_modules/node-gyp/bin/node-gyp.js"),
    join(prefix, "share/nodejs/npm/node_modules/node-gyp/bin/node-gyp.js"),
    join(prefix, "share/nodejs/node-gyp/bin/node-gyp.js"),
    "/usr/share/nodejs/node-gyp/bin/node-gyp.js",
  ];
  return candidates.find((p) => p && existsSync(p));
}

const compiler = firstWorking([process.env.CXX, "g++", "clang++", "c++"]);
const cmake = firstWorking(["cmake"]);
const make = firstWorking(["ninja", "make"]);
const python = firstWorking([process.env.PYTHON, "python3"]);
const cudaWanted = process.env.TESRA_CUDA !== "0" && !sanitize;
const nvcc = cudaWanted ? firstWorking([process.env.CUDACXX, "nvcc", "/usr/local/cuda/bin/nvcc"]) : undefined;

class BuildError extends Error {}

function run(command, args, options = {}) {
  mkdirSync(buildDirectory, { recursive: true });
  const r = spawnSync(command, args, { cwd: root, encoding: "utf8", maxBuffer: 1 << 28, ...options });
  writeFileSync(logFile, `$ ${command} ${args.join(" ")}\n${r.stdout ?? ""}${r.stderr ?? ""}${r.error ?? ""}\n`, { flag: "a" });
  if (r.status !== 0) {
    const text = `${r.stdout ?? ""}${r.stderr ?? ""}`;
    const line = text.split("\n").find((l) => /error|Error|fatal/.test(l)) ?? r.error?.message ?? `exit ${r.status}`;
    throw new BuildError(line.trim());
  }
  return r;
}

/**
 * What ptxas said of each kernel that this build compiled (registers, bytes of stack and spills), into
 * build/cuda-resources.json; kernels compiled before stay there, for test/native/cuda-resources.test.ts.
 */
function recordResources() {
  const log = readFileSync(logFile, "utf8").split("\n");
  const file = join(buildDirectory, "cuda-resources.json");
  let known = [];
  try { known = JSON.parse(readFileSync(file, "utf8")); } catch { /* the first build */ }
  const found = [], archs = new Map();
  for (const [i, line] of log.entries()) {
    const entry = /Compiling entry function '(\w+)' for '(\w+)'/.exec(line);
    if (entry) archs.set(entry[1], entry[2]);
    const kernel = /Function properties for (\w+)/.exec(line)?.[1];
    const bytes = /(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads/.exec(log[i + 1] ?? "");
    if (!kernel || !bytes || !archs.has(kernel)) continue;
    const registers = Number(/Used (\d+) registers/.exec(log[i + 2] ?? "")?.[1] ?? 0);
    // A kernel's name holds its file's, where it is local to it: ..._11_pow_hopper_cu_...
    const source = /_GLOBAL__N__[0-9a-f]+_\d+_([a-z]\w*?)_cu_/.exec(kernel)?.[1] ?? "";
    found.push({ kernel, source, arch: archs.get(kernel), registers, stack: Number(bytes[1]), spills: Number(bytes[2]) + Number(bytes[3]) });
  }
  const again = new Set(found.flatMap(({ kernel, source }) => [kernel, source && `${source}.cu`]));
  const kept = known.filter(({ kernel, source }) => !again.has(kernel) && !(source && again.has(`${source}.cu`)));
  const serialised = log.some((line) => /wgmma.*serializ/i.test(line));
  if (serialised) console.error("native: warning: ptxas runs wgmma one by one somewhere; see the log");
  const all = [...kept, ...found];
  writeFileSync(file, `${JSON.stringify(all, null, 1)}\n`);
  // A build that was interrupted left objects of which nothing is known: they are compiled again.
  const seen = new Set(all.map(({ source }) => source));
  return sources().cuda.filter((name) => readFileSync(join(root, "native", name), "utf8").includes("__global__") &&
    !seen.has(name.replace(/^cuda\/|\.cu$/g, "").replaceAll("-", "_")));
}

const sources = () => JSON.parse(readFileSync(join(root, "native/sources.json"), "utf8"));
const hasCudaSources = () => (sources().cuda ?? []).length > 0;

const builders = {
  cmake: {
    missing: () => !cmake ? "cmake" : !compiler ? "a C++ compiler" : !make ? "ninja or make" : undefined,
    build(cuda) {
      // cmake-js does not configure again over an old cache, and would build with the old options
      const cache = join(buildDirectory, "CMakeCache.txt");
      const cached = existsSync(cache) ? readFileSync(cache, "utf8") : "";
      if (!cached.includes(`TESRA_CUDA:BOOL=${cuda ? "ON" : "OFF"}`)) rmSync(cache, { force: true });
      const cli = require.resolve("cmake-js/package.json");
      const bin = join(dirname(cli), JSON.parse(readFileSync(cli, "utf8")).bin["cmake-js"]);
      const args = [bin, "build", "--directory", root, "--out", buildDirectory,
        `--CDTESRA_CUDA=${cuda ? "ON" : "OFF"}`, `--CDTESRA_SANITIZE=${sanitize ? "ON" : "OFF"}`];
      if (cuda && process.env.TESRA_CUDA_ARCHS) args.push(`--CDTESRA_CUDA_ARCHS=${process.env.TESRA_CUDA_ARCHS}`);
      if (cuda && nvcc) args.push(`--CDCMAKE_CUDA_COMPILER=${nvcc.command}`);
      args.push("--parallel", String(Math.max(1, availableParallelism())));
      run(process.execPath, args, { env: { ...process.env, CXX: compiler.command } });
    },
  },
  gyp: {
    missing: () => !compiler ? "a C++ compiler" : !firstWorking(["make"]) ? "make" : !python ? "python3"
      : !npmNodeGyp() ? "node-gyp (it comes with npm)" : !nodeHeaders() ? "Node's headers beside node" : undefined,
    build() {
      const directory = join(root, "native");
      run(process.execPath, [npmNodeGyp(), "rebuild", "--release", `--nodedir=${nodeHeaders()}`, `--python=${python.command}`],
        { cwd: directory, env: { ...process.env, CXX: compiler.command, JOBS: String(availableParallelism()) } });
      mkdirSync(dirname(target), { recursive: true });
      copyFileSync(join(directory, "build/Release/tesra_native.node"), `${target}.new`);
      renameSync(`${target}.new`, target); // never written in place: a process may have it mapped
      rmSync(join(directory, "build"), { recursive: true, force: true });
    },
  },
  direct: {
    missing: () => !compiler ? "a C++ compiler" : process.platform === "win32" ? "a POSIX system" : undefined,
    build() {
      const s = sources();
      const objects = join(buildDirectory, "direct");
      mkdirSync(objects, { recursive: true });
      mkdirSync(dirname(target), { recursive: true });
      const flags = ["-std=c++17", "-O3", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden", "-w",
        "-DNAPI_VERSION=8", "-DNAPI_DISABLE_CPP_EXCEPTIONS",
        "-I", require("node-addon-api").include_dir, "-I", require("node-api-headers").include_dir,
        ...(sanitize ? ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"] : [])];
      const outputs = [...s.cpu, ...s.cudaStub].map((file) => {
        const output = join(objects, `${file.replaceAll("/", "-")}.o`);
        run(compiler.command, [...flags, "-c", join(root, "native", file), "-o", output]);
        return output;
      });
      const mac = process.platform === "darwin";
      run(compiler.command, [mac ? "-bundle" : "-shared", ...(mac ? ["-undefined", "dynamic_lookup"] : []),
        ...(sanitize ? ["-fsanitize=address,undefined"] : mac ? [] : ["-static-libstdc++", "-Wl,--exclude-libs,ALL"]),
        "-pthread", ...outputs, "-o", `${target}.new`]);
      renameSync(`${target}.new`, target);
      rmSync(objects, { recursive: true, force: true });
    },
  },
};

function fail(message) {
  console.error(`native: ${message}`);
  process.exit(1);
}

const wanted = process.env.TESRA_NATIVE_BUILD;
if (wanted && !builders[wanted]) fail(`TESRA_NATIVE_BUILD is "${wanted}"; it may be cmake, gyp or direct.`);

function currentKey() {
  const hash = createHash("sha256");
  const skip = ["/native/build/", "/native/cuda/lab/"];
  const native = files(join(root, "native")).filter((f) => !skip.some((part) => f.includes(part)));
  for (const f of [...native, join(root, "CMakeLists.txt"), fileURLToPath(import.meta.url)]) {
    if (!statSync(f).isFile()) continue;
    hash.update(relative(root, f)).update("\0").update(readFileSync(f)).update("\0");
  }
  hash.update(JSON.stringify({
    platform: process.platform, arch: process.arch, compiler, cmake, nvcc, wanted, sanitize,
    archs: process.env.TESRA_CUDA_ARCHS ?? "", api: require("node-addon-api/package.json").version,
  }));
  return hash.digest("hex");
}

function upToDate(key) {
  if (force || !existsSync(target)) return false;
  try {
    return JSON.parse(readFileSync(stampFile, "utf8")).key === key;
  } catch {
    return false; // no stamp, or a torn one: build
  }
}

// One build at a time in one directory: two would mix their objects.
const lockFile = join(buildDirectory, "tesra-native.lock");
function alive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === "EPERM";
  }
}
function lock() {
  mkdirSync(buildDirectory, { recursive: true });
  let told = false;
  for (;;) {
    try {
      writeFileSync(lockFile, String(process.pid), { flag: "wx" });
      process.on("exit", () => rmSync(lockFile, { force: true }));
      return;
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
    }
    let owner = NaN;
    try { owner = Number(readFileSync(lockFile, "utf8")); } catch { continue; }
    if (owner > 0 && !alive(owner)) {
      rmSync(lockFile, { force: true });
      continue;
    }
    if (!told) say(`waiting for the build of process ${owner || "?"}`);
    told = true;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500);
  }
}

if (upToDate(currentKey())) {
  say(`up to date (${relative(root, target)})`);
  process.exit(0);
}
lock();
let key = currentKey();
if (upToDate(key)) {
  say(`up to date (${relative(root, target)})`);
  process.exit(0);
}

const order = wanted ? [wanted] : ["cmake", "gyp", "direct"];
const usable = order.filter((name) => !builders[name].missing());
if (usable.length === 0) {
  const lacks = order.map((name) => `${name} needs ${builders[name].missing()}`).join("; ");
  fail(`nothing here can build the addon: ${lacks}. On Debian: apt-get install g++ cmake ninja-build`);
}

rmSync(logFile, { force: true });
rmSync(stampFile, { force: true });
let lastError;
for (const name of usable) {
  const tries = name === "cmake" && nvcc && hasCudaSources() ? [true, false] : [false];
  for (const cuda of tries) {
    const started = Date.now();
    say(`building with ${name} (${compiler.version}${cuda ? `; CUDA by ${nvcc.command}` : ", CPU only"})`);
    try {
      builders[name].build(cuda);
      // A source edited meanwhile may lie older than an object made from its former text.
      if (currentKey() !== key) {
        say("sources changed during the build; building again from the start");
        rmSync(join(buildDirectory, "CMakeFiles/tesra_native.dir"), { recursive: true, force: true });
        key = currentKey();
        builders[name].build(cuda);
      }
      const unknown = cuda ? recordResources() : [];
      if (unknown.length > 0) {
        for (const name of unknown) rmSync(join(buildDirectory, `CMakeFiles/tesra_native.dir/native/${name}.o`), { force: true });
        builders[name].build(cuda);
        recordResources();
      }
      writeFileSync(stampFile, `${JSON.stringify({ key, builder: name, cuda, compiler, cmake, nvcc: cuda ? nvcc : undefined }, null, 1)}\n`);
      say(`built ${relative(root, target)} in ${((Date.now() - started) / 1000).toFixed(0)} s${cuda ? " with CUDA" : ""}`);
      if (cudaWanted && !cuda && hasCudaSources() && tries.length === 1 && name !== "cmake" && nvcc)
        say(`warning: the ${name} build has no CUDA kernels; with cmake and nvcc it would`);
      process.exit(0);
    } catch (error) {
      if (!(error instanceof BuildError)) throw error;
      lastError = error.message;
      if (cuda) console.error(`native: warning: the CUDA build failed (${lastError}); building for the CPU only`);
      else if (name !== usable.at(-1)) console.error(`native: warning: the ${name} build failed (${lastError}); trying the next way`);
      rmSync(join(buildDirectory, "CMakeCache.txt"), { force: true });
    }
  }
}
fail(`the addon could not be built: ${lastError}. The whole output is in ${relative(root, logFile)}; mend that, or choose another way with TESRA_NATIVE_BUILD=cmake|gyp|direct.`);
