// Owns the transactions that wait for a block. Invariant: bounded in all (TRANSACTIONS_MAX) and per account; of one
// account, at most one transaction per nonce, and together they cost no more than the account holds.
import type { Transaction } from "../block/transaction.js";
import { feeCap, priorityCap, tip } from "../block/transaction.js";
import { keyOf } from "../bytes.js";
import { ChainError } from "../errors.js";
import { MaxHeap } from "./price-heap.js";

/** About five full blocks of transfers; at 0.5 KiB each some 4 MiB. */
export const TRANSACTIONS_MAX = 8_192;
/** geth allows 16 pending and 64 queued of an account. */
export const TRANSACTIONS_PER_ACCOUNT_MAX = 64;
/** A nonce further ahead than the account may hold transactions can never be reached by them. */
const NONCE_GAP_MAX = 64n;
const REPLACEMENT_PERCENT = 110n;

export interface AccountState {
  balance: bigint;
  nonce: bigint;
}

export interface MempoolRules {
  gasLimit: bigint;
}

interface Entry {
  transaction: Transaction;
  nonce: bigint;
  cost: bigint;
  arrival: number;
}

const fail = (code: string, message: string): never => {
  throw new ChainError(code, message);
};

export class Mempool {
  private readonly all = new Map<string, Entry>();
  private readonly accounts = new Map<string, Map<bigint, Entry>>();
  /** Next nonce of each account at the head, as given with its last transaction or refresh. */
  private readonly nonces = new Map<string, bigint>();
  private arrivals = 0;

  constructor(private readonly rules: MempoolRules) {}

  get size(): number {
    return this.all.size;
  }

  get(hash: Uint8Array): Transaction | undefined {
    return this.all.get(keyOf(hash))?.transaction;
  }

  /** Throws ChainError with a code and a message that wallets understand. */
  add(transaction: Transaction, account: AccountState): void {
    const { tx } = transaction;
    if (this.all.has(transaction.key)) fail("already-known", "already known");
    if (tx.gasLimit > this.rules.gasLimit) {
      fail("gas-limit", `exceeds block gas limit: transaction gas ${tx.gasLimit}, block gas limit ${this.rules.gasLimit}`);
    }
    const intrinsic = tx.getIntrinsicGas();
    if (tx.gasLimit < intrinsic) fail("intrinsic-gas", `intrinsic gas too low: gas ${tx.gasLimit}, minimum needed ${intrinsic}`);
    if (feeCap(tx) === 0n) fail("underpriced", "transaction underpriced: the fee cap is zero");
    if (tx.nonce < account.nonce) fail("nonce-too-low", `nonce too low: next nonce ${account.nonce}, transaction nonce ${tx.nonce}`);
    if (tx.nonce > account.nonce + NONCE_GAP_MAX) {
      fail("nonce-too-high", `nonce too high: next nonce ${account.nonce}, transaction nonce ${tx.nonce}, at most ${NONCE_GAP_MAX} ahead`);
    }
    const own = this.accounts.get(transaction.senderKey);
    if (own) this.nonces.set(transaction.senderKey, account.nonce);
    const replaced = own?.get(tx.nonce);
    if (replaced && !isReplacement(transaction, replaced.transaction)) {
      fail("underpriced", `replacement transaction underpriced: both fee caps must rise by ${REPLACEMENT_PERCENT - 100n} %`);
    }
    if (own && !replaced && own.size >= TRANSACTIONS_PER_ACCOUNT_MAX) {
      fail("account-limit", `the account has ${own.size} transactions waiting, at most ${TRANSACTIONS_PER_ACCOUNT_MAX} are kept`);
    }
    const cost = tx.value + tx.gasLimit * feeCap(tx);
    const committed = this.costOf(own, account.nonce) - (replaced?.cost ?? 0n);
    if (cost + committed > account.balance) {
      fail("insufficient-funds", `insufficient funds for gas * price + value: balance ${account.balance}, `
        + `transaction cost ${cost}, already committed ${committed}`);
    }
    if (replaced) this.remove(replaced);
    else if (this.all.size >= TRANSACTIONS_MAX) this.evictCheaperThan(transaction);
    this.nonces.set(transaction.senderKey, account.nonce);
    this.insert({ transaction, nonce: tx.nonce, cost, arrival: this.arrivals++ });
  }

