/**
 * Owns: what a task will cost before it runs (white paper 3.1, 3.5): estimate = compute units x time
 * x unit price + storage x time x price, in micro-USD, and the collaterals in wei at the feed's price.
 * Invariant: rounds up, so that an estimate is never below its parts.
 */
import { requireInput } from "./errors.js";
import { collateralOf } from "./settlement.js";

/** White paper 2.2.1: 0.02 dollars for one TFLOPS (of one hour). */
export const DEFAULT_MICRO_USD_PER_TFLOPS_HOUR = 20_000n;
/** 0.023 dollars a GiB and month of 730 hours, the list price of public object stores. */
export const DEFAULT_NANO_USD_PER_GIB_HOUR = 31_507n;
/** Collateral over estimate: room for the coin to lose half its worth while a task runs. */
export const DEFAULT_RANGE_BPS = 20_000n;

const FLOPS_PER_MULTIPLY_ADD = 2n;
const FLOPS_PER_TFLOPS_HOUR = 10n ** 12n * 3_600n;
const GIB = 2n ** 30n;

export interface TaskSize {
  /** Of the whole task at its precision: all epochs, forward and backward. */
  readonly multiplyAdds: bigint;
  readonly storageBytes: bigint;
  /** Nodes that will hold the data at once. */
  readonly workers: number;
  /** Multiply-adds per second that the workers have proven, together, at the task's precision. */
  readonly power: bigint;
}

export interface UnitPrices {
  readonly microUsdPerTflopsHour: bigint;
  readonly nanoUsdPerGibHour: bigint;
}

export interface QuoteRules {
  readonly prices: UnitPrices;
  readonly rangeBps: bigint;
  readonly minerCollateralBps: bigint;
  readonly microUsdPerTsr: bigint;
  /** Deadline = expected time x this, at least minimumDeadlineSeconds: slack for other than compute. */
  readonly deadlineFactorBps: bigint;
  readonly minimumDeadlineSeconds: bigint;
}

export interface Quote {
  /** Milli-TFLOP-seconds, the compute units of the estimate. */
  readonly milliTflops: bigint;
  readonly computeMicroUsd: bigint;
  readonly storageMicroUsd: bigint;
  readonly quotedMultiplyAdds: bigint;
  readonly expectedSeconds: bigint;
  readonly deadlineSeconds: bigint;
  /** What the client locks. */
  readonly collateral: bigint;
  /** What each miner locks. */
  readonly minerCollateral: bigint;
}

const ceilDiv = (a: bigint, b: bigint): bigint => (a + b - 1n) / b;
const max = (a: bigint, b: bigint): bigint => (a > b ? a : b);

export const defaultUnitPrices: UnitPrices = {
  microUsdPerTflopsHour: DEFAULT_MICRO_USD_PER_TFLOPS_HOUR,
  nanoUsdPerGibHour: DEFAULT_NANO_USD_PER_GIB_HOUR,
};

/** The estimate and the collaterals of a task. Throws SchedulerError on sizes that mean nothing. */
export function quoteTask(size: TaskSize, rules: QuoteRules): Quote {
  requireInput(size.multiplyAdds > 0n, "multiplyAdds", `expected a positive amount of work, got ${size.multiplyAdds}`);
  requireInput(size.storageBytes >= 0n, "storageBytes", `expected zero or more, got ${size.storageBytes}`);
  requireInput(Number.isInteger(size.workers) && size.workers > 0, "workers", `expected 1 or more, got ${size.workers}`);
  requireInput(size.power > 0n, "power", `expected the workers' proven multiply-adds per second, got ${size.power}`);
  requireInput(rules.microUsdPerTsr > 0n, "microUsdPerTsr", `expected a positive price, got ${rules.microUsdPerTsr}`);
  const flops = size.multiplyAdds * FLOPS_PER_MULTIPLY_ADD;
  const computeMicroUsd = max(1n, ceilDiv(flops * rules.prices.microUsdPerTflopsHour, FLOPS_PER_TFLOPS_HOUR));
  const expectedSeconds = max(1n, ceilDiv(size.multiplyAdds, size.power));
  const deadlineSeconds = max(
    ceilDiv(expectedSeconds * rules.deadlineFactorBps, 10_000n), max(rules.minimumDeadlineSeconds, expectedSeconds));
  const storageNano = size.storageBytes * BigInt(size.workers) * deadlineSeconds * rules.prices.nanoUsdPerGibHour;
  const storageMicroUsd = ceilDiv(storageNano, GIB * 3_600n * 1_000n);
  const microUsd = computeMicroUsd + storageMicroUsd;
  return {
    milliTflops: flops / 10n ** 9n,
    computeMicroUsd,
    storageMicroUsd,
    quotedMultiplyAdds: size.multiplyAdds,
    expectedSeconds,
    deadlineSeconds,
    collateral: collateralOf(microUsd, rules.rangeBps, rules.microUsdPerTsr),
    minerCollateral: ceilDiv(
      collateralOf(microUsd, rules.minerCollateralBps, rules.microUsdPerTsr), BigInt(size.workers)),
  };
}
