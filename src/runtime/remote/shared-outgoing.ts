// Owns: the segments that this end writes for one peer. Invariants: a segment is written only while it is free, that
// is before its first use or after the peer has given it back; it carries one message at a time; what is open at once
// is bounded in bytes and number. When the link ends all are dropped, never used again: a peer may still read them.
import type { Logger } from "../host/host.js";
import { SEGMENT_PAGE_BYTES, type OwnSegment, type SharedMemory } from "../host/shared-memory.js";
import { WireError, type Placement } from "../wire/codec.js";
import { SHARED_ALIGN_BYTES, SHARED_BYTES_MIN, SHARED_POOL_BYTES_MAX, SHARED_SEGMENTS_MAX } from "../wire/limits.js";
import { CHALLENGE_BYTES, encodeOffer, encodeSegmentHeader, isEqual, type SegmentSecret } from "./shared-frames.js";

/** A message may take a segment up to this much larger than itself; a small one must not keep a large one busy. */
const FIT_MAX = 4;
/** Segments whose pages are being found: enough to follow a burst, too few to hold up the pool of threads. */
const WARMING_MAX = 2;

interface Segment {
  /** Grows with each offer: a segment whose pages are found late is numbered anew. */
  id: number;
  readonly memory: OwnSegment;
  readonly secret: SegmentSecret;
  /** `isSeen`: the peer has proven that it maps it. */
  isSeen: boolean;
  use: "free" | "warming" | "draft" | "lent";
  /** An ArrayBuffer of this end still lies over it. */
  hasView: boolean;
  usedAt: number;
}

export interface SharedOutgoingOptions {
  readonly isDialer: boolean;
}

export interface SharedOutgoingModules {
  readonly memory: SharedMemory;
  readonly logger: Logger;
  readonly random: (sizeBytes: number) => Uint8Array;
  readonly sendOffer: (id: number, body: Uint8Array) => void;
  readonly sendRetire: (id: number) => void;
}

/** Space taken for one message; `commit` when it is on its way, or `cancel`. */
export interface Placed {
  readonly placed: readonly Placement[];
  commit(): void;
  cancel(): void;
}

export class SharedOutgoing {
  readonly #isDialer: boolean;
  readonly #modules: SharedOutgoingModules;
  readonly #segments = new Map<number, Segment>();
  readonly #drafts = new WeakMap<ArrayBufferLike, Segment>();
  #bytes = 0;
  #warming = 0;
  #nextId = 0;
  #clock = 0;
  /** Whether this peer sees what this process shares: unknown until a first answer. */
  #state: "unknown" | "yes" | "no" = "unknown";
  /** Sizes of the messages that went by the lanes because it was unknown. */
  #wanted: number[] = [];
  #isClosed = false;
  transfers = 0;
  transferBytes = 0;
  /** Messages large enough that found no segment. */
  misses = 0;

  constructor(options: SharedOutgoingOptions, modules: SharedOutgoingModules) {
    this.#isDialer = options.isDialer;
    this.#modules = modules;
  }

  get sizeBytes(): number {
    return this.#bytes;
  }

  get count(): number {
    return this.#segments.size;
  }

  /** Offers an empty segment, to learn whether the peer is on this host and can see it. */
  probe(): void {
    const segment = this.#create(0);
    if (segment !== undefined) this.#offer(segment);
    else this.#state = "no";
  }

