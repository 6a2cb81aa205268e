// Owns: the typed door to what the addon offers for the child processes that run tasks: memory shared with one child,
// and the rights that the child gives up. Invariant: where the system offers none of it this says so, and why.
import type { ConfineOptions, Confinement, NativeTaskMemory } from "./addon.js";
import { DeviceError, guard } from "./device-error.js";
import { loadAddon } from "./load-addon.js";

export type { ConfineOptions, Confinement, NativeTaskMemory } from "./addon.js";

/** Offsets and sizes in a task's memory are multiples of it: the largest page of arm64 kernels. */
export const TASK_PAGE_BYTES = 65_536;

export interface SandboxSupport {
  /** Tasks can run in a child process, with their parameters in shared memory. */
  childProcess: boolean;
  /** The kernel filters the child's system calls. */
  seccomp: boolean;
  /** Why one of them is missing; empty otherwise. */
  reason: string;
}

const NEEDS_LINUX = `child processes for tasks need Linux on x86-64 or arm64 (this is ${process.platform}-${process.arch})`;

/** Never throws. */
export function sandboxSupport(): SandboxSupport {
  try {
    const { sandbox, NativeTaskMemory: Memory } = loadAddon();
    if (sandbox === undefined || Memory === undefined) return { childProcess: false, seccomp: false, reason: NEEDS_LINUX };
    new Memory().close();
    const { seccomp } = sandbox.support();
    return { childProcess: true, seccomp, reason: seccomp ? "" : "the kernel offers no seccomp filters" };
  } catch (error) {
    return { childProcess: false, seccomp: false, reason: (error as Error).message };
  }
}

/** Memory that a child inherits as a descriptor. Throws DeviceError. */
export function createTaskMemory(): NativeTaskMemory {
  return guard(() => {
    const { NativeTaskMemory: Memory } = loadAddon();
    if (Memory === undefined) throw new DeviceError("unsupported", NEEDS_LINUX);
    return new Memory();
  });
}

/** In the child: what its parent has sized. */
export function mapTaskMemory(fd: number, sizeBytes: number): ArrayBuffer {
  return guard(() => {
    const { mapTaskMemory: map } = loadAddon();
    if (map === undefined) throw new DeviceError("unsupported", NEEDS_LINUX);
    return map(fd, sizeBytes);
  });
}

/** In the child: gives up what a task does not need, for good. Throws when the parent is gone. */
export function confine(options: ConfineOptions): Confinement {
  return guard(() => loadAddon().sandbox?.confine(options) ??
    { limits: false, capabilities: false, seccomp: false, reason: NEEDS_LINUX });
}

/** In the parent: how much private memory a child may have from now on, never more than it confined itself to. */
export function limitData(pid: number, dataBytes: number): void {
  guard(() => loadAddon().sandbox?.limitData(pid, dataBytes));
}
