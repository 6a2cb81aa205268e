// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {EnumerableSet} from "@openzeppelin/contracts/utils/structs/EnumerableSet.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {
    BPS, IComputeRegistry, IMasterRegistry, MASTER_REGISTRY, SystemContract, TASK_MARKET
} from "./SystemContract.sol";

/// Owns the compute nodes: proven power and the comment adjustment (white paper 2.2.3, 3.3, 3.4).
/// Invariant: commentOf is always within [5000, 12000] basis points, and returns to 10000 by time alone.
contract ComputeRegistry is SystemContract, IComputeRegistry {
    using EnumerableSet for EnumerableSet.AddressSet;

    struct GenesisNode {
        address owner;
        bytes32 transportKey;
        uint8 grade;
        uint96[4] power;
        uint64 memoryBytes;
        bytes32 proofDigest;
    }

    struct Node {
        address owner;
        bytes32 transportKey;
        uint8 grade;
        uint96[4] power; // multiply-adds per second at fp32, int8, fp16, fp8
        uint64 memoryBytes;
        bytes32 proofDigest;
        address attestedBy;
        uint64 attestedAt;
    }

    struct Comment {
        uint16 bonus;
        uint64 bonusAt;
        uint16 abortCut;
        uint64 abortUntil;
        uint16 lateCut;
        uint64 lateUntil;
    }

    uint256 public constant COMMENT_MIN = 5_000;
    uint256 public constant COMMENT_MAX = 12_000;
    uint256 public constant FINISH_BONUS = 200;
    // 20 days bring the highest bonus back to nothing.
    uint256 public constant BONUS_DECAY_PER_DAY = 100;
    uint256 public constant ABORT_CUT = 2_000;
    uint256 public constant ABORT_DAYS = 3;
    uint256 public constant LATE_CUT = 3_000;
    uint256 public constant LATE_DAYS = 10;

    mapping(address owner => Node) private _nodes;
    mapping(address owner => Comment) private _comments;
    mapping(bytes32 transportKey => address owner) public transportKeyOwner;
    mapping(bytes32 proofDigest => address owner) public proofOwner;
    EnumerableSet.AddressSet private _owners;

    error OnlyMaster(address caller);
    error OnlyTaskMarket(address caller);
    error NotRegistered(address node);
    error TransportKeyTaken(address owner);
    error ProofReplayed(address owner);
    error EmptyProof();
    error SelfAttestation();

    event NodeRegistered(address indexed node, bytes32 transportKey);
    event PowerAttested(
        address indexed node, address indexed master, uint8 grade, uint96[4] power, uint64 memoryBytes, bytes32 proofDigest
    );
    event CommentChanged(address indexed node, uint16 commentBps, bytes32 reason);

    modifier onlyTaskMarket() {
        if (msg.sender != TASK_MARKET) revert OnlyTaskMarket(msg.sender);
        _;
    }

    function initialize(GenesisNode[] calldata genesisNodes) external initializer onlySystem {
        for (uint256 i = 0; i < genesisNodes.length; i++) {
            GenesisNode calldata each = genesisNodes[i];
            _register(each.owner, each.transportKey);
            _attest(each.owner, each.grade, each.power, each.memoryBytes, each.proofDigest);
        }
        _requireBalance(0);
    }

    /// Join, or change the transport key. Power counts only after a master has attested it.
    function register(bytes32 transportKey) external {
        _register(msg.sender, transportKey);
    }

    /// A master vouches that `node` answered its challenge; `proofDigest` names that answer, and an
    /// answer counts once, so that one machine's proof cannot grade several nodes.
    function attestPower(
        address node,
        uint8 grade,
        uint96[4] calldata power,
        uint64 memoryBytes,
        bytes32 proofDigest
    ) external {
        if (!IMasterRegistry(MASTER_REGISTRY).isActive(msg.sender)) revert OnlyMaster(msg.sender);
        if (node == msg.sender) revert SelfAttestation();
        _attest(node, grade, power, memoryBytes, proofDigest);
    }

    function recordFinished(address node) external onlyTaskMarket {
        Comment storage c = _comments[node];
        uint256 bonus = _bonus(c) + FINISH_BONUS;
        c.bonus = uint16(Math.min(bonus, COMMENT_MAX - BPS));
        c.bonusAt = uint64(block.timestamp);
        emit CommentChanged(node, commentOf(node), "finished");
    }

    function recordAborted(address node) external onlyTaskMarket {
        Comment storage c = _comments[node];
        uint256 cut = (c.abortUntil > block.timestamp ? c.abortCut : 0) + ABORT_CUT;
        c.abortCut = uint16(Math.min(cut, BPS - COMMENT_MIN));
        c.abortUntil = uint64(block.timestamp + ABORT_DAYS * 1 days);
        emit CommentChanged(node, commentOf(node), "aborted");
    }

    function recordLate(address node) external onlyTaskMarket {
        Comment storage c = _comments[node];
        uint256 cut = (c.lateUntil > block.timestamp ? c.lateCut : 0) + LATE_CUT;
        c.lateCut = uint16(Math.min(cut, BPS - COMMENT_MIN));
        c.lateUntil = uint64(block.timestamp + LATE_DAYS * 1 days);
        emit CommentChanged(node, commentOf(node), "late");
    }

    /// The comment adjustment now, in basis points.
    function commentOf(address node) public view returns (uint16) {
        Comment storage c = _comments[node];
        uint256 value = BPS + _bonus(c);
        uint256 cut = 0;
        if (c.abortUntil > block.timestamp) cut += c.abortCut;
        if (c.lateUntil > block.timestamp) cut += c.lateCut;
        value = value > cut + COMMENT_MIN ? value - cut : COMMENT_MIN;
        return uint16(Math.min(value, COMMENT_MAX));
    }

    function isRegistered(address node) external view returns (bool) {
        return _owners.contains(node);
    }

    function gradeOf(address node) external view returns (uint8) {
        return _nodes[node].grade;
    }

    /// The fastest of the proven rates, in multiply-adds per second.
    function peakPowerOf(address node) external view returns (uint256 peak) {
        for (uint256 i = 0; i < 4; i++) peak = Math.max(peak, _nodes[node].power[i]);
    }

    function nodeOf(address node) external view returns (Node memory) {
        return _nodes[node];
    }

    function nodeCount() external view returns (uint256) {
        return _owners.length();
    }

    /// At most `limit` nodes from `offset`, in list order.
    function nodes(uint256 offset, uint256 limit) external view returns (Node[] memory list) {
        uint256 count = _owners.length();
        uint256 size = offset >= count ? 0 : Math.min(limit, count - offset);
        list = new Node[](size);
        for (uint256 i = 0; i < size; i++) list[i] = _nodes[_owners.at(offset + i)];
    }

    function _register(address owner, bytes32 transportKey) private {
        address holder = transportKeyOwner[transportKey];
        if (transportKey == 0 || (holder != address(0) && holder != owner)) revert TransportKeyTaken(holder);
        Node storage node = _nodes[owner];
        if (!_owners.add(owner)) delete transportKeyOwner[node.transportKey];
        node.owner = owner;
        node.transportKey = transportKey;
        transportKeyOwner[transportKey] = owner;
        emit NodeRegistered(owner, transportKey);
    }

    function _attest(address owner, uint8 grade, uint96[4] calldata power, uint64 memoryBytes, bytes32 proofDigest)
        private
    {
        if (!_owners.contains(owner)) revert NotRegistered(owner);
        if (proofDigest == 0) revert EmptyProof();
        if (proofOwner[proofDigest] != address(0)) revert ProofReplayed(proofOwner[proofDigest]);
        proofOwner[proofDigest] = owner;
        Node storage node = _nodes[owner];
        node.grade = grade;
        node.power = power;
        node.memoryBytes = memoryBytes;
        node.proofDigest = proofDigest;
        node.attestedBy = msg.sender;
        node.attestedAt = uint64(block.timestamp);
        emit PowerAttested(owner, msg.sender, grade, power, memoryBytes, proofDigest);
    }

    function _bonus(Comment storage c) private view returns (uint256) {
        uint256 decay = (block.timestamp - c.bonusAt) * BONUS_DECAY_PER_DAY / 1 days;
        return c.bonus > decay ? c.bonus - decay : 0;
    }
}
