// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Arrays} from "@openzeppelin/contracts/utils/Arrays.sol";
import {IMasterRegistry, IPriceFeed, MASTER_REGISTRY, SystemContract} from "./SystemContract.sol";

/// Owns the price of one TSR in micro-USD, so that tasks cost the same when the coin moves (white
/// paper 3.5). Invariant: the price changes only to the median of fresh submissions of more than
/// half of the live masters, so a minority cannot place it outside the honest ones' range.
contract PriceFeed is SystemContract, IPriceFeed {
    struct Submission {
        uint128 price;
        uint64 time;
    }

    // A billion dollars a coin: keeps every product of the task market far from overflow.
    uint256 public constant MAX_PRICE = 1e15;

    uint256 public price;
    uint64 public maxAgeSeconds;
    uint64 public updatedAt;
    mapping(address master => Submission) public submissionOf;

    error OnlyMaster(address caller);
    error PriceOutOfRange(uint256 price);

    event Submitted(address indexed master, uint256 price);
    event PriceChanged(uint256 price, uint256 submissions);

    function initialize(uint256 priceMicroUsdPerTsr, uint64 maxAgeSeconds_) external initializer onlySystem {
        if (priceMicroUsdPerTsr == 0 || priceMicroUsdPerTsr > MAX_PRICE) {
            revert PriceOutOfRange(priceMicroUsdPerTsr);
        }
        price = priceMicroUsdPerTsr;
        maxAgeSeconds = maxAgeSeconds_;
        updatedAt = uint64(block.timestamp);
    }

    function submit(uint256 priceMicroUsdPerTsr) external {
        if (!IMasterRegistry(MASTER_REGISTRY).isActive(msg.sender)) revert OnlyMaster(msg.sender);
        if (priceMicroUsdPerTsr == 0 || priceMicroUsdPerTsr > MAX_PRICE) {
            revert PriceOutOfRange(priceMicroUsdPerTsr);
        }
        submissionOf[msg.sender] = Submission(uint128(priceMicroUsdPerTsr), uint64(block.timestamp));
        emit Submitted(msg.sender, priceMicroUsdPerTsr);
        _update();
    }

    function _update() private {
        address[] memory masters = IMasterRegistry(MASTER_REGISTRY).activeMasters();
        uint256[] memory fresh = new uint256[](masters.length);
        uint256 count = 0;
        for (uint256 i = 0; i < masters.length; i++) {
            Submission memory each = submissionOf[masters[i]];
            if (each.time != 0 && block.timestamp - each.time <= maxAgeSeconds) fresh[count++] = each.price;
        }
        if (count * 2 <= masters.length) return;
        assembly ("memory-safe") {
            mstore(fresh, count)
        }
        Arrays.sort(fresh);
        price = (fresh[(count - 1) / 2] + fresh[count / 2]) / 2;
        updatedAt = uint64(block.timestamp);
        emit PriceChanged(price, count);
    }
}
