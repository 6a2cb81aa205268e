// Owns: the key-value interface through which the runtime keeps what must survive the process. Invariant: a batch is
// applied entirely or not at all, in order; reads see every batch whose write() has returned.

export interface StoreOperation {
  readonly key: Uint8Array;
  /** undefined deletes the key. */
  readonly value: Uint8Array | undefined;
}

export interface StoreEntry {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
}

export interface Store {
  get(key: Uint8Array): Uint8Array | undefined;
  /** Entries whose key starts with `prefix`, in key order. */
  scan(prefix: Uint8Array, limit?: number): StoreEntry[];
  /** `sync` waits for the disk: survives a power cut, not only the death of the process. @throws when it cannot. */
  write(operations: readonly StoreOperation[], options?: { readonly sync?: boolean }): void;
  close(): Promise<void>;
}
