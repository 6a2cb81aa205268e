// Owns the table of JSON-RPC methods: eth_, net_, web3_ as in Ethereum's execution-apis, tesra_ for this chain.
import { Address } from "@ethereumjs/util";
import { keccak, toHex } from "../bytes.js";
import { ChainError } from "../errors.js";
import { SUPPLY_WEI, RESERVE_ADDRESS } from "../genesis.js";
import type { Block } from "../block/block.js";
import { feeCap, type Transaction } from "../block/transaction.js";
import type { Chain } from "../chain.js";
import { roleName } from "../execution/block-run.js";
import { subsidyMax } from "../consensus/rewards.js";
import { canonicalPlace, findBlock, findHeader, needHeader } from "./blocks.js";
import { createAccessList, estimateGas, ethCall } from "./calls.js";
import { RpcError, rpcCode } from "./errors.js";
import { feeHistory, gasPrice, suggestTip } from "./fees.js";
import { FilterBook } from "./filters.js";
import { formatBlock, formatHeader, formatReceipt, formatTransaction, quantity, word } from "./format.js";
import { getLogs } from "./logs.js";
import { addressParam, bytesParam, countParam, hashParam, positionParam } from "./params.js";
import { getProof } from "./proof.js";
import { traceMethods } from "./trace.js";

export interface RpcContext {
  /** Shown by web3_clientVersion. */
  clientVersion?: string;
  /** What eth_syncing answers: false, or how far along the node is. */
  syncing?: () => false | { startingBlock: number; currentBlock: number; highestBlock: number };
  peerCount?: () => number;
}

export type RpcMethod = (params: unknown[]) => unknown | Promise<unknown>;

const CERTIFICATES_LISTED_MAX = 100;

export function createMethods(chain: Chain, context: RpcContext): Record<string, RpcMethod> {
  return {
    ...chainMethods(chain, context), ...stateMethods(chain), ...blockMethods(chain), ...transactionMethods(chain), ...poolMethods(chain),
    ...new FilterBook(chain).methods(), ...traceMethods(chain), ...tesraMethods(chain),
  };
}

function chainMethods(chain: Chain, context: RpcContext): Record<string, RpcMethod> {
  return {
    web3_clientVersion: () => context.clientVersion ?? "tesra-supernet",
    web3_sha3: ([data]) => toHex(keccak(bytesParam(data, "data"))),
    net_version: () => String(chain.genesis.chainId),
    net_listening: () => true,
    net_peerCount: () => quantity(context.peerCount?.() ?? 0),
    eth_chainId: () => quantity(chain.genesis.chainId),
    eth_syncing: () => {
      const progress = context.syncing?.() ?? false;
      return progress && Object.fromEntries(Object.entries(progress).map(([key, value]) => [key, quantity(value)]));
    },
    eth_accounts: () => [], // keys stay with wallets
    eth_blockNumber: () => quantity(chain.head.number),
    eth_gasPrice: () => quantity(gasPrice(chain)),
    eth_maxPriorityFeePerGas: () => quantity(suggestTip(chain)),
    eth_blobBaseFee: () => "0x0",
    eth_feeHistory: (params) => feeHistory(chain, params),
  };
}

function stateMethods(chain: Chain): Record<string, RpcMethod> {
  return {
    eth_getBalance: async ([address, block]) =>
      quantity((await chain.account(addressParam(address, "address"), needHeader(chain, block))).balance),
    eth_getTransactionCount: async ([address, block]) => {
      const bytes = addressParam(address, "address");
      const { nonce } = await chain.account(bytes, needHeader(chain, block));
      return quantity(block === "pending" ? chain.mempool.pendingNonce(Buffer.from(bytes).toString("hex"), nonce) : nonce);
    },
    eth_getCode: async ([address, block]) =>
      toHex(await chain.stateAt(needHeader(chain, block)).manager.getCode(new Address(addressParam(address, "address")))),
    eth_getStorageAt: async ([address, position, block]) =>
      word(await chain.stateAt(needHeader(chain, block)).manager
        .getStorage(new Address(addressParam(address, "address")), positionParam(position, "position"))),
    eth_getProof: ([address, slots, block]) => getProof(chain, address, slots, needHeader(chain, block)),
    eth_call: ([call, block, overrides]) => ethCall(chain, call, needHeader(chain, block), overrides),
    eth_createAccessList: ([call, block]) => createAccessList(chain, call, needHeader(chain, block)),
    eth_estimateGas: async ([call, block]) => quantity(await estimateGas(chain, call, needHeader(chain, block))),
  };
}

