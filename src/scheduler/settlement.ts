/**
 * Owns: the settlement arithmetic of white paper 3.1 and 3.2 in TypeScript, the same as
 * Settlement.sol to the last wei (a differential test says so). Pure; money is bigint wei.
 * Invariant: sum(payments) + fee + refund = collateral; divisions that pay a miner round down, the
 * fee rounds up, and what rounding leaves goes back to the client.
 */
export const BPS = 10_000n;
export const SPEED_MIN_BPS = 5_000n;
export const SPEED_MAX_BPS = 15_000n;
export const COMMENT_MIN_BPS = 5_000n;
export const COMMENT_MAX_BPS = 12_000n;
export const WEI_PER_TSR = 10n ** 18n;

export interface SettlementOffer {
  /** Price of `quotedMultiplyAdds`. */
  readonly computeMicroUsd: bigint;
  /** Price of holding the shards for `deadlineSeconds`. */
  readonly storageMicroUsd: bigint;
  readonly quotedMultiplyAdds: bigint;
  readonly deadlineSeconds: bigint;
  readonly elapsedSeconds: bigint;
  readonly microUsdPerTsr: bigint;
  /** What the client has locked, in wei. */
  readonly collateral: bigint;
  readonly feeBps: bigint;
}

/** One miner's work that counts: verified, cumulative, and not of a miner that aborted. */
export interface WorkShare {
  readonly multiplyAdds: bigint;
  readonly activeMs: bigint;
  readonly commentBps: bigint;
}

export interface SettlementOutcome {
  readonly price: bigint;
  readonly paid: bigint;
  readonly fee: bigint;
  readonly refund: bigint;
  readonly speedBps: readonly bigint[];
  /** Before scaling to the collateral: price x power_i / sum(power) x speed_i x comment_i. */
  readonly raw: readonly bigint[];
  readonly payments: readonly bigint[];
}

const min = (a: bigint, b: bigint): bigint => (a < b ? a : b);
const max = (a: bigint, b: bigint): bigint => (a > b ? a : b);
const ceilDiv = (a: bigint, b: bigint): bigint => (a + b - 1n) / b;
const sum = (values: readonly bigint[]): bigint => values.reduce((total, each) => total + each, 0n);

/** Micro-USD to wei at a price in micro-USD for one TSR, rounded down. */
export function toWei(microUsd: bigint, microUsdPerTsr: bigint): bigint {
  return (microUsd * WEI_PER_TSR) / microUsdPerTsr;
}

/** What is to be locked for an estimate: estimate x range, rounded up (3.1). */
export function collateralOf(microUsd: bigint, rangeBps: bigint, microUsdPerTsr: bigint): bigint {
  return ceilDiv(microUsd * rangeBps * WEI_PER_TSR, microUsdPerTsr * BPS);
}

/** Each miner's speed against the median of those that worked, clamped to [0.5, 1.5]. */
export function speedsOf(shares: readonly WorkShare[]): bigint[] {
  const rate = (share: WorkShare): bigint => (share.multiplyAdds * 1_000_000n) / max(share.activeMs, 1n);
  const rates = shares.filter((each) => each.multiplyAdds > 0n).map(rate)
    .sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
  const low = rates[(rates.length - 1) >> 1];
  const high = rates[rates.length >> 1];
  if (low === undefined || high === undefined) return shares.map(() => 0n);
  const median = max((low + high) / 2n, 1n);
  return shares.map((each) => each.multiplyAdds === 0n
    ? 0n
    : min(max((rate(each) * BPS) / median, SPEED_MIN_BPS), SPEED_MAX_BPS));
}

/** The metered price: compute in proportion to verified work, storage to elapsed time. */
export function priceOf(offer: SettlementOffer, multiplyAdds: bigint): bigint {
  const elapsed = min(offer.elapsedSeconds, offer.deadlineSeconds);
  const forWork = (toWei(offer.computeMicroUsd, offer.microUsdPerTsr) * multiplyAdds) / offer.quotedMultiplyAdds;
  return forWork + (toWei(offer.storageMicroUsd, offer.microUsdPerTsr) * elapsed) / offer.deadlineSeconds;
}

/** Payments, fee and refund of a task that ends with verified work paid. */
export function settle(offer: SettlementOffer, shares: readonly WorkShare[]): SettlementOutcome {
  const speedBps = speedsOf(shares);
  const total = sum(shares.map((each) => each.multiplyAdds));
  if (total === 0n) {
    const none = shares.map(() => 0n);
    return { price: 0n, paid: 0n, fee: 0n, refund: offer.collateral, speedBps, raw: none, payments: none };
  }
  const price = priceOf(offer, total);
  const raw = shares.map((each, index) =>
    (price * (each.multiplyAdds * speedBps[index]! * each.commentBps)) / (total * BPS * BPS));
  const budget = (offer.collateral * BPS) / (BPS + offer.feeBps);
  const rawSum = sum(raw);
  const payments = rawSum > budget ? raw.map((each) => (budget * each) / rawSum) : raw;
  const paid = sum(payments);
  const fee = ceilDiv(paid * offer.feeBps, BPS);
  return { price, paid, fee, refund: offer.collateral - paid - fee, speedBps, raw, payments };
}

/** Forfeits to the other miners in proportion to verified work; `rest` is for the ecology fund. */
export function splitForfeit(pool: bigint, work: readonly bigint[]): { parts: bigint[]; rest: bigint } {
  const total = sum(work);
  if (total === 0n) return { parts: work.map(() => 0n), rest: pool };
  const parts = work.map((each) => (pool * each) / total);
  return { parts, rest: pool - sum(parts) };
}
