// Owns: the outgoing half of one lane: batches, outbox, credit. Invariants: frames leave in the order their records
// came; no more bytes are under way than the receiver has granted (one frame may overshoot); the outbox is bounded.
import type { Clock, TaskQueue, TimerHandle } from "../host/host.js";
import type { BufferPool } from "../wire/buffer-pool.js";
import { CastRun } from "../wire/cast-run.js";
import type { EncodedRecord } from "../wire/codec.js";
import { createFrame, FrameKind, HEADER_BYTES, RECORD_PREFIX_BYTES, writeHeader } from "../wire/frame.js";
import { BATCH_BYTES_MAX, BATCH_RECORDS_MAX, FRAME_OVERHEAD_BYTES } from "../wire/limits.js";
import { RecordKind } from "./record.js";
import type { Channel } from "./transport.js";

/** ZeroMQ said its queue is full, which credit should prevent; try again soon. */
const BUSY_RETRY_MS = 2;

export interface LaneSenderOptions {
  readonly windowBytes: number;
  readonly outboxBytesMax: number;
  readonly chunkBytes: number;
  readonly onGone: () => void;
}

interface LaneSenderModules {
  readonly channel: Channel;
  readonly clock: Clock;
  readonly tasks: TaskQueue;
  readonly pool?: BufferPool;
}

/** A frame whose sequence number is set when it leaves. */
interface OutFrame {
  readonly kind: FrameKind;
  readonly count: number;
  readonly value: number;
  readonly header: Buffer;
  readonly data: Uint8Array | undefined;
  readonly costBytes: number;
  /** Set on the last frame that reads from this buffer. */
  readonly recycle: Buffer | undefined;
}