function blockMethods(chain: Chain): Record<string, RpcMethod> {
  const blockBody = (block: Block, isFull: unknown) => block.transactions.map((raw, index) => {
    const transaction = chain.decoder.decode(raw);
    return isFull === true ? formatTransaction(transaction, { header: block.header, index }) : toHex(transaction.hash);
  });
  const getBlock: RpcMethod = ([id, isFull]) => {
    const block = findBlock(chain, id);
    return block ? formatBlock(block, blockBody(block, isFull)) : null;
  };
  const countIn: RpcMethod = ([id]) => {
    const block = findBlock(chain, id);
    return block ? quantity(block.transactions.length) : null;
  };
  const inBlock: RpcMethod = ([id, index]) => {
    const block = findBlock(chain, id);
    const place = countParam(index, "index", Number.MAX_SAFE_INTEGER);
    const raw = block?.transactions[place];
    return block && raw ? formatTransaction(chain.decoder.decode(raw), { header: block.header, index: place }) : null;
  };
  const byHash = (method: RpcMethod): RpcMethod => (params) => (hashParam(params[0], "block hash"), method(params));
  return {
    eth_getBlockByNumber: getBlock,
    eth_getBlockByHash: byHash(getBlock),
    eth_getHeaderByNumber: ([id]) => { const header = findHeader(chain, id); return header ? formatHeader(header) : null; },
    eth_getHeaderByHash: ([hash]) => { const header = chain.index.header(hashParam(hash, "block hash")); return header ? formatHeader(header) : null; },
    eth_getBlockTransactionCountByNumber: countIn,
    eth_getBlockTransactionCountByHash: byHash(countIn),
    eth_getTransactionByBlockNumberAndIndex: inBlock,
    eth_getTransactionByBlockHashAndIndex: byHash(inBlock),
    eth_getUncleCountByBlockNumber: () => "0x0",
    eth_getUncleCountByBlockHash: () => "0x0",
    eth_getBlockReceipts: ([id]) => {
      const block = findBlock(chain, id);
      return block ? receiptsOf(chain, block) : null;
    },
    eth_getLogs: ([filter]) => getLogs(chain, filter),
  };
}

function transactionMethods(chain: Chain): Record<string, RpcMethod> {
  return {
    eth_sendRawTransaction: async ([raw]) => {
      const result = await chain.submitTransaction(bytesParam(raw, "transaction"));
      if ("error" in result) throw new RpcError(rpcCode.server, result.error.message, { code: result.error.code });
      return toHex(result.hash);
    },
    eth_getTransactionByHash: ([hash]) => {
      const bytes = hashParam(hash, "transaction hash");
      const place = canonicalPlace(chain, bytes);
      if (place) return formatTransaction(chain.decoder.decode(place.block.transactions[place.index]!), place);
      const waiting = chain.mempool.get(bytes);
      return waiting ? formatTransaction(waiting) : null;
    },
    eth_getTransactionReceipt: ([hash]) => {
      const place = canonicalPlace(chain, hashParam(hash, "transaction hash"));
      return place ? receiptsOf(chain, place.block)[place.index] : null;
    },
  };
}

/** geth's txpool: pending = the next block may hold it, queued = a nonce before it is missing. */
function poolMethods(chain: Chain): Record<string, RpcMethod> {
  const content = async (show: (transaction: Transaction) => unknown) => {
    const pool: Record<"pending" | "queued", Record<string, Record<string, unknown>>> = { pending: {}, queued: {} };
    for (const transaction of chain.mempool.transactions()) {
      const { nonce } = await chain.account(transaction.sender);
      const isNext = transaction.tx.nonce < chain.mempool.pendingNonce(transaction.senderKey, nonce);
      ((pool[isNext ? "pending" : "queued"][toHex(transaction.sender)] ??= {}))[String(transaction.tx.nonce)] = show(transaction);
    }
    return pool;
  };
  const inspect = ({ tx }: Transaction): string =>
    `${tx.to ? tx.to.toString() : "contract creation"}: ${tx.value} wei + ${tx.gasLimit} gas × ${feeCap(tx)} wei`;
  return {
    txpool_status: async () => {
      const { pending, queued } = await content(() => true);
      const count = (side: Record<string, object>) => quantity(Object.values(side).reduce((sum, own) => sum + Object.keys(own).length, 0));
      return { pending: count(pending), queued: count(queued) };
    },
    txpool_content: () => content((transaction) => formatTransaction(transaction)),
    txpool_inspect: () => content(inspect),
  };
}

