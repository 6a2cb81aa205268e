import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { collateralOf, settle, type SettlementOffer, type WorkShare } from "../../../src/scheduler/settlement.js";
import { TestChain } from "./harness.js";

let chain: TestChain;
beforeAll(async () => {
  chain = await TestChain.create();
});

const U64 = 2n ** 64n - 1n;
const U96 = 2n ** 96n - 1n;
/** Extremes are as likely as ordinary values. */
const amount = (minimum: bigint, maximum: bigint) => fc.oneof(
  { weight: 4, arbitrary: fc.bigInt({ min: minimum, max: maximum < 10n ** 12n ? maximum : 10n ** 12n }) },
  { weight: 2, arbitrary: fc.bigInt({ min: minimum, max: maximum }) },
  { weight: 1, arbitrary: fc.constantFrom(minimum, maximum) },
);
const offers: fc.Arbitrary<SettlementOffer> = fc.record({
  computeMicroUsd: amount(1n, U64), storageMicroUsd: amount(0n, U64), quotedMultiplyAdds: amount(1n, U96),
  deadlineSeconds: amount(1n, 2n ** 32n - 1n), elapsedSeconds: amount(0n, U64), microUsdPerTsr: amount(1n, 10n ** 15n),
  collateral: amount(0n, U96), feeBps: fc.bigInt({ min: 0n, max: 499n }),
});
const shares: fc.Arbitrary<WorkShare> = fc.record({
  multiplyAdds: amount(0n, U96), activeMs: amount(0n, U64), commentBps: fc.bigInt({ min: 5_000n, max: 12_000n }),
});

describe("SettlementCalculator", () => {
  it("equals settlement.ts to the last wei, and conserves", async () => {
    await fc.assert(fc.asyncProperty(offers, fc.array(shares, { maxLength: 8 }), async (offer, list) => {
      const expected = settle(offer, list);
      const actual = await chain.view("calculator", "compute", [offer, list]);
      expect(actual).toEqual(expected);
      const paid = expected.payments.reduce((total, each) => total + each, 0n);
      expect(paid + expected.fee + expected.refund).toBe(offer.collateral);
      expect(expected.refund >= 0n && expected.fee >= 0n).toBe(true);
      expect(expected.fee * 10_000n >= paid * offer.feeBps).toBe(true); // no rounding below the fee
    }), { numRuns: 400 });
  });

  it("does not overflow at 64 miners with everything at its maximum", async () => {
    const offer: SettlementOffer = {
      computeMicroUsd: U64, storageMicroUsd: U64, quotedMultiplyAdds: 1n, deadlineSeconds: 1n, elapsedSeconds: U64,
      microUsdPerTsr: 1n, collateral: U96, feeBps: 499n,
    };
    const list = Array.from({ length: 64 }, () => ({ multiplyAdds: U96, activeMs: 1n, commentBps: 12_000n }));
    const actual = await chain.view("calculator", "compute", [offer, list]);
    expect(actual).toEqual(settle(offer, list));
    expect(actual.paid + actual.fee + actual.refund).toBe(U96);
  });

  it("asks for estimate x range, rounded up", async () => {
    const terms = {
      manifestRoot: `0x${"01".repeat(32)}`, graphHash: `0x${"02".repeat(32)}`, expectedSeconds: 1, deadlineSeconds: 1,
      acceptSeconds: 1, minWorkers: 1, minGrade: 0, allowStandby: false, quotedMultiplyAdds: 1n,
      master: `0x${"03".repeat(20)}`,
    } as const;
    await fc.assert(fc.asyncProperty(amount(0n, U64), amount(0n, U64), fc.integer({ min: 10_000, max: 100_000 }),
      fc.integer({ min: 1, max: 64 }), async (computeMicroUsd, storageMicroUsd, rangeBps, maxWorkers) => {
        const [collateral, miner] = await chain.view("market", "quote", [
          { ...terms, computeMicroUsd, storageMicroUsd, rangeBps, maxWorkers },
        ]);
        const microUsd = computeMicroUsd + storageMicroUsd;
        expect(collateral).toBe(collateralOf(microUsd, BigInt(rangeBps), 20_000n));
        const all = collateralOf(microUsd, 2_000n, 20_000n);
        expect(miner).toBe((all + BigInt(maxWorkers) - 1n) / BigInt(maxWorkers));
      }), { numRuns: 100 });
  });
});
