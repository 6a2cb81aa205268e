// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Address} from "@openzeppelin/contracts/utils/Address.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {SystemContract} from "./SystemContract.sol";

/// Owns the market's coins. Invariant: balance >= escrowed + credited, with equality unless somebody
/// forces coins in by self-destruct. A payee that cannot be paid is credited, so it blocks nobody.
abstract contract Escrow is SystemContract, ReentrancyGuardTransient {
    // Enough for a wallet's receive hook with an event; too little to burn the settlement's gas.
    uint256 private constant PUSH_GAS = 10_000;

    uint256 public totalEscrowed;
    uint256 public totalCredited;
    mapping(address payee => uint256) public creditOf;

    error NothingToWithdraw();
    error AmountTooLarge(uint256 amount);

    event Credited(uint256 indexed taskId, address indexed payee, uint256 amount);
    event Withdrawn(address indexed payee, uint256 amount);

    /// Take what could not be pushed.
    function withdraw() external nonReentrant {
        uint256 amount = creditOf[msg.sender];
        if (amount == 0) revert NothingToWithdraw();
        creditOf[msg.sender] = 0;
        totalCredited -= amount;
        emit Withdrawn(msg.sender, amount);
        Address.sendValue(payable(msg.sender), amount);
    }

    function _take(uint256 amount) internal returns (uint96) {
        if (amount > type(uint96).max) revert AmountTooLarge(amount);
        totalEscrowed += amount;
        return uint96(amount);
    }

    /// Pay out of escrow. No return data is copied, so a payee cannot exhaust memory either.
    function _pay(uint256 taskId, address payee, uint256 amount, uint256 gasLimit) internal {
        if (amount == 0) return;
        totalEscrowed -= amount;
        bool ok;
        assembly ("memory-safe") {
            ok := call(gasLimit, payee, amount, 0, 0, 0, 0)
        }
        if (!ok) {
            creditOf[payee] += amount;
            totalCredited += amount;
            emit Credited(taskId, payee, amount);
        }
    }

    function _pay(uint256 taskId, address payee, uint256 amount) internal {
        _pay(taskId, payee, amount, PUSH_GAS);
    }
}
