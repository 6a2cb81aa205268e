// Owns: a store without a disk, for tests and for systems that need no durability. Invariant: values are copied on
// the way in and out, as a real store's are.
import type { Store, StoreEntry, StoreOperation } from "./store.js";

export function createMemoryStore(): Store {
  return new MemoryStore();
}

class MemoryStore implements Store {
  readonly #values = new Map<string, Uint8Array>();
  /** Keys in order; made when it is asked for and dropped when a key comes or goes. */
  #sorted: string[] | undefined;

  get(key: Uint8Array): Uint8Array | undefined {
    return this.#values.get(text(key))?.slice();
  }

  scan(prefix: Uint8Array, limit = Number.POSITIVE_INFINITY): StoreEntry[] {
    const sorted = (this.#sorted ??= [...this.#values.keys()].sort());
    const start = text(prefix);
    const entries: StoreEntry[] = [];
    for (let at = lowerBound(sorted, start); at < sorted.length && entries.length < limit; at++) {
      const key = sorted[at]!;
      if (!key.startsWith(start)) break;
      entries.push({ key: Buffer.from(key, "latin1"), value: this.#values.get(key)!.slice() });
    }
    return entries;
  }

  write(operations: readonly StoreOperation[]): void {
    for (const { key, value } of operations) {
      const name = text(key);
      if (value === undefined) {
        if (this.#values.delete(name)) this.#sorted = undefined;
      } else {
        if (!this.#values.has(name)) this.#sorted = undefined;
        this.#values.set(name, value.slice());
      }
    }
  }

  async close(): Promise<void> {
    this.#values.clear();
    this.#sorted = undefined;
  }
}

/** One character a byte, so that text order is byte order. */
function text(key: Uint8Array): string {
  return Buffer.from(key.buffer, key.byteOffset, key.byteLength).toString("latin1");
}

function lowerBound(sorted: readonly string[], start: string): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (sorted[middle]! < start) low = middle + 1;
    else high = middle;
  }
  return low;
}