  /** The peer's own segment is visible here, so it will see this end's too; every one is proven all the same. */
  assumeVisible(): void {
    if (this.#state === "unknown") this.#settle("yes");
  }

  /** An array of which nothing is copied when it is sent; undefined when there is no segment for it. */
  draft(lengthBytes: number): ArrayBuffer | undefined {
    if (this.#state !== "yes" || this.#isClosed || lengthBytes < SHARED_BYTES_MIN) return undefined;
    let segment = this.#find(lengthBytes, (each) => !each.hasView);
    if (segment === undefined && this.#makeRoom(sizeClass(lengthBytes))) {
      segment = this.#create(sizeClass(lengthBytes));
      if (segment !== undefined) this.#offer(segment);
    }
    if (segment === undefined) return undefined;
    const buffer = segment.memory.lend(lengthBytes, whenViewGone(segment));
    segment.hasView = true;
    segment.use = "draft";
    this.#drafts.set(buffer, segment);
    return buffer;
  }

  /** Takes space for these arrays and copies into it; drafts lie there already. */
  place(arrays: readonly ArrayBufferView[], sizeBytes: number): Placed | undefined {
    if (sizeBytes < SHARED_BYTES_MIN) return undefined;
    if (this.#state === "unknown" && this.#wanted.length < WARMING_MAX) this.#wanted.push(sizeBytes);
    if (this.#state !== "yes" || this.#isClosed) return undefined;
    const drafts = new Map<Segment, ArrayBufferLike>();
    const placed: (Placement | undefined)[] = arrays.map((array) => {
      if (array.byteLength === 0) return { segment: 0, offset: 0 };
      const segment = this.#drafts.get(array.buffer);
      if (segment?.use !== "draft" || !segment.isSeen || drafts.has(segment)) return undefined;
      drafts.set(segment, array.buffer);
      return { segment: segment.id, offset: array.byteOffset };
    });
    let needBytes = 0;
    const offsets = arrays.map((array, i) => {
      if (placed[i] !== undefined) return 0;
      const offset = needBytes;
      needBytes += Math.ceil(array.byteLength / SHARED_ALIGN_BYTES) * SHARED_ALIGN_BYTES;
      return offset;
    });
    const target = needBytes === 0 ? undefined : this.#find(needBytes);
    if (needBytes > 0 && target === undefined) {
      this.misses += 1;
      this.#grow(needBytes);
      return undefined;
    }
    for (const [i, array] of arrays.entries()) {
      if (placed[i] !== undefined) continue;
      target!.memory.write(offsets[i]!, new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
      placed[i] = { segment: target!.id, offset: offsets[i]! };
    }
    if (target !== undefined) {
      this.#lend(target);
      this.#keepSpare(needBytes);
    }
    return {
      placed: placed as Placement[],
      commit: () => {
        for (const [segment, buffer] of drafts) {
          this.#lend(segment);
          segment.memory.detach(buffer as ArrayBuffer); // the receiver's from now on
        }
        this.transfers += 1;
        this.transferBytes += sizeBytes;
      },
      cancel: () => {
        if (target !== undefined) target.use = "free";
      },
    };
  }

  /** @throws WireError when there was no such offer. */
  onAnswer(id: number, isVisible: boolean, response: Uint8Array): void {
    const segment = this.#segments.get(id);
    if (segment === undefined || segment.isSeen || segment.use === "warming") throw new WireError("malformed", "an answer to no offer of shared memory");
    segment.memory.closeFile();
    if (isVisible && !isEqual(response, segment.secret.response)) {
      throw new WireError("malformed", "a false proof of seeing shared memory");
    }
    if (!isVisible) {
      this.#settle("no"); // another container or user: it will not be better next time
      this.#drop(segment);
      return;
    }
    this.#settle("yes");
    segment.isSeen = true;
    if (segment.memory.sizeBytes === 0) this.#drop(segment);
  }

  /** @throws WireError when the peer gives back what it was not sent. */
  onRelease(id: number): void {
    const segment = this.#segments.get(id);
    if (segment?.use !== "lent") throw new WireError("malformed", "the return of a segment that was not lent");
    segment.use = "free";
  }

  close(): void {
    this.#isClosed = true;
    for (const segment of this.#segments.values()) this.#drop(segment);
  }

  #settle(state: "yes" | "no"): void {
    this.#state = state;
    for (const sizeBytes of this.#wanted.splice(0)) if (state === "yes") this.#grow(sizeBytes);
  }

  /**
   * Has another segment ready before the next message of this size needs it, where that ends no other: a miss costs
   * the lanes' time, ten times that of the copy, and the pages are found off this thread.
   */
  #keepSpare(sizeBytes: number): void {
    if (!this.#hasRoom(sizeClass(sizeBytes))) return;
    for (const { memory, use } of this.#segments.values()) {
      const isFit = memory.sizeBytes >= sizeBytes && memory.sizeBytes <= sizeBytes * FIT_MAX;
      if (isFit && (use === "free" || use === "warming")) return;
    }
    this.#grow(sizeBytes);
  }

  #lend(segment: Segment): void {
    segment.use = "lent";
    segment.usedAt = ++this.#clock;
  }

  #find(sizeBytes: number, isFit: (segment: Segment) => boolean = () => true): Segment | undefined {
    let best: Segment | undefined;
    for (const segment of this.#segments.values()) {
      const size = segment.memory.sizeBytes;
      if (segment.use !== "free" || !segment.isSeen || size < sizeBytes || size > sizeBytes * FIT_MAX || !isFit(segment)) continue;
      if (best === undefined || size < best.memory.sizeBytes) best = segment;
    }
    return best;
  }

  /** Has a segment of this size ready for the next such message. */
  #grow(sizeBytes: number): void {
    const size = sizeClass(sizeBytes);
    if (this.#warming >= WARMING_MAX || !this.#makeRoom(size)) return;
    const segment = this.#create(size);
    if (segment === undefined) return;
    segment.use = "warming";
    this.#warming += 1;
    segment.memory.prefault().then(
      () => {
        this.#warming -= 1;
        if (this.#isClosed) return;
        segment.use = "free";
        // Pages are found in any order, but the peer takes offers in the order of their numbers alone.
        this.#segments.delete(segment.id);
        segment.id = this.#nextId++;
        this.#segments.set(segment.id, segment);
        this.#offer(segment);
      },
      (error: unknown) => {
        this.#warming -= 1;
        this.#modules.logger.warn("no pages for shared memory; tensors go by the network", { sizeBytes: size, error });
        this.#drop(segment);
      },
    );
  }

  /** Ends free segments, the longest unused first, until another of this size is within the bounds. */
  #makeRoom(sizeBytes: number): boolean {
    if (this.#hasRoom(sizeBytes)) return true;
    if (sizeBytes > SHARED_POOL_BYTES_MAX) return false;
    const idle = [...this.#segments.values()]
      .filter(({ use, isSeen, hasView }) => use === "free" && isSeen && !hasView)
      .sort((a, b) => a.usedAt - b.usedAt);
    for (const segment of idle) {
      this.#modules.sendRetire(segment.id);
      this.#drop(segment);
      if (this.#hasRoom(sizeBytes)) return true;
    }
    return false;
  }

  #hasRoom(sizeBytes: number): boolean {
    return this.#bytes + sizeBytes <= SHARED_POOL_BYTES_MAX && this.#segments.size < SHARED_SEGMENTS_MAX;
  }

  #create(sizeBytes: number): Segment | undefined {
    const { memory, random } = this.#modules;
    const secret = { challenge: random(CHALLENGE_BYTES), response: random(CHALLENGE_BYTES) };
    const own = memory.create(sizeBytes, encodeSegmentHeader(this.#isDialer, secret));
    if (own === undefined) return undefined;
    const segment: Segment = {
      id: this.#nextId++, memory: own, secret, isSeen: false, use: "free", hasView: false, usedAt: ++this.#clock,
    };
    this.#segments.set(segment.id, segment);
    this.#bytes += sizeBytes;
    return segment;
  }

  #offer({ id, memory, secret }: Segment): void {
    const { sizeBytes, locator } = memory;
    this.#modules.sendOffer(id, encodeOffer({ sizeBytes, challenge: secret.challenge, locator }));
  }

  #drop(segment: Segment): void {
    if (!this.#segments.delete(segment.id)) return;
    this.#bytes -= segment.memory.sizeBytes;
    segment.memory.close();
  }
}

/** In a scope of its own, so that it does not hold the buffer whose end it waits for. */
function whenViewGone(segment: Segment): () => void {
  return () => {
    segment.hasView = false;
    if (segment.use === "draft") segment.use = "free"; // collected without having been sent
  };
}

/** A multiple of the page; quarter steps between powers of two, so that few classes serve all sizes. */
export function sizeClass(sizeBytes: number): number {
  const step = Math.max(SEGMENT_PAGE_BYTES, 2 ** (Math.floor(Math.log2(sizeBytes)) - 2));
  return Math.ceil(sizeBytes / step) * step;
}
