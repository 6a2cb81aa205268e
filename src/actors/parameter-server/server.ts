// Owns the parameter-server actor: one ParameterStore a task, who may push and pull, checkpoints.
// Invariant: a batch of a unit is applied once; a push of an expelled worker or an old fence is refused;
// parameters handed out are a snapshot that no later apply changes.
import { createHash } from "node:crypto";
import { behavior, type Meta } from "../../runtime/index.js";
import { type Device } from "../../device/device.js";
import { openHostedTask, type HostedTask } from "./hosted-task.js";
import { ParameterServerProtocol } from "./protocol.js";

/** Tasks one server holds at a time; more would not fit a small node's memory. */
const TASKS_MAX = 16;

export interface ParameterServerModules {
  device: Device;
  dataDir: string;
  /** Node ids of the masters this server obeys. */
  isMaster: (nodeId: string) => boolean;
}

export function parameterServer(modules: ParameterServerModules) {
  return behavior(ParameterServerProtocol, (ctx) => {
    const tasks = new Map<string, HostedTask>();
    const taskOf = (taskId: string): HostedTask => {
      const task = tasks.get(taskId);
      if (!task) throw new Error(`this parameter server does not host task ${taskId}`);
      return task;
    };
    const onlyMaster = (meta: Meta): void => {
      const nodeId = meta.sender?.nodeId;
      if (nodeId !== undefined && !modules.isMaster(nodeId)) throw new Error("only a master may do this");
    };

    return {
      call: {
        host: async (request, meta) => {
          onlyMaster(meta);
          if (!tasks.has(request.taskId)) {
            if (tasks.size >= TASKS_MAX) throw new Error(`this parameter server already hosts ${TASKS_MAX} tasks`);
            tasks.set(request.taskId, await openHostedTask(request, modules));
            ctx.log.info(`hosts task ${request.taskId}`);
          }
          const task = taskOf(request.taskId);
          return { parameterCount: task.store.parameterCount, version: task.store.version };
        },
        admit: ({ taskId, worker, nodeId, fence }, meta) => {
          onlyMaster(meta);
          taskOf(taskId).admit(worker, nodeId, fence);
          return {};
        },
        expel: ({ taskId, worker }, meta) => {
          onlyMaster(meta);
          taskOf(taskId).expel(worker);
          ctx.log.info(`task ${taskId}: worker ${worker} expelled`);
          return {};
        },
        pull: ({ taskId }, meta) => {
          const task = taskOf(taskId);
          task.checkReader(meta.sender?.nodeId);
          return task.store.pull();
        },
        unitProgress: ({ taskId, unit }) => ({ appliedBatches: taskOf(taskId).appliedBatches(unit) }),
        push: (request, meta) => taskOf(request.taskId).push(request, meta.sender?.nodeId),
        progress: ({ taskId }) => taskOf(taskId).progress(),
        finish: async ({ taskId }, meta) => {
          onlyMaster(meta);
          const task = taskOf(taskId);
          await task.checkpoint();
          const { version, parameters } = task.store.pull();
          const digest = createHash("sha256").update(new Uint8Array(parameters.buffer, parameters.byteOffset, parameters.byteLength));
          return { version, parametersHash: `0x${digest.digest("hex")}`, progress: task.progress() };
        },
        drop: async ({ taskId }, meta) => {
          onlyMaster(meta);
          const task = tasks.get(taskId);
          tasks.delete(taskId);
          await task?.remove();
          return {};
        },
      },
      cast: {},
    };
  });
}
