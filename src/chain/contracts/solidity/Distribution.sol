// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Address} from "@openzeppelin/contracts/utils/Address.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {MINING_RESERVE, SystemContract} from "./SystemContract.sol";

/// Owns the genesis coins that are not mined (white paper 5.2, 5.4). Invariant: balance = sum over
/// the tranches of total - released. Coins that arrive from other contracts join the ecology fund.
contract Distribution is SystemContract {
    enum Tranche {
        Foundation,
        Team,
        Community,
        Ecology
    }

    struct Account {
        address beneficiary;
        uint128 total;
        uint128 released;
    }

    // Foundation and team: nothing for 24 months, then linear until the end of the eighth year.
    uint256 public constant LOCK_SECONDS = 730 days;
    uint256 public constant VESTING_END_SECONDS = 2_920 days;
    // Of what the community pool leaves unsold 70 % goes to mining, 30 % to the ecology fund.
    uint256 public constant UNSOLD_TO_MINING_PERCENT = 70;
    uint256 public constant MAX_RECIPIENTS = 256;

    uint64 public startedAt;
    Account[4] private _accounts;

    error OnlyBeneficiary(address caller, address beneficiary);
    error NotReleasable(uint256 wanted, uint256 releasable);
    error LengthMismatch(uint256 recipients, uint256 amounts);
    error ZeroBeneficiary();

    event Released(Tranche indexed tranche, address indexed to, uint256 amount);
    event EcologyReceived(address indexed from, uint256 amount);
    event CommunityClosed(uint256 toMining, uint256 toEcology);
    event BeneficiaryChanged(Tranche indexed tranche, address beneficiary);

    function initialize(address[4] calldata beneficiaries, uint256[4] calldata amounts)
        external
        initializer
        onlySystem
    {
        startedAt = uint64(block.timestamp);
        uint256 total = 0;
        for (uint256 i = 0; i < 4; i++) {
            if (beneficiaries[i] == address(0)) revert ZeroBeneficiary();
            _accounts[i] = Account(beneficiaries[i], uint128(amounts[i]), 0);
            total += amounts[i];
        }
        _requireBalance(total);
    }

    /// What other contracts forfeit to nobody in particular funds the ecology.
    receive() external payable {
        _accounts[uint256(Tranche.Ecology)].total += uint128(msg.value);
        emit EcologyReceived(msg.sender, msg.value);
    }

    /// Pay out of a tranche, by its beneficiary, to anyone, as far as it has vested.
    function release(Tranche tranche, address[] calldata to, uint256[] calldata amounts) external {
        Account storage account = _accounts[uint256(tranche)];
        if (msg.sender != account.beneficiary) revert OnlyBeneficiary(msg.sender, account.beneficiary);
        if (to.length != amounts.length || to.length > MAX_RECIPIENTS) {
            revert LengthMismatch(to.length, amounts.length);
        }
        uint256 total = 0;
        for (uint256 i = 0; i < to.length; i++) total += amounts[i];
        uint256 limit = releasable(tranche);
        if (total > limit) revert NotReleasable(total, limit);
        account.released += uint128(total);
        for (uint256 i = 0; i < to.length; i++) {
            emit Released(tranche, to[i], amounts[i]);
            Address.sendValue(payable(to[i]), amounts[i]);
        }
    }

    /// End the community sale: what is unsold goes to mining and to the ecology fund.
    function closeCommunity() external {
        Account storage community = _accounts[uint256(Tranche.Community)];
        if (msg.sender != community.beneficiary) revert OnlyBeneficiary(msg.sender, community.beneficiary);
        uint256 unsold = community.total - community.released;
        uint256 toMining = unsold * UNSOLD_TO_MINING_PERCENT / 100;
        community.released = community.total;
        _accounts[uint256(Tranche.Ecology)].total += uint128(unsold - toMining);
        // Only this second part changes tranche, it does not leave: keep the books in step.
        community.total -= uint128(unsold - toMining);
        community.released -= uint128(unsold - toMining);
        emit CommunityClosed(toMining, unsold - toMining);
        Address.sendValue(payable(MINING_RESERVE), toMining);
    }

    function changeBeneficiary(Tranche tranche, address beneficiary) external {
        Account storage account = _accounts[uint256(tranche)];
        if (msg.sender != account.beneficiary) revert OnlyBeneficiary(msg.sender, account.beneficiary);
        if (beneficiary == address(0)) revert ZeroBeneficiary();
        account.beneficiary = beneficiary;
        emit BeneficiaryChanged(tranche, beneficiary);
    }

    function releasable(Tranche tranche) public view returns (uint256) {
        Account storage account = _accounts[uint256(tranche)];
        return vested(tranche, block.timestamp) - account.released;
    }

    /// How much of a tranche is free at `time`.
    function vested(Tranche tranche, uint256 time) public view returns (uint256) {
        uint256 total = _accounts[uint256(tranche)].total;
        if (tranche == Tranche.Community || tranche == Tranche.Ecology) return total;
        uint256 elapsed = time - startedAt;
        if (elapsed <= LOCK_SECONDS) return 0;
        return Math.mulDiv(
            total, Math.min(elapsed, VESTING_END_SECONDS) - LOCK_SECONDS, VESTING_END_SECONDS - LOCK_SECONDS
        );
    }

    function accountOf(Tranche tranche) external view returns (Account memory) {
        return _accounts[uint256(tranche)];
    }
}
