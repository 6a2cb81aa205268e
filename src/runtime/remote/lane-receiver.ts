// Owns: the incoming half of one lane: frame order, credit accounting, reassembly of tensors.
// Invariant: `accept` takes any bytes; it hands on whole records only, and throws WireError on anything a correct
// peer cannot have sent.
import { attachTensors, type Codec, tensorSizes, WireError } from "../wire/codec.js";
import { FrameKind, HEADER_BYTES, readHeader, splitRecords, type FrameHeader } from "../wire/frame.js";
import { messagesIn } from "./record.js";
import { ReceivePool } from "../wire/receive-pool.js";
import { release } from "../wire/releasable.js";
import { FRAME_OVERHEAD_BYTES } from "../wire/limits.js";

/** The sender may overshoot its window by the frame that used up the last credit. */
const OVERSHOOT_BYTES = 8 * 1024 * 1024;

interface Transfer {
  readonly record: unknown[];
  readonly sizeBytes: number;
  readonly sizes: readonly number[];
  readonly buffers: Uint8Array[];
  offset: number;
}

export interface LaneReceiverEvents {
  /** `sizeBytes`: of the body and its tensors together, as the sender counted them. */
  onRecord(record: unknown[], sizeBytes: number): void;
  onControl(header: FrameHeader, body: Uint8Array): void;
  /** A record whose arrays lie in shared memory. */
  onShared(header: FrameHeader, body: Uint8Array): { record: unknown[]; buffers: readonly Uint8Array[] };
  /** Everything received so far has been worked off: grant the sender that much. */
  onCredit(totalBytes: number): void;
}

export class LaneReceiver {
  readonly #codec: Codec;
  readonly #windowBytes: number;
  readonly #events: LaneReceiverEvents;
  readonly #pool = new ReceivePool();
  #sequence = 0;
  #receivedBytes = 0;
  #grantedBytes = 0;
  #heldBytes = 0;
  #transfer: Transfer | undefined;
  framesReceived = 0;
  /** A run counts as the messages in it. */
  recordsReceived = 0;

  constructor(windowBytes: number, codec: Codec, events: LaneReceiverEvents) {
    this.#windowBytes = windowBytes;
    this.#codec = codec;
    this.#events = events;
  }

  get receivedBytes(): number {
    return this.#receivedBytes;
  }

