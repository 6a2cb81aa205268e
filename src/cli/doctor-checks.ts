/**
 * Owns the checks of `supernet doctor`. Each looks at one thing and returns its lines.
 */
import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { constants, existsSync, readdirSync, readFileSync } from "node:fs";
import { access, mkdir, rm, statfs } from "node:fs/promises";
import { createServer } from "node:net";
import { cpus, freemem, release, totalmem } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { unknownVariables, type Settings } from "./config.js";
import type { CliWorld } from "./context.js";
import type { Check } from "./doctor.js";
import { oneLine } from "./errors.js";
import { PASSWORD_VARIABLE } from "./secrets.js";

type Result = Omit<Check, "check">;
type Probe = (settings: Settings, world: CliWorld) => Promise<Result> | Result;

/** Node 20.17 is the first whose N-API and require() our native parts were built against. */
const NODE_MIN = [20, 17] as const;
/** A demo writes below 0.5 GiB; less than this leaves no room for logs and a second run. */
const DISK_BYTES_MIN = 2 * 2 ** 30;
/** Seven processes of the demo take about 1.5 GiB together. */
const MEMORY_BYTES_MIN = 2 * 2 ** 30;
/** A compiler prints its version at once; a hung network disk should not hang the doctor. */
const TOOL_MS_MAX = 10_000;
/** Folder of the data set, where it is not in one of its usual places. */
const DATASET_VARIABLE = "TESRA_DATA";
/** TESRA_* variables that other parts read. */
const OTHER_VARIABLES = [
  PASSWORD_VARIABLE, DATASET_VARIABLE, "TESRA_ISA", "TESRA_NATIVE_ADDON", "TESRA_NATIVE_BUILD", "TESRA_CUDA", "TESRA_CUDA_ARCHS",
  "TESRA_SANITIZE", "TESRA_PYTHON",
];

const ROOT = fileURLToPath(new URL("../../", import.meta.url));

const CHECKS: readonly (readonly [name: string, probe: Probe])[] = [
  ["node", node], ["cpu", cpu], ["memory", memory], ["native kernels", kernels], ["gpu", gpu], ["task sandbox", sandbox],
  ["chain store", rocks], ["links", zeromq], ["signatures", signatures],
  ["system contracts", contracts], ["data set", dataset], ["compiler", compiler],
  ["cmake", cmake], ["nvcc", nvcc], ["data folder", dataFolder], ["rpc port", port],
  ["environment", environment],
];

/** All checks, in order. Never throws: a check that fails to run is a failed check. */
export async function runChecks(settings: Settings, world: CliWorld): Promise<Check[]> {
  const checks: Check[] = [];
  for (const [check, probe] of CHECKS) {
    try {
      checks.push({ check, ...await probe(settings, world) });
    } catch (error) {
      const detail = oneLine((error as Error).message);
      checks.push({ check, status: "fail", detail, mend: "run again with --debug and report it" });
    }
  }
  return checks;
}

const ok = (detail: string): Result => ({ status: "ok", detail });
const warn = (detail: string, mend: string): Result => ({ status: "warn", detail, mend });
const fail = (detail: string, mend: string): Result => ({ status: "fail", detail, mend });
const gib = (bytes: number) => `${(bytes / 2 ** 30).toFixed(1)} GiB`;

function node(): Result {
  const [major, minor] = process.versions.node.split(".").map(Number) as [number, number];
  const enough = major > NODE_MIN[0] || (major === NODE_MIN[0] && minor >= NODE_MIN[1]);
  const detail = `Node ${process.versions.node} on ${process.platform} ${process.arch} ${release()}`;
  return enough ? ok(detail) : fail(detail, `install Node ${NODE_MIN.join(".")} or newer`);
}

function cpu(): Result {
  const flags = cpuFlags();
  const shown = ["avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8"]
    .filter((flag) => flags.has(flag));
  const model = cpus()[0]?.model.trim() ?? "unknown processor";
  const detail = `${model}, ${cpus().length} threads, ${shown.join(" ") || "no vector extensions seen"}`;
  if (process.arch !== "x64" || flags.size === 0) return ok(detail);
  return flags.has("avx2") ? ok(detail)
    : warn(detail, "kernels run in scalar code, many times slower; use a processor with AVX2");
}

function memory(): Result {
  const detail = `${gib(totalmem())}, ${gib(freemem())} free`;
  return totalmem() >= MEMORY_BYTES_MIN ? ok(detail)
    : warn(detail, `the demo wants ${gib(MEMORY_BYTES_MIN)}: close other programs`);
}

/** Only what is read here of the report of src/device. */
interface DeviceReport {
  addon?: { path?: string; loaded?: boolean; error?: string; hint?: string };
  isa?: string;
  threads?: number;
  cuda?: { compiled?: boolean; available?: boolean; reason?: string; devices?: { name?: string }[] };
}

