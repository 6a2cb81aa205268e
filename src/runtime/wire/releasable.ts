// Owns: the memory of received arrays that its user may give back early. Invariant: memory is given back once, and all
// arrays over it are empty from then on, so that nobody reads what the next message has written there.
import { DEPTH_MAX } from "./limits.js";

const owners = new WeakMap<ArrayBufferLike, (buffer: ArrayBuffer) => void>();

/** `give` runs when the receiver of the arrays over `buffer` is done with them; it must empty them. */
export function onRelease(buffer: ArrayBufferLike, give: (buffer: ArrayBuffer) => void): void {
  owners.set(buffer, give);
}

/**
 * Gives the memory of a received message's large arrays back now, instead of leaving it to the garbage collector:
 * shared memory to its sender, which falls back to slower ways when it finds no free segment, other memory to the next
 * message, because fresh memory costs more than the copy into it. The arrays are empty afterwards. Arrays that did not
 * come over a link, and small ones, stay as they are.
 */
export function releaseTensors(message: unknown): void {
  release(message, 0);
}

function release(value: unknown, depth: number): void {
  if (typeof value !== "object" || value === null || depth > DEPTH_MAX) return;
  if (ArrayBuffer.isView(value)) {
    const { buffer } = value;
    const give = owners.get(buffer);
    if (give === undefined) return;
    owners.delete(buffer);
    give(buffer as ArrayBuffer);
  } else for (const item of Object.values(value)) release(item, depth + 1);
}
