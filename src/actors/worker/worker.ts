// Owns the worker actor: proves its power, pledges for tasks, trains, hands in receipts, deletes the data.
// Invariant: a shard's key and plaintext live only while its task runs; after `finish` nothing of the task
// is left on this node but the deletion receipt on the chain.
import { rmSync } from "node:fs";
import { join } from "node:path";
import { bytesToHex } from "viem";
import { taskMarketAbi } from "../../chain/contracts/abi.js";
import { systemAddresses } from "../../chain/contracts/system.js";
import { behavior, Refusal, replyLater, type Meta, type Ref } from "../../runtime/index.js";
import { encodeReceipt, receiptDigest, type WorkReceipt } from "../../scheduler/index.js";
import { fp32RowHashes, int8Tickets } from "../capability.js";
import type { Transactor } from "../chain-node/transactor.js";
import type { MasterProtocol } from "../master/protocol.js";
import type { NodeAddress } from "../node/config.js";
import type { ParameterServerProtocol } from "../parameter-server/protocol.js";
import { refusing } from "../refusing.js";
import { TaskData, type TaskDataModules } from "./task-data.js";
import { TaskRun, type SignedReceipt } from "./task-run.js";
import type { TaskVm } from "./vm/step-runner.js";
import { WorkerProtocol, type Unit } from "./protocol.js";

/** Tasks a worker runs at a time: its device is one. */
const TASKS_MAX = 1;

const REASON_LENGTH_MAX = 1_024;
const ABANDON_TIMEOUT_MS = 15_000;

export interface WorkerModules extends TaskDataModules {
  dataDir: string;
  /** Where strangers' jobs are parsed and run. */
  vm: TaskVm;
  chainId: bigint;
  transactor: Transactor;
  isMaster: (nodeId: string) => boolean;
  master: () => Ref<typeof MasterProtocol> | undefined;
  /** Keeps a link to a parameter server; the reference is looked up anew for each call. */
  parameterServer: (address: NodeAddress) => () => Ref<typeof ParameterServerProtocol> | undefined;
  signDigest: (digest: Uint8Array) => Uint8Array;
  sleep: (ms: number, signal: AbortSignal) => Promise<void>;
}

interface RunningTask {
  abort: AbortController;
  data: TaskData;
  run: TaskRun;
  directory: string;
  done: Promise<void>;
  /** Why this worker cannot go on; a master that did not hear of it is told when it sends work. */
  givenUp?: string;
}

