// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {EnumerableSet} from "@openzeppelin/contracts/utils/structs/EnumerableSet.sol";
import {Address} from "@openzeppelin/contracts/utils/Address.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {BPS, IMasterRegistry, MINING_RESERVE, SystemContract} from "./SystemContract.sol";

/// Owns the master nodes: pledge, heartbeat record, turn in the reward, expulsion with forfeiture
/// (white paper 4.2.2.1). Invariant: balance = pledges of listed masters + what left ones may withdraw.
contract MasterRegistry is SystemContract, IMasterRegistry {
    using EnumerableSet for EnumerableSet.AddressSet;

    struct GenesisMaster {
        address owner;
        bytes blsPublicKey;
        bytes proofOfPossession;
        bytes32 transportKey;
        uint256 pledge;
    }

    struct Master {
        address owner;
        bytes blsPublicKey;
        bytes proofOfPossession;
        bytes32 transportKey;
        uint256 pledge;
        uint64 lastHeartbeat;
        uint64 lastPaidBlock;
    }

    struct Leaving {
        uint128 amount;
        uint64 releaseAt;
    }

    // The reward turn and the price median walk the list once a block.
    uint256 public constant MAX_MASTERS = 512;
    // A master that missed one window is only passed over; after three anybody may expel it.
    uint256 public constant EXPULSION_WINDOWS = 3;

    uint256 public pledge;
    uint64 public heartbeatWindowSeconds;
    uint64 public unbondingSeconds;
    uint16 public downtimeForfeitBps;
    mapping(address owner => Master) private _masters;
    mapping(address owner => Leaving) public leavingOf;
    mapping(bytes32 keyHash => address owner) public keyOwner;
    EnumerableSet.AddressSet private _owners;

    error BadKeys(uint256 keyBytes, uint256 proofBytes, bytes32 transportKey);
    error KeyTaken(address owner);
    error AlreadyListed();
    error NotListed(address owner);
    error BelowPledge(uint256 pledge, uint256 actual);
    error TooManyMasters();
    error StillAlive(uint64 lastHeartbeat);
    error StillLeaving(uint64 releaseAt);
    error NothingToWithdraw();

    event Registered(address indexed owner, uint256 pledge, bytes blsPublicKey, bytes32 transportKey);
    event Heartbeat(address indexed owner, uint64 time);
    event Paid(address indexed owner, uint256 amount);
    event Resigned(address indexed owner, uint256 amount, uint64 releaseAt);
    event Expelled(address indexed owner, uint256 forfeited, uint256 kept, bytes32 reason);
    event Withdrawn(address indexed owner, uint256 amount);

    function initialize(
        uint256 pledge_,
        uint64 heartbeatWindowSeconds_,
        uint64 unbondingSeconds_,
        uint16 downtimeForfeitBps_,
        GenesisMaster[] calldata genesisMasters
    ) external initializer onlySystem {
        pledge = pledge_;
        heartbeatWindowSeconds = heartbeatWindowSeconds_;
        unbondingSeconds = unbondingSeconds_;
        downtimeForfeitBps = downtimeForfeitBps_;
        uint256 total = 0;
        for (uint256 i = 0; i < genesisMasters.length; i++) {
            GenesisMaster calldata each = genesisMasters[i];
            _list(each.owner, each.blsPublicKey, each.proofOfPossession, each.transportKey, each.pledge);
            total += each.pledge;
        }
        _requireBalance(total);
    }

    function register(bytes calldata blsPublicKey, bytes calldata proofOfPossession, bytes32 transportKey)
        external
        payable
    {
        _list(msg.sender, blsPublicKey, proofOfPossession, transportKey, msg.value);
    }

    function heartbeat() external {
        if (!_owners.contains(msg.sender)) revert NotListed(msg.sender);
        _masters[msg.sender].lastHeartbeat = uint64(block.timestamp);
        emit Heartbeat(msg.sender, uint64(block.timestamp));
    }

    function resign() external {
        uint256 amount = _unlist(msg.sender, 0);
        emit Resigned(msg.sender, amount, leavingOf[msg.sender].releaseAt);
    }

    function withdraw() external {
        Leaving memory leaving = leavingOf[msg.sender];
        if (leaving.amount == 0) revert NothingToWithdraw();
        if (leaving.releaseAt > block.timestamp) revert StillLeaving(leaving.releaseAt);
        delete leavingOf[msg.sender];
        emit Withdrawn(msg.sender, leaving.amount);
        Address.sendValue(payable(msg.sender), leaving.amount);
    }

    /// Protocol only, on evidence such as conflicting locks: `forfeitBps` of the pledge is lost,
    /// also while the pledge of one that resigned is still held.
    function expel(address owner, uint16 forfeitBps, bytes32 reason) external onlySystem {
        if (_owners.contains(owner)) {
            _expel(owner, Math.min(forfeitBps, BPS), reason);
            return;
        }
        Leaving storage leaving = leavingOf[owner];
        if (leaving.amount == 0) revert NotListed(owner);
        uint256 forfeited = uint256(leaving.amount) * Math.min(forfeitBps, BPS) / BPS;
        leaving.amount -= uint128(forfeited);
        emit Expelled(owner, forfeited, leaving.amount, reason);
        Address.sendValue(payable(MINING_RESERVE), forfeited);
    }

    /// Anybody may drive out a master that has been silent; the loss grows with each missed window.
    function expelSilent(address owner) external {
        if (!_owners.contains(owner)) revert NotListed(owner);
        uint64 last = _masters[owner].lastHeartbeat;
        uint256 missed = (block.timestamp - last) / heartbeatWindowSeconds;
        if (missed < EXPULSION_WINDOWS) revert StillAlive(last);
        _expel(owner, Math.min(missed * downtimeForfeitBps, BPS), "silent");
    }

    /// Protocol only: the block reward of this turn went to `owner`.
    function recordPayment(address owner, uint256 amount) external onlySystem {
        if (!_owners.contains(owner)) revert NotListed(owner);
        _masters[owner].lastPaidBlock = uint64(block.number);
        emit Paid(owner, amount);
    }

    function isActive(address owner) public view returns (bool) {
        return _owners.contains(owner)
            && block.timestamp - _masters[owner].lastHeartbeat <= heartbeatWindowSeconds;
    }

    /// The live master unpaid for longest, the earliest listed of equals; zero when none is live.
    function nextPayee() external view returns (address payee) {
        uint256 oldest = type(uint256).max;
        uint256 count = _owners.length();
        for (uint256 i = 0; i < count; i++) {
            address owner = _owners.at(i);
            if (_masters[owner].lastPaidBlock < oldest && isActive(owner)) {
                oldest = _masters[owner].lastPaidBlock;
                payee = owner;
            }
        }
    }

    function activeMasters() external view returns (address[] memory list) {
        uint256 count = _owners.length();
        list = new address[](count);
        uint256 used = 0;
        for (uint256 i = 0; i < count; i++) {
            if (isActive(_owners.at(i))) list[used++] = _owners.at(i);
        }
        assembly ("memory-safe") {
            mstore(list, used)
        }
    }

    /// The whole deterministic list.
    function masters() external view returns (Master[] memory list) {
        uint256 count = _owners.length();
        list = new Master[](count);
        for (uint256 i = 0; i < count; i++) list[i] = _masters[_owners.at(i)];
    }

    function masterOf(address owner) external view returns (Master memory) {
        return _masters[owner];
    }

    function _list(address owner, bytes calldata key, bytes calldata proof, bytes32 transportKey, uint256 amount)
        private
    {
        if (key.length != 48 || proof.length != 96 || transportKey == 0) {
            revert BadKeys(key.length, proof.length, transportKey);
        }
        if (amount < pledge || amount > type(uint128).max) revert BelowPledge(pledge, amount);
        if (leavingOf[owner].amount != 0) revert StillLeaving(leavingOf[owner].releaseAt);
        if (_owners.length() == MAX_MASTERS) revert TooManyMasters();
        if (!_owners.add(owner)) revert AlreadyListed();
        bytes32 keyHash = keccak256(key);
        address holder = keyOwner[keyHash];
        if (holder != address(0) && holder != owner) revert KeyTaken(holder);
        keyOwner[keyHash] = owner;
        // A newcomer queues behind everybody: it counts as paid now.
        _masters[owner] = Master(
            owner, key, proof, transportKey, amount, uint64(block.timestamp), uint64(block.number)
        );
        emit Registered(owner, amount, key, transportKey);
    }

    function _expel(address owner, uint256 forfeitBps, bytes32 reason) private {
        uint256 forfeited = _masters[owner].pledge * forfeitBps / BPS;
        uint256 kept = _unlist(owner, forfeited);
        emit Expelled(owner, forfeited, kept, reason);
        Address.sendValue(payable(MINING_RESERVE), forfeited);
    }

    function _unlist(address owner, uint256 forfeited) private returns (uint256 kept) {
        if (!_owners.remove(owner)) revert NotListed(owner);
        kept = _masters[owner].pledge - forfeited;
        _masters[owner].pledge = 0;
        leavingOf[owner] = Leaving(uint128(kept), uint64(block.timestamp) + unbondingSeconds);
    }
}
