// Owns the reading of a task's money from the chain: every movement, who got it, and why.
// Invariant: built from events alone; what came in equals what went out for a task in a final state.
import {
  bytesToHex, decodeEventLog, decodeFunctionResult, encodeEventTopics, encodeFunctionData, formatEther, type Address, type DecodeEventLogReturnType, type Hex,
  type PublicClient,
} from "viem";
import type { Chain } from "../chain/index.js";
import { computeRegistryAbi, taskMarketAbi } from "../chain/contracts/abi.js";
import { systemAddresses } from "../chain/contracts/system.js";
import type { Transactor } from "./chain-node/transactor.js";

/** A task's money stays within this many blocks of its opening in every preset. */
const LOG_RANGE_BLOCKS_MAX = 100_000n;
/** Blocks that a node answers for at a time. */
const LOG_REQUEST_BLOCKS = 10_000n;

export interface LedgerRow {
  who: Address;
  /** Role in the task: client, worker, platform or ecology. */
  role: "client" | "worker" | "platform" | "ecology";
  what: string;
  /** Positive: received; negative: locked or lost. Smallest unit. */
  amount: bigint;
  why: string;
}

export interface TaskAccount {
  taskId: bigint;
  client: Address;
  outcome: string;
  collateral: bigint;
  /** What the verified work cost. */
  price: bigint;
  paid: Map<Address, bigint>;
  fee: bigint;
  refunded: bigint;
  forfeited: bigint;
  provenMultiplyAdds: bigint;
  resultRoot: Hex;
  rows: LedgerRow[];
  /** Sum of what came in less what went out; zero for a closed task. */
  balance: bigint;
}

export const TASK_STATUS = ["none", "open", "running", "stopping", "settled", "cancelled", "aborted", "late", "expired"];
const WORKER_STATUS = ["none", "assigned", "accepted", "finished", "released", "aborted", "late", "paid"];
const REASON = [
  "unspent escrow", "cancelled before the start", "never started", "stopped by the client",
  "a miner aborted", "a miner was late", "the master fell silent",
];

const bps = (value: bigint): string => (Number(value) / 10_000).toFixed(3);

/** Tasks looked at from the newest down: more than run at once on one network of today. */
const RECENT_TASKS_MAX = 8n;
const RUNNING = 2;

/** Whether a paid task runs, by the chain's state at its head. */
export async function hasRunningTasks(chain: Chain): Promise<boolean> {
  const read = async (functionName: "taskCount" | "taskOf", args: readonly unknown[]): Promise<unknown> => {
    const data = encodeFunctionData({ abi: taskMarketAbi, functionName, args } as never);
    const output = await chain.read({ to: systemAddresses.taskMarket, data });
    return decodeFunctionResult({ abi: taskMarketAbi, functionName, data: bytesToHex(output) });
  };
  const newest = await read("taskCount", []) as bigint;
  for (let id = newest; id > 0n && id > newest - RECENT_TASKS_MAX; id -= 1n) {
    const task = await read("taskOf", [id]) as { status: number };
    if (task.status === RUNNING) return true;
  }
  return false;
}

/** The market's record of a task. */
export function readTask(client: PublicClient, taskId: bigint) {
  return client.readContract({ address: systemAddresses.taskMarket, abi: taskMarketAbi, functionName: "taskOf", args: [taskId] });
}

/** Tasks are numbered from 1 to this. */
export function readTaskCount(client: PublicClient): Promise<bigint> {
  return client.readContract({ address: systemAddresses.taskMarket, abi: taskMarketAbi, functionName: "taskCount" });
}

/** Registers an account as a compute node with its transport key, unless the chain has it already. */
export async function registerComputeNode(transactor: Transactor, transportKey: Hex): Promise<void> {
  const contract = { address: systemAddresses.computeRegistry, abi: computeRegistryAbi } as const;
  const node = await transactor.client.readContract({ ...contract, functionName: "nodeOf", args: [transactor.address] });
  if (node.transportKey === transportKey) return;
  await transactor.send({ ...contract, functionName: "register", args: [transportKey] });
}

