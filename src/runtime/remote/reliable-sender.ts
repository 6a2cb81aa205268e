// Owns: the reliable casts from this system to one peer: a numbered stream for each actor there, kept until the peer's
// mailbox has taken it. Invariants: a stream's messages leave in order, on one lane at a time; after each change of
// link all that is not acknowledged leaves again; what can never arrive any more ends as a counted dead letter.
import { describeError, type CastResult } from "../core/failure.js";
import type { AnyProtocol } from "../core/protocol.js";
import type { TraceContext } from "../core/trace.js";
import type { TimerHandle } from "../host/host.js";
import { Codec, WireError, type EncodedRecord } from "../wire/codec.js";
import {
  BULK_BYTES_MIN, LINK_VERSION_DELIVERY, RELIABLE_STREAMS_MAX, RELIABLE_WINDOW_BYTES, RELIABLE_WINDOW_MESSAGES,
} from "../wire/limits.js";
import type { PeerLine } from "./peer-line.js";
import { addressFields, RecordKind, traceFields, type WireRecord } from "./record.js";

/** The link's outbox is full of other traffic; when it has room again nobody says, so look again soon. */
const RETRY_MS = 5;

interface Entry {
  readonly sequence: number;
  readonly encoded: EncodedRecord;
  readonly sizeBytes: number;
  readonly isBulk: boolean;
  readonly name: string;
  readonly message: unknown;
  wasSent: boolean;
}

interface Stream {
  readonly id: number;
  readonly target: string;
  /** Not acknowledged, in order; those before `cursor` are under way on the present link. */
  readonly entries: Entry[];
  cursor: number;
  nextSequence: number;
}

export interface ReliableReport {
  readonly waitingMessages: number;
  readonly waitingBytes: number;
  readonly resent: number;
}

export class ReliableSender {
  readonly #line: PeerLine;
  /** Its buffers live until they are acknowledged, over any number of links, so they come from no link's pool. */
  readonly #codec = new Codec();
  readonly #nextStreamId: () => number;
  readonly #streams = new Map<string, Stream>();
  readonly #byId = new Map<number, Stream>();
  #sizeBytes = 0;
  #count = 0;
  #resent = 0;
  #isOver = false;
  #retry: TimerHandle;
  #emptyWaiters: (() => void)[] = [];

  /** `nextStreamId` counts for the whole system, so that no peer ever sees a number twice from one incarnation. */
  constructor(line: PeerLine, nextStreamId: () => number) {
    this.#line = line;
    this.#nextStreamId = nextStreamId;
  }

