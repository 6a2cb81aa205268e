// Owns a task's data on a worker: leased keys, ciphertext on disk, plaintext in memory, and their end.
// Invariant: only leased shards are opened; after destroy() no key, no file and no plaintext of the task
// is left here.
import { createHash } from "../../data/hash.js";
import { deletionReceiptDigest } from "../../data/deletion-receipt.js";
import { KeyRing } from "../../data/key-lease.js";
import { unwrapKey, type WrapKeyPair } from "../../data/key-wrap.js";
import { parseManifest, type Manifest } from "../../data/manifest.js";
import { openShard } from "../../data/shard.js";
import { ShardStore } from "../../data/shard-store.js";
import type { Device } from "../../device/device.js";
import type { Lease } from "./protocol.js";
import type { ShardRows } from "./task-run.js";

export interface TaskDataModules {
  device: Device;
  /** This node's X25519 pair: keys are wrapped for it. */
  sealing: WrapKeyPair;
  /** Fetches a ciphertext by its address. */
  fetchShard: (hash: string) => Promise<Uint8Array>;
  now: () => number;
}

export class TaskData {
  private readonly keys = new KeyRing();
  private readonly leased = new Set<number>();
  private readonly rows = new Map<number, ShardRows>();

  private constructor(
    private readonly options: { taskId: string; worker: string; manifest: Manifest },
    private readonly modules: TaskDataModules & { store: ShardStore },
  ) {}

  static async open(
    options: { taskId: string; worker: string; manifest: string; directory: string }, modules: TaskDataModules,
  ): Promise<TaskData> {
    const manifest = parseManifest(options.manifest, createHash(modules.device));
    const store = await ShardStore.open(options.directory, { device: modules.device });
    return new TaskData({ ...options, manifest }, { ...modules, store });
  }

  get shardCount(): number {
    return this.options.manifest.shards.length;
  }

  lease(leases: readonly Lease[]): void {
    const { taskId, manifest } = this.options;
    for (const { id, shard, expiresMs, wrappedKey } of leases) {
      const entry = manifest.shards[shard];
      if (!entry) throw new RangeError(`the manifest has ${manifest.shards.length} shards, there is no shard ${shard}`);
      const context = { taskId, shardHash: entry.hash };
      const key = unwrapKey(wrappedKey, this.modules.sealing, context);
      this.keys.put({ id, expiresMs, ...context, recipient: Buffer.from(this.modules.sealing.publicKey).toString("hex") }, key);
      key.fill(0);
      this.leased.add(shard);
    }
  }

  async rowsOf(shard: number): Promise<ShardRows> {
    const known = this.rows.get(shard);
    if (known) return known;
    const { manifest } = this.options;
    const { store, fetchShard, device, now } = this.modules;
    const { hash } = manifest.shards[shard] ?? {};
    if (hash === undefined) throw new RangeError(`the manifest has no shard ${shard}`);
    const key = this.keys.get(hash, now());
    if (!await store.has(hash)) await store.put(hash, await fetchShard(hash));
    const opened = await openShard(await store.get(hash), key, manifest, shard, { device });
    this.rows.set(shard, opened);
    return opened;
  }

  /** Destroys keys, plaintext and ciphertext; returns the digest that the worker signs and records. */
  async destroy(): Promise<{ deletedShards: number; digest: Uint8Array }> {
    this.keys.clear();
    for (const { images, labels } of this.rows.values()) {
      images.fill(0);
      labels.fill(0);
    }
    this.rows.clear();
    const hashes = [...this.leased].map((shard) => this.options.manifest.shards[shard]!.hash);
    for (const hash of hashes) await this.modules.store.delete(hash);
    this.leased.clear();
    const digest = deletionReceiptDigest({
      taskId: this.options.taskId, worker: this.options.worker, shardHashes: hashes, deletedMs: this.modules.now(),
    }, createHash(this.modules.device));
    return { deletedShards: hashes.length, digest };
  }
}
