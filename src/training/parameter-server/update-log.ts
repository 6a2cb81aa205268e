/**
 * Owns: the order of updates, the only nondeterminism of asynchronous training: one entry per
 * applied gradient, chained by BLAKE3 so that a digest commits to the whole history.
 */
import { blake3 } from "@noble/hashes/blake3.js";
import { concatBytes, utf8ToBytes } from "@noble/hashes/utils.js";

export interface UpdateEntry {
  /** Entries count from 0; entry `position` made version `position + 1` of a store that began at 0. */
  position: number;
  worker: string;
  epoch: number;
  sequence: number;
  baseVersion: number;
  /** Version that the update made. */
  version: number;
  learningRate: number;
  /** BLAKE3 of the gradient's bytes as received, where the push carried or the store computed it. */
  hash?: Uint8Array;
}

/** About 100 bytes an entry: 6 MB, an hour of updates at 18 per second; older ones stay in the digest. */
export const LOG_ENTRIES_MAX = 65_536;

export class UpdateLog {
  private entries: UpdateEntry[] = [];

  /** `position` counts all entries ever appended; `digest` commits to them. */
  constructor(private count = 0, private chain: Uint8Array = new Uint8Array(32)) {}

  get position(): number { return this.count; }
  get digest(): Uint8Array { return this.chain; }

  append(entry: Omit<UpdateEntry, "position">): UpdateEntry {
    const full = { ...entry, position: this.count++ };
    this.chain = extendDigest(this.chain, full);
    this.entries.push(full);
    // Halving keeps appends O(1) amortised.
    if (this.entries.length > LOG_ENTRIES_MAX) this.entries = this.entries.slice(LOG_ENTRIES_MAX / 2);
    return full;
  }

  /** Kept entries from `position` on; undefined where they are gone already. */
  since(position: number): UpdateEntry[] | undefined {
    const first = this.count - this.entries.length;
    return position < first ? undefined : this.entries.slice(position - first);
  }
}

/** The digest after one more entry: anybody with the entries can recompute the chain. */
export function extendDigest(digest: Uint8Array, entry: UpdateEntry): Uint8Array {
  const worker = utf8ToBytes(entry.worker);
  const fixed = new DataView(new ArrayBuffer(8 * 6 + 4));
  [entry.position, entry.epoch, entry.sequence, entry.baseVersion, entry.version, entry.learningRate]
    .forEach((value, i) => fixed.setFloat64(i * 8, value, true));
  fixed.setUint32(48, worker.length, true);
  return blake3(concatBytes(digest, new Uint8Array(fixed.buffer), worker, entry.hash ?? new Uint8Array(0)));
}
