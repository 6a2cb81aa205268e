// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Escrow} from "./Escrow.sol";
import {Settlement} from "./Settlement.sol";
import {ISettlementCalculator} from "./SettlementCalculator.sol";
import {
    COMPUTE_REGISTRY, DISTRIBUTION, IComputeRegistry, IPriceFeed, PRICE_FEED, SETTLEMENT_CALCULATOR
} from "./SystemContract.sol";
import {TaskEvents} from "./TaskEvents.sol";
import {
    RefundReason, Task, TaskAccount, TaskStatus, Worker, WorkerAccount, WorkerStatus
} from "./TaskTypes.sol";

/// Owns the tasks' records and how a task ends. Invariant: `_close` runs once a task, and pays out
/// exactly what the task took in: collateral + miners' collaterals + forfeits.
abstract contract TaskBook is Escrow, TaskEvents {
    struct Parameters {
        address platform;
        uint16 feeBps;
        uint16 minerCollateralBps; // of the estimate, shared by maxWorkers
        uint64 cancelGraceSeconds;
        uint64 expireGraceSeconds;
        uint64 freeShareMicroUsd; // work that a node may take without collateral, one task at a time
        uint96 feeWeiPerMultiplyAdd; // paid work is "useful" as far as this much fee was paid for it
        uint32 plausibilityFactor; // a node cannot have done more than this x its proven power x time
    }

    /// One ending: who is paid for work, what each gets, in the order of the task's worker list.
    struct Payout {
        address[] workers;
        uint256[] payments;
        uint256[] forfeits;
        uint256[] collaterals;
        uint256 refund;
        uint256 toEcology;
    }

    // Distribution.receive writes a cold slot and an event: about 28,000 gas.
    uint256 private constant ECOLOGY_GAS = 60_000;

    Parameters public parameters;
    uint256 public taskCount;
    /// Verified work that was paid for, over all tasks: the useful share of the block reward reads it.
    uint256 public provenMultiplyAdds;
    mapping(uint256 taskId => Task) internal _tasks;
    mapping(uint256 taskId => address[]) internal _workerList;
    mapping(uint256 taskId => mapping(address worker => Worker)) internal _workers;
    mapping(address worker => uint256 taskId) public freeTaskOf;

    function taskOf(uint256 taskId) external view returns (Task memory) {
        return _tasks[taskId];
    }

    function workersOf(uint256 taskId) external view returns (address[] memory) {
        return _workerList[taskId];
    }

    function workerOf(uint256 taskId, address worker) external view returns (Worker memory) {
        return _workers[taskId][worker];
    }

    /// What the task would cost if it ended now; lets a client watch and stop (white paper 3.1).
    function previewSettlement(uint256 taskId)
        external
        view
        returns (address[] memory workers, Settlement.Outcome memory outcome)
    {
        (workers, outcome,) = _evaluate(taskId);
    }

    /// The task ends with verified work paid: settled, stopped by the client, or its master vanished.
    function _closePaid(uint256 taskId, TaskStatus status, RefundReason reason) internal {
        (address[] memory workers, Settlement.Outcome memory outcome, Settlement.Share[] memory shares) =
            _evaluate(taskId);
        Payout memory payout = _payout(taskId, workers, outcome.payments);
        payout.refund = outcome.refund;
        TaskAccount memory account = _account(taskId, status, payout.toEcology);
        account.price = outcome.price;
        account.paid = outcome.paid;
        account.fee = outcome.fee;
        account.provenMultiplyAdds = _proven(shares, outcome.fee);
        provenMultiplyAdds += account.provenMultiplyAdds;
        for (uint256 i = 0; i < workers.length; i++) {
            WorkerAccount memory part = _part(payout, i);
            part.outcome = WorkerStatus.Paid;
            part.multiplyAdds = shares[i].multiplyAdds;
            part.speedBps = outcome.speedBps[i];
            part.commentBps = shares[i].commentBps;
            _closeWorker(taskId, workers[i], part);
            if (status == TaskStatus.Settled) _evaluateWorker(taskId, workers[i]);
        }
        _close(taskId, account, reason, payout);
    }

    /// The task ends by fault: the client pays nothing, the others share the forfeits.
    function _closeUnpaid(uint256 taskId, TaskStatus status, RefundReason reason) internal {
        address[] memory workers = _activeWorkers(taskId);
        Payout memory payout = _payout(taskId, workers, new uint256[](workers.length));
        payout.refund = _tasks[taskId].collateral;
        for (uint256 i = 0; i < workers.length; i++) {
            WorkerAccount memory part = _part(payout, i);
            part.outcome = WorkerStatus.Released;
            part.multiplyAdds = _workers[taskId][workers[i]].multiplyAdds;
            _closeWorker(taskId, workers[i], part);
        }
        _close(taskId, _account(taskId, status, payout.toEcology), reason, payout);
    }

    /// A worker's pledge joins the task's forfeits. The caller sets the worker's final status.
    function _forfeit(uint256 taskId, address who) internal returns (uint256 amount) {
        Worker storage worker = _workers[taskId][who];
        amount = worker.collateral;
        worker.collateral = 0;
        _tasks[taskId].forfeitPool += uint96(amount);
        _tasks[taskId].activeWorkers--;
        _freeSlot(worker, who);
    }

    function _freeSlot(Worker storage worker, address who) internal {
        if (worker.isFree) delete freeTaskOf[who];
    }

    function _isActive(WorkerStatus status) internal pure returns (bool) {
        return status == WorkerStatus.Accepted || status == WorkerStatus.Finished;
    }

    function _activeWorkers(uint256 taskId) internal view returns (address[] memory list) {
        address[] storage all = _workerList[taskId];
        list = new address[](_tasks[taskId].activeWorkers);
        uint256 used = 0;
        for (uint256 i = 0; i < all.length; i++) {
            if (_isActive(_workers[taskId][all[i]].status)) list[used++] = all[i];
        }
        assert(used == list.length);
    }

    function _evaluate(uint256 taskId)
        private
        view
        returns (address[] memory workers, Settlement.Outcome memory outcome, Settlement.Share[] memory shares)
    {
        Task storage task = _tasks[taskId];
        workers = _activeWorkers(taskId);
        shares = new Settlement.Share[](workers.length);
        for (uint256 i = 0; i < workers.length; i++) {
            Worker storage worker = _workers[taskId][workers[i]];
            shares[i] = Settlement.Share(
                worker.multiplyAdds,
                worker.activeMs,
                IComputeRegistry(COMPUTE_REGISTRY).commentOf(workers[i])
            );
        }
        uint256 end = task.stoppedAt == 0 ? block.timestamp : task.stoppedAt;
        Settlement.Offer memory offer = Settlement.Offer({
            computeMicroUsd: task.terms.computeMicroUsd,
            storageMicroUsd: task.terms.storageMicroUsd,
            quotedMultiplyAdds: task.terms.quotedMultiplyAdds,
            deadlineSeconds: task.terms.deadlineSeconds,
            elapsedSeconds: task.startedAt == 0 ? 0 : end - task.startedAt,
            microUsdPerTsr: IPriceFeed(PRICE_FEED).price(),
            collateral: task.collateral,
            feeBps: parameters.feeBps
        });
        outcome = ISettlementCalculator(SETTLEMENT_CALCULATOR).compute(offer, shares);
    }

    /// Forfeits in proportion to verified work, own collateral back.
    function _payout(uint256 taskId, address[] memory workers, uint256[] memory payments)
        private
        view
        returns (Payout memory payout)
    {
        payout.workers = workers;
        payout.payments = payments;
        payout.collaterals = new uint256[](workers.length);
        uint256[] memory work = new uint256[](workers.length);
        for (uint256 i = 0; i < workers.length; i++) {
            work[i] = _workers[taskId][workers[i]].multiplyAdds;
            payout.collaterals[i] = _workers[taskId][workers[i]].collateral;
        }
        (payout.forfeits, payout.toEcology) = Settlement.split(_tasks[taskId].forfeitPool, work);
    }

    function _proven(Settlement.Share[] memory shares, uint256 fee) private view returns (uint256 total) {
        for (uint256 i = 0; i < shares.length; i++) total += shares[i].multiplyAdds;
        uint256 rate = parameters.feeWeiPerMultiplyAdd;
        if (rate != 0 && fee / rate < total) total = fee / rate;
    }

    function _account(uint256 taskId, TaskStatus status, uint256 toEcology)
        private
        view
        returns (TaskAccount memory account)
    {
        account.status = status;
        account.microUsdPerTsr = IPriceFeed(PRICE_FEED).price();
        account.forfeited = _tasks[taskId].forfeitPool;
        account.toEcology = toEcology;
        account.resultRoot = _tasks[taskId].resultRoot;
    }

    function _part(Payout memory payout, uint256 index) private pure returns (WorkerAccount memory part) {
        part.payment = payout.payments[index];
        part.forfeitShare = payout.forfeits[index];
        part.collateralReturned = payout.collaterals[index];
    }

    function _closeWorker(uint256 taskId, address who, WorkerAccount memory part) private {
        Worker storage worker = _workers[taskId][who];
        worker.status = part.outcome;
        worker.collateral = 0;
        _freeSlot(worker, who);
        emit WorkerSettled(taskId, who, part);
    }

    /// Finished within the expected time: a good evaluation (white paper 3.3).
    function _evaluateWorker(uint256 taskId, address who) private {
        Worker storage worker = _workers[taskId][who];
        uint256 finishedAt = worker.finishedAt == 0 ? block.timestamp : worker.finishedAt;
        uint256 expectedAt = uint256(_tasks[taskId].startedAt) + _tasks[taskId].terms.expectedSeconds;
        if (worker.multiplyAdds == 0 || finishedAt > expectedAt) return;
        IComputeRegistry(COMPUTE_REGISTRY).recordFinished(who);
    }

    /// Books first, coins after: nothing a payee does on receipt can change what the others get.
    function _close(uint256 taskId, TaskAccount memory account, RefundReason reason, Payout memory payout)
        private
    {
        Task storage task = _tasks[taskId];
        task.status = account.status;
        if (task.stoppedAt == 0) task.stoppedAt = uint64(block.timestamp);
        task.activeWorkers = 0;
        task.forfeitPool = 0;
        task.collateral = 0;
        emit Settled(taskId, account);
        emit Refunded(taskId, task.client, payout.refund, reason);
        for (uint256 i = 0; i < payout.workers.length; i++) {
            _pay(taskId, payout.workers[i], payout.payments[i] + payout.forfeits[i] + payout.collaterals[i]);
        }
        _pay(taskId, parameters.platform, account.fee);
        _pay(taskId, DISTRIBUTION, payout.toEcology, ECOLOGY_GAS);
        _pay(taskId, task.client, payout.refund);
    }
}
