// Owns a task's parameter server at its master: that it hosts the task, who may push there, what it ends with.
// Invariant: a worker is admitted under one fence a task, which is on the disk before anybody hears of it.
import type { Reply } from "../../runtime/index.js";
import type { ParameterServerProtocol } from "../parameter-server/protocol.js";
import type { NodeBook } from "./node-book.js";
import type { TaskRecord } from "./task-file.js";
import { CALL_TIMEOUT_MS, type TaskPeers } from "./task-peers.js";

export interface TaskServersModules {
  peers: TaskPeers;
  nodes: NodeBook;
  /** Whether an account works on the task now. */
  isActive: (worker: string) => boolean;
  save: () => void;
}

export class TaskServers {
  private hosting: Promise<void> | undefined;

  constructor(private readonly record: TaskRecord, private readonly modules: TaskServersModules) {}

  /** Resolves when the task is hosted; tells the client where, the first time. */
  host(): Promise<void> {
    this.hosting ??= this.hostAt().then(() => this.modules.peers.tell({ type: "running", parameterServer: this.record.parameterServer }));
    return this.hosting;
  }

  /** The worker's fence at the parameter server. */
  fence(worker: string): number {
    const fence = this.record.fences[worker] ??= this.record.nextFence++;
    this.modules.save();
    return fence;
  }

  async admit(worker: string): Promise<void> {
    const { taskId, fences } = this.record;
    const node = this.modules.nodes.get(worker);
    const fence = fences[worker];
    if (!node || fence === undefined) return;
    await this.modules.peers.ask("admit the worker", () => this.server()?.call(
      "admit", { taskId, worker: node.account, nodeId: node.nodeId, fence }, { timeoutMs: CALL_TIMEOUT_MS }));
  }

  /** Nothing the worker still sends counts any more. */
  async expel(worker: string): Promise<void> {
    const node = this.modules.nodes.get(worker);
    await this.server()?.call("expel", { taskId: this.record.taskId, worker: node?.account ?? worker }, { timeoutMs: CALL_TIMEOUT_MS });
  }

  /** Batches of the unit that are in the parameters; undefined where the server does not say. */
  async appliedBatches(unit: number): Promise<number | undefined> {
    const applied = await this.server()?.call("unitProgress", { taskId: this.record.taskId, unit }, { timeoutMs: CALL_TIMEOUT_MS });
    return applied?.ok ? applied.value.appliedBatches : undefined;
  }

  /** A parameter server that restarted takes the task up again from its checkpoint. */
  async back(nodeId: string): Promise<void> {
    const { parameterServer, fences } = this.record;
    if (Object.keys(fences).length === 0 || parameterServer.serverKey !== nodeId) return;
    await this.hostAt();
    for (const worker of Object.keys(fences)) if (this.modules.isActive(worker)) await this.admit(worker);
  }

  finish(): Promise<Reply<typeof ParameterServerProtocol, "finish">> {
    return this.modules.peers.ask("finish at the parameter server", () => this.server()?.call(
      "finish", { taskId: this.record.taskId }, { timeoutMs: CALL_TIMEOUT_MS }));
  }

  async drop(): Promise<void> {
    await this.modules.peers.ask("drop the task", () => this.server()?.call("drop", { taskId: this.record.taskId }, { timeoutMs: CALL_TIMEOUT_MS }));
  }

  private async hostAt(): Promise<void> {
    const { taskId, job, clientNodeId } = this.record;
    await this.modules.peers.ask("host the task", () => this.server()?.call(
      "host", { taskId, job, readers: [clientNodeId] }, { timeoutMs: CALL_TIMEOUT_MS }));
  }

  private server() {
    return this.modules.peers.server(this.record.parameterServer.serverKey);
  }
}
