// Owns: the reliable casts of one peer that arrive here: what of each stream has arrived and what its actor has taken.
// Invariants: a stream's messages reach the mailbox in order, each at most once, over any number of links; only what
// the mailbox has taken is acknowledged; what waits for room never passes the peer's window.
import type { z } from "zod";
import type { Cell } from "../core/cell.js";
import type { CastResult } from "../core/failure.js";
import { originOf, type Sender } from "../core/mailbox.js";
import type { TimerHandle } from "../host/host.js";
import { WireError } from "../wire/codec.js";
import { RELIABLE_STREAMS_MAX, RELIABLE_WINDOW_BYTES, RELIABLE_WINDOW_MESSAGES } from "../wire/limits.js";
import type { Arrival } from "./link.js";
import { parsePayload } from "./payload.js";
import { REPLY_SHARE, type PeerLine } from "./peer-line.js";
import { RecordKind, type ReliableRecord } from "./record.js";
import { resolveAddress } from "./resolve.js";
import { Waitlist, type WaitingMessage } from "./waitlist.js";

/** The link had no room for an acknowledgement; without one the sender may wait for ever. */
const ACK_RETRY_MS = 5;

interface Stream {
  readonly id: number;
  readonly target: string;
  /** Every message up to this one has come, … */
  arrived: number;
  /** … and up to this one is in the mailbox. */
  taken: number;
  isEnded: boolean;
  isAckDue: boolean;
  readonly waiting: Waitlist<WaitingMessage>;
}

export class ReliableReceiver {
  readonly #line: PeerLine;
  readonly #sender: Sender;
  readonly #streams = new Map<string, Stream>();
  #due: Stream[] = [];
  #waitingBytes = 0;
  /** Streams up to this number may have been forgotten, so their messages may have been taken before. */
  #forgottenId: number;
  #isFlushPlanned = false;
  #retry: TimerHandle;

  constructor(line: PeerLine, sender: Sender, forgottenId: number) {
    this.#line = line;
    this.#sender = sender;
    this.#forgottenId = forgottenId;
  }

