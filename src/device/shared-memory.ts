// Owns: shared memory between processes of one host, by the addon: memfd segments without a name, found through
// /proc by a peer of the same user. Invariants: nothing is left behind by a process that is killed; what a system
// creates stays below its budget; whatever a locator says, opening it changes nothing but this process's memory map.
//
// Trust: both ends map a segment writable. A peer that is let in here runs as the same user on the same host, where
// the system lets it debug this process anyway; it may change a tensor after it was sent, never its size. Each
// segment serves one link, so a peer sees and can spoil only what goes to or comes from itself.
import { totalmem } from "node:os";
import type { NativeSharedSegment } from "./addon.js";
import { loadAddon } from "./load-addon.js";

/** One process's own segments: room for four links at their bound, and never more than a quarter of the memory. */
const BUDGET_BYTES_DEFAULT = 1024 * 1024 * 1024;
const BUDGET_SHARE_MAX = 0.25;
const LOCATOR = /^([1-9]\d{0,6})\/(0|[1-9]\d{0,9})$/;
const FD_MAX = 2 ** 31 - 1;
const HEADER_BYTES = 64;
const PAGE_BYTES = 4096;

export interface SharedMemoryOptions {
  readonly budgetBytes?: number;
}

/** @returns undefined where there is none: not Linux, no addon, or an engine that takes no external memory. */
export function openSharedMemory(options: SharedMemoryOptions = {}): NativeSharedMemory | undefined {
  let addon: ReturnType<typeof loadAddon>;
  try {
    addon = loadAddon();
  } catch {
    return undefined; // the lanes do without
  }
  const { NativeSharedSegment: Segment } = addon;
  if (Segment === undefined) return undefined;
  try {
    const probe = new Segment({ sizeBytes: PAGE_BYTES, header: new Uint8Array(HEADER_BYTES) });
    const { pid, fd } = probe.place();
    new Segment({ sizeBytes: PAGE_BYTES, pid, fd }).close();
    probe.detach(probe.lend(PAGE_BYTES, () => undefined));
    probe.close();
  } catch {
    return undefined;
  }
  const budgetBytes = options.budgetBytes ?? Math.min(BUDGET_BYTES_DEFAULT, totalmem() * BUDGET_SHARE_MAX);
  return new NativeSharedMemory(Segment, budgetBytes);
}

type SegmentClass = new (options: { sizeBytes: number } & ({ header: Uint8Array } | { pid: number; fd: number })) => NativeSharedSegment;

/** Implements the runtime's SharedMemory. */
export class NativeSharedMemory {
  readonly #Segment: SegmentClass;
  readonly #budgetBytes: number;
  #usedBytes = 0;

  constructor(Segment: SegmentClass, budgetBytes: number) {
    this.#Segment = Segment;
    this.#budgetBytes = budgetBytes;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  create(sizeBytes: number, header: Uint8Array): OwnNativeSegment | undefined {
    if (this.#usedBytes + sizeBytes > this.#budgetBytes) return undefined;
    try {
      const native = new this.#Segment({ sizeBytes, header });
      this.#usedBytes += sizeBytes;
      return new OwnNativeSegment(native, sizeBytes, () => void (this.#usedBytes -= sizeBytes));
    } catch {
      return undefined; // out of memory, of descriptors, or forbidden
    }
  }

  open(locator: string, sizeBytes: number): NativeSegment | undefined {
    const match = LOCATOR.exec(locator);
    if (match === null || Number(match[2]) > FD_MAX) return undefined;
    try {
      return new NativeSegment(new this.#Segment({ sizeBytes, pid: Number(match[1]), fd: Number(match[2]) }), sizeBytes);
    } catch {
      return undefined;
    }
  }
}

class NativeSegment {
  readonly sizeBytes: number;
  protected readonly native: NativeSharedSegment;

  constructor(native: NativeSharedSegment, sizeBytes: number) {
    this.native = native;
    this.sizeBytes = sizeBytes;
  }

  header(): Uint8Array {
    return this.native.header();
  }

  lend(lengthBytes: number, onFree: () => void): ArrayBuffer {
    return this.native.lend(lengthBytes, onFree);
  }

  detach(buffer: ArrayBuffer): void {
    this.native.detach(buffer);
  }

  close(): void {
    this.native.close();
  }
}

class OwnNativeSegment extends NativeSegment {
  readonly locator: string;
  #onClose: (() => void) | undefined;

  constructor(native: NativeSharedSegment, sizeBytes: number, onClose: () => void) {
    super(native, sizeBytes);
    const { pid, fd } = native.place();
    this.locator = `${pid}/${fd}`;
    this.#onClose = onClose;
  }

  prefault(): Promise<void> {
    return this.native.prefault();
  }

  write(offset: number, bytes: Uint8Array): void {
    this.native.write(offset, bytes);
  }

  closeFile(): void {
    this.native.closeFile();
  }

  override close(): void {
    this.#onClose?.();
    this.#onClose = undefined;
    super.close();
  }
}
