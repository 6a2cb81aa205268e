// Owns a client's link to a direct cluster: `connectCluster("tesra://host:port", ...)` gives a ClusterSession whose
// link is an actor system of its own. Invariant: close() leaves neither socket nor timer, whatever the servers do.
import { createSystem, curveKeys, RuntimeError, silentLogger, type CallResult, type Peer } from "../../runtime/index.js";
import { ClusterSession, SessionError, type ClusterLink, type ClusterSpec, type Graph } from "../../training/index.js";
import { openSharedMemory } from "../../device/shared-memory.js";
import { checkSecret, endpointOf, proofOf, taskKeys } from "./keys.js";
import { CLUSTER_ACTOR, ClusterProtocol } from "./protocol.js";

export interface ConnectClusterOptions {
  graph: Graph;
  cluster: ClusterSpec;
  /** The cluster's, where it has one. */
  secret?: string;
  /** Aborts what runs, and ends the session. */
  signal?: AbortSignal;
  /** For the first link; default 10 s. */
  timeoutMs?: number;
}

/** A run ends when it is done, aborted, or a server is lost; not by the clock. */
const RUN_TIMEOUT_MS = 24 * 3_600_000;
const CLOSE_MS = 2_000;

/** `target` is any server of the cluster: the master of this session's runs. Throws SessionError or RuntimeError. */
export async function connectCluster(target: string, options: ConnectClusterOptions): Promise<ClusterSession> {
  const { graph, cluster, signal, timeoutMs } = options;
  const address = /^tesra:\/\/([^\s@]{1,260})$/.exec(target)?.[1];
  const endpoint = (text: string): string => endpointOf(/^\/.*$/.test(text) ? `ipc://${text}` : text);
  const place = address === undefined ? undefined : cluster.tasks().find((each) => endpointOf(each.address) === endpoint(address));
  if (place === undefined) {
    throw new SessionError("protocol", `"${target}" is no server of the cluster; expected tesra:// and one of ` +
      (cluster.tasks().map((each) => each.address).join(", ") || "no tasks"), { target });
  }
  const secret = checkSecret(cluster, options.secret);
  const task = `/job:${place.job}/task:${place.task}`, keys = curveKeys(), sharedMemory = openSharedMemory();
  const system = createSystem({ name: "cluster-client", logger: silentLogger, ...(sharedMemory && { sharedMemory }) });
  const close = async (): Promise<void> => { await system.shutdown({ deadlineMs: CLOSE_MS }); };
  try {
    const serverKey = taskKeys(secret, task).publicKey;
    const peer = await system.connect({
      endpoint: endpointOf(place.address), serverKey, keys, ...(timeoutMs !== undefined && { timeoutMs }), ...(signal && { signal }),
    });
    const ref = (): ReturnType<Peer["ref"]> & ReturnType<typeof actorOf> => actorOf(system.peer(serverKey) ?? peer);
    const enter = async (at: Peer): Promise<void> => {
      valueOf(await actorOf(at).call("enter", { proof: proofOf(secret, keys.publicKey, serverKey) }));
    };
    await enter(peer);
    // A server that was started anew does not know this client.
    system.onPeer((again) => { if (again !== peer) void enter(again).catch(() => undefined); });
    const link: ClusterLink = {
      master: task, close,
      define: async (text, stop) => valueOf(await ref().call("define", { text }, { timeoutMs: RUN_TIMEOUT_MS, signal: stop })).program,
      run: async (program, feeds, stop) => valueOf(await ref().call("run", { program, feeds }, { timeoutMs: RUN_TIMEOUT_MS, signal: stop })),
      initialize: async (program, seed, stop) =>
        valueOf(await ref().call("initialize", { program, seed, everywhere: true }, { timeoutMs: RUN_TIMEOUT_MS, signal: stop })).made,
      uninitialized: async (program, stop) =>
        valueOf(await ref().call("uninitialized", { program, everywhere: true }, { timeoutMs: RUN_TIMEOUT_MS, signal: stop })).names,
    };
    return new ClusterSession(graph, link, signal);
  } catch (error) {
    await close();
    if (error instanceof RuntimeError && /^connect/.test(error.code)) throw new SessionError("unreachable", error.message, { target });
    throw error;
  }
}

const actorOf = (peer: Peer) => peer.ref(ClusterProtocol, CLUSTER_ACTOR);

function valueOf<T>(result: CallResult<T>): T {
  if (result.ok) return result.value;
  const { code, message, reason } = result.error;
  if (code === "aborted") throw new SessionError("aborted", "the run was aborted");
  const lost = code === "unreachable" || code === "stopped" || reason === "unreachable" || reason === "stopped";
  throw new SessionError(lost ? "unreachable" : "remote", message, { reason: reason ?? code });
}
