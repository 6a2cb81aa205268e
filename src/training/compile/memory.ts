/**
 * Owns: the arena plan: byte offsets for storages with known lifetimes. Two storages share bytes
 * only if no op of the plan has both alive. Greedy by size (Pisarchyk and Lee 2020).
 */

export const ALIGNMENT_BYTES = 64;

export interface Storage {
  bytes: number;
  /** First and last op that touches it, inclusive; a storage with `fixed` lives always. */
  first: number;
  last: number;
  /** Byte offset given from outside. */
  fixed?: number;
}

export const alignBytes = (bytes: number): number => Math.ceil(bytes / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;

/** Offsets for all storages, and the arena's size; temporaries start at `base`. */
export function planMemory(storages: readonly Storage[], base: number): { offsets: number[]; arenaBytes: number } {
  const offsets = storages.map((storage) => storage.fixed ?? -1);
  let arenaBytes = alignBytes(base);
  const order = storages.map((_, i) => i).filter((i) => storages[i]!.fixed === undefined)
    .sort((a, b) => storages[b]!.bytes - storages[a]!.bytes || a - b);
  const placed: number[] = []; // by offset, ascending
  for (const i of order) {
    const storage = storages[i]!;
    let offset = alignBytes(base);
    for (const other of placed) {
      const conflict = storages[other]!.first <= storage.last && storages[other]!.last >= storage.first;
      if (!conflict) continue;
      if (offset + storage.bytes <= offsets[other]!) break;
      offset = Math.max(offset, alignBytes(offsets[other]! + storages[other]!.bytes));
    }
    offsets[i] = offset;
    const position = placed.findIndex((other) => offsets[other]! > offset);
    placed.splice(position < 0 ? placed.length : position, 0, i);
    arenaBytes = Math.max(arenaBytes, alignBytes(offset + storage.bytes));
  }
  return { offsets, arenaBytes };
}
