/**
 * Owns: which rows make up which batch: a pure function of (seed, shard, epoch, batch number), so
 * a verifier can rebuild any batch, and a resumed worker continues where it stopped.
 * Invariant: over one epoch every row of the shard appears exactly once, the short rest included
 * in the next epoch's first batch by wrapping.
 */
import { TrainingError } from "./errors.js";
import { PhiloxStream } from "./graph/philox.js";

/** A permutation of 0..rows-1 (Fisher and Yates over a Philox stream). */
export function epochOrder(seed: number, shard: number, epoch: number, rows: number): Uint32Array {
  const stream = new PhiloxStream(BigInt(seed), shard, epoch + 1); // sub-stream 0 makes initial values
  const order = Uint32Array.from({ length: rows }, (_, i) => i);
  for (let i = rows - 1; i > 0; i--) {
    const j = stream.below(i + 1);
    const kept = order[i]!;
    order[i] = order[j]!;
    order[j] = kept;
  }
  return order;
}

export interface Batch {
  /** Counts from 0 over the whole run. */
  index: number;
  /** Epoch of the batch's first row. */
  epoch: number;
  images: Uint8Array;
  labels: Uint8Array;
}

/** Walks a shard batch by batch; the buffers of a batch are reused by the next one. */
export class BatchSampler {
  private order: Uint32Array;
  private epoch = 0;
  private cursor = 0;
  private index = 0;
  private readonly images: Uint8Array;
  private readonly labels: Uint8Array;

  constructor(private readonly data: { images: Uint8Array; labels: Uint8Array },
    private readonly options: { batchSize: number; seed: number; shard?: number }) {
    const rows = data.labels.length;
    if (rows === 0 || data.images.length % rows !== 0) {
      throw new TrainingError("batch-size", `${data.images.length} elements do not divide into ${rows} rows`);
    }
    this.images = new Uint8Array(options.batchSize * (data.images.length / rows));
    this.labels = new Uint8Array(options.batchSize);
    this.order = this.orderOf(0);
  }

  /** Whole batches in one pass over the shard, at least 1. */
  get batchesPerEpoch(): number {
    return Math.max(1, Math.floor(this.data.labels.length / this.options.batchSize));
  }

  /** Continues at batch `index` as if all before had been taken. */
  seek(index: number): void {
    const row = index * this.options.batchSize, rows = this.data.labels.length;
    this.index = index;
    this.epoch = Math.floor(row / rows);
    this.cursor = row % rows;
    this.order = this.orderOf(this.epoch);
  }

  next(): Batch {
    const { batchSize } = this.options;
    const { images, labels } = this.data;
    const rowElements = images.length / labels.length;
    if (this.cursor === this.order.length) this.turn();
    const epoch = this.epoch;
    for (let i = 0; i < batchSize; i++) {
      if (this.cursor === this.order.length) this.turn();
      const row = this.order[this.cursor++]!;
      this.images.set(images.subarray(row * rowElements, (row + 1) * rowElements), i * rowElements);
      this.labels[i] = labels[row]!;
    }
    return { index: this.index++, epoch, images: this.images, labels: this.labels };
  }

  private turn(): void {
    this.epoch++;
    this.cursor = 0;
    this.order = this.orderOf(this.epoch);
  }

  private orderOf(epoch: number): Uint32Array {
    return epochOrder(this.options.seed, this.options.shard ?? 0, epoch, this.data.labels.length);
  }
}
