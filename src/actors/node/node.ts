// Owns a node process: its chain or its door to one, its links, and the supervisor that its role actors live under.
// Invariant: everything that start() opened is closed by close(), in reverse order; a fault that the
// supervisor gives up on ends the node.
import { mkdirSync, readFileSync } from "node:fs";
import { z } from "zod";
import { addressOfPrivateKey } from "../../chain/crypto/signature.js";
import type { Genesis } from "../../chain/index.js";
import { behavior, defineProtocol } from "../../runtime/index.js";
import { MASTER_ACTOR, MasterProtocol } from "../master/protocol.js";
import type { NodeConfig } from "./config.js";
import { Links } from "./links.js";
import { NodeStartError, type Children, type Parts, type Role } from "./parts.js";
import { hostWorld, type NodeWorld } from "./world.js";

export { NodeStartError } from "./parts.js";

const JOIN_TIMEOUT_MS = 60_000;
const JOIN_RETRY_MS = 500;
/** Below the grace that a process supervisor gives, with time left to close the store. */
const SHUTDOWN_MS = 1_500;

export interface RunningNode {
  endpoint: string;
  rpcUrl: string | undefined;
  /** Settles when the node has joined the network (a worker: when its power is proven). */
  joined: Promise<void>;
  /** Rejects when the supervisor gave up. */
  failed: Promise<never>;
  close(): Promise<void>;
}

const NodeProtocol = defineProtocol("tesra.node", 1, {
  call: { status: { request: z.object({}), reply: z.object({ role: z.string(), name: z.string(), uptimeSeconds: z.number() }) } },
});

/** Starts a node. Throws NodeStartError, or what the chain's store says of itself. */
export async function startNode(config: NodeConfig, world: NodeWorld = hostWorld): Promise<RunningNode> {
  const log = world.createLogger(config.name);
  const genesis = readGenesis(config.genesis);
  mkdirSync(config.dataDir, { recursive: true, mode: 0o700 });
  const closers: Parts["closers"] = [];
  const system = world.createSystem(config, log);
  // actors end before what they use: stores, doors, devices
  const close = async (): Promise<void> => {
    await system.shutdown({ deadlineMs: SHUTDOWN_MS });
    await closeAll(closers);
  };
  try {
    const links = new Links(system, config.curve, (text) => log.warn(text));
    let fail!: (error: Error) => void;
    const failed = new Promise<never>((_, reject) => { fail = reject; });
    failed.catch(() => undefined);
    const parts: Parts = { config, log, system, links, genesis, closers, fail, world, now: world.now };
    const children: Children = new Map();
    const role = await composeRole(parts, children);
    const root = system.spawn(supervisor(config, children), { name: "node", supervision: { maxRestarts: 0 } });
    root.watch((reason) => { if (reason.code !== "shutdown") fail(new Error(`the node's supervisor stopped: ${reason.message}`)); });
    const listener = await system.listen({ endpoint: config.listen, keys: config.curve, allow: "any", plain: config.plain });
    for (const address of config.bootstrap) links.dial(address);
    return {
      endpoint: listener.endpoint, rpcUrl: role.rpcUrl, failed,
      joined: keepJoined(parts, listener.endpoint, role),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** The one supervisor of the process: role actors are its children, one-for-one with a shared budget. */
function supervisor(config: NodeConfig, children: Children) {
  return behavior(NodeProtocol, (ctx) => {
    const startedMs = ctx.clock.nowMs();
    for (const [name, child] of children) {
      ctx.spawn(child, {
        name, remote: true,
        supervision: { strategy: "one-for-one", maxRestarts: 5, withinMs: 60_000, backoff: { initialMs: 50, maxMs: 5_000 }, onExhausted: "escalate" },
      });
    }
    return {
      call: {
        status: () => ({ role: config.role, name: config.name, uptimeSeconds: (ctx.clock.nowMs() - startedMs) / 1000 }),
      },
    };
  });
}

/** Each role's modules are loaded when it is started: a parameter server loads no chain, a PoS node no training. */
async function composeRole(parts: Parts, children: Children): Promise<Role> {
  switch (parts.config.role) {
    case "master": return (await import("./chain-roles.js")).composeMaster(parts, children);
    case "pos": return (await import("./chain-roles.js")).composePos(parts, children);
    case "pow": return (await import("./chain-roles.js")).composePow(parts, children);
    case "worker": return (await import("./compute-roles.js")).composeWorker(parts, children);
    case "ps": return (await import("./compute-roles.js")).composeParameterServer(parts, children);
  }
}

/** Joins at every master that comes up, again after each of its restarts; resolves after the first. */
function keepJoined(parts: Parts, endpoint: string, role: Role): Promise<void> {
  const { config, links, system, closers, log, world } = parts;
  if (config.bootstrap.length === 0) return Promise.resolve();
  return new Promise((resolve) => {
    const joining = new Set<string>(); // a link that flaps does not prove its power twice at a time
    const join = async (nodeId: string): Promise<void> => {
      while (!system.isShuttingDown) {
        try {
          await role.beforeJoin?.();
          const ref = links.ref(nodeId, MasterProtocol, MASTER_ACTOR);
          if (!ref) return; // down again: onPeer tells when it is back
          const result = await ref.call("join", {
            role: config.role, name: config.name, account: accountOf(config), memoryBytes: world.memoryBytes,
            listen: { endpoint, serverKey: config.curve.publicKey, plain: config.plain },
          }, { timeoutMs: JOIN_TIMEOUT_MS });
          if (result.ok) {
            if (role.isChainNode) result.value.chainNodes.forEach((address) => links.dial(address));
            log.info("joined the network");
            return resolve();
          }
          log.warn(`join refused: ${result.error.message}`);
        } catch (error) {
          log.warn(`join failed: ${(error as Error).message}`);
        }
        await world.sleep(JOIN_RETRY_MS);
      }
    };
    closers.push(system.onPeer((peer) => {
      if (config.bootstrap.some(({ serverKey }) => serverKey === peer.nodeId) && !joining.has(peer.nodeId)) {
        joining.add(peer.nodeId);
        void join(peer.nodeId).finally(() => joining.delete(peer.nodeId));
      }
    }));
  });
}

/** Lower-case address of the node's account. */
function accountOf(config: NodeConfig): string {
  return `0x${Buffer.from(addressOfPrivateKey(Buffer.from(config.privateKey.slice(2), "hex"))).toString("hex")}`;
}

function readGenesis(path: string): Genesis {
  try {
    return JSON.parse(readFileSync(path, "utf8")) as Genesis;
  } catch (error) {
    throw new NodeStartError("genesis", `the genesis file ${path} cannot be read: ${(error as Error).message}`, { cause: error });
  }
}

async function closeAll(closers: Parts["closers"]): Promise<void> {
  for (const close of closers.splice(0).reverse()) {
    try {
      await close();
    } catch {
      // the rest is closed all the same
    }
  }
}