  /** Keeps the credit for a record that cannot be worked off yet, so that its sender slows down. @returns the release. */
  hold(sizeBytes: number): () => void {
    this.#heldBytes += sizeBytes;
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      this.#heldBytes -= sizeBytes;
      this.#grant();
    };
  }

  close(): void {
    this.#pool.close();
  }

  accept(parts: readonly Uint8Array[]): void {
    const frame = parts[0];
    const header = readHeader(frame);
    if (header.sequence !== this.#sequence) {
      throw new WireError("malformed", `frame ${header.sequence} where ${this.#sequence} was due`);
    }
    if (parts.length > 2 || (parts.length === 2) !== (header.kind === FrameKind.chunk)) {
      throw new WireError("malformed", `a frame of kind ${header.kind} with ${parts.length} parts`);
    }
    this.#sequence = (this.#sequence + 1) >>> 0;
    this.framesReceived += 1;
    this.#receivedBytes += frame!.length + (parts[1]?.length ?? 0) + FRAME_OVERHEAD_BYTES;
    if (this.#receivedBytes - this.#grantedBytes > this.#windowBytes + OVERSHOOT_BYTES) {
      throw new WireError("malformed", "more bytes than were granted");
    }
    switch (header.kind) {
      case FrameKind.records:
        this.#acceptBatch(frame!, header.count);
        break;
      case FrameKind.bulk:
        this.#begin(frame!, header);
        break;
      case FrameKind.chunk:
        this.#append(parts[1]!);
        break;
      case FrameKind.shared: {
        if (this.#transfer !== undefined) throw new WireError("malformed", "a shared record inside a transfer");
        const body = frame!.subarray(HEADER_BYTES);
        const { record, buffers } = this.#events.onShared(header, body);
        this.#deliver(record, buffers, body.length); // its arrays are bounded by the segments that the peer may offer
        break;
      }
      default:
        this.#events.onControl(header, frame!.subarray(HEADER_BYTES));
    }
    this.#grant();
  }

  #grant(): void {
    const doneBytes = this.#receivedBytes - this.#heldBytes;
    if (doneBytes - this.#grantedBytes < this.#windowBytes / 4) return;
    this.#grantedBytes = doneBytes;
    this.#events.onCredit(doneBytes);
  }

  #acceptBatch(frame: Uint8Array, count: number): void {
    if (this.#transfer !== undefined) throw new WireError("malformed", "a batch inside a transfer");
    // A plain view of the frame: a Buffer's own subarray costs more than reading a small record.
    const bytes = new Uint8Array(frame.buffer, frame.byteOffset, frame.length);
    for (const { start, end, tensorsEnd } of splitRecords(bytes, count)) {
      const record = this.#codec.decodeIn(bytes, start, end);
      const buffers = record[2] === null && end === tensorsEnd ? NO_BUFFERS : cutTensors(record, bytes.subarray(end, tensorsEnd));
      this.#deliver(record, buffers, tensorsEnd - start);
    }
  }

  #begin(frame: Uint8Array, header: FrameHeader): void {
    if (this.#transfer !== undefined) throw new WireError("malformed", "a transfer inside a transfer");
    const record = this.#codec.decode(frame.subarray(HEADER_BYTES));
    const sizes = tensorSizes(record[2]);
    const total = sizes.reduce((sum, size) => sum + size, 0);
    if (sizes.length !== header.count || total !== header.value || total === 0) {
      throw new WireError("malformed", "a transfer whose header and table differ");
    }
    const sizeBytes = frame.length - HEADER_BYTES + total;
    this.#transfer = { record, sizeBytes, sizes, buffers: [], offset: 0 };
    this.#openBuffer();
  }

  /** Buffers are made when their first byte is due: an announcement alone costs no memory. */
  #openBuffer(): void {
    const transfer = this.#transfer!;
    while (transfer.buffers.length < transfer.sizes.length && transfer.sizes[transfer.buffers.length] === 0) {
      transfer.buffers.push(Buffer.allocUnsafeSlow(0));
    }
  }

  #append(chunk: Uint8Array): void {
    const transfer = this.#transfer;
    if (transfer === undefined) throw new WireError("malformed", "a chunk outside a transfer");
    if (transfer.offset === 0 && chunk.length === transfer.sizes[transfer.buffers.length] && chunk.length > 0) {
      transfer.buffers.push(chunk); // whole in one frame: its memory is ours, no copy
      this.#completeIfWhole(transfer);
      return;
    }
    if (transfer.offset === 0) transfer.buffers.push(this.#pool.take(transfer.sizes[transfer.buffers.length]!));
    const buffer = transfer.buffers[transfer.buffers.length - 1]!;
    if (chunk.length === 0 || chunk.length > buffer.length - transfer.offset) {
      throw new WireError("malformed", "a chunk that does not fit its tensor");
    }
    buffer.set(chunk, transfer.offset);
    transfer.offset += chunk.length;
    release(chunk.buffer);
    if (transfer.offset < buffer.length) return;
    transfer.offset = 0;
    this.#completeIfWhole(transfer);
  }

  #completeIfWhole(transfer: Transfer): void {
    this.#openBuffer();
    if (transfer.buffers.length < transfer.sizes.length) return;
    this.#transfer = undefined;
    this.#deliver(transfer.record, transfer.buffers, transfer.sizeBytes);
  }

  #deliver(record: unknown[], buffers: readonly Uint8Array[], sizeBytes: number): void {
    attachTensors(record, buffers);
    this.recordsReceived += messagesIn(record);
    this.#events.onRecord(record, sizeBytes);
  }
}

const NO_BUFFERS: readonly Uint8Array[] = [];

/** The small tensors of a record in a batch, each in memory of its own. */
function cutTensors(record: readonly unknown[], tensors: Uint8Array): Uint8Array[] {
  let at = 0;
  const buffers = tensorSizes(record[2]).map((size) => {
    if (at + size > tensors.length) throw new WireError("malformed", "tensors that end early");
    const copy = Buffer.allocUnsafeSlow(size);
    copy.set(tensors.subarray(at, at + size));
    at += size;
    return copy;
  });
  if (at !== tensors.length) throw new WireError("malformed", "tensor bytes left over");
  return buffers;
}
