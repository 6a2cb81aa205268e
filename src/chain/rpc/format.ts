// Owns the JSON shapes of blocks, transactions, receipts and logs (Ethereum execution-apis), with the fields of
// this chain added beside them. Invariant: quantities have no leading zeros, byte strings keep theirs.
import { effectiveGasPrice, type Transaction } from "../block/transaction.js";
import type { Block } from "../block/block.js";
import { encodeBlock } from "../block/block.js";
import type { Header } from "../block/header.js";
import { logsBloom, type Log, type Receipt } from "../block/receipt.js";
import { padTo, toHex } from "../bytes.js";

export const quantity = (value: bigint | number): string => `0x${BigInt(value).toString(16)}`;
/** keccak(rlp([])): the hash of no uncles. */
const NO_UNCLES = "0x1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347";

export function formatBlock(block: Block, body: unknown[]): Record<string, unknown> {
  return {
    ...formatHeader(block.header), size: quantity(encodeBlock(block).length), transactions: body, uncles: [],
    certificates: block.certificates.map((certificate) => toHex(certificate)),
  };
}

export function formatHeader(header: Header): Record<string, unknown> {
  return {
    hash: toHex(header.hash), parentHash: toHex(header.parentHash), sha3Uncles: NO_UNCLES, miner: toHex(header.coinbase),
    stateRoot: toHex(header.stateRoot), transactionsRoot: toHex(header.transactionsRoot),
    receiptsRoot: toHex(header.receiptsRoot), logsBloom: toHex(header.logsBloom), difficulty: "0x0",
    totalDifficulty: quantity(header.totalWeight), number: quantity(header.number), gasLimit: quantity(header.gasLimit),
    gasUsed: quantity(header.gasUsed), timestamp: quantity(header.timestamp), extraData: toHex(header.extraData),
    mixHash: toHex(header.modifier), nonce: "0x0000000000000000", baseFeePerGas: quantity(header.baseFeePerGas),
    certificatesRoot: toHex(header.certificatesRoot), timestampMs: quantity(header.timestampMs),
    slot: quantity(header.slot), step: quantity(header.step), vrfProof: toHex(header.vrfProof),
    powTarget: quantity(header.powTarget), totalWeight: quantity(header.totalWeight), signature: toHex(header.signature),
  };
}

export interface Place {
  header: Header;
  index: number;
}

export function formatTransaction(transaction: Transaction, place?: Place): Record<string, unknown> {
  const { tx } = transaction;
  const shared = {
    hash: toHex(transaction.hash), from: toHex(transaction.sender), to: tx.to ? tx.to.toString() : null,
    nonce: quantity(tx.nonce), gas: quantity(tx.gasLimit), value: quantity(tx.value), input: toHex(tx.data),
    type: quantity(tx.type), v: quantity(tx.v ?? 0n), r: quantity(tx.r ?? 0n), s: quantity(tx.s ?? 0n),
    blockHash: place ? toHex(place.header.hash) : null, blockNumber: place ? quantity(place.header.number) : null,
    transactionIndex: place ? quantity(place.index) : null,
  };
  const price = place ? effectiveGasPrice(tx, place.header.baseFeePerGas) : undefined;
  if (tx.type === 0) return { ...shared, gasPrice: quantity((tx as { gasPrice: bigint }).gasPrice), ...chainIdOf(tx) };
  const accessList = ((tx as { accessList?: [Uint8Array, Uint8Array[]][] }).accessList ?? [])
    .map(([address, keys]) => ({ address: toHex(address), storageKeys: keys.map((key) => toHex(key)) }));
  const typed = { ...shared, ...chainIdOf(tx), accessList, yParity: quantity(tx.v ?? 0n) };
  if ("maxFeePerGas" in tx) {
    return {
      ...typed, maxFeePerGas: quantity(tx.maxFeePerGas), maxPriorityFeePerGas: quantity(tx.maxPriorityFeePerGas),
      gasPrice: quantity(price ?? tx.maxFeePerGas),
    };
  }
  return { ...typed, gasPrice: quantity((tx as { gasPrice: bigint }).gasPrice) };
}

function chainIdOf(tx: Transaction["tx"]): { chainId: string } {
  return { chainId: quantity(tx.common.chainId()) };
}

export function formatReceipt(receipt: Receipt, transaction: Transaction, place: Place, firstLogIndex: number): Record<string, unknown> {
  const { tx } = transaction;
  return {
    transactionHash: toHex(transaction.hash), transactionIndex: quantity(place.index), blockHash: toHex(place.header.hash),
    blockNumber: quantity(place.header.number), from: toHex(transaction.sender), to: tx.to ? tx.to.toString() : null,
    cumulativeGasUsed: quantity(receipt.cumulativeGasUsed), gasUsed: quantity(receipt.gasUsed),
    effectiveGasPrice: quantity(effectiveGasPrice(tx, place.header.baseFeePerGas)),
    contractAddress: receipt.contractAddress ? toHex(receipt.contractAddress) : null,
    logs: receipt.logs.map((log, index) => formatLog(log, transaction.hash, place, firstLogIndex + index)),
    logsBloom: toHex(logsBloom(receipt.logs)), type: quantity(receipt.type), status: receipt.succeeded ? "0x1" : "0x0",
  };
}

export function formatLog(log: Log, transactionHash: Uint8Array, place: Place, logIndex: number): Record<string, unknown> {
  return {
    address: toHex(log.address), topics: log.topics.map((topic) => toHex(topic)), data: toHex(log.data),
    blockNumber: quantity(place.header.number), blockHash: toHex(place.header.hash),
    blockTimestamp: quantity(place.header.timestamp), transactionHash: toHex(transactionHash),
    transactionIndex: quantity(place.index), logIndex: quantity(logIndex), removed: false,
  };
}

export function word(bytes: Uint8Array): string {
  return toHex(padTo(bytes, 32));
}

