// Owns: one actor's waiting messages. Two lanes: `system` (timers, watches, piped promises) is served first, `user`
// is a bounded ring. Invariant: user size never passes the capacity, and every message leaves through exactly one
// of shift, a drop reported to `onDrop`, or drain.
import type { ChainNode } from "./chain.js";
import type { CallError } from "./failure.js";

export interface Sender {
  /** Hex of the peer's CURVE public key, as proven in the handshake. */
  readonly nodeId: string;
  readonly link: unknown;
}

/** Where a call's answer goes; `isDone` turns true when nobody waits any more. */
export interface ReplySlot {
  readonly isDone: boolean;
  readonly deadlineMs: number;
  succeed(value: unknown): void;
  fail(error: CallError): void;
}

export interface Envelope {
  readonly name: string;
  message: unknown;
  readonly slot: ReplySlot | undefined;
  readonly sender: Sender | undefined;
  readonly chain: ChainNode | undefined;
}

export type DropReason = "overflow" | "conflated";

/**
 * What happens to a message that finds the user lane full:
 * - `reject`: the sender gets "full"
 * - `drop-newest`: it is dropped, the sender gets "accepted"
 * - `drop-oldest`: the longest waiting message is dropped for it
 * - `wait`: a call waits for room until its deadline; a cast gets "full"
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

export class Mailbox {
  readonly capacity: number;
  readonly #overflow: Overflow;
  readonly #onDrop: (envelope: Envelope, reason: DropReason) => void;
  readonly #system: (() => unknown)[] = [];
  #systemHead = 0;
  #ring: (Envelope | undefined)[] = new Array<Envelope | undefined>(RING_SLOTS_MIN);
  #head = 0;
  #size = 0;
  #waiting: Envelope[] = [];
  readonly #keyed: Map<string, Envelope> | undefined;
  readonly #keys: Map<Envelope, string> | undefined;

  constructor(options: MailboxOptions, onDrop: (envelope: Envelope, reason: DropReason) => void) {
    this.capacity = options.capacity ?? MAILBOX_CAPACITY_DEFAULT;
    if (!Number.isSafeInteger(this.capacity) || this.capacity < 1) {
      throw new TypeError(`mailbox.capacity must be an integer from 1, got ${String(this.capacity)}`);
    }
    this.#overflow = options.overflow ?? "reject";
    this.#onDrop = onDrop;
    if (typeof this.#overflow === "object") {
      this.#keyed = new Map();
      this.#keys = new Map();
    }
  }

  get size(): number {
    return this.#size;
  }

  get waitingSize(): number {
    return this.#waiting.length;
  }

  get systemSize(): number {
    return this.#system.length - this.#systemHead;
  }

  pushSystem(task: () => unknown): void {
    this.#system.push(task);
  }

  shiftSystem(): (() => unknown) | undefined {
    if (this.#systemHead === this.#system.length) return undefined;
    const task = this.#system[this.#systemHead++];
    if (this.#systemHead === this.#system.length) {
      this.#system.length = 0;
      this.#systemHead = 0;
    }
    return task;
  }

  clearSystem(): number {
    const count = this.systemSize;
    this.#system.length = 0;
    this.#systemHead = 0;
    return count;
  }

  push(envelope: Envelope): "accepted" | "full" {
    if (this.#keyed !== undefined && envelope.slot === undefined && this.#conflate(envelope)) return "accepted";
    if (this.#size < this.capacity) {
      this.#append(envelope);
      return "accepted";
    }
    switch (this.#overflow) {
      case "drop-newest":
        this.#onDrop(envelope, "overflow");
        return "accepted";
      case "drop-oldest": {
        this.#onDrop(this.shift()!, "overflow");
        this.#append(envelope);
        return "accepted";
      }
      case "wait":
        // As many may wait as may queue: the bound stays a small multiple of what the owner asked for.
        if (envelope.slot === undefined || this.#waiting.length >= this.capacity) return "full";
        this.#waiting.push(envelope);
        return "accepted";
      default:
        return "full";
    }
  }

  shift(): Envelope | undefined {
    if (this.#size === 0) return undefined;
    const envelope = this.#ring[this.#head]!;
    this.#ring[this.#head] = undefined;
    this.#head = (this.#head + 1) & (this.#ring.length - 1);
    this.#size -= 1;
    if (this.#keys !== undefined) this.#forget(envelope);
    if (this.#waiting.length > 0) this.#admit();
    return envelope;
  }

  /** Takes out the queued envelopes that `test` selects, keeping the order of the rest. */
  extract(test: (envelope: Envelope) => boolean): Envelope[] {
    const taken: Envelope[] = [];
    const kept: Envelope[] = [];
    for (const envelope of this.#all()) (test(envelope) ? taken : kept).push(envelope);
    if (taken.length === 0) return taken;
    const waiting = this.#waiting.filter((envelope) => !taken.includes(envelope));
    this.#reset();
    for (const envelope of kept) if (!waiting.includes(envelope)) this.#append(envelope);
    this.#waiting = waiting;
    return taken;
  }

  drain(): Envelope[] {
    const all = this.#all();
    this.#reset();
    return all;
  }

  #all(): Envelope[] {
    const all: Envelope[] = [];
    for (let i = 0; i < this.#size; i++) all.push(this.#ring[(this.#head + i) & (this.#ring.length - 1)]!);
    return all.concat(this.#waiting);
  }

  #reset(): void {
    this.#ring = new Array<Envelope | undefined>(RING_SLOTS_MIN);
    this.#head = 0;
    this.#size = 0;
    this.#waiting = [];
    this.#keyed?.clear();
    this.#keys?.clear();
  }

  #append(envelope: Envelope): void {
    if (this.#size === this.#ring.length) this.#grow();
    this.#ring[(this.#head + this.#size) & (this.#ring.length - 1)] = envelope;
    this.#size += 1;
  }

  #grow(): void {
    const ring = new Array<Envelope | undefined>(this.#ring.length * 2);
    for (let i = 0; i < this.#size; i++) ring[i] = this.#ring[(this.#head + i) & (this.#ring.length - 1)];
    this.#ring = ring;
    this.#head = 0;
  }

  #admit(): void {
    while (this.#waiting.length > 0 && this.#size < this.capacity) {
      const envelope = this.#waiting.shift()!;
      if (!envelope.slot!.isDone) this.#append(envelope);
    }
  }

  #conflate(envelope: Envelope): boolean {
    const key = (this.#overflow as { conflate: (name: string, message: unknown) => string | undefined }).conflate(
      envelope.name,
      envelope.message,
    );
    if (key === undefined) return false;
    const queued = this.#keyed!.get(key);
    if (queued !== undefined && queued.name === envelope.name) {
      const replaced: Envelope = { ...queued };
      queued.message = envelope.message;
      this.#onDrop(replaced, "conflated");
      return true;
    }
    if (this.#size < this.capacity) {
      this.#keyed!.set(key, envelope);
      this.#keys!.set(envelope, key);
    }
    return false;
  }

  #forget(envelope: Envelope): void {
    const key = this.#keys!.get(envelope);
    if (key === undefined) return;
    this.#keys!.delete(envelope);
    if (this.#keyed!.get(key) === envelope) this.#keyed!.delete(key);
  }
}
