// Owns decoded transactions: one decoding and one sender recovery per transaction and process, because decoding
// (0.1 to 0.3 ms) costs as much as executing a transfer. Invariant: the raw bytes are the canonical encoding.
import { createTxFromRLP, type TypedTransaction } from "@ethereumjs/tx";
import type { Common } from "@ethereumjs/common";
import { equals, keccak, keyOf } from "../bytes.js";
import { messageOf, reject } from "../errors.js";
import { TRANSACTION_TYPES } from "../execution/rules.js";
import { TRANSACTION_BYTES_MAX } from "./block.js";

export interface Transaction {
  tx: TypedTransaction;
  raw: Uint8Array;
  hash: Uint8Array;
  /** Hex of the hash and of the sender, for maps. */
  key: string;
  sender: Uint8Array;
  senderKey: string;
}

/** Two blocks of the largest kind: what the pool decoded is still there when the block arrives. */
const DECODED_ENTRIES_MAX = 16_384;

export class TransactionDecoder {
  private readonly decoded = new Map<string, Transaction>();

  constructor(private readonly common: Common) {}

  /** Throws ChainError "transaction" for anything that no block may hold. */
  decode(raw: Uint8Array): Transaction {
    const hash = keccak(raw);
    const key = keyOf(hash);
    const known = this.decoded.get(key);
    if (known) return known;
    const transaction = this.parse(raw, hash, key);
    if (this.decoded.size >= DECODED_ENTRIES_MAX) this.decoded.delete(this.decoded.keys().next().value!);
    this.decoded.set(key, transaction);
    return transaction;
  }

  private parse(raw: Uint8Array, hash: Uint8Array, key: string): Transaction {
    if (raw.length === 0 || raw.length > TRANSACTION_BYTES_MAX) {
      reject("transaction", `a transaction has 1 to ${TRANSACTION_BYTES_MAX} bytes, got ${raw.length}`);
    }
    const type = raw[0]! >= 0xc0 ? 0 : raw[0]!;
    if (!TRANSACTION_TYPES.includes(type)) reject("transaction", `transactions of type ${type} are not valid on this chain`);
    let tx: TypedTransaction;
    try {
      tx = createTxFromRLP(raw, { common: this.common, freeze: false }) as TypedTransaction;
      if (!equals(tx.serialize(), raw)) reject("transaction", "the transaction is not in canonical RLP");
      if (tx.type === 0 && (tx.v === undefined || tx.v === 27n || tx.v === 28n)) {
        reject("transaction", "the signature names no chain id (EIP-155)");
      }
      const sender = tx.getSenderAddress().bytes;
      return { tx, raw, hash, key, sender, senderKey: keyOf(sender) };
    } catch (error) {
      return reject("transaction", messageOf(error));
    }
  }
}

/** Price of a unit of gas that the sender pays at this base fee. */
export function effectiveGasPrice(tx: TypedTransaction, baseFee: bigint): bigint {
  return tip(tx, baseFee) + baseFee;
}

/** What the producer earns per unit of gas; negative where the fee cap is below the base fee. */
export function tip(tx: TypedTransaction, baseFee: bigint): bigint {
  const cap = feeCap(tx) - baseFee;
  const limit = priorityCap(tx);
  return cap < limit ? cap : limit;
}

export function feeCap(tx: TypedTransaction): bigint {
  return "maxFeePerGas" in tx ? tx.maxFeePerGas : (tx as { gasPrice: bigint }).gasPrice;
}

export function priorityCap(tx: TypedTransaction): bigint {
  return "maxPriorityFeePerGas" in tx ? tx.maxPriorityFeePerGas : (tx as { gasPrice: bigint }).gasPrice;
}
