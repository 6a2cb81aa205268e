// Owns how a child that runs tasks is confined: its flags, its environment and the numbers of its limits.
// Invariant: nothing of the worker but numeric settings reaches the child: no keys, no addresses, no environment.
import { readFileSync } from "node:fs";
import { confine, type Confinement } from "../../../device/sandbox.js";

/** Descriptors of the child: what it shares with the worker. */
export const CHANNEL_FD = 3;
export const MEMORY_FD = 4;

/** V8's heap: a job of 4096 nodes takes a tenth. */
const HEAP_MIB = 256;
/** Private memory for a job's text, its graph and its compiler, heap included. */
const PARSE_BYTES = 384 * 2 ** 20;
/** Two plans' arenas and as much again for the scratch of their kernels. */
const ARENA_FACTOR = 3;
/** What a GPU driver maps on the host beside a plan. */
const DRIVER_BYTES = 4 * 2 ** 30;
/** Processor time until a job is open; a worker's deadline ends it sooner, this even when the worker hangs. */
const PARSE_CPU_SECONDS = 60;
/** A started Node holds about 25, a GPU driver about 60 more. */
const FILES = 64;
const FILES_WITH_DRIVER = 256;

/**
 * Without a JIT no page of the child has to become executable, so that the filter can refuse all of it; the
 * interpreter parses GPT-2's graph in 0.1 s. A step is one native call either way.
 */
export const CHILD_FLAGS = [
  "--jitless", "--no-expose-wasm", "--disallow-code-generation-from-strings", "--v8-pool-size=0",
  `--max-old-space-size=${HEAP_MIB}`, "--expose-gc", "--no-warnings",
];

/** Variables that the loader and the driver need; everything else of the environment stays with the worker. */
const PASSED = ["LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "TESRA_ISA", "TESRA_NATIVE_ADDON", "ASAN_OPTIONS", "LD_PRELOAD"];

export function childEnvironment(): Record<string, string> {
  return Object.fromEntries(PASSED.flatMap((name) => (process.env[name] === undefined ? [] : [[name, process.env[name]]])));
}

/** Private memory that a child may have while it runs a job of this cost. */
export function dataBytesOf(baseBytes: number, memoryBytes: number, backend: "cpu" | "cuda"): number {
  return baseBytes + PARSE_BYTES + ARENA_FACTOR * memoryBytes + (backend === "cuda" ? DRIVER_BYTES : 0);
}

/** In the child, once its devices are open. @param memoryBytes the most that any job of this worker may cost. */
export function confineChild(parent: number, backend: "cpu" | "cuda", memoryBytes: number): Confinement & { dataBytes: number } {
  const driver = backend === "cuda";
  const dataBytes = Number(/VmData:\s+(\d+)/.exec(readFileSync("/proc/self/status", "utf8"))![1]) * 1024;
  const confinement = confine({
    parent, driver, cpuSeconds: PARSE_CPU_SECONDS, files: driver ? FILES_WITH_DRIVER : FILES,
    dataBytes: dataBytesOf(dataBytes, 0, backend), dataBytesMax: dataBytesOf(dataBytes, memoryBytes, backend),
  });
  return { ...confinement, dataBytes };
}
