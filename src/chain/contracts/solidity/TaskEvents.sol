// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {RefundReason, TaskAccount, TaskStatus, Terms, WorkerAccount, WorkerStatus} from "./TaskTypes.sol";

/// Every movement of a task's money is one of these events, so that who was paid what, and why, can
/// be printed from logs alone: in = TaskOpened + Accepted; out = Settled (fee, toEcology) +
/// Refunded + WorkerSettled + Released.
interface TaskEvents {
    event TaskOpened(
        uint256 indexed taskId,
        address indexed client,
        address indexed master,
        uint256 collateral,
        uint256 minerCollateral,
        uint256 microUsdPerTsr,
        Terms terms
    );
    event Assigned(uint256 indexed taskId, address indexed worker);
    event Accepted(
        uint256 indexed taskId, address indexed worker, uint256 collateral, uint64 deadline, bool isStandby
    );
    event Started(uint256 indexed taskId, uint16 workers, uint64 deadline);
    event Receipt(
        uint256 indexed taskId,
        address indexed worker,
        uint64 sequence,
        uint96 multiplyAdds,
        uint64 activeMs,
        bool isFinished,
        bytes32 digest
    );
    event StopRequested(uint256 indexed taskId, uint64 receiptsUntil);
    event MasterReplaced(uint256 indexed taskId, address indexed from, address indexed to);
    /// Left before the start: nobody loses anything.
    event Released(uint256 indexed taskId, address indexed worker, uint256 collateral);
    event Aborted(
        uint256 indexed taskId,
        address indexed worker,
        address reporter,
        uint256 forfeited,
        uint256 unpaidMultiplyAdds,
        bool isTerminated
    );
    event Late(uint256 indexed taskId, address indexed worker, uint256 forfeited, uint256 unpaidMultiplyAdds);
    event WorkerSettled(uint256 indexed taskId, address indexed worker, WorkerAccount account);
    event Settled(uint256 indexed taskId, TaskAccount account);
    event Refunded(uint256 indexed taskId, address indexed client, uint256 amount, RefundReason reason);
    event DeletionReceipt(uint256 indexed taskId, address indexed worker, bytes32 digest);

    error BadTerms(bytes32 field);
    error CollateralTooSmall(uint256 required, uint256 sent);
    error WrongStatus(uint256 taskId, TaskStatus status);
    error OnlyMasterOf(uint256 taskId, address master);
    error OnlyClientOf(uint256 taskId, address client);
    error OnlyParty(uint256 taskId, address caller);
    error MasterNotActive(address master);
    error MasterStillActive(address master);
    error WorkerNotEligible(address worker, bytes32 why);
    error WrongWorkerStatus(address worker, WorkerStatus status);
    error WrongMinerCollateral(uint256 required, uint256 sent);
    error TaskFull(uint256 taskId);
    error TooFewWorkers(uint256 minimum, uint256 accepted);
    error TooEarly(uint256 notBefore, uint256 time);
    error TooLate(uint256 notAfter, uint256 time);
    error StaleReceipt(address worker, uint64 lastSequence, uint64 sequence);
    error ReceiptShrank(address worker);
    error ImplausibleWork(address worker, uint256 limit, uint256 claimed);
    error NobodyLate(uint256 taskId);
    error StillWorking(uint256 taskId, uint256 workers);
    error AlreadyDeleted(address worker);
}
