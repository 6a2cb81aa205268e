// Owns: the casts of one peer's outboxes that arrive here. Invariants: of one outbox and actor one message at a time
// is in the mailbox, so none is handled before an earlier one has succeeded or was refused for good; a run is taken
// without a gap or ends; a message that this peer object has seen succeed is answered again but not handled again.
import type { z } from "zod";
import type { Cell } from "../core/cell.js";
import type { CallError } from "../core/failure.js";
import type { Delivery, ReplySlot, Sender } from "../core/mailbox.js";
import { CONFIRMED_WINDOW_BYTES, CONFIRMED_WINDOW_MESSAGES } from "../wire/limits.js";
import type { Arrival, Link } from "./link.js";
import { parsePayload } from "./payload.js";
import { REPLY_SHARE, type PeerLine } from "./peer-line.js";
import { clipText, RecordKind, type ConfirmedRecord } from "./record.js";
import { resolveAddress } from "./resolve.js";

/** Outboxes and actors remembered for one peer; past it an idle one is forgotten, which costs a repeat at most. */
const STREAMS_MAX = 4096;

/** Errors that another attempt would meet again; the sender puts such a message aside and goes on. */
const FINAL_CODES: ReadonlySet<CallError["code"]> = new Set(["refused", "protocol", "too-large"]);

export function isFinalError({ code }: CallError): boolean {
  return FINAL_CODES.has(code);
}

interface Message {
  readonly record: ConfirmedRecord;
  readonly cell: Cell;
  readonly value: unknown;
  readonly link: Link;
  readonly sizeBytes: number;
}

interface Stream {
  run: number;
  /** After a failure the rest of that run is turned away: the sender begins again with the one that failed. */
  failedRun: number;
  lastDone: number;
  /** The last number of the run that came. */
  lastSeen: number;
  isBusy: boolean;
  unregister: (() => void) | undefined;
  waiting: Message[];
}

export class ConfirmedReceiver {
  readonly #line: PeerLine;
  readonly #sender: Sender;
  readonly #streams = new Map<string, Stream>();
  #waitingBytes = 0;

  constructor(line: PeerLine, sender: Sender) {
    this.#line = line;
    this.#sender = sender;
  }