export function worker(modules: WorkerModules) {
  return behavior(WorkerProtocol, (ctx) => {
    const tasks = new Map<string, RunningTask>();
    // plaintext never reaches the disk, but ciphertext of an earlier incarnation may lie there
    rmSync(join(modules.dataDir, "shards"), { recursive: true, force: true });
    ctx.signal.addEventListener("abort", () => {
      for (const task of tasks.values()) task.abort.abort();
    });

    const onlyMaster = (meta: Meta): void => {
      const nodeId = meta.sender?.nodeId;
      if (nodeId !== undefined && !modules.isMaster(nodeId)) throw new Refusal("not-a-master", "only a master may do this");
    };
    const taskOf = (taskId: string): RunningTask => {
      const task = tasks.get(taskId);
      if (!task) throw new Refusal("unknown-task", `this worker does not run task ${taskId}`);
      return task;
    };

    return {
      call: {
        challenge: ({ operandSeed, dims }, meta) => {
          onlyMaster(meta);
          return replyLater(refusing(async () => ({ tickets: await int8Tickets(modules.device, operandSeed, dims) })));
        },
        fp32Challenge: async ({ seed, size }, meta) => {
          onlyMaster(meta);
          return { rowHashes: await refusing(() => fp32RowHashes(modules.device, seed, size)) };
        },
        offer: (request, meta) => {
          onlyMaster(meta);
          if (tasks.size >= TASKS_MAX) return { accepted: false, reason: `busy with ${tasks.size} task` };
          return replyLater(consider(modules, request));
        },
        assign: async (request, meta) => {
          onlyMaster(meta);
          const { taskId, fence, job, manifest, parameterServer } = request;
          if (tasks.has(taskId)) return {};
          const directory = join(modules.dataDir, "shards", taskId);
          const data = await refusing(() => TaskData.open({ taskId, worker: modules.transactor.address, manifest, directory }, modules));
          const abort = new AbortController();
          const run = new TaskRun({ taskId, fence, job, shardCount: data.shardCount }, {
            vm: modules.vm, master: modules.master, now: modules.now, sleep: modules.sleep,
            worker: modules.transactor.address.toLowerCase(), parameterServer: modules.parameterServer(parameterServer),
            rowsOf: (shard) => data.rowsOf(shard), hash: (bytes) => modules.device.blake3(bytes),
            sign: createReceiptSigner(modules, taskId),
          });
          const done = run.run(abort.signal).catch((error: Error) => {
            if (abort.signal.aborted) return;
            ctx.log.error(`task ${taskId} stopped: ${error.message}`);
            const task = tasks.get(taskId);
            if (task) task.givenUp = error.message;
            void modules.master()?.call("abandon", { taskId, reason: error.message.slice(0, REASON_LENGTH_MAX) }, { timeoutMs: ABANDON_TIMEOUT_MS });
          });
          tasks.set(taskId, { abort, data, run, directory, done });
          ctx.log.info(`task ${taskId} assigned`);
          return {};
        },
        work: async ({ taskId, unit, leases }, meta) => {
          onlyMaster(meta);
          const task = taskOf(taskId);
          if (task.givenUp !== undefined) throw new Refusal("given-up", task.givenUp);
          await refusing(() => task.data.lease(leases));
          await refusing(() => task.run.enqueue(unit));
          return {};
        },
        stop: ({ taskId }, meta) => {
          onlyMaster(meta);
          taskOf(taskId).abort.abort();
          return {};
        },
        finish: ({ taskId }, meta) => {
          onlyMaster(meta);
          const task = taskOf(taskId);
          tasks.delete(taskId);
          return replyLater(finish(taskId, task, modules.transactor));
        },
      },
    };
  });
}

function createReceiptSigner(modules: WorkerModules, taskId: string) {
  // a restart of this process is another worker to the task; within one, sequences rise
  let sequence = 0n;
  return async (unit: Unit, activeMs: number, result: Uint8Array): Promise<SignedReceipt> => {
    sequence += 1n;
    const receipt: WorkReceipt = {
      chainId: modules.chainId, taskId: BigInt(taskId), worker: modules.transactor.address.toLowerCase(), sequence,
      epoch: unit.epoch, shard: unit.shard, from: unit.from, to: unit.to, activeMs, result: bytesToHex(result).slice(2),
    };
    return { receipt: encodeReceipt(receipt), signature: modules.signDigest(receiptDigest(receipt)) };
  };
}

async function consider({ vm, transactor }: WorkerModules, offer: { taskId: string; job: string; collateral: string }) {
  try {
    await vm.inspect(offer.job);
  } catch (error) {
    return { accepted: false, reason: (error as Error).message.slice(0, REASON_LENGTH_MAX) };
  }
  return pledge(transactor, BigInt(offer.taskId), BigInt(offer.collateral));
}

async function pledge(transactor: Transactor, taskId: bigint, collateral: bigint): Promise<{ accepted: boolean; reason?: string }> {
  try {
    await transactor.send({
      address: systemAddresses.taskMarket, abi: taskMarketAbi, functionName: "accept", args: [taskId], value: collateral,
    });
    return { accepted: true };
  } catch (error) {
    return { accepted: false, reason: (error as Error).message };
  }
}

async function finish(taskId: string, task: RunningTask, transactor: Transactor) {
  task.abort.abort();
  await task.done;
  const { deletedShards, digest } = await task.data.destroy();
  rmSync(task.directory, { recursive: true, force: true });
  const receipt = await transactor.send({
    address: systemAddresses.taskMarket, abi: taskMarketAbi, functionName: "recordDeletion",
    args: [BigInt(taskId), bytesToHex(digest)],
  }).catch(() => undefined); // a task that never became final on the chain takes no receipt; the data is gone all the same
  return { deletedShards, digest: bytesToHex(digest), transaction: receipt?.transactionHash };
}
