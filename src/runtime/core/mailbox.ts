// Owns: one actor's waiting messages. Two lanes: `system` (timers, watches, piped promises) is served first, `user`
// is a bounded ring. Invariant: `push` never takes the user lane past its capacity (only `putBack` may, by what the
// stash held), and every message leaves through exactly one of shift, extract, drain or a drop told to the owner.
import type { Meta } from "./behavior.js";
import type { ChainNode } from "./chain.js";
import type { CallError } from "./failure.js";
import type { TraceContext } from "./trace.js";

export interface Sender {
  /** Hex of the peer's CURVE public key, as proven in the handshake. */
  readonly nodeId: string;
  readonly link: unknown;
}

/** Which message of which outbox this is: the key by which a receiver recognises a second delivery. */
export interface Delivery {
  readonly outbox: string;
  readonly sequence: number;
}

/** Where a call's answer goes; `isDone` turns true when nobody waits any more. */
export interface ReplySlot {
  readonly isDone: boolean;
  readonly deadlineMs: number;
  /** On a confirmed cast: it is handled by a cast handler, and answered once that has finished without throwing. */
  readonly delivery?: Delivery | undefined;
  succeed(value: unknown): void;
  fail(error: CallError): void;
  /**
   * Runs `listener` once when the caller gives up before there is an answer; at once when it already has; never
   * after an answer. One listener a slot.
   */
  onCancel(listener: (error: CallError) => void): void;
}

/** What only messages from links, calls made in handlers and traced messages have. Several messages may share one. */
export class Origin {
  readonly sender: Sender | undefined;
  readonly chain: ChainNode | undefined;
  readonly trace: TraceContext | undefined;
  /** What the handlers of its casts are told; made for the first. */
  meta: Meta | undefined = undefined;

  constructor(sender: Sender | undefined, chain: ChainNode | undefined, trace: TraceContext | undefined) {
    this.sender = sender;
    this.chain = chain;
    this.trace = trace;
  }
}

/** @returns undefined when there is nothing to tell. */
export function originOf(
  sender: Sender | undefined,
  chain: ChainNode | undefined,
  trace: TraceContext | undefined,
): Origin | undefined {
  const isPlain = sender === undefined && chain === undefined && trace === undefined;
  return isPlain ? undefined : new Origin(sender, chain, trace);
}

/** Small on purpose: thousands wait in young memory, and each word more made casts 8 % slower. */
export class Envelope {
  readonly name: string;
  message: unknown;
  readonly slot: ReplySlot | undefined;
  readonly origin: Origin | undefined;

  constructor(name: string, message: unknown, slot: ReplySlot | undefined, origin: Origin | undefined) {
    this.name = name;
    this.message = message;
    this.slot = slot;
    this.origin = origin;
  }

  get sender(): Sender | undefined {
    return this.origin === undefined ? undefined : this.origin.sender;
  }

  get chain(): ChainNode | undefined {
    return this.origin === undefined ? undefined : this.origin.chain;
  }

  get trace(): TraceContext | undefined {
    return this.origin === undefined ? undefined : this.origin.trace;
  }
}

export interface SystemTask {
  readonly run: () => unknown;
  readonly trace: TraceContext | undefined;
}

export type DropReason = "overflow" | "conflated" | "expired";

export interface MailboxOwner {
  dropped(envelope: Envelope, reason: DropReason): void;
  /** The owner's own `conflate` threw; the sender must not feel it. */
  conflateFailed(error: unknown): void;
}

/**
 * What happens to a message that finds the user lane full:
 * - `reject`: the sender gets "full"
 * - `drop-newest`: it is dropped, the sender gets "accepted"
 * - `drop-oldest`: the longest waiting message is dropped for it
 * - `wait`: a call waits for room until its deadline; a local cast gets "full"; a cast from a peer stays with the
 *   peer, whose credit it holds
 * - `{ conflate }`: casts with an equal key replace each other while they wait (full or not); past that, `reject`
 */