/** Reads the account of one task. Throws when the task was never opened. */
export async function readTaskAccount(client: PublicClient, taskId: bigint): Promise<TaskAccount> {
  // viem remembers a head for seconds: what was settled since would be missed
  const head = await client.getBlockNumber({ cacheTime: 0 });
  const topics = encodeEventTopics({ abi: taskMarketAbi, eventName: "TaskOpened", args: { taskId } });
  const logs = await marketLogs(client, head);
  const account: TaskAccount = {
    taskId, client: "0x", outcome: "open", collateral: 0n, price: 0n, paid: new Map(), fee: 0n, refunded: 0n,
    forfeited: 0n, provenMultiplyAdds: 0n, resultRoot: "0x", rows: [], balance: 0n,
  };
  let opened = false;
  for (const log of logs) {
    if (log.topics[1] !== topics[1]) continue; // every event of the market has the task as its first topic
    const event = decodeEventLog({ abi: taskMarketAbi, data: log.data, topics: log.topics });
    opened ||= event.eventName === "TaskOpened";
    record(account, event);
  }
  if (!opened) throw new Error(`task ${taskId} is not on this chain`);
  account.balance = -account.rows.reduce((sum, row) => sum + row.amount, 0n);
  return account;
}

/** Events of the market up to `head`, oldest first. */
async function marketLogs(client: PublicClient, head: bigint) {
  const logs: Awaited<ReturnType<typeof client.getLogs>> = [];
  const oldest = head > LOG_RANGE_BLOCKS_MAX ? head - LOG_RANGE_BLOCKS_MAX : 0n;
  for (let fromBlock = oldest; fromBlock <= head; fromBlock += LOG_REQUEST_BLOCKS) {
    const last = fromBlock + LOG_REQUEST_BLOCKS - 1n;
    logs.push(...await client.getLogs({ address: systemAddresses.taskMarket, fromBlock, toBlock: last < head ? last : head }));
  }
  return logs;
}

type MarketEvent = DecodeEventLogReturnType<typeof taskMarketAbi>;

function record(account: TaskAccount, event: MarketEvent): void {
  const add = (row: LedgerRow): void => {
    if (row.amount !== 0n) account.rows.push(row);
  };
  switch (event.eventName) {
    case "TaskOpened":
      account.client = event.args.client;
      account.collateral = event.args.collateral;
      add({ who: event.args.client, role: "client", what: "escrow", amount: -event.args.collateral, why: `estimate x range ${bps(BigInt(event.args.terms.rangeBps))}` });
      break;
    case "Accepted":
      add({ who: event.args.worker, role: "worker", what: "collateral pledged", amount: -event.args.collateral, why: event.args.isStandby ? "standby takes over" : "part of the task taken" });
      break;
    case "Released":
      add({ who: event.args.worker, role: "worker", what: "collateral returned", amount: event.args.collateral, why: "left before the start" });
      break;
    case "Aborted":
      account.forfeited += event.args.forfeited;
      account.rows.push({ who: event.args.worker, role: "worker", what: "collateral lost", amount: 0n, why: `aborted: ${formatEther(event.args.forfeited)} TSR forfeited, work neither paid nor charged` });
      break;
    case "Late":
      account.forfeited += event.args.forfeited;
      account.rows.push({ who: event.args.worker, role: "worker", what: "collateral lost", amount: 0n, why: `late: ${formatEther(event.args.forfeited)} TSR forfeited` });
      break;
    case "WorkerSettled": {
      const { worker, account: part } = event.args;
      account.paid.set(worker, (account.paid.get(worker) ?? 0n) + part.payment);
      add({ who: worker, role: "worker", what: "payment", amount: part.payment,
        why: `${WORKER_STATUS[part.outcome]}: ${giga(part.multiplyAdds)} verified multiply-adds x speed ${bps(part.speedBps)} x comment ${bps(part.commentBps)}` });
      add({ who: worker, role: "worker", what: "forfeit share", amount: part.forfeitShare, why: "another miner's lost collateral, by verified work" });
      add({ who: worker, role: "worker", what: "collateral returned", amount: part.collateralReturned, why: "the part was done" });
      break;
    }
    case "Settled": {
      const { account: totals } = event.args;
      account.outcome = TASK_STATUS[totals.status] ?? String(totals.status);
      account.price = totals.price;
      account.fee = totals.fee;
      account.provenMultiplyAdds = totals.provenMultiplyAdds;
      account.resultRoot = totals.resultRoot;
      add({ who: systemAddresses.taskMarket, role: "platform", what: "fee", amount: totals.fee, why: "platform fee on the payments" });
      add({ who: systemAddresses.distribution, role: "ecology", what: "forfeit rest", amount: totals.toEcology, why: "no other miner was affected, or rounding" });
      break;
    }
    case "Refunded":
      account.refunded += event.args.amount;
      add({ who: event.args.client, role: "client", what: "refund", amount: event.args.amount, why: REASON[event.args.reason] ?? "" });
      break;
    default:
      break;
  }
}

function giga(multiplyAdds: bigint): string {
  return `${(Number(multiplyAdds) / 1e9).toFixed(1)} G`;
}
