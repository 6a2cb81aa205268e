// Owns the worker actor: proves its power, pledges for tasks, trains, hands in receipts, deletes the data.
// Invariant: a shard's key and plaintext live only while its task runs; after `finish` nothing of the task
// is left on this node but the deletion receipt on the chain.
import { rmSync } from "node:fs";
import { join } from "node:path";
import { bytesToHex } from "viem";
import { refusing } from "../refusing.js";
import { behavior, Refusal, replyLater, type Meta, type Ref } from "../../runtime/index.js";
import { parseJob } from "../../training/index.js";
import { taskMarketAbi } from "../../chain/contracts/abi.js";
import { systemAddresses } from "../../chain/contracts/system.js";
import { type Transactor } from "../chain-node/transactor.js";
import { type MasterProtocol } from "../master/protocol.js";
import { type NodeAddress } from "../node/config.js";
import { type ParameterServerProtocol } from "../parameter-server/protocol.js";
import { type CapabilityProver } from "./capability.js";
import { TaskData, type TaskDataModules } from "./task-data.js";
import { TaskRun, type UnitWork } from "./task-run.js";
import { WorkerProtocol } from "./protocol.js";

/** Tasks a worker runs at a time: its device is one. */
const TASKS_MAX = 1;

export interface WorkerModules extends TaskDataModules {
  dataDir: string;
  transactor: Transactor;
  capability: CapabilityProver;
  isMaster: (nodeId: string) => boolean;
  master: () => Ref<typeof MasterProtocol> | undefined;
  /** Keeps a link to a parameter server; the reference is looked up anew for each call. */
  parameterServer: (address: NodeAddress) => () => Ref<typeof ParameterServerProtocol> | undefined;
  /** Signs the receipt of one unit; `cumulative` is this worker's whole work on the task. */
  signReceipt: (receipt: { taskId: string; unit: number; sequence: number; cumulative: UnitWork }) => Promise<Uint8Array>;
  sleep: (ms: number, signal: AbortSignal) => Promise<void>;
}

interface RunningTask {
  abort: AbortController;
  data: TaskData;
  directory: string;
  done: Promise<void>;
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
        challenge: (request, meta) => {
          onlyMaster(meta);
          return replyLater(modules.capability.answer(request));
        },
        offer: (request, meta) => {
          onlyMaster(meta);
          if (tasks.size >= TASKS_MAX) return { accepted: false, reason: `busy with ${tasks.size} task` };
          try {
            parseJob(request.job);
          } catch (error) {
            return { accepted: false, reason: (error as Error).message };
          }
          return replyLater(pledge(modules.transactor, BigInt(request.taskId), BigInt(request.collateral)));
        },
        assign: async (request, meta) => {
          onlyMaster(meta);
          if (tasks.has(request.taskId)) return {};
          const { taskId, fence, job } = request;
          const directory = join(modules.dataDir, "shards", taskId);
          const data = await refusing(() => TaskData.open(
            { taskId, worker: modules.transactor.address, manifest: request.manifest, directory }, modules));
          await refusing(() => data.lease(request.leases));
          const abort = new AbortController();
          const cumulative: UnitWork = { multiplyAdds: 0n, samples: 0, batches: 0, activeMs: 0 };
          let sequence = 0;
          const run = new TaskRun({ taskId, fence, job }, {
            device: modules.device, master: modules.master, now: modules.now, sleep: modules.sleep,
            worker: modules.transactor.address,
            parameterServer: modules.parameterServer(request.parameterServer),
            rowsOf: (shard) => data.rowsOf(shard),
            receiptOf: (unit, work) => {
              cumulative.multiplyAdds += work.multiplyAdds;
              cumulative.samples += work.samples;
              cumulative.batches += work.batches;
              cumulative.activeMs += work.activeMs;
              return modules.signReceipt({ taskId, unit, sequence: (sequence += 1), cumulative });
            },
          });
          const done = run.run(abort.signal).then(
            () => ctx.log.info(`task ${taskId}: no unit left`),
            (error: Error) => { if (!abort.signal.aborted) ctx.log.error(`task ${taskId} stopped: ${error.message}`); },
          );
          tasks.set(taskId, { abort, data, directory, done });
          ctx.log.info(`task ${taskId}: ${request.leases.length} shards leased`);
          return {};
        },
        lease: async ({ taskId, leases }, meta) => {
          onlyMaster(meta);
          await refusing(() => taskOf(taskId).data.lease(leases));
          return {};
        },
        finish: (request, meta) => {
          onlyMaster(meta);
          const task = taskOf(request.taskId);
          tasks.delete(request.taskId);
          return replyLater(finish(request.taskId, task, modules.transactor));
        },
      },
    };
  });
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