export class LaneSender {
  readonly #options: LaneSenderOptions;
  readonly #channel: Channel;
  readonly #clock: Clock;
  readonly #tasks: TaskQueue;
  readonly #pool: BufferPool | undefined;
  #frames: OutFrame[] = [];
  #head = 0;
  #batch: Pick<EncodedRecord, "body" | "tensors" | "tensorBytes">[] = [];
  #batchBytes = HEADER_BYTES;
  #batchMessages = 0;
  /** The end of the batch while it is still being written. */
  readonly #run = new CastRun(RecordKind.casts);
  #queuedBytes = 0;
  #sentBytes = 0;
  /** The frame handed to the channel: on a busy host its acknowledgement comes before send() is seen to resolve. */
  #flyingBytes = 0;
  #ackedBytes = 0;
  #sequence = 0;
  #isFlushPlanned = false;
  readonly #flush = (): void => {
    this.#isFlushPlanned = false;
    void this.#pump();
  };
  #isPumping = false;
  #isClosed = false;
  #retry: TimerHandle;
  #emptyWaiters: (() => void)[] = [];
  /** Sent from, but not yet acknowledged; in order of `endBytes`. */
  #lent: { readonly endBytes: number; readonly buffer: Buffer }[] = [];
  framesSent = 0;
  /** A run counts as the messages in it. */
  recordsSent = 0;
  busyCount = 0;

  constructor(options: LaneSenderOptions, modules: LaneSenderModules) {
    this.#options = options;
    this.#channel = modules.channel;
    this.#clock = modules.clock;
    this.#tasks = modules.tasks;
    this.#pool = modules.pool;
  }

  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  get sentBytes(): number {
    return this.#sentBytes;
  }

  get creditBytes(): number {
    return this.#options.windowBytes - (this.#sentBytes - this.#ackedBytes);
  }

  /** `share` scales the bound: answers may use twice what requests may, so that work done is not lost. */
  hasRoom(sizeBytes: number, share = 1): boolean {
    return this.#queuedBytes === 0 || this.#queuedBytes + sizeBytes <= this.#options.outboxBytesMax * share;
  }

  /** A small record: goes out with others in one frame at the end of this microtask or when the frame is full. */
  pushRecord(record: EncodedRecord): void {
    this.#closeRun();
    this.#queuedBytes += this.#join(record, 1);
    this.#planFlush();
  }

  /**
   * A cast without arrays of its own; `tail`: all of its record but the message, always the same object for the same
   * address. @returns false, with nothing changed, when the message needs the full encoder.
   */
  pushCast(tail: Uint8Array, message: unknown): boolean {
    if (this.#isClosed) return true;
    const run = this.#run;
    if (!run.isOpenFor(tail)) {
      this.#closeRun();
      run.begin(tail);
    }
    const sizeBytes = run.append(message);
    if (sizeBytes === 0) return false;
    this.#queuedBytes += sizeBytes;
    this.#planFlush();
    return true;
  }

  #closeRun(): void {
    const { count, sizeBytes } = this.#run;
    if (count === 0) return;
    this.#queuedBytes += this.#join({ body: this.#run.end(), tensors: [], tensorBytes: 0 }, count) - sizeBytes;
  }

  /** @returns the bytes that it takes in its frame. */
  #join(record: Pick<EncodedRecord, "body" | "tensors" | "tensorBytes">, messages: number): number {
    const sizeBytes = RECORD_PREFIX_BYTES + record.body.length + record.tensorBytes;
    if (this.#batch.length === BATCH_RECORDS_MAX || (this.#batch.length > 0 && this.#batchBytes + sizeBytes > BATCH_BYTES_MAX)) {
      this.#sealBatch();
    }
    this.#batch.push(record);
    this.#batchBytes += sizeBytes;
    this.#batchMessages += messages;
    return sizeBytes;
  }

  #planFlush(): void {
    if (this.#isFlushPlanned) return;
    this.#isFlushPlanned = true;
    this.#tasks.micro(this.#flush);
  }

  /** A record with large tensors: its body, then the tensors in chunks. */
  pushTransfer(record: EncodedRecord): void {
    this.#pushFrame(FrameKind.bulk, record.tensors.length, record.tensorBytes, record.body, undefined);
    const { chunkBytes } = this.#options;
    for (const tensor of record.tensors) {
      for (let at = 0; at < tensor.length; at += chunkBytes) {
        const end = Math.min(at + chunkBytes, tensor.length);
        const isLast = end === tensor.length && record.pooled?.has(tensor) === true;
        this.#pushFrame(FrameKind.chunk, 0, 0, undefined, tensor.subarray(at, end), isLast ? (tensor as Buffer) : undefined);
      }
    }
    this.recordsSent += 1;
    void this.#pump();
  }

  /** A record whose `tensorBytes` lie in shared memory already, at the places that `body` tells. */
  pushShared(body: Uint8Array, count: number, tensorBytes: number): void {
    this.recordsSent += 1;
    this.#pushFrame(FrameKind.shared, count, tensorBytes, body, undefined);
    void this.#pump();
  }

  /** @returns false when the outbox is full: the other end has stopped to take control frames. */
  pushControl(kind: FrameKind, count: number, value: number, body?: Uint8Array): boolean {
    if (this.#queuedBytes > this.#options.outboxBytesMax) return false;
    this.#pushFrame(kind, count, value, body, undefined);
    void this.#pump();
    return true;
  }

  /** `totalBytes` is everything the receiver has worked off since the link began. @returns false for nonsense. */
  acknowledge(totalBytes: number): boolean {
    if (!(totalBytes >= this.#ackedBytes && totalBytes <= this.#sentBytes + this.#flyingBytes)) return false;
    this.#ackedBytes = totalBytes;
    while (this.#lent.length > 0 && this.#lent[0]!.endBytes <= totalBytes) this.#pool?.give(this.#lent.shift()!.buffer);
    void this.#pump();
    return true;
  }

  /** Resolves when everything pushed so far has been handed to the network, or the lane is closed. */
  whenEmpty(): Promise<void> {
    if (this.#isClosed || this.#queuedBytes === 0) return Promise.resolve();
    return new Promise((resolve) => this.#emptyWaiters.push(resolve));
  }

  close(isGraceful: boolean): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    if (this.#retry !== undefined) this.#clock.clearTimer(this.#retry);
    this.#frames = [];
    this.#lent = []; // ZeroMQ may still read them: left to the garbage collector
    this.#head = 0;
    this.#batch = [];
    this.#queuedBytes = 0;
    this.#wakeWaiters();
    this.#channel.close(isGraceful);
  }

  #pushFrame(
    kind: FrameKind,
    count: number,
    value: number,
    body: Uint8Array | undefined,
    data: Uint8Array | undefined,
    recycle?: Buffer,
  ): void {
    if (this.#isClosed) return;
    this.#seal();
    const header = createFrame(kind, count, 0, value, body);
    const sizeBytes = header.length + (data?.length ?? 0);
    this.#frames.push({ kind, count, value, header, data, costBytes: sizeBytes + FRAME_OVERHEAD_BYTES, recycle });
    this.#queuedBytes += sizeBytes;
  }

  #seal(): void {
    this.#closeRun();
    this.#sealBatch();
  }

  /** Turns the open batch into a frame. */
  #sealBatch(): void {
    const batch = this.#batch;
    if (batch.length === 0) return;
    const frame = Buffer.allocUnsafe(this.#batchBytes);
    let at = HEADER_BYTES;
    for (const { body, tensors, tensorBytes } of batch) {
      frame.writeUInt32LE(body.length, at);
      frame.writeUInt32LE(tensorBytes, at + 4);
      frame.set(body, at + RECORD_PREFIX_BYTES);
      at += RECORD_PREFIX_BYTES + body.length;
      for (const tensor of tensors) {
        frame.set(tensor, at);
        at += tensor.length;
      }
    }
    const costBytes = frame.length + FRAME_OVERHEAD_BYTES;
    this.#frames.push({
      kind: FrameKind.records, count: batch.length, value: 0, header: frame, data: undefined, costBytes, recycle: undefined,
    });
    this.#queuedBytes += HEADER_BYTES;
    this.recordsSent += this.#batchMessages;
    this.#batchMessages = 0;
    this.#batch = [];
    this.#batchBytes = HEADER_BYTES;
  }

  async #pump(): Promise<void> {
    if (this.#isPumping || this.#isClosed) return;
    this.#isPumping = true;
    // Without credit the batch stays open, so that what waits goes out in fewer, larger frames.
    while (!this.#isClosed && this.creditBytes > 0) {
      if (this.#head === this.#frames.length) {
        this.#frames.length = 0;
        this.#head = 0;
        this.#seal();
        if (this.#frames.length === 0) break;
      }
      const frame = this.#frames[this.#head]!;
      writeHeader(frame.header, frame.kind, frame.count, this.#sequence, frame.value);
      this.#flyingBytes = frame.costBytes;
      const outcome = await this.#channel.send(frame.data === undefined ? [frame.header] : [frame.header, frame.data]);
      this.#flyingBytes = 0;
      if (this.#isClosed) break;
      if (outcome === "busy") {
        this.busyCount += 1;
        this.#retry = this.#clock.setTimer(() => {
          this.#retry = undefined;
          void this.#pump();
        }, BUSY_RETRY_MS);
        break;
      }
      if (outcome === "gone") {
        this.#isPumping = false;
        this.#options.onGone();
        return;
      }
      this.#sequence = (this.#sequence + 1) >>> 0;
      this.#head += 1;
      this.framesSent += 1;
      this.#sentBytes += frame.costBytes;
      if (frame.recycle !== undefined) this.#lent.push({ endBytes: this.#sentBytes, buffer: frame.recycle });
      this.#queuedBytes -= frame.costBytes - FRAME_OVERHEAD_BYTES;
      if (this.#head >= 1024) {
        this.#frames = this.#frames.slice(this.#head);
        this.#head = 0;
      }
    }
    this.#isPumping = false;
    if (this.#queuedBytes === 0) this.#wakeWaiters();
  }

  #wakeWaiters(): void {
    for (const resolve of this.#emptyWaiters.splice(0)) resolve();
  }
}