async function deviceReport(): Promise<DeviceReport> {
  const url = new URL("../device/device.js", import.meta.url).href;
  const { probe } = await import(url) as { probe(): DeviceReport };
  return probe();
}

const SETUP = "run `npm run setup` (it compiles the kernels; needs a C++ compiler and CMake)";

async function kernels(): Promise<Result> {
  try {
    const url = new URL("../device/device.js", import.meta.url).href;
    const { openDevice } = await import(url) as {
      openDevice(o: object): { isa: string; threads: number; close(): void };
    };
    const device = openDevice({ backend: "cpu" });
    const detail = `CPU kernels load: ${device.isa}, ${device.threads} thread(s)`;
    device.close();
    return ok(detail);
  } catch (error) {
    const { message, hint } = error as Error & { hint?: string };
    return fail(oneLine(message), hint ? oneLine(hint) : SETUP);
  }
}

async function sandbox(): Promise<Result> {
  const url = new URL("../device/sandbox.js", import.meta.url).href;
  const { sandboxSupport } = await import(url) as { sandboxSupport(): { childProcess: boolean; seccomp: boolean; reason: string } };
  const { childProcess, seccomp, reason } = sandboxSupport();
  if (!childProcess) return warn(`tasks run in the worker's own process: ${oneLine(reason)}`, "run workers on Linux, x86-64 or arm64");
  return seccomp ? ok("tasks run in child processes with memory limits and filtered system calls")
    : warn(`tasks run in child processes with memory limits, but ${reason}`, "allow seccomp filters, in the container's settings or the kernel's");
}

async function gpu(): Promise<Result> {
  const seen = nvidiaDevices();
  let report: DeviceReport;
  try {
    report = await deviceReport();
  } catch {
    return seen.length > 0
      ? warn(`${seen.join(", ")} seen, but the kernels do not load`, SETUP)
      : ok("none seen; the CPU kernels do all the work");
  }
  const { cuda } = report;
  if (cuda?.available) {
    const names = (cuda.devices ?? []).map((device) => device.name ?? "unnamed").join(", ");
    return ok(`CUDA: ${names || "available"}`);
  }
  const why = oneLine(cuda?.reason ?? "this build has no CUDA kernels");
  return seen.length > 0
    ? warn(`${seen.join(", ")} seen, but not usable: ${why}`,
      "install the driver and the CUDA toolkit (nvcc), then run `npm run setup`")
    : ok(`none (${why}); the CPU kernels do all the work`);
}

