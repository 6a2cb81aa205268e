// Owns the values of one run on their way: what has come waits for its reader, a reader waits for what comes.
// Invariant: a value is taken once; after the end nothing waits any more, and what comes late is dropped.
import type { TensorArray } from "../../device/device.js";

interface Box { promise: Promise<TensorArray>; resolve: (value: TensorArray) => void; reject: (error: Error) => void; filled: boolean }

export class RunValues {
  private readonly boxes = new Map<number, Box>();
  private readonly controller = new AbortController();
  private sizeBytes = 0;

  constructor(private readonly options: { bytesMax: number }) {}

  /** Fires when the run was given up. */
  get signal(): AbortSignal { return this.controller.signal; }

  /** @returns false where there is no room, or the value has come before. */
  put(node: number, value: TensorArray): boolean {
    if (this.signal.aborted) return true;
    const box = this.box(node);
    if (box.filled || this.sizeBytes + value.byteLength > this.options.bytesMax) return false;
    box.filled = true;
    this.sizeBytes += value.byteLength;
    box.resolve(value);
    return true;
  }

  take(node: number): Promise<TensorArray> { return this.box(node).promise; }

  abort(error: Error): void {
    if (this.signal.aborted) return;
    this.controller.abort(error);
    for (const box of this.boxes.values()) box.reject(error);
  }

  private box(node: number): Box {
    const known = this.boxes.get(node);
    if (known !== undefined) return known;
    let resolve!: Box["resolve"], reject!: Box["reject"];
    const promise = new Promise<TensorArray>((done, failed) => { resolve = done; reject = failed; });
    promise.catch(() => undefined); // whoever takes it sees the error
    const box: Box = { promise, resolve, reject, filled: false };
    this.boxes.set(node, box);
    if (this.signal.aborted) reject(this.signal.reason as Error);
    return box;
  }
}
