// Owns fee suggestions: gas price, tip and history. Invariant: suggestions come from blocks, so every node that has
// the same chain suggests the same.
import { tip } from "../block/transaction.js";
import type { Header } from "../block/header.js";
import type { Chain } from "../chain.js";
import { nextBaseFee } from "../consensus/base-fee.js";
import { invalidParams } from "./errors.js";
import { quantity } from "./format.js";
import { needHeader } from "./blocks.js";
import { countParam } from "./params.js";

/** geth's default: the last 20 blocks. */
const SAMPLE_BLOCKS = 20;
const FEE_HISTORY_BLOCKS_MAX = 1_024;
const PERCENTILES_MAX = 100;
/** What is suggested while nobody competes: a thousandth of a gwei keeps a transfer below 10^-7 coins. */
const TIP_FLOOR_WEI = 1_000_000n;

/** The 60th percentile of recent tips, as geth suggests. */
export function suggestTip(chain: Chain): bigint {
  const tips: bigint[] = [];
  for (let number = chain.head.number; number > 0 && number > chain.head.number - SAMPLE_BLOCKS; number--) {
    const block = chain.blockByNumber(number);
    for (const raw of block?.transactions.slice(0, 3) ?? []) {
      tips.push(tip(chain.decoder.decode(raw).tx, block!.header.baseFeePerGas));
    }
  }
  tips.sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
  const suggested = tips[Math.floor((tips.length - 1) * 0.6)] ?? TIP_FLOOR_WEI;
  return suggested > TIP_FLOOR_WEI ? suggested : TIP_FLOOR_WEI;
}

export function gasPrice(chain: Chain): bigint {
  return nextBaseFee(chain.head) + suggestTip(chain);
}

export function feeHistory(chain: Chain, params: unknown[]): Record<string, unknown> {
  const wanted = countParam(params[0], "blockCount", FEE_HISTORY_BLOCKS_MAX);
  const newest = needHeader(chain, params[1]);
  const percentiles = (params[2] ?? []) as unknown;
  if (!Array.isArray(percentiles) || percentiles.length > PERCENTILES_MAX
    || percentiles.some((each, i) => typeof each !== "number" || each < 0 || each > 100 || (i > 0 && each < percentiles[i - 1]))) {
    return invalidParams("rewardPercentiles: expected ascending numbers from 0 to 100");
  }
  const oldest = Math.max(0, newest.number - wanted + 1);
  const headers: Header[] = [];
  for (let number = oldest; number <= newest.number && headers.length < wanted; number++) headers.push(chain.index.canonicalHeader(number)!);
  return {
    oldestBlock: quantity(oldest),
    baseFeePerGas: [...headers.map((header) => header.baseFeePerGas), nextBaseFee(newest)].map(quantity),
    gasUsedRatio: headers.map((header) => Number(header.gasUsed) / Number(header.gasLimit)),
    baseFeePerBlobGas: Array.from({ length: headers.length + 1 }, () => "0x0"),
    blobGasUsedRatio: headers.map(() => 0),
    ...(percentiles.length > 0 ? { reward: headers.map((header) => rewardsOf(chain, header, percentiles).map(quantity)) } : {}),
  };
}

/** Tips at the percentiles of the block's gas. */
function rewardsOf(chain: Chain, header: Header, percentiles: number[]): bigint[] {
  const block = chain.index.block(header.hash);
  const outcome = chain.index.outcome(header.hash);
  if (!block || !outcome || block.transactions.length === 0) return percentiles.map(() => 0n);
  const paid = block.transactions.map((raw, index) => ({
    tip: tip(chain.decoder.decode(raw).tx, header.baseFeePerGas), gas: outcome.receipts[index]!.gasUsed,
  })).sort((a, b) => (a.tip < b.tip ? -1 : a.tip > b.tip ? 1 : 0));
  return percentiles.map((percentile) => {
    const threshold = (header.gasUsed * BigInt(Math.round(percentile * 100))) / 10_000n;
    let gas = 0n;
    for (const each of paid) {
      gas += each.gas;
      if (gas >= threshold) return each.tip;
    }
    return paid.at(-1)!.tip;
  });
}
