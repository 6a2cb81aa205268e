// Owns: what the runtime needs of memory that two processes of one host both map. The runtime itself loads no native
// code: who composes a system passes an implementation to createSystem, or none, and then tensors go by the lanes.

/** A segment's first bytes prove its identity and are never part of its data. */
export const SEGMENT_HEADER_BYTES = 64;
/** Sizes are multiples of a page. */
export const SEGMENT_PAGE_BYTES = 4096;

export interface SharedSegment {
  readonly sizeBytes: number;
  header(): Uint8Array;
  /**
   * An ArrayBuffer over the first bytes of the data. One at a time: `onFree` runs when it has been collected or
   * detached, and only then may the next be made. The pages stay mapped that long, whatever else is closed.
   */
  lend(lengthBytes: number, onFree: () => void): ArrayBuffer;
  /** Takes the memory away from all views of a buffer lent by this segment, even after `close`; before it `onFree` runs in here. */
  detach(buffer: ArrayBuffer): void;
  close(): void;
}

export interface OwnSegment extends SharedSegment {
  /** Tells another process of this host how to find the segment, until `closeFile`. */
  readonly locator: string;
  /** Has the system find the pages now, off the event loop; rejects when there are too few. */
  prefault(): Promise<void>;
  /** Copies into the data. */
  write(offset: number, bytes: Uint8Array): void;
  closeFile(): void;
}

export interface SharedMemory {
  /** @returns undefined when there is no more to be had now. */
  create(sizeBytes: number, header: Uint8Array): OwnSegment | undefined;
  /** `locator` may come from a hostile peer. @returns undefined when it names no such segment of this user. */
  open(locator: string, sizeBytes: number): SharedSegment | undefined;
}
