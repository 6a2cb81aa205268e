// Owns how a task's master reaches the others of the task: its workers, its client, its parameter servers.
// Invariant: a reference is looked up for each attempt, because a node that restarted is another peer.
import type { CallResult, Ref } from "../../runtime/index.js";
import { CLIENT_ACTOR, ClientProtocol, type TaskEvent } from "../client/protocol.js";
import type { Links } from "../node/links.js";
import { PARAMETER_SERVER_ACTOR, ParameterServerProtocol } from "../parameter-server/protocol.js";
import { WORKER_ACTOR, WorkerProtocol } from "../worker/protocol.js";
import type { NodeBook } from "./node-book.js";

export const CALL_TIMEOUT_MS = 15_000;
const RETRY_MS = 500;
/** A client or a parameter server that is away longer than this ends the wait of one command. */
const PATIENCE_MS = 60_000;

export interface TaskPeersModules {
  links: Links;
  nodes: NodeBook;
  sleep: (ms: number) => Promise<void>;
  now: () => number;
  log: { info: (text: string) => void; warn: (text: string) => void };
}

export class TaskPeers {
  constructor(private readonly options: { taskId: string; clientNodeId: string }, private readonly modules: TaskPeersModules) {}

  worker(account: string): Ref<typeof WorkerProtocol> | undefined {
    const node = this.modules.nodes.get(account);
    return node && this.modules.links.ref(node.nodeId, WorkerProtocol, WORKER_ACTOR);
  }

  server(nodeId: string): Ref<typeof ParameterServerProtocol> | undefined {
    return this.modules.links.ref(nodeId, ParameterServerProtocol, PARAMETER_SERVER_ACTOR);
  }

  client(): Ref<typeof ClientProtocol> | undefined {
    return this.modules.links.ref(this.options.clientNodeId, ClientProtocol, CLIENT_ACTOR);
  }

  /** An account as its node wrote it, with the checksum's capitals. */
  addressOf(worker: string): string {
    return this.modules.nodes.get(worker)?.account ?? worker;
  }

  /** Repeats a call while the other side is away; a refusal ends it at once. */
  async ask<T>(what: string, attempt: () => Promise<CallResult<T>> | undefined): Promise<T> {
    const untilMs = this.modules.now() + PATIENCE_MS;
    for (;;) {
      const result = await attempt();
      if (result?.ok) return result.value;
      const error = result?.error ?? { code: "unreachable", message: "not linked" };
      if (error.code === "refused" || error.code === "protocol" || this.modules.now() > untilMs) throw new Error(`cannot ${what}: ${error.message}`);
      await this.modules.sleep(RETRY_MS);
    }
  }

  /** The result and the end wait for a client that is reconnecting; the rest is only news. */
  async tell(event: TaskEvent): Promise<void> {
    const { taskId } = this.options;
    const call = () => this.client()?.call("event", { taskId, event }, { timeoutMs: CALL_TIMEOUT_MS });
    const isNeeded = ["trained", "settled", "ended"].includes(event.type);
    const isTold = isNeeded ? await this.ask("tell", call).then(() => true, () => false) : (await call())?.ok;
    if (!isTold) this.modules.log.info(`task ${taskId}: the client was not told of "${event.type}"`);
  }
}
