// Owns: the peer's segments that this end has mapped, and the arrays handed out over them.
// Invariants: a segment is mapped only after the peer has proven that it knows what is in it; arrays over a segment
// are handed out once and the segment is given back when the last of them is gone; a peer that names a segment it
// was not given back, or bytes outside of it, breaks the protocol and loses its link.
import type { SharedMemory, SharedSegment } from "../host/shared-memory.js";
import { WireError, type Placement } from "../wire/codec.js";
import { SHARED_POOL_BYTES_MAX, SHARED_SEGMENTS_MAX } from "../wire/limits.js";
import { onRelease } from "../wire/releasable.js";
import { decodeOffer, readSegmentHeader } from "./shared-frames.js";

interface Mapped {
  readonly memory: SharedSegment;
  isHeld: boolean;
}

export class SharedIncoming {
  readonly #memory: SharedMemory;
  /** The peer's role, which its segments' headers must tell. */
  readonly #isPeerDialer: boolean;
  readonly #onRelease: (id: number) => void;
  readonly #mapped = new Map<number, Mapped>();
  #mappedBytes = 0;
  #lastId = -1;
  #isClosed = false;
  transfers = 0;
  transferBytes = 0;

  constructor(memory: SharedMemory, isPeerDialer: boolean, onRelease: (id: number) => void) {
    this.#memory = memory;
    this.#isPeerDialer = isPeerDialer;
    this.#onRelease = onRelease;
  }

  get mappedBytes(): number {
    return this.#mappedBytes;
  }

  /** @returns what proves that this end sees the segment, or undefined when it does not. */
  accept(id: number, body: Uint8Array): Uint8Array | undefined {
    if (!(id > this.#lastId) || !Number.isSafeInteger(id) || id > 0xffff_ffff) {
      throw new WireError("malformed", `an offer of shared memory under the number ${id}`);
    }
    this.#lastId = id;
    const { sizeBytes, challenge, locator } = decodeOffer(body);
    if (this.#mapped.size >= SHARED_SEGMENTS_MAX || this.#mappedBytes + sizeBytes > SHARED_POOL_BYTES_MAX) {
      throw new WireError("malformed", "more shared memory than one peer may offer");
    }
    const memory = this.#memory.open(locator, sizeBytes);
    if (memory === undefined) return undefined;
    const response = readSegmentHeader(memory.header(), this.#isPeerDialer, challenge);
    if (response === undefined || sizeBytes === 0) {
      memory.close(); // a stranger's, or only asked to find out whether this end can see it
      return response;
    }
    this.#mapped.set(id, { memory, isHeld: false });
    this.#mappedBytes += sizeBytes;
    return response;
  }

  retire(id: number): void {
    const mapped = this.#mapped.get(id);
    if (mapped === undefined || mapped.isHeld) throw new WireError("malformed", "the end of a segment that is not free");
    this.#mapped.delete(id);
    this.#mappedBytes -= mapped.memory.sizeBytes;
    mapped.memory.close();
  }

  /** @returns for each array its bytes, without a copy. */
  attach(placed: readonly Placement[], sizes: readonly number[]): Uint8Array[] {
    const extents = new Map<number, { readonly from: number; readonly to: number }[]>();
    for (const [i, { segment, offset }] of placed.entries()) {
      const size = sizes[i]!;
      if (size === 0) continue;
      const mapped = this.#mapped.get(segment);
      if (mapped === undefined || mapped.isHeld) throw new WireError("malformed", "an array in a segment that is not free");
      if (offset + size > mapped.memory.sizeBytes) throw new WireError("malformed", "an array outside of its segment");
      const extent = { from: offset, to: offset + size };
      const others = extents.get(segment);
      if (others === undefined) extents.set(segment, [extent]);
      else others.push(extent);
    }
    for (const each of extents.values()) {
      each.sort((a, b) => a.from - b.from);
      if (each.some(({ from }, i) => i > 0 && from < each[i - 1]!.to)) throw new WireError("malformed", "arrays that overlap");
    }
    const buffers = new Map<number, ArrayBuffer>();
    for (const [id, each] of extents) buffers.set(id, this.#lend(id, each.at(-1)!.to));
    this.transfers += 1;
    return placed.map(({ segment, offset }, i) => {
      const size = sizes[i]!;
      this.transferBytes += size;
      return size === 0 ? new Uint8Array(0) : new Uint8Array(buffers.get(segment)!, offset, size);
    });
  }

  /** Arrays handed out stay readable; the peer is told nothing more. */
  close(): void {
    this.#isClosed = true;
    for (const { memory } of this.#mapped.values()) memory.close();
    this.#mapped.clear();
    this.#mappedBytes = 0;
  }

  #lend(id: number, lengthBytes: number): ArrayBuffer {
    const mapped = this.#mapped.get(id)!;
    const { memory } = mapped;
    const buffer = memory.lend(lengthBytes, this.#whenFree(id, mapped));
    mapped.isHeld = true;
    onRelease(buffer, (released) => memory.detach(released));
    return buffer;
  }

  /** Made in a scope of its own: closures of one scope share what they hold, and this one must not hold the buffer. */
  #whenFree(id: number, mapped: Mapped): () => void {
    return () => {
      mapped.isHeld = false;
      if (!this.#isClosed) this.#onRelease(id);
    };
  }
}
