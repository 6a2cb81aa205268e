// Owns the filters of HTTP clients: eth_newFilter and its siblings, polled with eth_getFilterChanges.
// Invariant: a filter is a criterion and the head it was last polled at, so it costs the same whether polled or not;
// a client sees each block and log once, and what a reorganisation took away as removed. At most FILTERS_MAX live:
// the one polled longest ago makes room.
import { toHex } from "../bytes.js";
import { keccak, utf8, concat, uint64 } from "../bytes.js";
import type { Header } from "../block/header.js";
import type { Chain } from "../chain.js";
import { branchChange, type BranchChange } from "../consensus/branches.js";
import { RpcError, rpcCode } from "./errors.js";
import { getLogs, LOG_BLOCKS_MAX, logsOfChange, readFilter, type LogFilter } from "./logs.js";
import { objectParam } from "./params.js";
import type { RpcMethod } from "./methods.js";

export const FILTERS_MAX = 1_024;
/** Hashes a pending-transaction filter holds until polled: as many as the mempool. */
const PENDING_HASHES_MAX = 8_192;

type Filter = { since: Header } & (
  | { kind: "logs"; criterion: LogFilter; request: unknown }
  | { kind: "blocks" }
  | { kind: "transactions"; hashes: string[] });

export class FilterBook {
  private readonly filters = new Map<string, Filter>();
  private issued = 0;
  private stopListening: (() => void) | undefined;

  constructor(private readonly chain: Chain) {}

  methods(): Record<string, RpcMethod> {
    return {
      eth_newFilter: ([request]) => this.add({
        kind: "logs", criterion: readFilter(objectParam(request, "filter")), request, since: this.chain.head,
      }),
      eth_newBlockFilter: () => this.add({ kind: "blocks", since: this.chain.head }),
      eth_newPendingTransactionFilter: () => this.add({ kind: "transactions", hashes: [], since: this.chain.head }),
      eth_getFilterChanges: ([id]) => this.changes(id),
      eth_getFilterLogs: ([id]) => {
        const filter = this.find(id);
        if (filter.kind !== "logs") throw new RpcError(rpcCode.server, "this filter has no logs");
        return getLogs(this.chain, filter.request);
      },
      eth_uninstallFilter: ([id]) => this.remove(String(id)),
    };
  }

  get size(): number { return this.filters.size; }

  private add(filter: Filter): string {
    if (this.filters.size >= FILTERS_MAX) this.remove(this.filters.keys().next().value!);
    const id = toHex(keccak(concat(utf8("filter"), this.chain.genesisHash, uint64(this.issued++)))).slice(0, 34);
    this.filters.set(id, filter);
    if (filter.kind === "transactions") this.listen();
    return id;
  }

  private find(id: unknown): Filter {
    const key = String(id);
    const filter = this.filters.get(key);
    if (!filter) throw new RpcError(rpcCode.server, "filter not found");
    this.filters.delete(key); // polled now: last in line to make room
    this.filters.set(key, filter);
    return filter;
  }

  private changes(id: unknown): unknown[] {
    const filter = this.find(id);
    if (filter.kind === "transactions") return filter.hashes.splice(0);
    const change = changeSince(this.chain, filter.since);
    if (!change) {
      this.remove(String(id));
      throw new RpcError(rpcCode.server, `the filter was not polled for ${LOG_BLOCKS_MAX} blocks and is gone; make a new one`);
    }
    filter.since = this.chain.head;
    return filter.kind === "blocks" ? change.adopted.map((header) => toHex(header.hash)) : logsOfChange(this.chain, filter.criterion, change);
  }

  private remove(id: string): boolean {
    const isKnown = this.filters.delete(id);
    if (![...this.filters.values()].some(({ kind }) => kind === "transactions")) {
      this.stopListening?.();
      this.stopListening = undefined;
    }
    return isKnown;
  }

  private listen(): void {
    this.stopListening ??= this.chain.subscribe((event) => {
      if (event.type !== "transaction") return;
      for (const filter of this.filters.values()) {
        if (filter.kind !== "transactions") continue;
        if (filter.hashes.length >= PENDING_HASHES_MAX) filter.hashes.shift();
        filter.hashes.push(toHex(event.hash));
      }
    });
  }
}

/** How the head got from `since` to where it is; undefined where that is longer ago than is searched. */
export function changeSince(chain: Chain, since: Header): BranchChange | undefined {
  return chain.head.number - since.number > LOG_BLOCKS_MAX ? undefined : branchChange(chain.index, since, chain.head);
}
