// Owns finding blocks: by hash, by number on the canonical chain, and ancestors on any branch; with bounded
// caches over the store. Invariant: a header found here was fully validated and its state is in the store.
import { equals, keyOf } from "../bytes.js";
import { ChainError } from "../errors.js";
import { table, type Store, type StoreOperation } from "../store/store.js";
import { decodeBlock, encodeBlock, type Block } from "./block.js";
import type { Header } from "./header.js";
import { decodeOutcome, encodeOutcome, type Outcome } from "./receipt.js";
import { decodeRlp, encodeRlp, FieldReader, integer } from "./rlp.js";

/** Ten times the deepest reorganisation, so consensus never goes to disk for a header. */
const HEADERS_CACHED_MAX = 1_024;
/** Full blocks are megabytes; tips and what explorers ask for again. */
const BLOCKS_CACHED_MAX = 32;

export interface TransactionPlace {
  blockHash: Uint8Array;
  index: number;
}

export class BlockIndex {
  private readonly headers = new Map<string, Header>();
  private readonly blocks = new Map<string, Block>();
  private readonly outcomes = new Map<string, Outcome>();

  constructor(private readonly store: Store) {}

  has(hash: Uint8Array): boolean {
    return this.headers.has(keyOf(hash)) || this.store.get(table.block(hash)) !== undefined;
  }

  encoded(hash: Uint8Array): Uint8Array | undefined {
    return this.store.get(table.block(hash));
  }

  block(hash: Uint8Array): Block | undefined {
    const known = this.blocks.get(keyOf(hash));
    if (known) return known;
    const stored = this.encoded(hash);
    if (stored === undefined) return undefined;
    const block = decodeBlock(stored);
    this.remember(block);
    return block;
  }

  header(hash: Uint8Array): Header | undefined {
    return this.headers.get(keyOf(hash)) ?? this.block(hash)?.header;
  }

  outcome(hash: Uint8Array): Outcome | undefined {
    const known = this.outcomes.get(keyOf(hash));
    if (known) return known;
    const stored = this.store.get(table.outcome(hash));
    if (stored === undefined) return undefined;
    const outcome = decodeOutcome(stored);
    bounded(this.outcomes, keyOf(hash), outcome, BLOCKS_CACHED_MAX);
    return outcome;
  }

  canonicalHash(number: number): Uint8Array | undefined {
    return Number.isSafeInteger(number) && number >= 0 ? this.store.get(table.canonical(number)) : undefined;
  }

  canonicalHeader(number: number): Header | undefined {
    const hash = this.canonicalHash(number);
    return hash && this.header(hash);
  }

  isCanonical(header: Header): boolean {
    const hash = this.canonicalHash(header.number);
    return hash !== undefined && equals(hash, header.hash);
  }

  /** The ancestor of `from` (or `from` itself) with this number, whatever branch it is on. */
  ancestor(from: Header, number: number): Header {
    let header = from;
    while (header.number > number) {
      if (this.isCanonical(header)) return this.need(this.canonicalHeader(number), `block ${number}`);
      header = this.need(this.header(header.parentHash), `parent of block ${header.number}`);
    }
    return header;
  }

  place(transactionHash: Uint8Array): TransactionPlace | undefined {
    const stored = this.store.get(table.transaction(transactionHash));
    if (stored === undefined) return undefined;
    const read = new FieldReader(decodeRlp(stored, "transaction place", 64), "transaction place");
    return { blockHash: read.bytes("blockHash", 32), index: read.count("index") };
  }

  writesOf(block: Block, outcome: Outcome): StoreOperation[] {
    return [
      { key: table.block(block.header.hash), value: encodeBlock(block) },
      { key: table.outcome(block.header.hash), value: encodeOutcome(outcome) },
    ];
  }

  static placeWrite(transactionHash: Uint8Array, place: TransactionPlace): StoreOperation {
    return { key: table.transaction(transactionHash), value: encodeRlp([place.blockHash, integer(place.index)]) };
  }

  /** After the batch that stored it. */
  remember(block: Block, outcome?: Outcome): void {
    const key = keyOf(block.header.hash);
    bounded(this.headers, key, block.header, HEADERS_CACHED_MAX);
    bounded(this.blocks, key, block, BLOCKS_CACHED_MAX);
    if (outcome) bounded(this.outcomes, key, outcome, BLOCKS_CACHED_MAX);
  }

  private need<T>(value: T | undefined, what: string): T {
    if (value === undefined) throw new ChainError("corrupt", `the store has no ${what}; synchronise again from an empty directory`);
    return value;
  }
}

function bounded<T>(map: Map<string, T>, key: string, value: T, max: number): void {
  map.delete(key);
  if (map.size >= max) map.delete(map.keys().next().value!);
  map.set(key, value);
}
