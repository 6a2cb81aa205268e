// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Arrays} from "@openzeppelin/contracts/utils/Arrays.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

/// Owns the arithmetic of white paper 3.1 and 3.2; src/scheduler/settlement.ts is the same in
/// TypeScript. Pure. Every division that pays a miner rounds down and the fee rounds up, so that
/// sum(payments) + fee <= collateral; what rounding leaves stays with the client.
library Settlement {
    uint256 internal constant BPS = 10_000;
    uint256 internal constant SPEED_MIN = 5_000;
    uint256 internal constant SPEED_MAX = 15_000;
    uint256 internal constant WEI_PER_TSR = 1e18;

    struct Offer {
        uint256 computeMicroUsd;
        uint256 storageMicroUsd;
        uint256 quotedMultiplyAdds;
        uint256 deadlineSeconds;
        uint256 elapsedSeconds;
        uint256 microUsdPerTsr;
        uint256 collateral;
        uint256 feeBps;
    }

    /// Work of one miner that counts: verified, and not of one that aborted.
    struct Share {
        uint256 multiplyAdds;
        uint256 activeMs;
        uint256 commentBps;
    }

    struct Outcome {
        uint256 price;
        uint256 paid;
        uint256 fee;
        uint256 refund;
        uint256[] speedBps;
        uint256[] raw;
        uint256[] payments;
    }

    /// micro-USD to wei, rounded down.
    function toWei(uint256 microUsd, uint256 microUsdPerTsr) internal pure returns (uint256) {
        return microUsd * WEI_PER_TSR / microUsdPerTsr;
    }

    /// What the client must lock: (compute + storage) x range, rounded up.
    function collateralOf(uint256 microUsd, uint256 rangeBps, uint256 microUsdPerTsr)
        internal
        pure
        returns (uint256)
    {
        return Math.ceilDiv(microUsd * rangeBps * WEI_PER_TSR, microUsdPerTsr * BPS);
    }

    function compute(Offer memory offer, Share[] memory shares) internal pure returns (Outcome memory outcome) {
        uint256 count = shares.length;
        outcome.speedBps = speeds(shares);
        outcome.raw = new uint256[](count);
        outcome.payments = new uint256[](count);
        uint256 total = 0;
        for (uint256 i = 0; i < count; i++) total += shares[i].multiplyAdds;
        if (total != 0) {
            outcome.price = priceOf(offer, total);
            _raws(outcome, shares, total);
            _scale(outcome, offer.collateral * BPS / (BPS + offer.feeBps));
            outcome.fee = Math.ceilDiv(outcome.paid * offer.feeBps, BPS);
        }
        outcome.refund = offer.collateral - outcome.paid - outcome.fee;
    }

    /// Metered price in wei: compute in proportion to verified work, storage to elapsed time.
    function priceOf(Offer memory offer, uint256 total) internal pure returns (uint256) {
        uint256 elapsed = Math.min(offer.elapsedSeconds, offer.deadlineSeconds);
        uint256 forWork =
            Math.mulDiv(toWei(offer.computeMicroUsd, offer.microUsdPerTsr), total, offer.quotedMultiplyAdds);
        uint256 forStorage =
            Math.mulDiv(toWei(offer.storageMicroUsd, offer.microUsdPerTsr), elapsed, offer.deadlineSeconds);
        return forWork + forStorage;
    }

    /// Speed of each miner against the median of those that worked, in basis points within [0.5, 1.5].
    function speeds(Share[] memory shares) internal pure returns (uint256[] memory result) {
        uint256 count = shares.length;
        result = new uint256[](count);
        uint256[] memory rates = new uint256[](count);
        uint256 used = 0;
        for (uint256 i = 0; i < count; i++) {
            if (shares[i].multiplyAdds != 0) rates[used++] = _rate(shares[i]);
        }
        if (used == 0) return result;
        assembly ("memory-safe") {
            mstore(rates, used)
        }
        Arrays.sort(rates);
        uint256 median = Math.max((rates[(used - 1) / 2] + rates[used / 2]) / 2, 1);
        for (uint256 i = 0; i < count; i++) {
            if (shares[i].multiplyAdds == 0) continue;
            result[i] = Math.min(Math.max(_rate(shares[i]) * BPS / median, SPEED_MIN), SPEED_MAX);
        }
    }

    /// `pool` in proportion to verified work; what nobody earned or rounding leaves is `rest`.
    function split(uint256 pool, uint256[] memory work)
        internal
        pure
        returns (uint256[] memory parts, uint256 rest)
    {
        parts = new uint256[](work.length);
        uint256 total = 0;
        for (uint256 i = 0; i < work.length; i++) total += work[i];
        rest = pool;
        if (total == 0) return (parts, rest);
        for (uint256 i = 0; i < work.length; i++) {
            parts[i] = Math.mulDiv(pool, work[i], total);
            rest -= parts[i];
        }
    }

    /// Multiply-adds per second, times 1000 so that slow miners keep three digits.
    function _rate(Share memory share) private pure returns (uint256) {
        return share.multiplyAdds * 1_000_000 / Math.max(share.activeMs, 1);
    }

    function _raws(Outcome memory outcome, Share[] memory shares, uint256 total) private pure {
        for (uint256 i = 0; i < shares.length; i++) {
            uint256 weight = shares[i].multiplyAdds * outcome.speedBps[i] * shares[i].commentBps;
            outcome.raw[i] = Math.mulDiv(outcome.price, weight, total * BPS * BPS);
        }
    }

    function _scale(Outcome memory outcome, uint256 budget) private pure {
        uint256 sum = 0;
        for (uint256 i = 0; i < outcome.raw.length; i++) sum += outcome.raw[i];
        for (uint256 i = 0; i < outcome.raw.length; i++) {
            uint256 payment = sum > budget ? Math.mulDiv(budget, outcome.raw[i], sum) : outcome.raw[i];
            outcome.payments[i] = payment;
            outcome.paid += payment;
        }
    }
}
