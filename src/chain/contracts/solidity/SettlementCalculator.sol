// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Settlement} from "./Settlement.sol";

interface ISettlementCalculator {
    function compute(Settlement.Offer memory offer, Settlement.Share[] memory shares)
        external
        pure
        returns (Settlement.Outcome memory outcome);
}

/// The settlement arithmetic as a stateless contract: TaskMarket calls it, and so can anyone who
/// wants to check or simulate a settlement. Apart from TaskMarket, which fills its code size limit.
contract SettlementCalculator is ISettlementCalculator {
    function compute(Settlement.Offer memory offer, Settlement.Share[] memory shares)
        external
        pure
        returns (Settlement.Outcome memory outcome)
    {
        return Settlement.compute(offer, shares);
    }
}
