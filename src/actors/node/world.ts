// Owns what a node takes from the machine it runs on: clock, chance, store, search, log, actor system.
// Invariant: the roles get all of it from here, so that a simulated machine can take the place of the real one.
import { totalmem } from "node:os";
import type { Store } from "../../chain/index.js";
import { openDevice, type Device, type DeviceOptions } from "../../device/device.js";
import { sandboxSupport } from "../../device/sandbox.js";
import { openSharedMemory } from "../../device/shared-memory.js";
import { createSystem, type Logger, type SharedMemory, type System } from "../../runtime/index.js";
import { createLocalVm } from "../worker/vm/local-vm.js";
import { createProcessVm } from "../worker/vm/process-vm.js";
import type { TaskVm } from "../worker/vm/step-runner.js";
import type { ChallengeSearch, SearchThreadData } from "../pow/search.js";
import type { NodeConfig } from "./config.js";
import { createLogger } from "./log.js";
import { sleep } from "./sleep.js";

export interface NodeWorld {
  /** Milliseconds since 1970. */
  now(): number;
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /** Fit for keys and nonces. */
  random(sizeBytes: number): Uint8Array;
  readonly memoryBytes: number;
  createLogger(name: string): Logger;
  createSystem(config: NodeConfig, logger: Logger): System;
  openDevice(options: DeviceOptions): Device;
  openStore(path: string): Promise<Store>;
  openSearch(data: SearchThreadData): Promise<ChallengeSearch>;
  /** Where a worker's tasks run; `device` is the worker's own. */
  openTaskVm(config: NodeConfig, modules: { device: Device; log: Logger }): TaskVm;
}

export const hostWorld: NodeWorld = {
  now: () => Date.now(),
  sleep,
  random: (sizeBytes) => crypto.getRandomValues(new Uint8Array(sizeBytes)),
  memoryBytes: totalmem(),
  createLogger,
  createSystem: (config, logger) => createSystem({ name: config.name, logger, ...sharedMemoryOf(config) }),
  openDevice,
  openStore: async (path) => (await import("../../chain/index.js")).openRocksStore(path),
  openSearch: async (data) => (await import("../pow/search.js")).openSearchThread(data),
  openTaskVm: ({ compute, task }, { device, log }) => {
    const warn = (text: string): void => log.warn(text);
    const { childProcess, reason } = sandboxSupport();
    const limits = task?.memoryMiB === undefined ? {} : { memoryBytes: task.memoryMiB * 2 ** 20 };
    const deadline = task?.stepSeconds === undefined ? {} : { stepMs: task.stepSeconds * 1_000 };
    if (childProcess) return createProcessVm({ compute: { ...compute, backend: device.backend }, limits, ...deadline }, { warn });
    warn(`tasks run in this process, without limits of their own: ${reason}`);
    return createLocalVm(device, limits);
  },
};

/** Parameters and gradients between nodes of one host go by shared memory; chain nodes exchange none. */
function sharedMemoryOf({ role }: NodeConfig): { sharedMemory?: SharedMemory } {
  const sharedMemory = role === "worker" || role === "ps" || role === "master" ? openSharedMemory() : undefined;
  return sharedMemory === undefined ? {} : { sharedMemory };
}
