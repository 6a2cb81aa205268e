// Owns: one open connection to one peer: three lanes, credit, heartbeat, and the score of a misbehaving peer.
// Invariant: a link closes exactly once, with a reason; after that nothing is sent or delivered.
import type { Host } from "../host/host.js";
import { BufferPool } from "../wire/buffer-pool.js";
import { Codec, WireError, type EncodedRecord, type Place, type Placement } from "../wire/codec.js";
import { FrameKind, type FrameHeader } from "../wire/frame.js";
import {
  BULK_BYTES_MIN, BULK_OUTBOX_BYTES_MAX, BULK_WINDOW_BYTES, MESSAGE_OUTBOX_BYTES_MAX, MESSAGE_WINDOW_BYTES,
} from "../wire/limits.js";
import { QUICK_VALUE_BYTES_MAX } from "../wire/msgpack-writer.js";
import { LaneReceiver } from "./lane-receiver.js";
import { LaneSender } from "./lane-sender.js";
import { encodeShared } from "./shared-frames.js";
import { SharedLane, type SharedReport } from "./shared-lane.js";
import type { Placed } from "./shared-outgoing.js";
import { LANES, Lane, type Channel } from "./transport.js";

export const PING_PERIOD_MS = 1000;
export const PING_MISSES_MAX = 3;
/** A message that fails its schema costs 1, and a second forgives 1: a peer of another version survives, a flood not. */
const SCORE_MAX = 100;
/** Control frames (pings, credit) are tiny and few; the window only bounds a peer that floods. */
const CONTROL_WINDOW_BYTES = 1024 * 1024;
/** 4,096 waiting frames: hours of honest heartbeats to a peer that takes none. */
const CONTROL_OUTBOX_BYTES_MAX = 64 * 1024;
/** A peer pings once a second, and now and then to learn whether a connection is gone. */
const PINGS_PER_SECOND_MAX = 1000;

export type LinkEnd =
  | "closed" // by this side
  | "goodbye" // by the other side
  | "lost" // the connection went down
  | "silent" // too many pings without an answer
  | "violation"; // the peer broke the protocol

export interface LinkOptions {
  readonly nodeId: string;
  readonly incarnation: string;
  readonly endpoint: string;
  readonly chunkBytes: number;
  readonly isDialer: boolean;
  /** Dialed to this very host and spoken in a version with shared memory: offer it. */
  readonly isSharing: boolean;
  /** The link version that the handshake settled on. */
  readonly version: number;
}

/** Where a record came from: what is needed to keep its credit back. */
export interface Arrival {
  readonly link: Link;
  readonly lane: number;
  readonly sizeBytes: number;
}

export interface LinkEvents {
  onRecord(record: unknown[], arrival: Arrival): void;
  onEnd(end: LinkEnd, message: string): void;
}

export interface LaneReport {
  readonly lane: string;
  readonly queuedBytes: number;
  readonly creditBytes: number;
  readonly sentBytes: number;
  readonly receivedBytes: number;
  readonly framesSent: number;
  readonly framesReceived: number;
  readonly recordsSent: number;
  readonly recordsReceived: number;
}

export interface LinkReport {
  readonly nodeId: string;
  readonly endpoint: string;
  readonly isDialer: boolean;
  readonly version: number;
  readonly roundTripMs: number | undefined;
  readonly violations: number;
  readonly lanes: readonly LaneReport[];
  /** Undefined when this system was given no shared memory. */
  readonly shared: SharedReport | undefined;
}

