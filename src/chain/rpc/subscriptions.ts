// Owns eth_subscribe for one connection that can be written to (WebSocket): newHeads, logs, newPendingTransactions.
// Invariant: notifications come in the order of the chain's events and after the answer that gave their id; each
// adopted block is told once, also those between two heads of a reorganisation; close() leaves nothing behind.
import { toHex } from "../bytes.js";
import type { Header } from "../block/header.js";
import type { Chain, ChainEvent } from "../chain.js";
import { branchChange } from "../consensus/branches.js";
import { invalidParams, RpcError, rpcCode } from "./errors.js";
import { formatHeader, formatTransaction } from "./format.js";
import { logsOfChange, readFilter, type LogFilter } from "./logs.js";
import type { RpcMethod } from "./methods.js";
import { objectParam } from "./params.js";

/** Subscriptions of one connection: wallets have a handful, indexers some tens. */
export const SUBSCRIPTIONS_MAX = 256;

type Subscription = { kind: "newHeads" } | { kind: "logs"; filter: LogFilter } | { kind: "newPendingTransactions"; isFull: boolean };

export interface Notification {
  jsonrpc: "2.0";
  method: "eth_subscription";
  params: { subscription: string; result: unknown };
}

export class Subscriptions {
  private readonly active = new Map<string, Subscription>();
  private readonly stopListening: () => void;
  private head: Header;
  private issued = 0;

  constructor(private readonly chain: Chain, private readonly notify: (notification: Notification) => void) {
    this.head = chain.head;
    this.stopListening = chain.subscribe((event) => this.take(event));
  }

  methods(): Record<string, RpcMethod> {
    return {
      eth_subscribe: ([kind, options]) => {
        if (this.active.size >= SUBSCRIPTIONS_MAX) throw new RpcError(rpcCode.server, `a connection has at most ${SUBSCRIPTIONS_MAX} subscriptions`);
        const id = `0x${(++this.issued).toString(16)}`;
        this.active.set(id, readSubscription(kind, options));
        return id;
      },
      eth_unsubscribe: ([id]) => this.active.delete(String(id)),
    };
  }

  get size(): number { return this.active.size; }

  close(): void {
    this.active.clear();
    this.stopListening();
  }

  private take(event: ChainEvent): void {
    if (event.type === "head") {
      const change = branchChange(this.chain.index, this.head, event.header);
      this.head = event.header;
      for (const [id, each] of this.active) {
        if (each.kind === "newHeads") for (const header of change.adopted) this.send(id, formatHeader(header));
        else if (each.kind === "logs") for (const log of logsOfChange(this.chain, each.filter, change)) this.send(id, log);
      }
    } else if (event.type === "transaction") {
      for (const [id, each] of this.active) {
        if (each.kind !== "newPendingTransactions") continue;
        this.send(id, each.isFull ? formatTransaction(this.chain.decoder.decode(event.raw)) : toHex(event.hash));
      }
    }
  }

  private send(subscription: string, result: unknown): void {
    this.notify({ jsonrpc: "2.0", method: "eth_subscription", params: { subscription, result } });
  }
}

function readSubscription(kind: unknown, options: unknown): Subscription {
  switch (kind) {
    case "newHeads": return { kind };
    case "logs": return { kind, filter: readFilter(options === undefined ? {} : objectParam(options, "filter")) };
    case "newPendingTransactions": return { kind, isFull: options === true };
    default: return invalidParams(`subscription: expected newHeads, logs or newPendingTransactions, got ${JSON.stringify(kind)}`);
  }
}
