// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {Settlement} from "./Settlement.sol";
import {
    BPS, COMPUTE_REGISTRY, IComputeRegistry, IMasterRegistry, IPriceFeed, MASTER_REGISTRY, PRICE_FEED
} from "./SystemContract.sol";
import {TaskBook} from "./TaskBook.sol";
import {
    RefundReason, Task, TaskStatus, Terms, Worker, WorkerStatus, WorkReceipt
} from "./TaskTypes.sol";

/// Owns a task's life: open -> (assign, accept) -> start -> receipts -> one of the final states.
/// Rules of white paper 3.1 to 3.5 and 5.3. Only the task's master may say what was verified, who
/// aborted and who is late; the client may stop at any time; time alone ends what everybody left.
contract TaskMarket is TaskBook {
    // White paper 3.2: the platform's part is below 5 %.
    uint256 private constant FEE_BPS_MAX = 499;
    // Settlement pays each listed worker in one transaction: 96 pushes cost about 8 M gas.
    uint256 public constant MAX_WORKERS = 64;
    uint256 public constant MAX_LISTED_WORKERS = 96;
    uint256 private constant RANGE_BPS_MAX = 100_000;
    // Block time runs behind real time by a few blocks: a node's first receipt must not fail for it.
    uint256 private constant PLAUSIBILITY_SLACK_SECONDS = 60;

    function initialize(Parameters calldata parameters_) external initializer onlySystem {
        if (parameters_.feeBps > FEE_BPS_MAX || parameters_.platform == address(0)) revert BadTerms("parameters");
        parameters = parameters_;
        _requireBalance(0);
    }

    /// What `open` and `accept` would ask for now: the client's and one miner's collateral, in wei.
    function quote(Terms memory terms) public view returns (uint256 collateral, uint256 minerCollateral) {
        uint256 microUsd = uint256(terms.computeMicroUsd) + terms.storageMicroUsd;
        uint256 microUsdPerTsr = IPriceFeed(PRICE_FEED).price();
        collateral = Settlement.collateralOf(microUsd, terms.rangeBps, microUsdPerTsr);
        minerCollateral =
            Settlement.collateralOf(microUsd, parameters.minerCollateralBps, microUsdPerTsr);
        minerCollateral = Math.ceilDiv(minerCollateral, terms.maxWorkers);
    }

    /// Offer a task and lock its collateral; more than the quote is taken and what is unspent returns.
    function open(Terms calldata terms) external payable nonReentrant returns (uint256 taskId) {
        _checkTerms(terms);
        (uint256 required, uint256 minerCollateral) = quote(terms);
        if (msg.value < required) revert CollateralTooSmall(required, msg.value);
        if (minerCollateral > type(uint96).max) revert AmountTooLarge(minerCollateral);
        taskId = ++taskCount;
        Task storage task = _tasks[taskId];
        task.terms = terms;
        task.client = msg.sender;
        task.master = terms.master;
        task.status = TaskStatus.Open;
        task.acceptBy = uint64(block.timestamp) + terms.acceptSeconds;
        task.collateral = _take(msg.value);
        task.minerCollateral = uint96(minerCollateral);
        emit TaskOpened(
            taskId, msg.sender, terms.master, msg.value, minerCollateral, IPriceFeed(PRICE_FEED).price(), terms
        );
    }

    /// The master's matching: these nodes may accept. Also names a standby after an abort.
    function assign(uint256 taskId, address[] calldata workers) external {
        Task storage task = _byMaster(taskId);
        _requireTaking(taskId, task);
        for (uint256 i = 0; i < workers.length; i++) {
            Worker storage worker = _workers[taskId][workers[i]];
            if (worker.status != WorkerStatus.None && worker.status != WorkerStatus.Assigned) {
                revert WrongWorkerStatus(workers[i], worker.status);
            }
            _checkEligible(task, workers[i]);
            worker.status = WorkerStatus.Assigned;
            emit Assigned(taskId, workers[i]);
        }
    }

    /// An assigned node takes its part and pledges for it. The first acceptance fixes the deadline.
    function accept(uint256 taskId) external payable nonReentrant {
        Task storage task = _tasks[taskId];
        _requireTaking(taskId, task);
        Worker storage worker = _workers[taskId][msg.sender];
        if (worker.status != WorkerStatus.Assigned) revert WrongWorkerStatus(msg.sender, worker.status);
        _checkEligible(task, msg.sender);
        if (_workerList[taskId].length == MAX_LISTED_WORKERS) revert TaskFull(taskId);
        if (msg.value != task.minerCollateral) _takeFree(taskId, task, worker);
        worker.collateral = _take(msg.value);
        worker.status = WorkerStatus.Accepted;
        worker.acceptedAt = uint64(block.timestamp);
        _workerList[taskId].push(msg.sender);
        task.activeWorkers++;
        if (task.deadline == 0) task.deadline = uint64(block.timestamp) + task.terms.deadlineSeconds;
        emit Accepted(taskId, msg.sender, msg.value, task.deadline, task.status == TaskStatus.Running);
    }

    /// The gang is complete: the work begins.
    function start(uint256 taskId) external {
        Task storage task = _byMaster(taskId);
        _requireStatus(taskId, task, TaskStatus.Open);
        if (block.timestamp > task.acceptBy) revert TooLate(task.acceptBy, block.timestamp);
        if (task.activeWorkers < task.terms.minWorkers) {
            revert TooFewWorkers(task.terms.minWorkers, task.activeWorkers);
        }
        task.status = TaskStatus.Running;
        task.startedAt = uint64(block.timestamp);
        task.startedWorkers = task.activeWorkers;
        emit Started(taskId, task.activeWorkers, task.deadline);
    }

    /// Verified work, cumulative a worker, one entry a worker and call. A replay or an older receipt
    /// has a sequence number that is not higher, and is refused.
    function postReceipts(uint256 taskId, WorkReceipt[] calldata receipts) external {
        Task storage task = _byMaster(taskId);
        uint256 end = block.timestamp;
        if (task.status == TaskStatus.Stopping) {
            end = task.stoppedAt;
            uint256 until = end + parameters.cancelGraceSeconds;
            if (block.timestamp > until) revert TooLate(until, block.timestamp);
        } else {
            _requireStatus(taskId, task, TaskStatus.Running);
        }
        for (uint256 i = 0; i < receipts.length; i++) _post(taskId, task, receipts[i], end);
    }

    /// The task is done. After the deadline only if every worker had finished before it.
    function settle(uint256 taskId, bytes32 resultRoot) external nonReentrant {
        Task storage task = _byMaster(taskId);
        _requireStatus(taskId, task, TaskStatus.Running);
        if (task.activeWorkers == 0) revert TooFewWorkers(1, 0);
        if (block.timestamp > task.deadline && _unfinished(taskId) != 0) {
            revert TooLate(task.deadline, block.timestamp);
        }
        task.resultRoot = resultRoot;
        _closePaid(taskId, TaskStatus.Settled, RefundReason.Unspent);
    }

    /// Stop means stop: nothing computed from now on is paid. What was computed before may still be
    /// posted within the grace time, after which anybody may call `finishStop`.
    function cancel(uint256 taskId) external nonReentrant {
        Task storage task = _tasks[taskId];
        if (msg.sender != task.client) revert OnlyClientOf(taskId, task.client);
        if (task.status == TaskStatus.Open) {
            _closeUnpaid(taskId, TaskStatus.Cancelled, RefundReason.CancelledBeforeStart);
            return;
        }
        _requireStatus(taskId, task, TaskStatus.Running);
        task.status = TaskStatus.Stopping;
        task.stoppedAt = uint64(block.timestamp);
        emit StopRequested(taskId, task.stoppedAt + parameters.cancelGraceSeconds);
    }

    function finishStop(uint256 taskId) external nonReentrant {
        Task storage task = _tasks[taskId];
        _requireStatus(taskId, task, TaskStatus.Stopping);
        uint256 notBefore = task.stoppedAt + parameters.cancelGraceSeconds + 1;
        if (msg.sender != task.master && block.timestamp < notBefore) {
            revert TooEarly(notBefore, block.timestamp);
        }
        _closePaid(taskId, TaskStatus.Cancelled, RefundReason.StoppedByClient);
    }

    /// A worker is gone: said by the master, or by the worker itself. Before the start it only leaves.
    /// After it, its pledge is lost and its work neither paid nor charged; unless a standby may take
    /// over, the task ends and the client is refunded in full.
    function abort(uint256 taskId, address who) external nonReentrant {
        Task storage task = _tasks[taskId];
        if (msg.sender != task.master && msg.sender != who) revert OnlyParty(taskId, msg.sender);
        Worker storage worker = _workers[taskId][who];
        if (task.status == TaskStatus.Open) {
            _release(taskId, task, worker, who);
            return;
        }
        _requireStatus(taskId, task, TaskStatus.Running);
        if (worker.status != WorkerStatus.Accepted) revert WrongWorkerStatus(who, worker.status);
        uint256 forfeited = _forfeit(taskId, who);
        worker.status = WorkerStatus.Aborted;
        emit Aborted(taskId, who, msg.sender, forfeited, worker.multiplyAdds, !task.terms.allowStandby);
        IComputeRegistry(COMPUTE_REGISTRY).recordAborted(who);
        if (!task.terms.allowStandby) _closeUnpaid(taskId, TaskStatus.Aborted, RefundReason.MinerAborted);
    }

    /// No worker is left and no standby was found: the client is refunded in full.
    function fail(uint256 taskId) external nonReentrant {
        Task storage task = _byMaster(taskId);
        _requireStatus(taskId, task, TaskStatus.Running);
        if (task.activeWorkers != 0) revert StillWorking(taskId, task.activeWorkers);
        _closeUnpaid(taskId, TaskStatus.Aborted, RefundReason.MinerAborted);
    }

    /// The deadline has passed: workers that had not finished lose their pledge to those that had,
    /// the task ends, the client is refunded in full.
    function late(uint256 taskId) external nonReentrant {
        Task storage task = _byMaster(taskId);
        _requireStatus(taskId, task, TaskStatus.Running);
        if (block.timestamp <= task.deadline) revert TooEarly(task.deadline + 1, block.timestamp);
        if (_unfinished(taskId) == 0) revert NobodyLate(taskId);
        address[] memory workers = _activeWorkers(taskId);
        for (uint256 i = 0; i < workers.length; i++) {
            Worker storage worker = _workers[taskId][workers[i]];
            if (worker.status == WorkerStatus.Finished) continue;
            uint256 forfeited = _forfeit(taskId, workers[i]);
            worker.status = WorkerStatus.Late;
            emit Late(taskId, workers[i], forfeited, worker.multiplyAdds);
            IComputeRegistry(COMPUTE_REGISTRY).recordLate(workers[i]);
        }
        _closeUnpaid(taskId, TaskStatus.Late, RefundReason.MinerLate);
    }

    /// Anybody may end what was left lying: a task that never started, or one whose master fell silent
    /// past the deadline and the grace time. Verified work is paid, nobody is at fault.
    function expire(uint256 taskId) external nonReentrant {
        Task storage task = _tasks[taskId];
        if (task.status == TaskStatus.Open) {
            if (block.timestamp <= task.acceptBy) revert TooEarly(task.acceptBy + 1, block.timestamp);
            _closeUnpaid(taskId, TaskStatus.Expired, RefundReason.NeverStarted);
            return;
        }
        _requireStatus(taskId, task, TaskStatus.Running);
        uint256 notBefore = task.deadline + parameters.expireGraceSeconds + 1;
        if (block.timestamp < notBefore) revert TooEarly(notBefore, block.timestamp);
        _closePaid(taskId, TaskStatus.Expired, RefundReason.MasterSilent);
    }

    /// Another live master continues a task whose master is gone; neither miner nor user is at fault.
    function takeOver(uint256 taskId) external {
        Task storage task = _tasks[taskId];
        if (uint8(task.status) < uint8(TaskStatus.Open) || uint8(task.status) > uint8(TaskStatus.Stopping)) {
            revert WrongStatus(taskId, task.status);
        }
        if (IMasterRegistry(MASTER_REGISTRY).isActive(task.master)) revert MasterStillActive(task.master);
        if (!IMasterRegistry(MASTER_REGISTRY).isActive(msg.sender)) revert MasterNotActive(msg.sender);
        if (_isActive(_workers[taskId][msg.sender].status)) revert WorkerNotEligible(msg.sender, "master");
        emit MasterReplaced(taskId, task.master, msg.sender);
        task.master = msg.sender;
    }

    /// A worker states that it has deleted the task's data; `digest` is of its signed receipt.
    function recordDeletion(uint256 taskId, bytes32 digest) external {
        Task storage task = _tasks[taskId];
        if (uint8(task.status) <= uint8(TaskStatus.Stopping)) revert WrongStatus(taskId, task.status);
        Worker storage worker = _workers[taskId][msg.sender];
        if (worker.acceptedAt == 0) revert WrongWorkerStatus(msg.sender, worker.status);
        if (worker.hasDeleted) revert AlreadyDeleted(msg.sender);
        worker.hasDeleted = true;
        emit DeletionReceipt(taskId, msg.sender, digest);
    }

    function _checkTerms(Terms calldata terms) private view {
        if (terms.maxWorkers == 0 || terms.maxWorkers > MAX_WORKERS) revert BadTerms("maxWorkers");
        if (terms.minWorkers == 0 || terms.minWorkers > terms.maxWorkers) revert BadTerms("minWorkers");
        if (terms.rangeBps < BPS || terms.rangeBps > RANGE_BPS_MAX) revert BadTerms("rangeBps");
        if (terms.quotedMultiplyAdds == 0) revert BadTerms("quotedMultiplyAdds");
        if (terms.computeMicroUsd == 0) revert BadTerms("computeMicroUsd");
        if (terms.deadlineSeconds == 0 || terms.acceptSeconds == 0) revert BadTerms("deadlineSeconds");
        if (terms.expectedSeconds > terms.deadlineSeconds) revert BadTerms("expectedSeconds");
        if (terms.manifestRoot == 0 || terms.graphHash == 0) revert BadTerms("manifestRoot");
        // A client that says what was verified would get its work for nothing.
        if (terms.master == msg.sender) revert BadTerms("master");
        if (!IMasterRegistry(MASTER_REGISTRY).isActive(terms.master)) revert MasterNotActive(terms.master);
    }

    /// Open within its time; or running with a hole that a standby may fill.
    function _requireTaking(uint256 taskId, Task storage task) private view {
        if (task.status == TaskStatus.Open) {
            if (block.timestamp > task.acceptBy) revert TooLate(task.acceptBy, block.timestamp);
            if (task.activeWorkers >= task.terms.maxWorkers) revert TaskFull(taskId);
            return;
        }
        if (task.status != TaskStatus.Running || !task.terms.allowStandby) revert WrongStatus(taskId, task.status);
        if (task.activeWorkers >= task.startedWorkers) revert TaskFull(taskId);
        if (block.timestamp > task.deadline) revert TooLate(task.deadline, block.timestamp);
    }

    function _checkEligible(Task storage task, address who) private view {
        IComputeRegistry registry = IComputeRegistry(COMPUTE_REGISTRY);
        if (who == task.master) revert WorkerNotEligible(who, "master");
        if (!registry.isRegistered(who)) revert WorkerNotEligible(who, "unregistered");
        if (registry.peakPowerOf(who) == 0) revert WorkerNotEligible(who, "unproven");
        if (registry.gradeOf(who) < task.terms.minGrade) revert WorkerNotEligible(who, "grade");
    }

    /// Without collateral: one task at a time, and only a small part of one (white paper 5.3).
    function _takeFree(uint256 taskId, Task storage task, Worker storage worker) private {
        if (msg.value != 0) revert WrongMinerCollateral(task.minerCollateral, msg.value);
        uint256 microUsd = uint256(task.terms.computeMicroUsd) + task.terms.storageMicroUsd;
        if (Math.ceilDiv(microUsd, task.terms.maxWorkers) > parameters.freeShareMicroUsd) {
            revert WrongMinerCollateral(task.minerCollateral, msg.value);
        }
        if (freeTaskOf[msg.sender] != 0) revert WorkerNotEligible(msg.sender, "free task running");
        freeTaskOf[msg.sender] = taskId;
        worker.isFree = true;
    }

    function _post(uint256 taskId, Task storage task, WorkReceipt calldata receipt, uint256 end) private {
        Worker storage worker = _workers[taskId][receipt.worker];
        if (worker.status != WorkerStatus.Accepted) revert WrongWorkerStatus(receipt.worker, worker.status);
        if (receipt.sequence <= worker.sequence) {
            revert StaleReceipt(receipt.worker, worker.sequence, receipt.sequence);
        }
        if (receipt.multiplyAdds < worker.multiplyAdds || receipt.activeMs < worker.activeMs) {
            revert ReceiptShrank(receipt.worker);
        }
        if (parameters.plausibilityFactor != 0) {
            uint256 elapsed = (end > worker.acceptedAt ? end - worker.acceptedAt : 0) + PLAUSIBILITY_SLACK_SECONDS;
            uint256 limit = IComputeRegistry(COMPUTE_REGISTRY).peakPowerOf(receipt.worker) * elapsed
                * parameters.plausibilityFactor;
            if (receipt.multiplyAdds > limit) {
                revert ImplausibleWork(receipt.worker, limit, receipt.multiplyAdds);
            }
        }
        worker.sequence = receipt.sequence;
        worker.multiplyAdds = receipt.multiplyAdds;
        worker.activeMs = receipt.activeMs;
        if (receipt.isFinished) {
            if (end > task.deadline) revert TooLate(task.deadline, end);
            worker.status = WorkerStatus.Finished;
            worker.finishedAt = uint64(end);
        }
        emit Receipt(
            taskId, receipt.worker, receipt.sequence, receipt.multiplyAdds, receipt.activeMs,
            receipt.isFinished, receipt.digest
        );
    }

    function _release(uint256 taskId, Task storage task, Worker storage worker, address who) private {
        if (worker.status == WorkerStatus.Assigned) {
            worker.status = WorkerStatus.Released;
            emit Released(taskId, who, 0);
            return;
        }
        if (worker.status != WorkerStatus.Accepted) revert WrongWorkerStatus(who, worker.status);
        uint256 collateral = worker.collateral;
        worker.collateral = 0;
        worker.status = WorkerStatus.Released;
        task.activeWorkers--;
        _freeSlot(worker, who);
        emit Released(taskId, who, collateral);
        _pay(taskId, who, collateral);
    }

    function _unfinished(uint256 taskId) private view returns (uint256 count) {
        address[] memory workers = _activeWorkers(taskId);
        for (uint256 i = 0; i < workers.length; i++) {
            if (_workers[taskId][workers[i]].status == WorkerStatus.Accepted) count++;
        }
    }

    function _byMaster(uint256 taskId) private view returns (Task storage task) {
        task = _tasks[taskId];
        if (msg.sender != task.master) revert OnlyMasterOf(taskId, task.master);
    }

    function _requireStatus(uint256 taskId, Task storage task, TaskStatus wanted) private view {
        if (task.status != wanted) revert WrongStatus(taskId, task.status);
    }
}
