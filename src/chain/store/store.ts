// Owns the key-value interface of the chain and its key space. Invariant: a batch is applied entirely or not at
// all, in order; reads see every batch whose write() returned. Reads are synchronous: a trie walk makes tens of
// them per account and RocksDB answers from its cache in microseconds, less than one hop through the event loop.
import { concat, uint64, utf8 } from "../bytes.js";

export interface StoreOperation {
  key: Uint8Array;
  /** undefined deletes the key. */
  value: Uint8Array | undefined;
}

export interface Store {
  readonly location: string;
  get(key: Uint8Array): Uint8Array | undefined;
  /** Atomic. `sync` waits for the disk: survives a power cut, not only the death of the process. */
  write(operations: readonly StoreOperation[], options?: { sync?: boolean }): void;
  /** Entries whose key starts with the prefix, in key order. */
  scan(prefix: Uint8Array, limit: number): { key: Uint8Array; value: Uint8Array }[];
  close(): Promise<void>;
}

const prefix = (letter: string) => (suffix: Uint8Array) => concat(utf8(letter), suffix);

/** One letter per table; the letters are part of the on-disk format. */
export const table = {
  /** block hash -> encoded block */
  block: prefix("b"),
  /** block hash -> totals and receipts of its execution */
  outcome: prefix("o"),
  /** number -> canonical block hash */
  canonical: (number: number) => concat(utf8("n"), uint64(number)),
  /** transaction hash -> canonical block hash and index */
  transaction: prefix("t"),
  /** node hash -> trie node, and "c" + code hash -> code */
  state: prefix("s"),
  /** keccak(address) -> address, for walks over the state */
  preimage: prefix("p"),
  /** producer address -> last slot in which this node produced for it */
  produced: prefix("l"),
  head: utf8("H"),
  /** Genesis hash: refuses a directory that belongs to another network. */
  genesis: utf8("G"),
  format: utf8("F"),
};

/** Raised whenever the meaning of a stored byte changes. */
export const STORE_FORMAT = "tesra-chain/1";