  cast(
    protocol: AnyProtocol,
    target: string,
    name: string,
    message: unknown,
    trace: TraceContext | undefined,
  ): CastResult {
    const { system, link, label } = this.#line;
    if (this.#isOver) return "stopped";
    if (link !== undefined && link.version < LINK_VERSION_DELIVERY) {
      system.deadLetters.add("undeliverable", target, name, message);
      system.host.logger.warn("peer is too old for reliable casts", { nodeId: label, linkVersion: link.version });
      return "stopped";
    }
    const stream = this.#streams.get(target) ?? this.#open(target);
    if (stream === undefined || stream.entries.length >= RELIABLE_WINDOW_MESSAGES) return "full";
    const sequence = stream.nextSequence;
    const fields = [stream.id, sequence, ...addressFields(protocol, target, name), ...traceFields(trace)];
    let encoded: EncodedRecord;
    try {
      encoded = { ...this.#codec.encode([RecordKind.reliable, message, null, ...fields]), pooled: undefined };
    } catch (error) {
      system.deadLetters.add("malformed", target, name, message);
      system.host.logger.warn("message cannot be sent", { target, name, error: describeError(error) });
      return "full";
    }
    const sizeBytes = encoded.body.length + encoded.tensorBytes;
    if (this.#sizeBytes > 0 && this.#sizeBytes + sizeBytes > RELIABLE_WINDOW_BYTES) return "full";
    const isBulk = encoded.tensorBytes >= BULK_BYTES_MIN;
    stream.nextSequence += 1;
    stream.entries.push({ sequence, encoded, sizeBytes, isBulk, name, message, wasSent: false });
    this.#sizeBytes += sizeBytes;
    this.#count += 1;
    this.#pump(stream);
    return "accepted";
  }

  /** @throws WireError for an acknowledgement of what was never sent. */
  onAck({ stream: id, taken, isEnded }: WireRecord & { kind: "ack" }): void {
    const stream = this.#byId.get(id);
    if (stream === undefined) return; // of a stream that has ended meanwhile
    if (taken >= stream.nextSequence) throw new WireError("malformed", "an acknowledgement of what was not sent");
    const first = stream.entries[0]?.sequence ?? stream.nextSequence;
    const count = Math.max(0, taken + 1 - first);
    for (const entry of stream.entries.splice(0, count)) this.#forget(entry);
    stream.cursor = Math.max(0, stream.cursor - count);
    if (isEnded) this.#end(stream);
    else this.#pump(stream);
    this.#wakeIfEmpty();
  }

  /** A link has come or gone: what was under way may be lost, messages or acknowledgements. */
  onLinkChanged(): void {
    for (const stream of this.#streams.values()) {
      stream.cursor = 0;
      this.#pump(stream);
    }
  }

  /** Nothing can arrive any more: the peer was replaced or this system ends. */
  abandon(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    if (this.#retry !== undefined) this.#line.system.host.clock.clearTimer(this.#retry);
    for (const stream of [...this.#streams.values()]) this.#end(stream);
    this.#wakeIfEmpty();
  }

  /** Resolves when the peer has taken everything, or nothing can arrive any more. */
  whenEmpty(): Promise<void> {
    if (this.#count === 0) return Promise.resolve();
    return new Promise((resolve) => this.#emptyWaiters.push(resolve));
  }

  get isEmpty(): boolean {
    return this.#count === 0;
  }

  report(): ReliableReport {
    return { waitingMessages: this.#count, waitingBytes: this.#sizeBytes, resent: this.#resent };
  }

  #open(target: string): Stream | undefined {
    if (this.#streams.size >= RELIABLE_STREAMS_MAX) {
      for (const [key, each] of this.#streams) {
        if (each.entries.length > 0) continue;
        this.#byId.delete(each.id);
        this.#streams.delete(key); // complete: its target gets a new stream with its next message
        break;
      }
      if (this.#streams.size >= RELIABLE_STREAMS_MAX) return undefined;
    }
    const stream: Stream = { id: this.#nextStreamId(), target, entries: [], cursor: 0, nextSequence: 1 };
    this.#streams.set(target, stream);
    this.#byId.set(stream.id, stream);
    return stream;
  }

  #pump(stream: Stream): void {
    const { link } = this.#line;
    if (link === undefined || link.version < LINK_VERSION_DELIVERY) return;
    while (stream.cursor < stream.entries.length) {
      const entry = stream.entries[stream.cursor]!;
      // Lanes overtake one another: the next lane's turn comes when everything on this one has been taken.
      if (stream.cursor > 0 && stream.entries[stream.cursor - 1]!.isBulk !== entry.isBulk) return;
      const result = link.sendEncoded(entry.encoded);
      if (result === "full") this.#retryLater();
      if (result !== "accepted") return;
      if (entry.wasSent) this.#resent += 1;
      entry.wasSent = true;
      stream.cursor += 1;
    }
  }

  #retryLater(): void {
    this.#retry ??= this.#line.system.host.clock.setTimer(() => {
      this.#retry = undefined;
      for (const stream of this.#streams.values()) this.#pump(stream);
    }, RETRY_MS);
  }

  #end(stream: Stream): void {
    this.#streams.delete(stream.target);
    this.#byId.delete(stream.id);
    const { deadLetters } = this.#line.system;
    for (const entry of stream.entries.splice(0)) {
      this.#forget(entry);
      deadLetters.add("undeliverable", stream.target, entry.name, entry.message);
    }
  }

  #forget(entry: Entry): void {
    this.#sizeBytes -= entry.sizeBytes;
    this.#count -= 1;
  }

  #wakeIfEmpty(): void {
    if (this.#count === 0) for (const resolve of this.#emptyWaiters.splice(0)) resolve();
  }
}
