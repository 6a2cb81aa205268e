// Owns what two nodes exchange to agree on a chain: a locator of hashes, and the blocks after the point it names.
// Invariant: an answer is bounded in hashes and bytes whatever is asked for.
import type { BlockIndex } from "./block/block-index.js";
import type { Header } from "./block/header.js";

const LOCATOR_HASHES_MAX = 64;
/** Hashes before the gaps start to double: most nodes are a few blocks apart. */
const LOCATOR_DENSE_HASHES = 8;
/** An answer stops growing here, well below any frame limit. */
const SYNC_BYTES_MAX = 8 * 1024 * 1024;

/** Hashes of the canonical chain, dense near the head and ever sparser towards genesis, which ends it. */
export function locatorOf(index: BlockIndex, head: Header, genesisHash: Uint8Array): Uint8Array[] {
  const hashes: Uint8Array[] = [];
  for (let number = head.number, gap = 1; number > 0 && hashes.length < LOCATOR_HASHES_MAX - 1; number -= gap) {
    hashes.push(index.canonicalHash(number)!);
    if (hashes.length > LOCATOR_DENSE_HASHES) gap *= 2;
  }
  return [...hashes, genesisHash];
}

/** Canonical blocks after the first locator hash that is on this chain; none where no hash is. */
export function blocksAfterLocator(index: BlockIndex, head: Header, locator: readonly Uint8Array[], max: number): Uint8Array[] {
  const known = locator.slice(0, LOCATOR_HASHES_MAX).map((hash) => index.header(hash))
    .find((header) => header !== undefined && index.isCanonical(header));
  if (!known) return [];
  const blocks: Uint8Array[] = [];
  let bytes = 0;
  for (let number = known.number + 1; number <= head.number && blocks.length < max; number++) {
    const encoded = index.encoded(index.canonicalHash(number)!)!;
    bytes += encoded.length;
    if (bytes > SYNC_BYTES_MAX && blocks.length > 0) break;
    blocks.push(encoded);
  }
  return blocks;
}