export type Overflow =
  | "reject"
  | "drop-oldest"
  | "drop-newest"
  | "wait"
  | { readonly conflate: (name: string, message: unknown) => string | undefined };

export interface MailboxOptions {
  readonly capacity?: number;
  readonly overflow?: Overflow;
}

/** At ~100 B an envelope a full default mailbox holds ~1 MiB before payloads: a thousand such actors fit 1 GiB. */
export const MAILBOX_CAPACITY_DEFAULT = 8192;
const RING_SLOTS_MIN = 16;
const NONE: never[] = [];

export class Mailbox {
  readonly capacity: number;
  readonly overflow: Overflow;
  readonly #owner: MailboxOwner;
  #system: SystemTask[] | undefined;
  #systemHead = 0;
  /** Shared and empty until the first message: most short-lived actors get one or none. */
  #ring: (Envelope | undefined)[] = NONE;
  #head = 0;
  #size = 0;
  #waiting: Envelope[] | undefined;
  readonly #keyed: Map<string, Envelope> | undefined;
  readonly #keys: Map<Envelope, string> | undefined;

  constructor(options: MailboxOptions | undefined, owner: MailboxOwner) {
    this.capacity = options?.capacity ?? MAILBOX_CAPACITY_DEFAULT;
    if (!Number.isSafeInteger(this.capacity) || this.capacity < 1) {
      throw new TypeError(`mailbox.capacity must be an integer from 1, got ${String(this.capacity)}`);
    }
    this.overflow = options?.overflow ?? "reject";
    this.#owner = owner;
    if (typeof this.overflow === "object") {
      this.#keyed = new Map();
      this.#keys = new Map();
    }
  }

  get size(): number {
    return this.#size;
  }

  get hasRoom(): boolean {
    return this.#size < this.capacity;
  }

  get waitingSize(): number {
    return this.#waiting === undefined ? 0 : this.#waiting.length;
  }

  get systemSize(): number {
    return this.#system === undefined ? 0 : this.#system.length - this.#systemHead;
  }

  get isEmpty(): boolean {
    return this.#size === 0 && this.systemSize === 0;
  }

