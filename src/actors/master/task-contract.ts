// Owns one task's side of the task market at its master: what the chain has of it, and the transactions that move it.
// Invariant: nothing here decides; a transaction that returns has its receipt.
import type { Address, Hex } from "viem";
import { priceFeedAbi, taskMarketAbi } from "../../chain/contracts/abi.js";
import { systemAddresses } from "../../chain/contracts/system.js";
import type { FinalPhase } from "../../scheduler/index.js";
import type { Transactor } from "../chain-node/transactor.js";

/** TaskStatus of TaskTypes.sol; those above Stopping are final. */
export const RUNNING = 2;
export const STOPPING = 3;
export const FINAL_PHASES: Record<number, FinalPhase> = { 4: "settled", 5: "cancelled", 6: "aborted", 7: "late", 8: "expired" };
/** WorkerStatus of TaskTypes.sol. */
export const WORKER_ACCEPTED = 2;
export const WORKER_RELEASED = 4;
export const WORKER_ABORTED = 5;

export interface Terms {
  computeMicroUsd: bigint; storageMicroUsd: bigint; quotedMultiplyAdds: bigint;
  minerCollateral: bigint; minGrade: number; minWorkers: number; maxWorkers: number; microUsdPerTsr: bigint;
}

export class TaskContract {
  constructor(private readonly taskId: bigint, private readonly transactor: Transactor) {}

  task() {
    return this.transactor.client.readContract({
      address: systemAddresses.taskMarket, abi: taskMarketAbi, functionName: "taskOf", args: [this.taskId],
    });
  }

  part(worker: string) {
    return this.transactor.client.readContract({
      address: systemAddresses.taskMarket, abi: taskMarketAbi, functionName: "workerOf", args: [this.taskId, worker as Address],
    });
  }

  async terms(): Promise<{ terms: Terms; acceptBy: number; allowStandby: boolean }> {
    const task = await this.task();
    const microUsdPerTsr = await this.transactor.client.readContract({
      address: systemAddresses.priceFeed, abi: priceFeedAbi, functionName: "price",
    });
    const { computeMicroUsd, storageMicroUsd, quotedMultiplyAdds, minGrade, minWorkers, maxWorkers, allowStandby } = task.terms;
    const terms: Terms = {
      computeMicroUsd, storageMicroUsd, quotedMultiplyAdds, minGrade, minWorkers, maxWorkers, microUsdPerTsr,
      minerCollateral: task.minerCollateral,
    };
    return { terms, acceptBy: Number(task.acceptBy), allowStandby };
  }

  /** The transaction that settled the task; "0x" where there is none. */
  async closingTransaction(): Promise<Hex> {
    const logs = await this.transactor.client.getContractEvents({
      address: systemAddresses.taskMarket, abi: taskMarketAbi, eventName: "Settled", args: { taskId: this.taskId }, fromBlock: 0n,
    });
    return logs.at(-1)?.transactionHash ?? "0x";
  }

  /** Sends a command of the market whose first argument is the task. */
  async send(functionName: string, ...args: readonly unknown[]): Promise<Hex> {
    const receipt = await this.transactor.send({
      address: systemAddresses.taskMarket, abi: taskMarketAbi, functionName, args: [this.taskId, ...args],
    });
    return receipt.transactionHash;
  }
}
