/** Owns: shorthand for the market tests: a default task, driven to the state a test starts from. */
import { keccak256, toHex, zeroHash } from "viem";
import type { Address } from "../../../src/chain/contracts/system.js";
import { people, TestChain } from "./harness.js";

export const digest = keccak256(toHex("a signed receipt"));
export const resultRoot = keccak256(toHex("a result"));
export const GIGA = 10n ** 9n;
export const noRoot = zeroHash;

export const status = {
  none: 0, open: 1, running: 2, stopping: 3, settled: 4, cancelled: 5, aborted: 6, late: 7, expired: 8,
} as const;
export const workerStatus = {
  none: 0, assigned: 1, accepted: 2, finished: 3, released: 4, aborted: 5, late: 6, paid: 7,
} as const;
export const refundReason = {
  unspent: 0, cancelledBeforeStart: 1, neverStarted: 2, stoppedByClient: 3, minerAborted: 4, minerLate: 5,
  masterSilent: 6,
} as const;

export const terms = {
  manifestRoot: keccak256(toHex("manifest")),
  graphHash: keccak256(toHex("graph")),
  computeMicroUsd: 10_000_000n,
  storageMicroUsd: 1_000_000n,
  quotedMultiplyAdds: 1_000n * GIGA,
  rangeBps: 15_000,
  expectedSeconds: 300,
  deadlineSeconds: 600,
  acceptSeconds: 120,
  minWorkers: 2,
  maxWorkers: 3,
  minGrade: 1,
  allowStandby: false,
  master: people.master,
};
export type Terms = typeof terms;

export interface Posted {
  worker: Address;
  multiplyAdds: bigint;
  activeMs?: bigint;
  isFinished?: boolean;
  sequence?: bigint;
}

export class TaskDriver {
  private sequence = 0n;

  constructor(readonly chain: TestChain, readonly id: bigint, readonly minerCollateral: bigint) {}

  static async open(chain: TestChain, change: Partial<Terms> = {}, client = people.client): Promise<TaskDriver> {
    const offered = { ...terms, ...change };
    const [collateral, minerCollateral] = await chain.view("market", "quote", [offered]);
    await chain.must(client, "market", "open", [offered], collateral);
    return new TaskDriver(chain, await chain.view("market", "taskCount", []), minerCollateral);
  }

  static async running(
    chain: TestChain, workers: readonly Address[], change: Partial<Terms> = {},
  ): Promise<TaskDriver> {
    const task = await TaskDriver.open(chain, change);
    await task.join(...workers);
    await chain.must(people.master, "market", "start", [task.id]);
    return task;
  }

  async join(...workers: Address[]): Promise<void> {
    await this.chain.must(people.master, "market", "assign", [this.id, workers]);
    for (const each of workers) {
      await this.chain.must(each, "market", "accept", [this.id], this.minerCollateral);
    }
  }

  receipts(items: readonly Posted[]) {
    this.sequence += 1n;
    return items.map((each) => ({
      worker: each.worker, sequence: each.sequence ?? this.sequence, multiplyAdds: each.multiplyAdds,
      activeMs: each.activeMs ?? 1_000n, isFinished: each.isFinished ?? false, digest,
    }));
  }

  async post(...items: Posted[]): Promise<void> {
    await this.chain.must(people.master, "market", "postReceipts", [this.id, this.receipts(items)]);
  }

  tryPost(from: Address, ...items: Posted[]) {
    return this.chain.send(from, "market", "postReceipts", [this.id, this.receipts(items)]);
  }

  settle(from: Address = people.master) {
    return this.chain.send(from, "market", "settle", [this.id, resultRoot]);
  }

  async status(): Promise<number> {
    return (await this.chain.view("market", "taskOf", [this.id])).status;
  }
}