  pushSystem(task: SystemTask): void {
    (this.#system ??= []).push(task);
  }

  shiftSystem(): SystemTask | undefined {
    const system = this.#system;
    if (system === undefined || this.#systemHead === system.length) return undefined;
    const task = system[this.#systemHead++];
    if (this.#systemHead === system.length) {
      system.length = 0;
      this.#systemHead = 0;
    }
    return task;
  }

  clearSystem(): number {
    const count = this.systemSize;
    this.#system = undefined;
    this.#systemHead = 0;
    return count;
  }

  push(envelope: Envelope): "accepted" | "full" {
    if (this.#keyed !== undefined && envelope.slot === undefined && this.#conflate(envelope)) return "accepted";
    if (this.#size < this.capacity) {
      this.#append(envelope);
      return "accepted";
    }
    switch (this.overflow) {
      case "drop-newest":
        this.#owner.dropped(envelope, "overflow");
        return "accepted";
      case "drop-oldest": {
        this.#owner.dropped(this.shift()!, "overflow");
        this.#append(envelope);
        return "accepted";
      }
      case "wait":
        // As many may wait as may queue: the bound stays a small multiple of what the owner asked for.
        if (envelope.slot === undefined || this.waitingSize >= this.capacity) return "full";
        (this.#waiting ??= []).push(envelope);
        return "accepted";
      default:
        return "full";
    }
  }

  shift(): Envelope | undefined {
    if (this.#size === 0) return undefined;
    const ring = this.#ring;
    const envelope = ring[this.#head]!;
    ring[this.#head] = undefined;
    this.#head = (this.#head + 1) & (ring.length - 1);
    this.#size -= 1;
    if (this.#keys !== undefined) this.#forget(envelope);
    if (this.#waiting !== undefined) this.#admit();
    return envelope;
  }

  /** In front of what waits, in the order given. */
  putBack(envelopes: readonly Envelope[]): void {
    while (this.#size + envelopes.length > this.#ring.length) this.#grow();
    const mask = this.#ring.length - 1;
    this.#head = (this.#head - envelopes.length) & mask;
    for (const [i, envelope] of envelopes.entries()) this.#ring[(this.#head + i) & mask] = envelope;
    this.#size += envelopes.length;
  }

  /** Takes out the queued envelopes that `test` selects, keeping the order of the rest. */
  extract(test: (envelope: Envelope) => boolean): Envelope[] {
    const taken = new Set(this.#all().filter(test));
    if (taken.size === 0) return [];
    const kept = this.#queued().filter((envelope) => !taken.has(envelope));
    const waiting = this.#waiting?.filter((envelope) => !taken.has(envelope));
    const keys = new Map(this.#keys);
    this.#reset();
    for (const envelope of kept) {
      this.#append(envelope);
      const key = keys.get(envelope);
      if (key !== undefined) this.#key(envelope, key);
    }
    this.#waiting = waiting;
    if (this.#waiting !== undefined) this.#admit();
    return [...taken];
  }

  drain(): Envelope[] {
    if (this.#size === 0 && this.#waiting === undefined) return NONE;
    const all = this.#all();
    this.#reset();
    return all;
  }

  #queued(): Envelope[] {
    return Array.from({ length: this.#size }, (_, i) => this.#ring[(this.#head + i) & (this.#ring.length - 1)]!);
  }

  #all(): Envelope[] {
    return this.#waiting === undefined ? this.#queued() : this.#queued().concat(this.#waiting);
  }

  #reset(): void {
    this.#ring = NONE;
    this.#head = 0;
    this.#size = 0;
    this.#waiting = undefined;
    this.#keyed?.clear();
    this.#keys?.clear();
  }

  #append(envelope: Envelope): void {
    if (this.#size === this.#ring.length) this.#grow();
    this.#ring[(this.#head + this.#size) & (this.#ring.length - 1)] = envelope;
    this.#size += 1;
  }

  #grow(): void {
    const ring = new Array<Envelope | undefined>(Math.max(RING_SLOTS_MIN, this.#ring.length * 2));
    for (let i = 0; i < this.#size; i++) ring[i] = this.#ring[(this.#head + i) & (this.#ring.length - 1)];
    this.#ring = ring;
    this.#head = 0;
  }

  #admit(): void {
    const waiting = this.#waiting!;
    while (waiting.length > 0 && this.#size < this.capacity) {
      const envelope = waiting.shift()!;
      if (envelope.slot!.isDone) this.#owner.dropped(envelope, "expired");
      else this.#append(envelope);
    }
    if (waiting.length === 0) this.#waiting = undefined;
  }

  #conflate(envelope: Envelope): boolean {
    const { conflate } = this.overflow as { conflate: (name: string, message: unknown) => string | undefined };
    let key: string | undefined;
    try {
      key = conflate(envelope.name, envelope.message);
    } catch (error) {
      this.#owner.conflateFailed(error);
    }
    if (key === undefined) return false;
    const queued = this.#keyed!.get(key);
    if (queued !== undefined && queued.name === envelope.name) {
      const replaced = new Envelope(queued.name, queued.message, undefined, queued.origin);
      queued.message = envelope.message;
      this.#owner.dropped(replaced, "conflated");
      return true;
    }
    if (this.#size < this.capacity) this.#key(envelope, key);
    return false;
  }

  #key(envelope: Envelope, key: string): void {
    this.#keyed!.set(key, envelope);
    this.#keys!.set(envelope, key);
  }

  #forget(envelope: Envelope): void {
    const key = this.#keys!.get(envelope);
    if (key === undefined) return;
    this.#keys!.delete(envelope);
    if (this.#keyed!.get(key) === envelope) this.#keyed!.delete(key);
  }
}
