// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// Open: taking workers. Running: started. Stopping: the client said stop, last receipts may land.
/// The rest are final: the task's money has left.
enum TaskStatus {
    None,
    Open,
    Running,
    Stopping,
    Settled,
    Cancelled,
    Aborted,
    Late,
    Expired
}

enum WorkerStatus {
    None,
    Assigned,
    Accepted,
    Finished,
    Released,
    Aborted,
    Late,
    Paid
}

/// Why money went back to the client.
enum RefundReason {
    Unspent,
    CancelledBeforeStart,
    NeverStarted,
    StoppedByClient,
    MinerAborted,
    MinerLate,
    MasterSilent
}

/// What the client offers; fixed at open. Prices are micro-USD, converted by the feed at settlement.
struct Terms {
    bytes32 manifestRoot; // root of the encrypted data shards
    bytes32 graphHash; // hash of the canonical graph: what is to be computed
    uint64 computeMicroUsd; // price of `quotedMultiplyAdds`
    uint64 storageMicroUsd; // price of holding the shards for `deadlineSeconds`
    uint96 quotedMultiplyAdds; // the estimate; what is paid is metered against it
    uint32 rangeBps; // collateral = estimate x range, at least 10000
    uint32 expectedSeconds; // finishing within them, from the start, is a good evaluation
    uint32 deadlineSeconds; // deadline = first acceptance + these
    uint32 acceptSeconds; // how long the task looks for workers
    uint16 minWorkers;
    uint16 maxWorkers;
    uint8 minGrade;
    bool allowStandby; // a standby node may replace an aborted worker; else an abort ends the task
    address master;
}

struct Task {
    Terms terms;
    address client;
    address master;
    TaskStatus status;
    uint16 activeWorkers; // accepted and neither released, aborted nor late
    uint16 startedWorkers;
    uint64 acceptBy;
    uint64 deadline; // 0 before the first acceptance
    uint64 startedAt;
    uint64 stoppedAt;
    uint96 collateral;
    uint96 minerCollateral; // what each worker pledges
    uint96 forfeitPool;
    bytes32 resultRoot;
}

struct Worker {
    WorkerStatus status;
    bool isFree; // accepted without collateral (white paper 5.3)
    bool hasDeleted;
    uint64 sequence;
    uint64 acceptedAt;
    uint64 finishedAt;
    uint64 activeMs; // cumulative
    uint96 multiplyAdds; // cumulative and verified
    uint96 collateral;
}

/// Cumulative: a lost receipt costs nothing once a later one lands.
struct WorkReceipt {
    address worker;
    uint64 sequence;
    uint96 multiplyAdds;
    uint64 activeMs;
    bool isFinished;
    bytes32 digest; // of the worker's own signed receipt
}

/// What a worker's part in a task came to; all coins in wei.
struct WorkerAccount {
    WorkerStatus outcome;
    uint256 multiplyAdds;
    uint256 speedBps;
    uint256 commentBps;
    uint256 payment;
    uint256 forfeitShare;
    uint256 collateralReturned;
}

/// What a whole task came to; all coins in wei.
struct TaskAccount {
    TaskStatus status;
    uint256 microUsdPerTsr;
    uint256 price;
    uint256 paid;
    uint256 fee;
    uint256 forfeited;
    uint256 toEcology;
    uint256 provenMultiplyAdds;
    bytes32 resultRoot;
}
