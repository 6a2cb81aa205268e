/**
 * Owns: what a worker signs when it has destroyed its keys and unlinked its shards: a digest that
 * binds the task, the worker and the exact set of shards. Order of the shards does not matter.
 */
import { DataError } from "./errors.js";
import { hexToBytes, isHexHash, type Hash } from "./hash.js";

export interface DeletionReceipt {
  taskId: string;
  /** The worker's address or key, as the chain knows it. */
  worker: string;
  shardHashes: readonly string[];
  deletedMs: number;
}

/** 32 bytes to be signed and put on chain. */
export function deletionReceiptDigest(receipt: DeletionReceipt, hash: Hash): Uint8Array {
  const { taskId, worker, shardHashes, deletedMs } = receipt;
  const invalid = shardHashes.find((shard) => !isHexHash(shard));
  if (invalid !== undefined) throw new DataError("name", `"${invalid}" is no shard hash`);
  const head = new TextEncoder().encode(JSON.stringify(["tesra/deletion/1", taskId, worker, deletedMs]));
  const sorted = [...new Set(shardHashes)].sort();
  const bytes = new Uint8Array(4 + head.length + sorted.length * 32);
  new DataView(bytes.buffer).setUint32(0, head.length, true);
  bytes.set(head, 4);
  sorted.forEach((shard, i) => bytes.set(hexToBytes(shard), 4 + head.length + 32 * i));
  return hash(bytes);
}
