// Owns: memory for received tensors that comes back through `releaseTensors`. A fresh 64 MiB buffer is 16,384 page
// faults and a full garbage collection; training receives the same sizes again and again.
// Invariant: a buffer is in the pool only after every array over it was emptied.
import { moveMemory } from "./array-memory.js";
import { BULK_BYTES_MIN } from "./limits.js";
import { onRelease } from "./releasable.js";

/** Idle memory one link may keep: two of the largest layers' gradients. */
const POOL_BYTES_MAX = 128 * 1024 * 1024;

export class ReceivePool {
  readonly #idle = new Map<number, ArrayBuffer[]>();
  #idleBytes = 0;
  #isClosed = false;

  take(sizeBytes: number): Buffer {
    if (sizeBytes < BULK_BYTES_MIN) return Buffer.allocUnsafeSlow(sizeBytes);
    const idle = this.#idle.get(sizeBytes)?.pop();
    if (idle !== undefined) this.#idleBytes -= sizeBytes;
    const buffer = idle === undefined ? Buffer.allocUnsafeSlow(sizeBytes) : Buffer.from(idle);
    onRelease(buffer.buffer, (released) => this.#give(released));
    return buffer;
  }

  close(): void {
    this.#isClosed = true;
    this.#idle.clear();
    this.#idleBytes = 0;
  }

  #give(released: ArrayBuffer): void {
    const buffer = moveMemory(released); // which empties all arrays over the old one
    const { byteLength } = buffer;
    if (this.#isClosed || byteLength > POOL_BYTES_MAX) return;
    if (this.#idleBytes + byteLength > POOL_BYTES_MAX) {
      this.#idle.clear(); // sizes have changed: begin anew
      this.#idleBytes = 0;
    }
    const idle = this.#idle.get(byteLength);
    if (idle === undefined) this.#idle.set(byteLength, [buffer]);
    else idle.push(buffer);
    this.#idleBytes += byteLength;
  }
}
