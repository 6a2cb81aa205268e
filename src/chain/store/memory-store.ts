// Owns the in-memory Store used by tests and simulations. Invariant: same observable behaviour as the disk store.
import { keyOf } from "../bytes.js";
import { StoreError } from "../errors.js";
import type { Store, StoreOperation } from "./store.js";

export class MemoryStore implements Store {
  readonly location = "memory";
  private readonly entries = new Map<string, Uint8Array>();
  private open = true;

  get(key: Uint8Array): Uint8Array | undefined {
    this.guard();
    return this.entries.get(keyOf(key));
  }

  write(operations: readonly StoreOperation[]): void {
    this.guard();
    for (const { key, value } of operations) {
      if (value === undefined) this.entries.delete(keyOf(key));
      else this.entries.set(keyOf(key), value);
    }
  }

  scan(prefix: Uint8Array, limit: number): { key: Uint8Array; value: Uint8Array }[] {
    this.guard();
    const start = keyOf(prefix);
    return [...this.entries.keys()].filter((key) => key.startsWith(start)).sort().slice(0, limit)
      .map((key) => ({ key: new Uint8Array(Buffer.from(key, "hex")), value: this.entries.get(key)! }));
  }

  async close(): Promise<void> {
    this.open = false;
  }

  private guard(): void {
    if (!this.open) throw new StoreError("closed", "The store is closed.", "Open it again before use.");
  }
}

export function createMemoryStore(): Store {
  return new MemoryStore();
}
