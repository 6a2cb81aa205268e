/**
 * Owns: one task's place in a cluster: `train.Server(cluster, { job, task, gpu })`. The descriptor
 * is data; `Server.create` hands it to whoever can start a process for it.
 */
import { TrainingError } from "../errors.js";
import type { ClusterSpec } from "./cluster-spec.js";

export interface ServerOptions {
  job: string;
  task: number;
  /** A CUDA_VISIBLE_DEVICES id: an index, a UUID or a MIG id; absent: chosen by the host. */
  gpu?: string;
}

export interface ServerDescriptor extends ServerOptions {
  address: string;
  /** "/job:worker/task:0", as graph devices name it. */
  device: string;
}

export interface RunningServer {
  /** Resolves when the task's process has ended. */
  join(): Promise<void>;
  stop(): Promise<void>;
}

/** Starts a task: the actors give the real one. */
export type ServerHost = (descriptor: ServerDescriptor, cluster: ClusterSpec) => Promise<RunningServer>;

const GPU = /^[A-Za-z0-9][A-Za-z0-9/_:.-]{0,127}$/;

export class Server {
  private constructor(readonly descriptor: ServerDescriptor, private readonly running: RunningServer) {}

  static describe(cluster: ClusterSpec, options: ServerOptions): ServerDescriptor {
    const { job, task, gpu } = options;
    if (gpu !== undefined && !GPU.test(gpu)) {
      throw new TrainingError("cluster", `"${gpu}" is no GPU id; expected an index, a GPU or a MIG UUID`, { gpu });
    }
    return {
      job, task, address: cluster.taskAddress(job, task), device: `/job:${job}/task:${task}`, ...(gpu !== undefined && { gpu }),
    };
  }

  static async create(cluster: ClusterSpec, options: ServerOptions, modules: { host: ServerHost }): Promise<Server> {
    const descriptor = Server.describe(cluster, options);
    return new Server(descriptor, await modules.host(descriptor, cluster));
  }

  join(): Promise<void> { return this.running.join(); }
  stop(): Promise<void> { return this.running.stop(); }
}