export class Link {
  readonly nodeId: string;
  readonly incarnation: string;
  readonly endpoint: string;
  readonly isDialer: boolean;
  readonly version: number;
  readonly #host: Host;
  readonly #pool = new BufferPool();
  readonly #codec = new Codec(this.#pool);
  readonly #events: LinkEvents;
  readonly #senders: LaneSender[];
  readonly #receivers: LaneReceiver[];
  readonly #shared: SharedLane | undefined;
  readonly #place: Place | undefined;
  /** What `#place` took for the message being encoded. */
  #space: Placed | undefined;
  /** A message is being written: what its getters want to send meanwhile finds no room. */
  #isEncoding = false;
  #heardAtMs: number;
  #pingAtMs: number | undefined;
  #roundTripMs: number | undefined;
  #score = 0;
  #scoredAtMs: number;
  #violations = 0;
  #pings = 0;
  #pingsSinceMs = 0;
  #end: LinkEnd | undefined;

  constructor(options: LinkOptions, modules: { host: Host; channels: readonly Channel[]; events: LinkEvents }) {
    const { host, channels, events } = modules;
    this.nodeId = options.nodeId;
    this.incarnation = options.incarnation;
    this.endpoint = options.endpoint;
    this.isDialer = options.isDialer;
    this.version = options.version;
    this.#host = host;
    this.#events = events;
    this.#heardAtMs = host.clock.nowMs();
    this.#scoredAtMs = this.#heardAtMs;
    const windows = [CONTROL_WINDOW_BYTES, MESSAGE_WINDOW_BYTES, BULK_WINDOW_BYTES];
    const outboxes = [CONTROL_OUTBOX_BYTES_MAX, MESSAGE_OUTBOX_BYTES_MAX, BULK_OUTBOX_BYTES_MAX];
    this.#senders = channels.map(
      (channel, lane) =>
        new LaneSender(
          {
            windowBytes: windows[lane]!,
            outboxBytesMax: outboxes[lane]!,
            chunkBytes: options.chunkBytes,
            onGone: () => this.close("lost", "the connection is gone"),
          },
          { channel, clock: host.clock, tasks: host.tasks, pool: this.#pool },
        ),
    );
    this.#receivers = channels.map(
      (_, lane) =>
        new LaneReceiver(windows[lane]!, this.#codec, {
          onRecord: (record, sizeBytes) => this.#onRecord(record, lane, sizeBytes),
          onControl: (header, body) => this.#onControl(header, body, lane),
          onShared: (header, body) => {
            if (this.#shared === undefined || lane !== Lane.bulk) throw new WireError("malformed", "no shared memory was offered");
            return this.#shared.readTransfer(header, body, this.#codec);
          },
          onCredit: (totalBytes) => this.#sendControl(FrameKind.credit, lane, totalBytes),
        }),
    );
    if (host.sharedMemory !== undefined) {
      this.#shared = new SharedLane(options.isDialer, {
        host,
        memory: host.sharedMemory,
        sendControl: (kind, count, value, body) => this.#sendControl(kind, count, value, body),
      });
      this.#place = (arrays, sizeBytes) => {
        this.#space = this.#senders[Lane.bulk]!.hasRoom(0) ? this.#shared!.place(arrays, sizeBytes) : undefined;
        return this.#space?.placed;
      };
      if (options.isSharing) this.#shared.probe();
    }
  }

  get isOpen(): boolean {
    return this.#end === undefined;
  }

  /** @throws WireError when the message cannot be sent at all. */
  send(record: unknown[], share = 1): "accepted" | "full" | "stopped" {
    if (this.#end !== undefined) return "stopped";
    if (this.#isEncoding) return "full";
    let encoded: EncodedRecord;
    this.#isEncoding = true;
    try {
      encoded = this.#codec.encode(record, this.#place);
    } finally {
      this.#isEncoding = false;
    }
    if (encoded.placed !== undefined) return this.#sendShared(encoded.body, encoded.placed, encoded.tensorBytes, share);
    return this.sendEncoded(encoded, share);
  }

  /** A cast that may join a run: see LaneSender.pushCast. @returns undefined when it has to go by `send`. */
  sendCast(tail: Uint8Array, message: unknown): "accepted" | "full" | "stopped" | undefined {
    if (this.#end !== undefined) return "stopped";
    const sender = this.#senders[Lane.message]!;
    if (this.#isEncoding || !sender.hasRoom(QUICK_VALUE_BYTES_MAX)) return "full";
    this.#isEncoding = true;
    try {
      return sender.pushCast(tail, message) ? "accepted" : undefined;
    } finally {
      this.#isEncoding = false;
    }
  }

  /** A record encoded before; its memory must stay as it is until the link has closed or acknowledged it. */
  sendEncoded(encoded: EncodedRecord, share = 1): "accepted" | "full" | "stopped" {
    if (this.#end !== undefined) return "stopped";
    if (this.#isEncoding) return "full";
    const isBulk = encoded.tensorBytes >= BULK_BYTES_MIN;
    const sender = this.#senders[isBulk ? Lane.bulk : Lane.message]!;
    if (!sender.hasRoom(encoded.body.length + encoded.tensorBytes, share)) return "full";
    if (isBulk) sender.pushTransfer(encoded);
    else sender.pushRecord(encoded);
    return "accepted";
  }

  /** Memory for one array that is sent to this peer without a copy, if there is shared memory for it. */
  draft(lengthBytes: number): ArrayBuffer | undefined {
    return this.#end === undefined ? this.#shared?.draft(lengthBytes) : undefined;
  }

  #sendShared(record: Uint8Array, placed: readonly Placement[], tensorBytes: number, share: number): "accepted" | "full" {
    const space = this.#space!;
    this.#space = undefined;
    const body = encodeShared(placed, record);
    const sender = this.#senders[Lane.bulk]!;
    if (!sender.hasRoom(body.length, share)) {
      space.cancel();
      return "full";
    }
    sender.pushShared(body, placed.length, tensorBytes);
    space.commit();
    return "accepted";
  }

  receive(lane: number, parts: readonly Uint8Array[]): void {
    if (this.#end !== undefined) return;
    this.#heardAtMs = this.#host.clock.nowMs();
    try {
      this.#receivers[lane]!.accept(parts);
    } catch (error) {
      this.#violations += 1;
      const message = error instanceof Error ? error.message : String(error);
      if (!(error instanceof WireError)) this.#host.logger.error("link failed on a frame", { nodeId: this.nodeId, error });
      this.close("violation", `broken frame on the ${LANES[lane]} lane: ${message}`);
    }
  }

  /** Keeps back the credit for a record that its actor cannot take yet. @returns the function that gives it. */
  hold(lane: number, sizeBytes: number): () => void {
    const release = this.#receivers[lane]!.hold(sizeBytes);
    return () => {
      if (this.#end === undefined) release();
    };
  }

  /** A well-formed frame with a message that fits no protocol. */
  penalize(points: number): void {
    const now = this.#host.clock.nowMs();
    this.#score = Math.max(0, this.#score - (now - this.#scoredAtMs) / 1000) + points;
    this.#scoredAtMs = now;
    this.#violations += 1;
    if (this.#score > SCORE_MAX) this.close("violation", "too many messages that fit no protocol");
  }

  /** Called every PING_PERIOD_MS; `isStalled` when this process itself was held up, so silence proves nothing. */
  beat(isStalled: boolean): void {
    const now = this.#host.clock.nowMs();
    if (isStalled) this.#heardAtMs = Math.max(this.#heardAtMs, now - PING_PERIOD_MS);
    if (now - this.#heardAtMs > PING_PERIOD_MS * PING_MISSES_MAX) {
      this.close("silent", `nothing heard for ${Math.round(now - this.#heardAtMs)} ms`);
      return;
    }
    this.probe();
  }

  /** Sends a ping; on a connection that is gone, sending alone finds that out. */
  probe(): void {
    if (this.#end !== undefined) return;
    this.#pingAtMs ??= this.#host.clock.nowMs();
    this.#sendControl(FrameKind.ping, 0, 0);
  }

  /** Resolves when all that was sent has left, or the link is closed. */
  async flushed(): Promise<void> {
    await Promise.all(this.#senders.map((sender) => sender.whenEmpty()));
  }

  close(end: LinkEnd, message: string): void {
    if (this.#end !== undefined) return;
    // A listener cannot hang up on ROUTER's connections; without a word the other end would wait for missed pings.
    if (end === "closed" || end === "violation") this.sayGoodbye();
    if (this.#end !== undefined) return; // saying it has shown that the connection is gone
    this.#end = end;
    for (const sender of this.#senders) sender.close(end === "closed");
    for (const receiver of this.#receivers) receiver.close();
    this.#pool.clear();
    this.#shared?.close();
    this.#events.onEnd(end, message);
  }

  sayGoodbye(): void {
    if (this.#end === undefined) this.#senders[Lane.control]!.pushControl(FrameKind.bye, 0, 0);
  }

  #sendControl(kind: FrameKind, count: number, value: number, body?: Uint8Array): void {
    if (this.#end !== undefined || this.#senders[Lane.control]!.pushControl(kind, count, value, body)) return;
    this.#violations += 1;
    this.close("violation", "the peer takes no control frames");
  }

  #onPing(): void {
    const now = this.#host.clock.nowMs();
    if (now - this.#pingsSinceMs >= 1000) {
      this.#pingsSinceMs = now;
      this.#pings = 0;
    }
    this.#pings += 1;
    if (this.#pings > PINGS_PER_SECOND_MAX) throw new WireError("malformed", `more than ${PINGS_PER_SECOND_MAX} pings in a second`);
    this.#sendControl(FrameKind.pong, 0, 0);
  }

  #onRecord(record: unknown[], lane: number, sizeBytes: number): void {
    if (lane === Lane.control) throw new WireError("malformed", "a record on the control lane");
    if (this.#end === undefined) this.#events.onRecord(record, { link: this, lane, sizeBytes });
  }

  #onControl(header: FrameHeader, body: Uint8Array, lane: number): void {
    if (lane !== Lane.control) throw new WireError("malformed", `a frame of kind ${header.kind} on a data lane`);
    if (this.#shared?.onControl(header, body) === true) return;
    if (this.#shared === undefined && header.kind === FrameKind.sharedOffer) {
      this.#sendControl(FrameKind.sharedAnswer, 0, header.value); // none here: no
      return;
    }
    if (body.length !== 0) throw new WireError("malformed", "a control frame with a body");
    switch (header.kind) {
      case FrameKind.ping:
        this.#onPing();
        break;
      case FrameKind.pong:
        if (this.#pingAtMs !== undefined) this.#roundTripMs = this.#host.clock.nowMs() - this.#pingAtMs;
        this.#pingAtMs = undefined;
        break;
      case FrameKind.credit:
        if (this.#senders[header.count]?.acknowledge(header.value) !== true) {
          throw new WireError("malformed", "credit for bytes that were not sent");
        }
        break;
      case FrameKind.bye:
        this.close("goodbye", "the peer said goodbye");
        break;
      default:
        throw new WireError("malformed", `a frame of unknown kind ${header.kind}`);
    }
  }

  report(): LinkReport {
    return {
      nodeId: this.nodeId,
      endpoint: this.endpoint,
      isDialer: this.isDialer,
      version: this.version,
      roundTripMs: this.#roundTripMs,
      violations: this.#violations,
      lanes: LANES.map((lane, i) => {
        const sender = this.#senders[i]!;
        const receiver = this.#receivers[i]!;
        return {
          lane,
          queuedBytes: sender.queuedBytes,
          creditBytes: sender.creditBytes,
          sentBytes: sender.sentBytes,
          receivedBytes: receiver.receivedBytes,
          framesSent: sender.framesSent,
          framesReceived: receiver.framesReceived,
          recordsSent: sender.recordsSent,
          recordsReceived: receiver.recordsReceived,
        };
      }),
      shared: this.#shared?.report(),
    };
  }
}
