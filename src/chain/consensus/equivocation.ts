// Owns the watch for two blocks of one producer in one slot, which is slashed on evidence (white paper 4.3.3.1).
// Invariant: bounded; only headers whose signature was checked are kept, so what it reports is proof, whatever else
// is wrong with the blocks.
import { equals, keyOf } from "../bytes.js";
import type { BlockIndex } from "../block/block-index.js";
import type { Header } from "../block/header.js";

/** Two headers with one producer and one slot. */
export interface Equivocation {
  first: Header;
  second: Header;
}

/** Headers of about 1 KiB; at one block a second an hour of slots. */
const HEADERS_KEPT_MAX = 4_096;

export class EquivocationWatch {
  private readonly seen = new Map<string, Header>();

  constructor(private readonly index: BlockIndex, private readonly searchBlocksMax: number) {}

  /** Takes a header with a valid signature; `head` is searched for what was seen before a restart. */
  note(header: Header, head: Header): Equivocation | undefined {
    const key = `${keyOf(header.coinbase)}:${header.slot}`;
    const first = this.seen.get(key) ?? this.canonicalAt(header.slot, head);
    if (first && equals(first.coinbase, header.coinbase) && !equals(first.hash, header.hash)) return { first, second: header };
    if (this.seen.size >= HEADERS_KEPT_MAX) this.seen.delete(this.seen.keys().next().value!);
    this.seen.set(key, header);
    return undefined;
  }

  /** Bounded: a stranger's header may name any slot of the past. */
  private canonicalAt(slot: number, head: Header): Header | undefined {
    let header: Header | undefined = head;
    for (let i = 0; i < this.searchBlocksMax && header && header.slot > slot; i++) header = this.index.header(header.parentHash);
    return header?.slot === slot ? header : undefined;
  }
}
