// Owns how a task finds its workers: candidates among the proven nodes, the offer to those chosen.
// Invariant: a worker is in only when the chain has its pledge; what it answers is only a hint to look there.
import type { Address } from "viem";
import { placeTask, type Candidate, type Placement } from "../../scheduler/index.js";
import type { KnownNode, NodeBook } from "./node-book.js";
import type { Terms } from "./task-contract.js";
import type { TaskPeers } from "./task-peers.js";

/** An offer takes a transaction and its block. */
const OFFER_TIMEOUT_MS = 45_000;
/** Least fp32 power that a task asks for: any proven node. */
const ASK_MICRO_USD = 0n;

export interface TaskMatchingModules {
  peers: TaskPeers;
  nodes: NodeBook;
  /** Accounts bound to any task of this master. */
  isBusy: (account: string, exceptTaskId: string) => boolean;
  spendableOf: (account: Address) => Promise<bigint>;
  log: { warn: (text: string) => void };
}

export class TaskMatching {
  constructor(
    private readonly task: { taskId: string; job: string; memoryBytes: number; terms: Terms }, private readonly modules: TaskMatchingModules,
  ) {}

  /** @param wanted at most so many; @param minimum fewer are no placement. */
  async place(wanted: number, minimum: number, except: readonly string[]): Promise<Placement> {
    const { peers } = this.modules;
    const { taskId, terms, memoryBytes } = this.task;
    const excluded = new Set(except.map((each) => each.toLowerCase()));
    const nodes = this.modules.nodes.ofRole("worker").filter((node) =>
      node.capability !== undefined && !excluded.has(node.account.toLowerCase()) && peers.worker(node.account) !== undefined);
    const candidates = await Promise.all(nodes.map((node) => this.candidate(node)));
    return placeTask({
      taskId, precision: "fp32", minWorkers: minimum, maxWorkers: wanted,
      standby: wanted, minGrade: terms.minGrade, memoryBytes: BigInt(memoryBytes), minerCollateral: terms.minerCollateral,
      shareMicroUsd: 0n, freeShareMicroUsd: -1n, bidMicroUsd: ASK_MICRO_USD, maxDistanceMs: Number.MAX_SAFE_INTEGER,
    }, candidates);
  }

  /** Whether the worker says that it has pledged. */
  async offer(worker: string): Promise<boolean> {
    const { taskId, job, terms } = this.task;
    const answer = await this.modules.peers.worker(worker)?.call("offer", {
      taskId, job, collateral: terms.minerCollateral.toString(),
    }, { timeoutMs: OFFER_TIMEOUT_MS });
    if (answer?.ok && answer.value.accepted) return true;
    this.modules.log.warn(`worker ${worker} declined: ${answer?.ok ? answer.value.reason : answer?.error.message ?? "not linked"}`);
    return false;
  }

  private async candidate(node: KnownNode): Promise<Candidate> {
    const account = node.account.toLowerCase();
    return {
      node: account, capability: node.capability!, commentBps: 10_000n, reliabilityBps: 10_000n,
      spendable: await this.modules.spendableOf(node.account), askMicroUsd: ASK_MICRO_USD,
      isBusy: this.modules.isBusy(account, this.task.taskId), hasFreeTask: true, distanceMs: 0,
    };
  }
}