function receiptsOf(chain: Chain, block: Block): Record<string, unknown>[] {
  const outcome = chain.outcomeOf(block.header.hash);
  if (!outcome) throw new ChainError("corrupt", `the receipts of block ${block.header.number} are missing`);
  let logs = 0;
  return outcome.receipts.map((receipt, index) => {
    const formatted = formatReceipt(receipt, chain.decoder.decode(block.transactions[index]!), { header: block.header, index }, logs);
    logs += receipt.logs.length;
    return formatted;
  });
}

function tesraMethods(chain: Chain): Record<string, RpcMethod> {
  return {
    /** Multiply-adds proven so far, and the certificates of recent blocks, newest first. */
    tesra_certificates: ([count]) => {
      const wanted = count === undefined ? 10 : countParam(count, "count", CERTIFICATES_LISTED_MAX);
      const work = chain.usefulWork();
      return {
        count: quantity(work.certificateCount), multiplyAdds: quantity(work.certificates),
        usefulMultiplyAdds: quantity(work.useful), pooled: quantity(chain.certificates.size),
        target: quantity(chain.head.powTarget), recent: recentCertificates(chain, wanted),
      };
    },
    tesra_submitCertificate: async ([encoded]) => {
      const result = await chain.addCertificate(bytesParam(encoded, "certificate"));
      if ("error" in result) throw new RpcError(rpcCode.server, result.error.message, { code: result.error.code });
      return true;
    },
    tesra_supply: async () => {
      const reserve = (await chain.account(RESERVE_ADDRESS)).balance;
      return {
        supply: quantity(SUPPLY_WEI), reserve: quantity(reserve), circulating: quantity(SUPPLY_WEI - reserve),
        rewardsPaid: quantity(chain.usefulWork().rewards),
        subsidyMax: quantity(subsidyMax(chain.head.number + 1, reserve, chain.genesis.rewards)),
      };
    },
    /** Walks every account of the head's state: what conservation is checked against. */
    tesra_ledger: async () => {
      const { number } = chain.head;
      const { total, accounts } = await chain.ledger();
      return {
        blockNumber: quantity(number), total: quantity(total), supply: quantity(SUPPLY_WEI), accounts: quantity(accounts.length),
      };
    },
    tesra_consensus: () => consensusOf(chain),
    tesra_payments: ([block]) => {
      const header = needHeader(chain, block);
      return (chain.outcomeOf(header.hash)?.payments ?? [])
        .map(({ to, amount, role }) => ({ to: toHex(to), amount: quantity(amount), role: roleName(role) }));
    },
    tesra_confirmations: ([hash]) => quantity(chain.confirmations(hashParam(hash, "transaction hash"))),
  };
}

function recentCertificates(chain: Chain, wanted: number): unknown[] {
  const recent: unknown[] = [];
  for (let number = chain.head.number; number > 0 && recent.length < wanted && number > chain.head.number - 1_000; number--) {
    const block = chain.blockByNumber(number);
    for (const encoded of block?.certificates ?? []) {
      if (recent.length < wanted) recent.push({ blockNumber: quantity(number), certificate: toHex(encoded) });
    }
  }
  return recent;
}

function consensusOf(chain: Chain): Record<string, unknown> {
  const { head, genesis } = chain;
  return {
    genesisHash: toHex(chain.genesisHash), headHash: toHex(head.hash), headNumber: quantity(head.number),
    slot: quantity(head.slot), step: quantity(head.step), totalWeight: quantity(head.totalWeight),
    powTarget: quantity(head.powTarget), slotMs: quantity(genesis.consensus.slotMs), stepMs: quantity(genesis.consensus.stepMs),
    confirmations: quantity(genesis.consensus.confirmations), genesisTimestampMs: quantity(genesis.timestampMs),
    certificate: { m: genesis.certificates.m, n: genesis.certificates.n, k: genesis.certificates.k, windowBlocks: genesis.certificates.windowBlocks },
    stakers: chain.stakers().map((staker) => ({
      address: toHex(staker.address), blsPublicKey: toHex(staker.blsPublicKey), equity: quantity(staker.equity),
    })),
  };
}
