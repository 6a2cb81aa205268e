// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {EnumerableSet} from "@openzeppelin/contracts/utils/structs/EnumerableSet.sol";
import {Address} from "@openzeppelin/contracts/utils/Address.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SignedHeader} from "./SignedHeader.sol";
import {MINING_RESERVE, SystemContract} from "./SystemContract.sol";

/// Owns the pledges of the PoS nodes. Invariant: balance = bonded (matured and pending) + unbonding.
/// Coins weigh in consensus after `maturitySeconds`; they can be slashed until they are withdrawn.
contract StakeRegistry is SystemContract {
    using EnumerableSet for EnumerableSet.AddressSet;

    struct GenesisStake {
        address owner;
        bytes blsPublicKey;
        bytes proofOfPossession;
        uint256 amount;
    }

    struct ActiveStake {
        address owner;
        bytes blsPublicKey;
        uint256 amount;
    }

    struct Unbonding {
        uint128 amount;
        uint64 releaseAt;
    }

    struct Stake {
        bytes blsPublicKey;
        bytes proofOfPossession;
        uint128 matured;
        uint128 pending;
        uint64 pendingMaturesAt;
        bool barred;
        Unbonding[] unbonding;
    }

    // One view call lists everybody; 1,024 entries cost about 15 M gas, which a node can read each block.
    uint256 public constant MAX_STAKERS = 1_024;
    // Bounds the loops of withdraw and slash.
    uint256 public constant MAX_UNBONDINGS = 16;
    uint256 private constant BLS_PUBLIC_KEY_BYTES = 48;
    uint256 private constant BLS_SIGNATURE_BYTES = 96;

    uint64 public maturitySeconds;
    uint64 public unbondingSeconds;
    uint256 public minimumStake;
    uint256 public totalBonded;
    uint256 public totalUnbonding;
    mapping(address owner => Stake) private _stakes;
    mapping(bytes32 keyHash => address owner) public keyOwner;
    EnumerableSet.AddressSet private _owners;

    error BadBlsKey(uint256 keyBytes, uint256 proofBytes);
    error KeyTaken(address owner);
    error AlreadyStaking();
    error NotStaking(address owner);
    error Barred(address owner);
    error BelowMinimum(uint256 minimum, uint256 actual);
    error TooManyStakers();
    error TooManyUnbondings();
    error InsufficientStake(uint256 wanted, uint256 bonded);
    error NothingToWithdraw();
    error NoEquivocation();
    error NothingToSlash(address owner);

    event Staked(address indexed owner, uint256 amount, uint64 maturesAt, bytes blsPublicKey);
    event Unbonded(address indexed owner, uint256 amount, uint64 releaseAt);
    event Withdrawn(address indexed owner, uint256 amount);
    event Slashed(address indexed owner, uint256 amount, bytes32 reason);

    function initialize(
        uint64 maturitySeconds_,
        uint64 unbondingSeconds_,
        uint256 minimumStake_,
        GenesisStake[] calldata genesisStakes
    ) external initializer onlySystem {
        maturitySeconds = maturitySeconds_;
        unbondingSeconds = unbondingSeconds_;
        minimumStake = minimumStake_;
        for (uint256 i = 0; i < genesisStakes.length; i++) {
            GenesisStake calldata each = genesisStakes[i];
            _join(each.owner, each.blsPublicKey, each.proofOfPossession, each.amount);
            _stakes[each.owner].matured = uint128(each.amount);
            emit Staked(each.owner, each.amount, uint64(block.timestamp), each.blsPublicKey);
        }
        _requireBalance(totalBonded);
    }

    /// Join with the caller's coins. The key is bound to the caller for good.
    function stake(bytes calldata blsPublicKey, bytes calldata proofOfPossession) external payable {
        _join(msg.sender, blsPublicKey, proofOfPossession, msg.value);
        _addPending(_stakes[msg.sender], msg.value);
    }

    /// Add coins. They join the pending part, whose maturity starts anew.
    function topUp() external payable {
        if (!_owners.contains(msg.sender)) revert NotStaking(msg.sender);
        totalBonded += msg.value;
        _addPending(_stakes[msg.sender], msg.value);
    }

    /// Take `amount` out of consensus, pending coins first; withdrawable after the unbonding time.
    function unbond(uint256 amount) external {
        if (!_owners.contains(msg.sender)) revert NotStaking(msg.sender);
        Stake storage own = _stakes[msg.sender];
        uint256 bonded = uint256(own.matured) + own.pending;
        if (amount == 0 || amount > bonded) revert InsufficientStake(amount, bonded);
        uint256 left = bonded - amount;
        if (left != 0 && left < minimumStake) revert BelowMinimum(minimumStake, left);
        if (own.unbonding.length == MAX_UNBONDINGS) revert TooManyUnbondings();
        uint256 fromPending = Math.min(amount, own.pending);
        own.pending -= uint128(fromPending);
        own.matured -= uint128(amount - fromPending);
        uint64 releaseAt = uint64(block.timestamp) + unbondingSeconds;
        own.unbonding.push(Unbonding(uint128(amount), releaseAt));
        totalBonded -= amount;
        totalUnbonding += amount;
        if (left == 0) _owners.remove(msg.sender);
        emit Unbonded(msg.sender, amount, releaseAt);
    }

    function withdraw() external returns (uint256 amount) {
        Unbonding[] storage list = _stakes[msg.sender].unbonding;
        for (uint256 i = list.length; i > 0; i--) {
            if (list[i - 1].releaseAt > block.timestamp) continue;
            amount += list[i - 1].amount;
            list[i - 1] = list[list.length - 1];
            list.pop();
        }
        if (amount == 0) revert NothingToWithdraw();
        totalUnbonding -= amount;
        emit Withdrawn(msg.sender, amount);
        Address.sendValue(payable(msg.sender), amount);
    }

    /// Anybody may show two headers that one producer signed for one slot: it loses everything, coins that are
    /// leaving included (white paper 4.3.3.1). Headers as SignedHeader takes them, in any order.
    function reportEquivocation(
        bytes calldata fieldsA,
        bytes calldata signatureA,
        bytes calldata fieldsB,
        bytes calldata signatureB
    ) external returns (uint256 taken) {
        (address producer, uint64 slot, bytes32 digest) = SignedHeader.read(fieldsA, signatureA);
        (address other, uint64 otherSlot, bytes32 otherDigest) = SignedHeader.read(fieldsB, signatureB);
        if (producer != other || slot != otherSlot || digest == otherDigest) revert NoEquivocation();
        taken = _slash(producer, type(uint256).max, "equivocation");
        if (taken == 0) revert NothingToSlash(producer);
    }

    /// Protocol only: forfeit up to `amount` to the mining reserve, out of bonded coins first, then of coins that
    /// are leaving. Nothing left: barred for good.
    function slash(address owner, uint256 amount, bytes32 reason) external onlySystem returns (uint256 taken) {
        return _slash(owner, amount, reason);
    }

    function _slash(address owner, uint256 amount, bytes32 reason) private returns (uint256 taken) {
        Stake storage target = _stakes[owner];
        uint256 part = Math.min(amount, target.matured);
        target.matured -= uint128(part);
        taken = part;
        part = Math.min(amount - taken, target.pending);
        target.pending -= uint128(part);
        taken += part;
        totalBonded -= taken;
        for (uint256 i = target.unbonding.length; i > 0 && taken < amount; i--) {
            Unbonding storage leaving = target.unbonding[i - 1];
            part = Math.min(amount - taken, leaving.amount);
            leaving.amount -= uint128(part);
            totalUnbonding -= part;
            taken += part;
            if (leaving.amount == 0) target.unbonding.pop();
        }
        uint256 bonded = uint256(target.matured) + target.pending;
        if (bonded == 0) {
            _owners.remove(owner);
            if (taken != 0) target.barred = true;
        }
        emit Slashed(owner, taken, reason);
        Address.sendValue(payable(MINING_RESERVE), taken);
    }

    /// Everybody whose matured coins reach the minimum, with those coins, as of this block's time.
    function activeStakers() external view returns (ActiveStake[] memory list) {
        uint256 count = _owners.length();
        list = new ActiveStake[](count);
        uint256 used = 0;
        for (uint256 i = 0; i < count; i++) {
            address owner = _owners.at(i);
            uint256 amount = activeStakeOf(owner);
            if (amount == 0 || amount < minimumStake) continue;
            list[used++] = ActiveStake(owner, _stakes[owner].blsPublicKey, amount);
        }
        assembly ("memory-safe") {
            mstore(list, used) // the array was made for everybody; give back what matured
        }
    }

    function activeStakeOf(address owner) public view returns (uint256 amount) {
        Stake storage own = _stakes[owner];
        amount = own.matured;
        if (own.pendingMaturesAt <= block.timestamp) amount += own.pending;
    }

    function stakeOf(address owner) external view returns (Stake memory) {
        return _stakes[owner];
    }

    function _join(address owner, bytes calldata key, bytes calldata proof, uint256 amount) private {
        if (key.length != BLS_PUBLIC_KEY_BYTES || proof.length != BLS_SIGNATURE_BYTES) {
            revert BadBlsKey(key.length, proof.length);
        }
        if (amount == 0 || amount < minimumStake) revert BelowMinimum(minimumStake, amount);
        if (_owners.length() == MAX_STAKERS) revert TooManyStakers();
        if (_stakes[owner].barred) revert Barred(owner);
        if (!_owners.add(owner)) revert AlreadyStaking();
        bytes32 keyHash = keccak256(key);
        address holder = keyOwner[keyHash];
        if (holder != address(0) && holder != owner) revert KeyTaken(holder);
        keyOwner[keyHash] = owner;
        _stakes[owner].blsPublicKey = key;
        _stakes[owner].proofOfPossession = proof;
        totalBonded += amount;
    }

    function _addPending(Stake storage own, uint256 amount) private {
        if (own.pending != 0 && own.pendingMaturesAt <= block.timestamp) {
            own.matured += own.pending;
            own.pending = 0;
        }
        own.pending += uint128(amount);
        own.pendingMaturesAt = uint64(block.timestamp) + maturitySeconds;
        emit Staked(msg.sender, amount, own.pendingMaturesAt, own.blsPublicKey);
    }
}
