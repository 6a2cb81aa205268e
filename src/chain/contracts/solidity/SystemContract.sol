// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Initializable} from "@openzeppelin/contracts/proxy/utils/Initializable.sol";

// Fixed addresses; the TypeScript side of the same table is system.ts.
address constant SYSTEM = 0xffffFFFfFFffffffffffffffFfFFFfffFFFfFFfE;
address constant MINING_RESERVE = 0x0000000000000000000000000000000000001000;
address constant STAKE_REGISTRY = 0x0000000000000000000000000000000000001001;
address constant MASTER_REGISTRY = 0x0000000000000000000000000000000000001002;
address constant COMPUTE_REGISTRY = 0x0000000000000000000000000000000000001003;
address constant TASK_MARKET = 0x0000000000000000000000000000000000001004;
address constant PRICE_FEED = 0x0000000000000000000000000000000000001005;
address constant DISTRIBUTION = 0x0000000000000000000000000000000000001006;
address constant SETTLEMENT_CALCULATOR = 0x0000000000000000000000000000000000001007;

uint256 constant BPS = 10_000;

/// Base of every system contract: code is placed at genesis without a constructor, so state comes
/// only from `initialize`, once, from the protocol's own address.
abstract contract SystemContract is Initializable {
    error OnlySystem(address caller);
    error GenesisBalanceMismatch(uint256 expected, uint256 actual);

    modifier onlySystem() {
        if (msg.sender != SYSTEM) revert OnlySystem(msg.sender);
        _;
    }

    function _requireBalance(uint256 expected) internal view {
        if (address(this).balance != expected) {
            revert GenesisBalanceMismatch(expected, address(this).balance);
        }
    }
}

interface IMasterRegistry {
    function isActive(address master) external view returns (bool);
    function activeMasters() external view returns (address[] memory);
}

interface IComputeRegistry {
    function isRegistered(address node) external view returns (bool);
    function gradeOf(address node) external view returns (uint8);
    function peakPowerOf(address node) external view returns (uint256);
    function commentOf(address node) external view returns (uint16);
    function recordFinished(address node) external;
    function recordAborted(address node) external;
    function recordLate(address node) external;
}

interface IPriceFeed {
    function price() external view returns (uint256 microUsdPerTsr);
}
