// Owns: the memory of received bytes that may be given back early. Invariant: memory is given back once, and all
// views of it are empty from then on, so that nobody reads what the next message has written there.
import { DEPTH_MAX } from "./limits.js";

const owners = new WeakMap<ArrayBufferLike, (buffer: ArrayBuffer) => void>();

/** `give` runs when the receiver of the arrays over `buffer` is done with them; it must empty them. */
export function onRelease(buffer: ArrayBufferLike, give: (buffer: ArrayBuffer) => void): void {
  owners.set(buffer, give);
}

/** Leaves `buffer` to the garbage collector after all: others may read it for as long as they like. */
export function keepMemory(buffer: ArrayBufferLike): void {
  owners.delete(buffer);
}

/** Gives `buffer` back to whoever said how; any other stays as it is. */
export function release(buffer: ArrayBufferLike): void {
  const give = owners.get(buffer);
  if (give === undefined) return;
  owners.delete(buffer);
  give(buffer as ArrayBuffer);
}

/**
 * Gives the memory of a received message's large arrays back now, instead of leaving it to the garbage collector:
 * shared memory to its sender, which falls back to slower ways when it finds no free segment, other memory to the next
 * message, because fresh memory costs more than the copy into it. The arrays are empty afterwards. Arrays that did not
 * come over a link, small ones, and those that `handOver` has promised to leave alone stay as they are.
 */
export function releaseTensors(message: unknown): void {
  releaseAll(message, 0);
}

function releaseAll(value: unknown, depth: number): void {
  if (typeof value !== "object" || value === null || depth > DEPTH_MAX) return;
  if (ArrayBuffer.isView(value)) release(value.buffer);
  else for (const item of Object.values(value)) releaseAll(item, depth + 1);
}
