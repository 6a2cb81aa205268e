// Owns the walk over every account of a state. Invariant: reads the trie itself, not any running total, so the
// sum it reports is what the state root commits to.
import { RLP } from "@ethereumjs/rlp";
import { toBigInt, toHex } from "./bytes.js";
import { ChainError } from "./errors.js";
import { table, type Store } from "./store/store.js";

export interface LedgerAccount {
  /** undefined when the store does not know which address the trie key is the hash of. */
  address: `0x${string}` | undefined;
  balance: bigint;
  nonce: bigint;
}

export interface Ledger {
  total: bigint;
  accounts: LedgerAccount[];
}

type TrieItem = Uint8Array | TrieItem[];

export async function walkLedger(store: Store, root: Uint8Array): Promise<Ledger> {
  const accounts: LedgerAccount[] = [];
  let total = 0n;
  const stack: { item: TrieItem; path: string }[] = [{ item: load(store, root), path: "" }];
  for (let top = stack.pop(); top; top = stack.pop()) {
    const node = top.item instanceof Uint8Array ? load(store, top.item) : top.item;
    if (node.length === 17) {
      for (let nibble = 15; nibble >= 0; nibble--) {
        const child = node[nibble]!;
        if (child.length > 0) stack.push({ item: child, path: top.path + nibble.toString(16) });
      }
      continue;
    }
    const encodedPath = toHex(node[0] as Uint8Array).slice(2);
    const flag = Number.parseInt(encodedPath[0]!, 16);
    const path = top.path + encodedPath.slice(flag & 1 ? 1 : 2);
    if (flag < 2) {
      stack.push({ item: node[1]!, path });
      continue;
    }
    const [nonce, balance] = RLP.decode(node[1] as Uint8Array) as Uint8Array[];
    const preimage = store.get(table.preimage(Buffer.from(path, "hex")));
    total += toBigInt(balance!);
    accounts.push({ address: preimage && toHex(preimage), balance: toBigInt(balance!), nonce: toBigInt(nonce!) });
  }
  return { total, accounts };
}

function load(store: Store, hash: Uint8Array): TrieItem[] {
  const encoded = store.get(table.state(hash));
  if (encoded === undefined) throw new ChainError("corrupt", `the store lacks the state node ${toHex(hash)}`);
  return RLP.decode(encoded) as TrieItem[];
}
