// Owns the parameter-server actor: one hosted task a job, who may push and pull.
// Invariant: a batch of a unit is applied once; a push of an expelled worker or an old fence is refused;
// parameters handed out are a snapshot that no later apply changes.
import { refusing } from "../refusing.js";
import { behavior, Refusal, releaseTensors, replyLater, type Meta } from "../../runtime/index.js";
import { digestOf, openHostedTask, type HostedTask, type HostModules } from "./hosted-task.js";
import { ParameterServerProtocol } from "./protocol.js";

/** Tasks one server holds at a time; more would not fit a small node's memory. */
const TASKS_MAX = 16;

export interface ParameterServerModules extends HostModules {
  /** Whether a node id is that of a master this server obeys. */
  isMaster: (nodeId: string) => boolean;
}

export function parameterServer(modules: ParameterServerModules) {
  return behavior(ParameterServerProtocol, (ctx) => {
    const tasks = new Map<string, HostedTask>();
    const taskOf = (taskId: string): HostedTask => {
      const task = tasks.get(taskId);
      if (!task) throw new Refusal("not-hosted", `this parameter server does not host task ${taskId}`);
      return task;
    };
    const onlyMaster = (meta: Meta): void => {
      const nodeId = meta.sender?.nodeId;
      if (nodeId !== undefined && !modules.isMaster(nodeId)) throw new Refusal("not-a-master", "only a master may do this");
    };

    return {
      call: {
        host: async (request, meta) => {
          onlyMaster(meta);
          let task = tasks.get(request.taskId);
          if (!task) {
            if (tasks.size >= TASKS_MAX) throw new Refusal("busy", `this parameter server already hosts ${TASKS_MAX} tasks`);
            task = await refusing(() => openHostedTask(request, modules));
            tasks.set(request.taskId, task);
            ctx.log.info(`hosts task ${request.taskId} from version ${task.version}`);
          }
          return { parameterCount: task.parameterCount, version: task.version };
        },
        admit: async ({ taskId, worker, nodeId, fence }, meta) => {
          onlyMaster(meta);
          await refusing(() => taskOf(taskId).admit(worker, nodeId, fence));
          return {};
        },
        expel: ({ taskId, worker }, meta) => {
          onlyMaster(meta);
          taskOf(taskId).expel(worker);
          ctx.log.info(`task ${taskId}: worker ${worker} expelled`);
          return {};
        },
        pull: ({ taskId }, meta) => taskOf(taskId).pull(meta.sender?.nodeId),
        unitProgress: ({ taskId, unit }) => replyLater(refusing(async () => {
          const task = taskOf(taskId);
          const appliedBatches = task.appliedBatches(unit);
          await task.durable(task.version);
          return { appliedBatches };
        })),
        // the store orders the applies; the actor goes on with other messages meanwhile
        push: (request, meta) => replyLater(
          // the store is done with the gradient; a worker of this host can write its next one there
          taskOf(request.taskId).push(request, meta.sender?.nodeId).finally(() => releaseTensors(request)),
        ),
        progress: ({ taskId }) => taskOf(taskId).progress(),
        finish: async ({ taskId }, meta) => {
          onlyMaster(meta);
          const task = taskOf(taskId);
          await refusing(() => task.checkpoint());
          const { version, parameters } = task.pull(undefined);
          return { version, parametersHash: `0x${digestOf(parameters)}`, progress: task.progress() };
        },
        drop: async ({ taskId }, meta) => {
          onlyMaster(meta);
          const task = tasks.get(taskId);
          tasks.delete(taskId);
          await task?.remove();
          return {};
        },
      },
    };
  });
}
