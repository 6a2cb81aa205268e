// Owns the difference between two branches. Invariant: abandoned is newest first, adopted oldest first, and both
// start right after the last common block.
import { equals } from "../bytes.js";
import { ChainError } from "../errors.js";
import type { BlockIndex } from "../block/block-index.js";
import type { Header } from "../block/header.js";

export interface BranchChange {
  common: Header;
  abandoned: Header[];
  adopted: Header[];
}

/** How to get from one head to another. `to` need not be in the index yet as long as its parent is. */
export function branchChange(index: BlockIndex, from: Header, to: Header): BranchChange {
  const abandoned: Header[] = [];
  const adopted: Header[] = [];
  const parentOf = (header: Header): Header => {
    const parent = index.header(header.parentHash);
    if (!parent) throw new ChainError("corrupt", `the parent of block ${header.number} is missing`);
    return parent;
  };
  let [left, right] = [from, to];
  while (!equals(left.hash, right.hash)) {
    if (left.number >= right.number) {
      abandoned.push(left);
      left = parentOf(left);
    } else {
      adopted.unshift(right);
      right = parentOf(right);
    }
  }
  return { common: left, abandoned, adopted };
}
