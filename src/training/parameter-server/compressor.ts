/**
 * Owns: the compression of a worker's gradients, and the residual: what earlier messages left out and
 * the next one makes up for (error feedback: Seide et al. 2014, Karimireddy et al. 2019).
 * Invariant: a gradient that the server did not apply must not stay in the residual: `compress` gives
 * the message and keeps the state before it until `sent` or `dropped` says what became of it.
 */
import type { Device } from "../../device/device.js";
import { TrainingError } from "../errors.js";
import type { Compression } from "../optimizer/rules.js";
import type { CompressedGradient } from "./compressed-gradient.js";

export class GradientCompressor {
  /** Of the messages that were applied. */
  private residual: Float32Array<ArrayBuffer>;
  /** As it will be when the message under way is applied. */
  private next: Float32Array<ArrayBuffer>;
  private isUnderWay = false;

  /** `length`: elements of every gradient. */
  constructor(private readonly compression: Compression, private readonly length: number, private readonly device: Device) {
    const kept = compression.kind === "fp16" ? 0 : length; // half precision is sent as it is
    this.residual = new Float32Array(kept);
    this.next = new Float32Array(kept);
  }

  /** Off the event loop; the gradient must not be touched until it settles. Throws TrainingError "busy" or "length". */
  async compress(gradient: Float32Array): Promise<CompressedGradient> {
    if (this.isUnderWay) throw new TrainingError("busy", "the message before was neither sent nor dropped");
    if (gradient.length !== this.length) {
      throw new TrainingError("length", `a gradient has ${this.length} float32 elements, got ${gradient.length}`);
    }
    const { kind } = this.compression;
    this.isUnderWay = true;
    try {
      this.next.set(this.residual);
      const bytes = await this.device.compressAsync(kind, gradient, {
        ...(this.compression.kind === "topk" && { entries: Math.max(1, Math.round(this.compression.ratio * this.length)) }),
        ...(kind !== "fp16" && { residual: this.next }),
      });
      return { kind, length: this.length, bytes };
    } catch (error) {
      this.isUnderWay = false;
      throw error;
    }
  }

  /** The server applied the message (or had applied it before). */
  sent(): void {
    if (this.isUnderWay) [this.residual, this.next] = [this.next, this.residual];
    this.isUnderWay = false;
  }

  /** The server refused the message (stale, or not at all): its gradient is computed again. */
  dropped(): void {
    this.isUnderWay = false;
  }

  /** The residual, for a checkpoint; empty for fp16. */
  save(): Float32Array<ArrayBuffer> {
    return this.residual.slice();
  }

  /** Takes up a saved residual. Throws TrainingError "length" where it is of another gradient. */
  restore(residual: Float32Array): void {
    if (residual.length !== this.residual.length) {
      throw new TrainingError("length", `the residual has ${this.residual.length} elements, got ${residual.length}`);
    }
    this.residual.set(residual);
    this.isUnderWay = false;
  }
}