  /** The highest number that any stream of the peer has had here; 0 when there was none. */
  get lastId(): number {
    let last = this.#forgottenId;
    for (const { id } of this.#streams.values()) last = Math.max(last, id);
    return last;
  }

  /** @throws WireError when the peer sends more than its window. */
  onRecord(record: ReliableRecord, arrival: Arrival): void {
    const stream = this.#streamOf(record);
    if (stream === undefined) return;
    if (stream.isEnded || record.sequence <= stream.arrived) {
      this.#owe(stream); // sent again: the last acknowledgement did not get there
      return;
    }
    // Only a late frame of an earlier link can leave a gap: all of it comes again on the present one.
    if (record.sequence !== stream.arrived + 1) return;
    stream.arrived += 1;
    const found = resolveAddress(this.#line.system, record.address, "cast");
    if ("code" in found) {
      if (found.code === "stopped") this.#end(stream);
      else this.#refuse(stream, record, arrival);
      return;
    }
    const parsed = parsePayload(found.schema as z.ZodType, record.payload);
    if (!parsed.ok) this.#refuse(stream, record, arrival);
    else this.#deliver(stream, found.cell, record, parsed.value, arrival);
  }

  onLinkChanged(): void {
    this.#flush();
  }

  /** Without a link nothing is owed; what waits for room will be sent again. */
  onDown(): void {
    for (const stream of this.#streams.values()) this.#dropWaiting(stream);
    this.#due = [];
    for (const stream of this.#streams.values()) stream.isAckDue = false;
    if (this.#retry !== undefined) this.#line.system.host.clock.clearTimer(this.#retry);
    this.#retry = undefined;
  }

  #streamOf({ stream: id, sequence, address }: ReliableRecord): Stream | undefined {
    const known = this.#streams.get(address.target);
    if (known !== undefined && id <= known.id) return id === known.id ? known : undefined;
    if (known !== undefined) this.#dropWaiting(known);
    else if (this.#streams.size >= RELIABLE_STREAMS_MAX) this.#forgetOldest();
    const stream: Stream = {
      id, target: address.target, arrived: 0, taken: 0, isEnded: false, isAckDue: false, waiting: new Waitlist(),
    };
    this.#streams.delete(address.target);
    this.#streams.set(address.target, stream);
    if (sequence !== 1 || id <= this.#forgottenId) {
      // Perhaps taken before it was forgotten: better a dead letter than a second delivery.
      stream.isEnded = true;
    }
    return stream;
  }

  #deliver(stream: Stream, cell: Cell, record: ReliableRecord, value: unknown, { sizeBytes }: Arrival): void {
    const { name } = record.address;
    const take = (): CastResult => {
      const result = cell.deliverCast(name, value, originOf(this.#sender, undefined, record.trace));
      if (result === "stopped") this.#end(stream);
      else if (result === "accepted") this.#taken(stream);
      return result;
    };
    if (stream.waiting.size === 0 && take() !== "full") return;
    this.#wait(stream, cell, { sizeBytes, take });
  }

  /** Answers what fits no protocol by taking it, in its place in the order: to send it again would not help. */
  #refuse(stream: Stream, record: ReliableRecord, arrival: Arrival): void {
    const { target, name } = record.address;
    this.#line.system.deadLetters.add("malformed", target, name, record.payload);
    arrival.link.penalize(1);
    const take = (): CastResult => {
      this.#taken(stream);
      return "accepted";
    };
    const cell = this.#line.system.cellAt(target);
    if (stream.waiting.size === 0 || cell === undefined) take();
    else this.#wait(stream, cell, { sizeBytes: 0, take });
  }

  #wait(stream: Stream, cell: Cell, message: WaitingMessage): void {
    const { sizeBytes } = message;
    const isPastWindow = this.#waitingBytes > 0 && this.#waitingBytes + sizeBytes > RELIABLE_WINDOW_BYTES;
    if (isPastWindow || stream.waiting.size >= RELIABLE_WINDOW_MESSAGES) {
      throw new WireError("malformed", "more reliable casts than their window holds");
    }
    this.#waitingBytes += sizeBytes;
    stream.waiting.add(cell, {
      sizeBytes,
      take: () => {
        const result = message.take();
        if (result === "accepted") this.#waitingBytes -= sizeBytes;
        return result;
      },
    });
  }

  #taken(stream: Stream): void {
    stream.taken += 1;
    this.#owe(stream);
  }

  #end(stream: Stream): void {
    this.#dropWaiting(stream);
    stream.isEnded = true;
    this.#owe(stream);
  }

  #dropWaiting(stream: Stream): void {
    for (const { sizeBytes } of stream.waiting.clear()) this.#waitingBytes -= sizeBytes;
    stream.arrived = stream.taken;
  }

  #forgetOldest(): void {
    for (const [target, stream] of this.#streams) {
      this.#dropWaiting(stream);
      this.#forgottenId = Math.max(this.#forgottenId, stream.id);
      this.#streams.delete(target);
      return;
    }
  }

  #owe(stream: Stream): void {
    if (!stream.isAckDue) {
      stream.isAckDue = true;
      this.#due.push(stream);
    }
    if (this.#isFlushPlanned) return;
    this.#isFlushPlanned = true;
    this.#line.system.host.tasks.micro(() => {
      this.#isFlushPlanned = false;
      this.#flush();
    });
  }

  /** One acknowledgement for all that came in a frame. */
  #flush(): void {
    const { link, system } = this.#line;
    if (link === undefined) return;
    while (this.#due.length > 0) {
      const stream = this.#due[this.#due.length - 1]!;
      const result = link.send([RecordKind.ack, null, null, stream.id, stream.taken, stream.isEnded], REPLY_SHARE);
      if (result === "full") {
        this.#retry ??= system.host.clock.setTimer(() => {
          this.#retry = undefined;
          this.#flush();
        }, ACK_RETRY_MS);
      }
      if (result !== "accepted") return;
      stream.isAckDue = false;
      this.#due.pop();
    }
  }
}
