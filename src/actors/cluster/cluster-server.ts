// Owns a running server of a direct cluster (white paper 2.7): actor system, links to the other tasks, the actor, and
// its end. Invariants: everything that start opened is closed by stop(), in reverse order; join() ends when the server
// has stopped, whatever stopped it; a signal is listened for only while somebody joins.
import { openDevice, type Device, type DeviceOptions } from "../../device/device.js";
import { openSharedMemory } from "../../device/shared-memory.js";
import { behavior, createSystem, Refusal, replyLater, silentLogger, type Logger, type Meta, type System } from "../../runtime/index.js";
import { Server, type ClusterSpec, type JobLimits, type RunningServer, type ServerDescriptor, type ServerOptions } from "../../training/index.js";
import { Links } from "../node/links.js";
import { refusing } from "../refusing.js";
import { ClusterTask } from "./cluster-task.js";
import { checkSecret, endpointOf, isProof, proofOf, taskKeys } from "./keys.js";
import { CLUSTER_ACTOR, ClusterProtocol } from "./protocol.js";

/** Below the grace that process supervisors give. */
const SHUTDOWN_MS = 2_000;
/** A server that has seen others and sees none of them any more has lost its cluster. */
const LOST_AFTER_MS = 30_000;
/** 4 GiB of values and slots. */
const ELEMENTS_MAX = 2 ** 30;

export interface ClusterServerOptions extends ServerOptions {
  /** One for all servers and clients of the cluster; needed unless every address is on loopback or ipc. */
  secret?: string;
  /** Where it computes; default: `gpu`, else this machine's best. */
  device?: DeviceOptions;
  limits?: Partial<JobLimits>;
  /** join() ends when all servers that were once seen have been gone for so long; default 30 s. */
  lostAfterMs?: number;
  logger?: Logger;
}

/** Starts a task's server in this process; it serves until stop(), SIGTERM during join(), or the loss of its cluster. */
export function createServer(cluster: ClusterSpec, options: ClusterServerOptions): Promise<Server> {
  return Server.create(cluster, options, { host: (descriptor) => startServer(cluster, descriptor, options) });
}

async function startServer(cluster: ClusterSpec, descriptor: ServerDescriptor, options: ClusterServerOptions): Promise<RunningServer> {
  const secret = checkSecret(cluster, options.secret);
  const { device: task, gpu } = descriptor;
  const nameOf = (each: { job: string; task: number }): string => `/job:${each.job}/task:${each.task}`;
  const nodeIds = new Map(cluster.tasks().map((each) => [nameOf(each), taskKeys(secret, nameOf(each)).publicKey]));
  const keys = taskKeys(secret, task), logger = options.logger ?? silentLogger;
  const sharedMemory = openSharedMemory();
  const system = createSystem({ name: task.slice(1).replaceAll(/[/:]/g, "-"), logger, ...(sharedMemory && { sharedMemory }) });
  let device: Device | undefined, service: ClusterTask | undefined;
  let ended!: () => void;
  const over = new Promise<void>((resolve) => { ended = resolve; });
  let stopping: Promise<void> | undefined;
  const stop = (): Promise<void> => (stopping ??= (async () => {
    service?.close();
    await system.shutdown({ deadlineMs: SHUTDOWN_MS });
    device?.close();
    ended();
  })());
  try {
    device = openDevice(options.device ?? (gpu === undefined ? {} : { backend: "cuda", gpu }));
    service = new ClusterTask({ cluster, task, limits: options.limits ?? {}, elementsMax: ELEMENTS_MAX }, { system, device, nodeIds, proof: (nodeId) => proofOf(secret, keys.publicKey, nodeId) });
    system.spawn(clusterActor(service, { secret, task, nodeId: keys.publicKey }), { name: CLUSTER_ACTOR });
    await system.listen({ endpoint: endpointOf(descriptor.address), keys, allow: "any" });
    const links = new Links(system, keys, (text) => logger.info(text));
    for (const each of cluster.tasks()) {
      if (nameOf(each) !== task) links.dial({ endpoint: endpointOf(each.address), serverKey: nodeIds.get(nameOf(each))! });
    }
    stopWhenAlone(system, new Set(nodeIds.values()), options.lostAfterMs ?? LOST_AFTER_MS, () => {
      logger.warn(`${task} has lost its cluster`);
      void stop();
    });
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    stop,
    join: async () => {
      const onSignal = (): void => void stop();
      process.once("SIGTERM", onSignal);
      await over;
      process.removeListener("SIGTERM", onSignal);
    },
  };
}

/** Runs `lost` once all other tasks that were ever seen have been down together for a time. */
function stopWhenAlone(system: System, nodeIds: ReadonlySet<string>, lostAfterMs: number, lost: () => void): void {
  let timer: NodeJS.Timeout | undefined;
  const alone = (): boolean => !system.peers().some((peer) => peer.isUp && nodeIds.has(peer.nodeId));
  system.onPeer((peer) => {
    if (!nodeIds.has(peer.nodeId)) return;
    clearTimeout(timer);
    peer.onDown(() => {
      clearTimeout(timer);
      if (alone() && !system.isShuttingDown) timer = setTimeout(() => { if (alone()) lost(); }, lostAfterMs);
    });
  });
  system.onShutdown("refuse-input", "loss of the cluster", () => clearTimeout(timer));
}

function clusterActor(task: ClusterTask, identity: { secret: string; task: string; nodeId: string }) {
  const entered = new Set<string>();
  const checked = ({ sender }: Meta): void => {
    if (sender !== undefined && !entered.has(sender.nodeId)) throw new Refusal("secret", "this node has not proven the cluster's secret");
  };
  /** Answers later: a run waits for values that other messages of this actor bring. */
  const later = <T>(meta: Meta, work: () => T | Promise<T>) => {
    checked(meta);
    return replyLater(refusing(work));
  };
  return behavior(ClusterProtocol, () => ({
    call: {
      enter: ({ proof }, { sender }) => {
        if (sender !== undefined) {
          if (!isProof(proof, identity.secret, sender.nodeId, identity.nodeId)) throw new Refusal("secret", "this node does not know the cluster's secret");
          entered.add(sender.nodeId);
        }
        return { task: identity.task };
      },
      define: ({ text }, meta) => later(meta, () => task.define(text)),
      run: ({ program, feeds }, meta) => later(meta, () => task.run(program, feeds)),
      execute: ({ program, run, number, feeds }, meta) => later(meta, () => task.execute(program, run, number, feeds)),
      deliver: ({ run, node, value }, meta) => later(meta, () => {
        task.deliver(run, node, value);
        return {};
      }),
      initialize: ({ program, seed, everywhere }, meta) => later(meta, async () => ({ made: await task.initialize(program, seed, everywhere) })),
      uninitialized: ({ program, everywhere }, meta) => later(meta, async () => ({ names: await task.uninitialized(program, everywhere) })),
    },
    cast: {
      abort: ({ run, reason }, { sender }) => {
        if (sender === undefined || entered.has(sender.nodeId)) task.abort(run, reason);
      },
    },
  }));
}
