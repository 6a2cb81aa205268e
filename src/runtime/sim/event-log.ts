// Owns: the account of a simulation: the hash over all its events, and the last of them for a failure's report.
// Invariant: equal hashes mean that the same events happened at the same virtual times, frame bytes included.
import { createHash, type Hash } from "node:crypto";

/** Kinds of events; the numbers are part of the hash. */
export const EventKind = {
  micro: 1, macro: 2, timer: 3, frame: 4, connect: 5, end: 6, outcome: 7, fault: 8, start: 9, crash: 10, note: 11, log: 12, disk: 13,
} as const;
export type EventKind = (typeof EventKind)[keyof typeof EventKind];
const KIND_NAMES = Object.fromEntries(Object.entries(EventKind).map(([name, kind]) => [kind, name]));

/** Tuples are gathered up to this before they are hashed: one call into OpenSSL for some thousand events. */
const STAGE_BYTES = 64 * 1024;
const TUPLE_BYTES = 24;
/** 64 bits: two runs of one seed are compared, nobody attacks. */
const DIGEST_DIGITS = 16;
/** What a failure shows: enough to see the last exchange of every node. */
const TAIL_EVENTS = 400;

export interface SimEventRecord {
  readonly atMs: number;
  readonly kind: string;
  readonly node: string;
  readonly detail: string;
}

interface Entry {
  atMs: number;
  kind: EventKind;
  node: string;
  value: number;
  text: string | undefined;
}

export class EventLog {
  readonly #hash: Hash = createHash("sha256");
  readonly #stage = Buffer.allocUnsafeSlow(STAGE_BYTES);
  #staged = 0;
  #count = 0;
  readonly #tail: Entry[] = [];
  readonly #onEvent: ((event: SimEventRecord) => void) | undefined;

  constructor(onEvent: ((event: SimEventRecord) => void) | undefined) {
    this.#onEvent = onEvent;
  }

  get count(): number {
    return this.#count;
  }

  /** `text` is hashed as well; `bytes` are those of a frame. */
  record(kind: EventKind, nodeIndex: number, node: string, atMs: number, value: number, text?: string, bytes?: readonly Uint8Array[]): void {
    this.#count += 1;
    if (this.#staged + TUPLE_BYTES > STAGE_BYTES) this.#flush();
    const stage = this.#stage;
    const at = this.#staged;
    stage.writeInt32LE(kind, at);
    stage.writeInt32LE(nodeIndex, at + 4);
    stage.writeDoubleLE(atMs, at + 8);
    stage.writeDoubleLE(value, at + 16);
    this.#staged = at + TUPLE_BYTES;
    if (text !== undefined) this.#add(Buffer.from(text));
    if (bytes !== undefined) for (const part of bytes) this.#add(part);
    this.#remember(kind, node, atMs, value, text);
  }

  /** The hash of all events so far. */
  digest(): string {
    this.#flush();
    return this.#hash.copy().digest("hex").slice(0, DIGEST_DIGITS);
  }

  tail(): SimEventRecord[] {
    const from = this.#tail.length < TAIL_EVENTS ? 0 : this.#count % TAIL_EVENTS;
    return [...this.#tail.slice(from), ...this.#tail.slice(0, from)].map(toRecord);
  }

  #add(bytes: Uint8Array): void {
    if (bytes.length > STAGE_BYTES - this.#staged) this.#flush();
    if (bytes.length > STAGE_BYTES) this.#hash.update(bytes);
    else {
      this.#stage.set(bytes, this.#staged);
      this.#staged += bytes.length;
    }
  }

  #flush(): void {
    if (this.#staged === 0) return;
    this.#hash.update(this.#stage.subarray(0, this.#staged));
    this.#staged = 0;
  }

  #remember(kind: EventKind, node: string, atMs: number, value: number, text: string | undefined): void {
    const slot = (this.#count - 1) % TAIL_EVENTS;
    const entry = this.#tail[slot];
    if (entry === undefined) this.#tail.push({ kind, node, atMs, value, text });
    else {
      entry.kind = kind;
      entry.node = node;
      entry.atMs = atMs;
      entry.value = value;
      entry.text = text;
    }
    if (this.#onEvent !== undefined) this.#onEvent(toRecord({ kind, node, atMs, value, text }));
  }
}

function toRecord({ kind, node, atMs, value, text }: Entry): SimEventRecord {
  return { atMs, kind: KIND_NAMES[kind] ?? String(kind), node, detail: text ?? String(value) };
}
