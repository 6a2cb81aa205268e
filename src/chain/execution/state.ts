// Owns the view of the world state at one root: trie nodes from the store, new nodes in memory until the block
// that made them is committed. Invariant: nothing reaches the store except through `takeWrites`, in the block's
// own batch; caches hold every touched account and slot until flushed (nothing is evicted with a change in it).
import { createMerkleProof, MerklePatriciaTrie } from "@ethereumjs/mpt";
import { Caches, CacheType, CODEHASH_PREFIX, MerkleStateManager, type MerkleStateManagerOpts } from "@ethereumjs/statemanager";
import { Account, Address, ValueEncoding, type BatchDBOp, type DB } from "@ethereumjs/util";
import type { Common } from "@ethereumjs/common";
import { concat, equals, keyOf, keccak } from "../bytes.js";
import { EMPTY_TRIE_ROOT, TrieBatch } from "./trie-batch.js";
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
    return this.read(key);
  }

  read(key: string): Uint8Array | undefined {
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
  private readonly hashed = new Map<string, Uint8Array>();

  constructor(options: MerkleStateManagerOpts, private readonly database: OverlayDatabase) {
    super(options);
  }

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

  override async deleteAccount(address: Address): Promise<void> {
    this.forgetSlots(address);
    this._caches!.code!.del(address);
    this._caches!.account!.del(address);
  }

  override async clearStorage(address: Address): Promise<void> {
    this.forgetSlots(address);
    const account = (await this.getAccount(address)) ?? new Account();
    account.storageRoot = EMPTY_TRIE_ROOT;
    await this.putAccount(address, account);
  }

  /**
   * Zeroes the cached slots one by one. The cache's own way drops them without a checkpoint, which a revert cannot
   * bring back; harmless where every transaction is flushed, but here earlier ones of the block wait in the cache.
   */
  private forgetSlots(address: Address): void {
    const { storage } = this._caches!;
    for (const slot of storage!.dump(address)?.keys() ?? []) storage!.del(address, Buffer.from(slot, "hex"));
    this._storageTries = {}; // reads must go by the account's new storage root
  }

  /** Code, then storage, then the accounts that the storage roots are part of. */
  override async flush(): Promise<void> {
    const caches = this._caches!;
    for (const [, { code }] of caches.code!.flush()) {
      if (code) this.database.written.set(keyOf(concat(CODEHASH_PREFIX, keccak(code))), code);
    }
    const slots = new Map<string, [string, Uint8Array | undefined][]>();
    for (const [address, slot, value] of caches.storage!.flush()) {
      const own = slots.get(address);
      if (own) own.push([slot, value]);
      else slots.set(address, [[slot, value]]);
    }
    for (const [address, changes] of slots) await this.flushStorage(address, changes);
    const trie = this.batchAt(this._trie.root());
    for (const [address, { accountRLP }] of caches.account!.flush()) trie.set(this.hashOf(address), accountRLP);
    this._trie.root(trie.commit((key, encoded) => this.database.written.set(key, encoded)));
    this._storageTries = {}; // their roots moved on
  }

  private async flushStorage(address: string, changes: [string, Uint8Array | undefined][]): Promise<void> {
    const owner = new Address(Buffer.from(address, "hex"));
    const account = await this.getAccount(owner);
    if (!account) return; // destroyed in this block, and its storage with it
    const trie = this.batchAt(account.storageRoot);
    for (const [slot, value] of changes) {
      const isZero = value === undefined || value.length === 0 || (value.length === 1 && value[0] === RLP_EMPTY_STRING);
      trie.set(keccak(Buffer.from(slot, "hex")), isZero ? undefined : value);
    }
    account.storageRoot = trie.commit((key, encoded) => this.database.written.set(key, encoded));
    await this.putAccount(owner, account);
  }

  private batchAt(root: Uint8Array): TrieBatch {
    return new TrieBatch(root, (key) => this.database.read(key));
  }

  /** Trie key of an address; the same few thousand addresses come block after block. */
  private hashOf(address: string): Uint8Array {
    let hash = this.hashed.get(address);
    if (!hash) {
      hash = keccak(Buffer.from(address, "hex"));
      if (this.hashed.size < HASHED_ADDRESSES_MAX) this.hashed.set(address, hash);
    }
    return hash;
  }
}

/** The first byte of the RLP of a zero slot. */
const RLP_EMPTY_STRING = 0x80;
const HASHED_ADDRESSES_MAX = 65_536;

export class WorldState {
  readonly manager: MerkleStateManager;
  private readonly block: BlockStateManager;
  private readonly database: OverlayDatabase;
  private readonly trie: MerklePatriciaTrie;

  constructor(options: { root: Uint8Array | undefined; common: Common; isShortLived?: boolean },
    private readonly modules: { store: Store; cache: NodeCache }) {
    this.database = new OverlayDatabase(modules.store, modules.cache);
    this.trie = this.trieAt(options.root);
    // An ordered map starts empty and cheap; the LRU is faster but allocates its whole size up front.
    const cache = options.isShortLived
      ? { type: CacheType.ORDERED_MAP, size: STATE_CACHE_ENTRIES }
      : { type: CacheType.LRU, size: STATE_CACHE_ENTRIES };
    this.block = new BlockStateManager({
      common: options.common, trie: this.trie, caches: new Caches({ account: cache, storage: cache, code: cache }),
    }, this.database);
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

  /** Encoded nodes from the state's root to the account, or to where it would be (EIP-1186). */
  proveAccount(address: Uint8Array): Promise<Uint8Array[]> {
    return createMerkleProof(this.trie, address);
  }

  /** The same in a storage trie; `slot` has 32 bytes. An empty trie needs no proof. */
  async proveSlot(storageRoot: Uint8Array, slot: Uint8Array): Promise<Uint8Array[]> {
    return equals(storageRoot, EMPTY_TRIE_ROOT) ? [] : createMerkleProof(this.trieAt(storageRoot), slot);
  }

  private trieAt(root: Uint8Array | undefined): MerklePatriciaTrie {
    return new MerklePatriciaTrie({
      db: this.database as unknown as DB<string, string>, useKeyHashing: true, useKeyHashingFunction: keccak,
      valueEncoding: ValueEncoding.Bytes, ...(root ? { root } : {}),
    });
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
