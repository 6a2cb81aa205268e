// Owns the difference between two branches. Invariant: abandoned is newest first, adopted oldest first, and both
// start right after the last common block.
import { equals } from "../bytes.js";
import { ChainError } from "../errors.js";
import { BlockIndex } from "../block/block-index.js";
import type { Header } from "../block/header.js";
import type { Transaction } from "../block/transaction.js";
import { table, type StoreOperation } from "../store/store.js";

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

/** The canonical index and the places of transactions on the new branch, without the old one's; the head last. */
export function branchWrites(change: BranchChange, head: Header, transactionsOf: (header: Header) => readonly Transaction[]): StoreOperation[] {
  const operations: StoreOperation[] = [];
  for (const old of change.abandoned) {
    if (old.number > head.number) operations.push({ key: table.canonical(old.number), value: undefined });
    for (const { hash } of transactionsOf(old)) operations.push({ key: table.transaction(hash), value: undefined });
  }
  for (const adopted of change.adopted) {
    operations.push({ key: table.canonical(adopted.number), value: adopted.hash });
    transactionsOf(adopted).forEach(({ hash }, index) =>
      operations.push(BlockIndex.placeWrite(hash, { blockHash: adopted.hash, index })));
  }
  operations.push({ key: table.head, value: head.hash });
  return operations;
}
