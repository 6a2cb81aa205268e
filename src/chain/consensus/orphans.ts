// Owns blocks whose parent is not known yet. Invariant: bounded; each passed the checks that need no parent.
import { keyOf } from "../bytes.js";
import type { Block } from "../block/block.js";

/** Blocks that overtake their parents come in ones and twos; a node that is further behind synchronises. */
const ORPHANS_MAX = 64;
/** One signer cannot push everybody else's orphans out. */
const ORPHANS_PER_PRODUCER_MAX = 8;

export class OrphanPool {
  private readonly byHash = new Map<string, Block>();

  get size(): number {
    return this.byHash.size;
  }

  add(block: Block): void {
    const producer = keyOf(block.header.coinbase);
    const own = [...this.byHash].filter(([, each]) => keyOf(each.header.coinbase) === producer);
    if (own.length >= ORPHANS_PER_PRODUCER_MAX) this.byHash.delete(own[0]![0]);
    if (this.byHash.size >= ORPHANS_MAX) this.byHash.delete(this.byHash.keys().next().value!);
    this.byHash.set(keyOf(block.header.hash), block);
  }

  has(hash: Uint8Array): boolean {
    return this.byHash.has(keyOf(hash));
  }

  /** Removes and returns the children of a block that just became known. */
  takeChildren(parentHash: Uint8Array): Block[] {
    const parent = keyOf(parentHash);
    const children = [...this.byHash].filter(([, block]) => keyOf(block.header.parentHash) === parent);
    for (const [key] of children) this.byHash.delete(key);
    return children.map(([, block]) => block);
  }
}