  /** The nonce after the account's unbroken run of waiting transactions. */
  pendingNonce(senderKey: string, stateNonce: bigint): bigint {
    const own = this.accounts.get(senderKey);
    let nonce = stateNonce;
    while (own?.has(nonce)) nonce += 1n;
    return nonce;
  }

  /** Executable transactions, best tip first, nonces in order. Answer "skip" to leave out the rest of that sender. */
  *pick(baseFee: bigint): Generator<Transaction, void, "skip" | undefined> {
    const heap = new MaxHeap<{ entry: Entry; tip: bigint }>((a, b) =>
      a.tip === b.tip ? a.entry.arrival < b.entry.arrival : a.tip > b.tip);
    const offer = (entry: Entry | undefined) => {
      if (entry && feeCap(entry.transaction.tx) >= baseFee) heap.push({ entry, tip: tip(entry.transaction.tx, baseFee) });
    };
    for (const [sender, own] of this.accounts) offer(own.get(this.nonces.get(sender)!));
    for (let top = heap.pop(); top; top = heap.pop()) {
      const { transaction, nonce } = top.entry;
      const verdict = yield transaction;
      if (verdict !== "skip") offer(this.accounts.get(transaction.senderKey)?.get(nonce + 1n));
    }
  }

  senders(): string[] {
    return [...this.accounts.keys()];
  }

  has(hash: Uint8Array): boolean {
    return this.all.has(keyOf(hash));
  }

  /** Drops what the account's new state made invalid. */
  refresh(senderKey: string, account: AccountState): void {
    const own = this.accounts.get(senderKey);
    if (!own) return;
    this.nonces.set(senderKey, account.nonce);
    for (const entry of [...own.values()]) if (entry.nonce < account.nonce) this.remove(entry);
    let committed = 0n;
    for (const entry of [...own.values()].sort((a, b) => (a.nonce < b.nonce ? -1 : 1))) {
      committed += entry.cost;
      if (committed > account.balance) this.remove(entry);
    }
  }

  drop(transaction: Transaction): void {
    const entry = this.all.get(transaction.key);
    if (entry) this.remove(entry);
  }

  transactions(): Transaction[] {
    return [...this.all.values()].map((entry) => entry.transaction);
  }

  private costOf(own: Map<bigint, Entry> | undefined, fromNonce: bigint): bigint {
    let cost = 0n;
    for (const entry of own?.values() ?? []) if (entry.nonce >= fromNonce) cost += entry.cost;
    return cost;
  }

  private insert(entry: Entry): void {
    const { transaction } = entry;
    this.all.set(transaction.key, entry);
    const own = this.accounts.get(transaction.senderKey) ?? new Map<bigint, Entry>();
    own.set(entry.nonce, entry);
    this.accounts.set(transaction.senderKey, own);
  }

  private remove(entry: Entry): void {
    const { key, senderKey } = entry.transaction;
    this.all.delete(key);
    const own = this.accounts.get(senderKey);
    own?.delete(entry.nonce);
    if (own?.size !== 0) return;
    this.accounts.delete(senderKey);
    this.nonces.delete(senderKey);
  }

  /** Makes room by the cheapest account tail (a tail, so that no gap opens), or refuses the newcomer. */
  private evictCheaperThan(newcomer: Transaction): void {
    let cheapest: Entry | undefined;
    for (const own of this.accounts.values()) {
      let tail: Entry | undefined;
      for (const entry of own.values()) if (!tail || entry.nonce > tail.nonce) tail = entry;
      if (tail && (!cheapest || isCheaper(tail.transaction, cheapest.transaction))) cheapest = tail;
    }
    if (!cheapest || !isCheaper(cheapest.transaction, newcomer)) {
      fail("underpriced", `transaction underpriced: the pool is full (${this.all.size}) of better paying ones`);
    } else {
      this.remove(cheapest);
    }
  }
}

function isCheaper(a: Transaction, b: Transaction): boolean {
  const [tipA, tipB] = [priorityCap(a.tx), priorityCap(b.tx)];
  return tipA === tipB ? feeCap(a.tx) < feeCap(b.tx) : tipA < tipB;
}

function isReplacement(newcomer: Transaction, old: Transaction): boolean {
  const rises = (fresh: bigint, known: bigint) => fresh * 100n >= known * REPLACEMENT_PERCENT && fresh > known;
  return rises(feeCap(newcomer.tx), feeCap(old.tx)) && rises(priorityCap(newcomer.tx), priorityCap(old.tx));
}