async function rocks({ dataDir }: Settings): Promise<Result> {
  const folder = join(dataDir, `.doctor-${randomUUID()}`);
  try {
    await mkdir(folder, { recursive: true });
    const { default: rocksdb } = await import("rocksdb") as unknown as {
      default: { RocksLevel: new (path: string) => RocksProbe };
    };
    const db = new rocksdb.RocksLevel(folder);
    await db.open();
    try {
      await db.put("doctor", "written");
      const read = String(await db.get("doctor"));
      if (read !== "written") throw new Error(`wrote "written", read "${read}"`);
    } finally {
      await db.close();
    }
    return ok("RocksDB opens, writes and reads");
  } catch (error) {
    return fail(`RocksDB: ${oneLine((error as Error).message)}`,
      `check that ${dataDir} can be written, then run \`npm ci\` for the native package`);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

interface RocksProbe {
  open(): Promise<void>;
  put(key: string, value: string): Promise<void>;
  get(key: string): Promise<unknown>;
  close(): Promise<void>;
}

async function zeromq(): Promise<Result> {
  try {
    const { capability, version } = await import("zeromq") as unknown as {
      capability: { curve?: boolean; ipc?: boolean }; version: string;
    };
    const detail = `ZeroMQ ${version}, CURVE ${capability.curve ? "yes" : "no"}, `
      + `ipc ${capability.ipc ? "yes" : "no"}`;
    return capability.curve ? ok(detail)
      : fail(detail, "links must be encrypted: reinstall the package zeromq with its own binary");
  } catch (error) {
    return fail(`ZeroMQ does not load: ${oneLine((error as Error).message)}`,
      "run `npm ci`; on an old glibc build it from source: `npm rebuild zeromq`");
  }
}

async function signatures(): Promise<Result> {
  const { createRequire } = await import("node:module");
  const require = createRequire(import.meta.url);
  try {
    require("secp256k1/bindings.js");
    require("@chainsafe/blst");
    return ok("secp256k1 and BLS by native code");
  } catch (error) {
    return warn(`native signatures do not load: ${oneLine((error as Error).message).slice(0, 120)}`,
      "run `npm ci`; plain JavaScript takes over where it can, about 20 times slower");
  }
}

function contracts(): Result {
  const path = join(ROOT, "dist", "chain", "contracts", "generated", "artifacts.json");
  return existsSync(path) ? ok("compiled")
    : fail("not compiled", "run `npm run setup` (solc comes with the packages; no network needed)");
}

async function dataset(_: Settings, { env }: CliWorld): Promise<Result> {
  const { datasetCache } = await import("./dataset.js");
  const { DEBIAN_PACKAGE, loadFashionMnist } = await import("../data/fashion-mnist.js");
  const path = env[DATASET_VARIABLE];
  try {
    const { source, train, test } = await loadFashionMnist({
      ...(path ? { path } : {}), cacheDirectory: datasetCache(),
    });
    return ok(`Fashion-MNIST, ${train.rows} + ${test.rows} images, in ${source}`);
  } catch (error) {
    const why = path ? oneLine((error as Error).message) : "Fashion-MNIST is not on this machine";
    return warn(why, `\`supernet demo\` fetches it once; offline: install the package ${DEBIAN_PACKAGE} `
      + `or name its folder in ${DATASET_VARIABLE}`);
  }
}

async function compiler(): Promise<Result> {
  for (const tool of ["c++", "g++", "clang++"]) {
    const version = await toolVersion(tool, ["--version"]);
    if (version) return ok(version);
  }
  return kernelsBuilt()
    ? ok("none found; the kernels are built already")
    : fail("no C++ compiler", "install one: `apt-get install g++`");
}

async function cmake(): Promise<Result> {
  const version = await toolVersion("cmake", ["--version"]);
  if (version) return ok(version);
  return kernelsBuilt() ? ok("none found; the kernels are built already")
    : warn("no CMake", "install it for the GPU build: `apt-get install cmake`");
}

async function nvcc(): Promise<Result> {
  const version = await toolVersion("nvcc", ["--version"], /release [\d.]+/)
    ?? await toolVersion("/usr/local/cuda/bin/nvcc", ["--version"], /release [\d.]+/);
  if (version) return ok(`nvcc ${version}`);
  return nvidiaDevices().length > 0
    ? warn("no nvcc, so no GPU kernels", "install the CUDA toolkit and run `npm run setup`")
    : ok("none found; it is needed only to build GPU kernels");
}

async function dataFolder({ dataDir }: Settings): Promise<Result> {
  try {
    await mkdir(dataDir, { recursive: true, mode: 0o700 });
    await access(dataDir, constants.W_OK);
    const { bavail, bsize } = await statfs(dataDir);
    const detail = `${dataDir}, ${gib(bavail * bsize)} free`;
    return bavail * bsize >= DISK_BYTES_MIN ? ok(detail)
      : warn(detail, `a run wants ${gib(DISK_BYTES_MIN)}: free some, or give --data-dir`);
  } catch (error) {
    return fail(`${dataDir}: ${oneLine((error as Error).message)}`,
      "give a folder that you can write by --data-dir or TESRA_DATA_DIR");
  }
}

async function port({ rpc }: Settings): Promise<Result> {
  const { hostname, port: text } = new URL(rpc);
  const number = Number(text || (rpc.startsWith("https") ? 443 : 80));
  if (!["127.0.0.1", "localhost", "[::1]"].includes(hostname)) {
    return ok(`${rpc} is another machine: nothing to listen on here`);
  }
  const fault = await listenFault(number);
  return fault === undefined ? ok(`${number} is free`)
    : warn(`${number}: ${fault}`, "a node may be running already; else choose another by --rpc");
}

function environment(_: Settings, { env }: CliWorld): Result {
  const unknown = unknownVariables(env, OTHER_VARIABLES);
  return unknown.length === 0 ? ok("no unknown TESRA_* variables")
    : warn(`unknown: ${unknown.join(", ")}`, "check the spelling; nothing reads these");
}

function listenFault(number: number): Promise<string | undefined> {
  return new Promise((done) => {
    const server = createServer();
    server.once("error", (error: NodeJS.ErrnoException) =>
      done(error.code === "EADDRINUSE" ? "in use" : error.message));
    server.listen({ port: number, host: "127.0.0.1", exclusive: true }, () =>
      server.close(() => done(undefined)));
  });
}

/** The first line of a tool's version, or undefined if it is not there. */
async function toolVersion(
  tool: string, args: string[], pattern = /^.*$/m,
): Promise<string | undefined> {
  try {
    const { stdout } = await promisify(execFile)(tool, args, { timeout: TOOL_MS_MAX });
    return pattern.exec(stdout)?.[0];
  } catch {
    return undefined;
  }
}

function kernelsBuilt(): boolean {
  return ["build/Release", "build"].some((folder) => {
    try {
      return readdirSync(join(ROOT, folder)).some((name) => name.endsWith(".node"));
    } catch {
      return false;
    }
  });
}

function nvidiaDevices(): string[] {
  try {
    return readdirSync("/dev").filter((name) => /^nvidia\d+$/.test(name)).map((n) => `/dev/${n}`);
  } catch {
    return [];
  }
}

function cpuFlags(): Set<string> {
  try {
    const line = /^flags\s*:\s*(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"));
    return new Set(line?.[1]?.split(" ") ?? []);
  } catch {
    return new Set();
  }
}
