// Owns the view of the world state at one root: trie nodes from the store, new nodes in memory until the block
// that made them is committed. Invariant: nothing reaches the store except through `takeWrites`, in the block's
// own batch; caches hold every touched account and slot until flushed (nothing is evicted with a change in it).
import { MerklePatriciaTrie } from "@ethereumjs/mpt";
import { Caches, MerkleStateManager } from "@ethereumjs/statemanager";
import { CacheType } from "@ethereumjs/statemanager";
import { Account, Address, ValueEncoding, type BatchDBOp, type DB } from "@ethereumjs/util";
import type { Common } from "@ethereumjs/common";
import { keyOf, keccak } from "../bytes.js";
import { table, type Store, type StoreOperation } from "../store/store.js";

/** Bytes of decoded-from-disk trie nodes kept across blocks: about 100,000 nodes of 500 bytes. */
const NODE_CACHE_ENTRIES_MAX = 100_000;
/** Above GAS_LIMIT_MAX / 1,900 gas, the cheapest first touch of a slot (EIP-2930), so no change is evicted. */
const STATE_CACHE_ENTRIES = 131_072;

/** Trie nodes by hash: content-addressed, hence never stale. Oldest insertions leave first. */
export class NodeCache {
  private readonly nodes = new Map<string, Uint8Array>();

  get(key: string): Uint8Array | undefined {
    return this.nodes.get(key);
  }

  set(key: string, value: Uint8Array): void {
    if (this.nodes.size >= NODE_CACHE_ENTRIES_MAX) this.nodes.delete(this.nodes.keys().next().value!);
    this.nodes.set(key, value);
  }
}

/** The trie's database: reads fall through overlay, cache and store; writes stay in the overlay. */
class OverlayDatabase implements DB<string, Uint8Array> {
  readonly written = new Map<string, Uint8Array>();

  constructor(private readonly store: Store, private readonly cache: NodeCache) {}

  async get(key: string): Promise<Uint8Array | undefined> {
    const known = this.written.get(key) ?? this.cache.get(key);
    if (known !== undefined) return known;
    const stored = this.store.get(table.state(Buffer.from(key, "hex")));
    if (stored !== undefined) this.cache.set(key, stored);
    return stored;
  }

  async put(key: string, value: Uint8Array): Promise<void> {
    this.written.set(key, value);
  }

  async del(): Promise<void> {
    // Nodes of other states may be the same nodes: nothing is deleted here, pruning is a walk of its own.
  }

  async batch(operations: BatchDBOp<string, Uint8Array>[]): Promise<void> {
    for (const operation of operations) if (operation.type === "put") this.written.set(operation.key, operation.value);
  }

  shallowCopy(): DB<string, Uint8Array> {
    return this;
  }

  async open(): Promise<void> {}
}

/**
 * MerkleStateManager whose checkpoints live in the caches alone: the tries change once per block, in flush(),
 * instead of once per transaction, which saves re-hashing every path from leaf to root for each transaction.
 */
class BlockStateManager extends MerkleStateManager {
  readonly touched = new Map<string, Uint8Array>();

  override async putAccount(address: Address, account: Account | undefined): Promise<void> {
    if (account !== undefined) this.touched.set(keyOf(address.bytes), address.bytes);
    return super.putAccount(address, account);
  }

  override async checkpoint(): Promise<void> {
    this._caches!.checkpoint();
    this._checkpointCount += 1;
  }

  override async commit(): Promise<void> {
    this._caches!.commit();
    this._checkpointCount -= 1;
    if (this._checkpointCount === 0) this.originalStorageCache.clear();
  }

  override async revert(): Promise<void> {
    this._caches!.revert();
    this._storageTries = {};
    this._checkpointCount -= 1;
    if (this._checkpointCount === 0) this.originalStorageCache.clear();
  }
}

export class WorldState {
  readonly manager: MerkleStateManager;
  private readonly block: BlockStateManager;
  private readonly database: OverlayDatabase;
  private readonly trie: MerklePatriciaTrie;

  constructor(options: { root: Uint8Array | undefined; common: Common; isShortLived?: boolean },
    private readonly modules: { store: Store; cache: NodeCache }) {
    this.database = new OverlayDatabase(modules.store, modules.cache);
    this.trie = new MerklePatriciaTrie({
      db: this.database as unknown as DB<string, string>, useKeyHashing: true, useKeyHashingFunction: keccak,
      valueEncoding: ValueEncoding.Bytes, ...(options.root ? { root: options.root } : {}),
    });
    // An ordered map starts empty and cheap; the LRU is faster but allocates its whole size up front.
    const cache = options.isShortLived
      ? { type: CacheType.ORDERED_MAP, size: STATE_CACHE_ENTRIES }
      : { type: CacheType.LRU, size: STATE_CACHE_ENTRIES };
    this.block = new BlockStateManager({
      common: options.common, trie: this.trie, caches: new Caches({ account: cache, storage: cache, code: cache }),
    });
    this.manager = this.block;
  }

  async account(address: Uint8Array): Promise<{ balance: bigint; nonce: bigint }> {
    const account = await this.manager.getAccount(new Address(address));
    return { balance: account?.balance ?? 0n, nonce: account?.nonce ?? 0n };
  }

  async addBalance(address: Uint8Array, amount: bigint): Promise<void> {
    if (amount === 0n) return;
    const key = new Address(address);
    const account = (await this.manager.getAccount(key)) ?? new Account();
    account.balance += amount;
    if (account.balance < 0n) throw new RangeError(`balance of ${key} would fall below zero`);
    await this.manager.putAccount(key, account);
  }

  /** Writes the caches into the tries and returns the new root. */
  async root(): Promise<Uint8Array> {
    return this.manager.getStateRoot();
  }

  /** The nodes, code and address preimages written since the last call, as operations for the block's batch. */
  takeWrites(): StoreOperation[] {
    const operations: StoreOperation[] = [];
    for (const [key, value] of this.database.written) {
      operations.push({ key: table.state(Buffer.from(key, "hex")), value });
      this.modules.cache.set(key, value);
    }
    this.database.written.clear();
    for (const address of this.block.touched.values()) {
      operations.push({ key: table.preimage(keccak(address)), value: address });
    }
    this.block.touched.clear();
    return operations;
  }
}
