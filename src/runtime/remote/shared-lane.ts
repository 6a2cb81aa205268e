// Owns: the shared memory of one link, both directions, and the frames that speak of it. Invariants: nothing is offered
// before the two ends know that they are on one host; what a peer says here can cost it its own link and nothing else.
// Frames: offer, answer, retire and release on the control lane; the transfers themselves on the bulk lane, where they
// keep their order among the messages that go by chunks.
import type { Host } from "../host/host.js";
import type { SharedMemory } from "../host/shared-memory.js";
import { tensorSizes, WireError, type Codec } from "../wire/codec.js";
import { FrameKind, type FrameHeader } from "../wire/frame.js";
import { decodeShared } from "./shared-frames.js";
import { SharedIncoming } from "./shared-incoming.js";
import { SharedOutgoing, type Placed } from "./shared-outgoing.js";

export interface SharedReport {
  readonly sentTransfers: number;
  readonly sentBytes: number;
  readonly receivedTransfers: number;
  readonly receivedBytes: number;
  /** Messages that were large enough but found no free segment. */
  readonly misses: number;
  readonly ownSegments: number;
  readonly ownBytes: number;
  readonly mappedBytes: number;
}

export interface SharedLaneModules {
  readonly host: Host;
  readonly memory: SharedMemory;
  readonly sendControl: (kind: FrameKind, count: number, value: number, body?: Uint8Array) => void;
}

export class SharedLane {
  readonly #sendControl: SharedLaneModules["sendControl"];
  readonly #outgoing: SharedOutgoing;
  readonly #incoming: SharedIncoming;

  constructor(isDialer: boolean, { host, memory, sendControl }: SharedLaneModules) {
    this.#sendControl = sendControl;
    this.#outgoing = new SharedOutgoing({ isDialer }, {
      memory,
      logger: host.logger,
      random: host.random,
      sendOffer: (id, body) => sendControl(FrameKind.sharedOffer, 0, id, body),
      sendRetire: (id) => sendControl(FrameKind.sharedRetire, 0, id),
    });
    this.#incoming = new SharedIncoming(memory, !isDialer, (id) => sendControl(FrameKind.sharedRelease, 0, id));
  }

  /** The dialer begins: it knows whether it has dialed its own host. */
  probe(): void {
    this.#outgoing.probe();
  }

  place(arrays: readonly ArrayBufferView[], sizeBytes: number): Placed | undefined {
    return this.#outgoing.place(arrays, sizeBytes);
  }

  draft(lengthBytes: number): ArrayBuffer | undefined {
    return this.#outgoing.draft(lengthBytes);
  }

  /** @returns false when the frame is none of shared memory's. @throws WireError */
  onControl(header: FrameHeader, body: Uint8Array): boolean {
    const { kind, count, value } = header;
    switch (kind) {
      case FrameKind.sharedOffer: {
        const response = this.#incoming.accept(value, body);
        if (response !== undefined) this.#outgoing.assumeVisible();
        this.#sendControl(FrameKind.sharedAnswer, response === undefined ? 0 : 1, value, response);
        return true;
      }
      case FrameKind.sharedAnswer:
        this.#outgoing.onAnswer(value, count === 1, body);
        return true;
      case FrameKind.sharedRetire:
      case FrameKind.sharedRelease:
        if (body.length !== 0) throw new WireError("malformed", "a control frame with a body");
        if (kind === FrameKind.sharedRetire) this.#incoming.retire(value);
        else this.#outgoing.onRelease(value);
        return true;
      default:
        return false;
    }
  }

  /** @returns the record and the bytes of its arrays. @throws WireError */
  readTransfer(header: FrameHeader, body: Uint8Array, codec: Codec): { record: unknown[]; buffers: Uint8Array[] } {
    const { placed, record: bytes } = decodeShared(body, header.count);
    const record = codec.decode(bytes);
    const sizes = tensorSizes(record[2]);
    const total = sizes.reduce((sum, size) => sum + size, 0);
    if (sizes.length !== placed.length || total !== header.value || total === 0) {
      throw new WireError("malformed", "a transfer whose header and table differ");
    }
    return { record, buffers: this.#incoming.attach(placed, sizes) };
  }

  close(): void {
    this.#outgoing.close();
    this.#incoming.close();
  }

  report(): SharedReport {
    return {
      sentTransfers: this.#outgoing.transfers,
      sentBytes: this.#outgoing.transferBytes,
      receivedTransfers: this.#incoming.transfers,
      receivedBytes: this.#incoming.transferBytes,
      misses: this.#outgoing.misses,
      ownSegments: this.#outgoing.count,
      ownBytes: this.#outgoing.sizeBytes,
      mappedBytes: this.#incoming.mappedBytes,
    };
  }
}
