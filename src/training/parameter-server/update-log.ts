/**
 * Owns: the order of updates, the only nondeterminism of asynchronous training: one entry per
 * update, chained by BLAKE3 so that a digest commits to the whole history.
 */
import { blake3 } from "@noble/hashes/blake3.js";
import { concatBytes, utf8ToBytes } from "@noble/hashes/utils.js";

/** One push that went into an update. */
export interface PushRecord {
  worker: string;
  epoch: number;
  sequence: number;
  baseVersion: number;
  /** What the gradient was computed from (unit, batch, samples), in the pusher's own words; may be empty. */
  tag: string;
  /** BLAKE3 of the gradient's bytes as received, where the push carried it. */
  hash?: Uint8Array;
}

export interface UpdateEntry {
  /** Entries count from 0; entry `position` made version `position + 1` of a store that began at 0. */
  position: number;
  /** Version that the update made. */
  version: number;
  /** The rate that was applied, decay and staleness included. */
  learningRate: number;
  /** One push, or those of a round in the order in which their mean was summed. */
  pushes: PushRecord[];
}

/** About 200 bytes an entry: 13 MB, an hour of updates at 18 per second; older ones stay in the digest. */
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
  const parts = [digest, float64s(entry.position, entry.version, entry.learningRate, entry.pushes.length)];
  for (const { worker, epoch, sequence, baseVersion, tag, hash = new Uint8Array(0) } of entry.pushes) {
    const [name, label] = [utf8ToBytes(worker), utf8ToBytes(tag)];
    // Every part's length stands before it, so that no two entries have the same bytes.
    parts.push(float64s(epoch, sequence, baseVersion, name.length, label.length, hash.length), name, label, hash);
  }
  return blake3(concatBytes(...parts));
}

function float64s(...values: number[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(8 * values.length));
  values.forEach((value, i) => view.setFloat64(i * 8, value, true));
  return new Uint8Array(view.buffer);
}