  onRecord(record: ConfirmedRecord, { link, sizeBytes }: Arrival): void {
    const stream = this.#streamOf(`${record.outbox}\n${record.address.target}`);
    if (record.run > stream.run) {
      stream.run = record.run;
      stream.lastSeen = 0;
      this.#dropWaiting(stream);
    }
    if (record.run < stream.run || record.run <= stream.failedRun) {
      answer(link, record, { code: "aborted", message: "an earlier message of this run has failed" });
      return;
    }
    if (record.previous !== stream.lastSeen) {
      this.#failed(stream, record, link, { code: "aborted", message: "an earlier message of this run did not arrive" });
      return;
    }
    stream.lastSeen = record.sequence;
    if (record.sequence <= stream.lastDone) {
      answer(link, record, undefined);
      return;
    }
    const found = resolveAddress(this.#line.system, record.address, "cast");
    if ("code" in found) {
      this.#failed(stream, record, link, found);
      return;
    }
    const parsed = parsePayload(found.schema as z.ZodType, record.payload);
    if (!parsed.ok) {
      const { target, name } = record.address;
      this.#failed(stream, record, link, { code: "protocol", message: `${target}.${name} is not valid: ${parsed.message}` });
      return;
    }
    const isPastWindow = this.#waitingBytes > 0 && this.#waitingBytes + sizeBytes > CONFIRMED_WINDOW_BYTES;
    if (isPastWindow || stream.waiting.length >= CONFIRMED_WINDOW_MESSAGES) {
      this.#failed(stream, record, link, { code: "full", message: "too many confirmed casts wait here" });
      return;
    }
    this.#waitingBytes += sizeBytes;
    stream.waiting.push({ record, cell: found.cell, value: parsed.value, link, sizeBytes });
    this.#next(stream);
  }

  /** What waits will come again; what is being handled goes on and is remembered when it succeeds. */
  onDown(): void {
    for (const stream of this.#streams.values()) this.#dropWaiting(stream);
  }

  #streamOf(key: string): Stream {
    let stream = this.#streams.get(key);
    if (stream !== undefined) return stream;
    if (this.#streams.size >= STREAMS_MAX) {
      for (const [old, each] of this.#streams) {
        if (each.isBusy || each.waiting.length > 0) continue;
        this.#streams.delete(old);
        break;
      }
    }
    stream = { run: 0, failedRun: -1, lastDone: 0, lastSeen: 0, isBusy: false, unregister: undefined, waiting: [] };
    this.#streams.set(key, stream);
    return stream;
  }

  #next(stream: Stream): void {
    while (!stream.isBusy && stream.waiting.length > 0) {
      const message = stream.waiting.shift()!;
      const { record, cell, value, link, sizeBytes } = message;
      if (record.sequence <= stream.lastDone) {
        this.#waitingBytes -= sizeBytes;
        answer(link, record, undefined);
        continue;
      }
      const slot = new ConfirmedSlot(record, (error) => {
        stream.isBusy = false;
        if (error === undefined) {
          stream.lastDone = record.sequence;
          answer(link, record, undefined);
        } else this.#failed(stream, record, link, error);
        this.#next(stream);
      });
      stream.isBusy = true;
      const result = cell.deliverConfirmed(record.address.name, value, slot, this.#sender, record.trace);
      if (result !== "full") this.#waitingBytes -= sizeBytes;
      if (result === "accepted") continue; // a mailbox that dropped it has answered already
      stream.isBusy = false;
      if (result === "full") {
        stream.waiting.unshift(message);
        stream.unregister ??= cell.whenRoom(() => {
          stream.unregister = undefined;
          this.#next(stream);
        });
        return;
      }
      this.#failed(stream, record, link, { code: "stopped", message: `${record.address.target} has stopped` });
    }
  }

  #failed(stream: Stream, record: ConfirmedRecord, link: Link, error: CallError): void {
    answer(link, record, error);
    if (isFinalError(error)) return; // the sender goes on behind it
    stream.failedRun = Math.max(stream.failedRun, record.run);
    if (record.run === stream.run) this.#dropWaiting(stream);
  }

  #dropWaiting(stream: Stream): void {
    stream.unregister?.();
    stream.unregister = undefined;
    for (const { sizeBytes } of stream.waiting.splice(0)) this.#waitingBytes -= sizeBytes;
  }
}

/** The way back of one confirmed cast; it does not expire, because its handler's success counts whoever still waits. */
class ConfirmedSlot implements ReplySlot {
  readonly deadlineMs = Number.POSITIVE_INFINITY;
  readonly delivery: Delivery;
  #settle: ((error: CallError | undefined) => void) | undefined;

  constructor({ outbox, sequence }: ConfirmedRecord, settle: (error: CallError | undefined) => void) {
    this.delivery = Object.freeze({ outbox, sequence });
    this.#settle = settle;
  }

  get isDone(): boolean {
    return this.#settle === undefined;
  }

  succeed(): void {
    this.#finish(undefined);
  }

  fail(error: CallError): void {
    this.#finish(error);
  }

  /** Nobody gives a confirmed cast up: without an answer it is sent again. */
  onCancel(): void {}

  #finish(error: CallError | undefined): void {
    const settle = this.#settle;
    this.#settle = undefined;
    settle?.(error);
  }
}

/** Lost when the link has closed or is full; the sender asks again in its next run. */
function answer(link: Link, { id }: ConfirmedRecord, error: CallError | undefined): void {
  if (error === undefined) {
    link.send([RecordKind.reply, null, null, id], REPLY_SHARE);
    return;
  }
  const payload = { ...error, message: clipText(error.message) };
  try {
    link.send([RecordKind.error, payload, null, id], REPLY_SHARE);
  } catch {
    const { code, message } = payload; // a refusal's data could not be sent
    link.send([RecordKind.error, { code, message }, null, id], REPLY_SHARE);
  }
}
