// Owns a node process: its chain or its door to one, its links, and the supervisor that its role actors live under.
// Invariant: everything that start() opened is closed by close(), in reverse order; a fault that the
// supervisor gives up on ends the node.
import { mkdirSync, readFileSync } from "node:fs";
import { totalmem } from "node:os";
import { join } from "node:path";
import { hexToBytes, type Hex } from "viem";
import { privateKeyToAddress } from "viem/accounts";
import { z } from "zod";
import { Chain, createJsonRpc, createProducer, openRocksStore, signDigest, type Genesis, type JsonRpc } from "../../chain/index.js";
import { openDevice, type Device } from "../../device/device.js";
import {
  behavior, createSystem, defineProtocol, type AnyProtocol, type Behavior, type Logger, type System,
} from "../../runtime/index.js";
import { chainNode, Gossip } from "../chain-node/chain-node.js";
import { serveJsonRpc } from "../chain-node/http.js";
import { CHAIN_ACTOR, ChainProtocol } from "../chain-node/protocol.js";
import { Transactor, type RpcCall } from "../chain-node/transactor.js";
import { hasRunningTasks, registerComputeNode } from "../market.js";
import { master } from "../master/master.js";
import { MASTER_ACTOR, MasterProtocol } from "../master/protocol.js";
import { PARAMETER_SERVER_ACTOR, ParameterServerProtocol } from "../parameter-server/protocol.js";
import { parameterServer } from "../parameter-server/server.js";
import { producer } from "../pos/producer.js";
import { challengeMiner } from "../pow/miner.js";
import { worker } from "../worker/worker.js";
import { type NodeConfig } from "./config.js";
import { Links } from "./links.js";
import { createLogger } from "./log.js";

const RPC_TIMEOUT_MS = 15_000;
const JOIN_TIMEOUT_MS = 60_000;
const JOIN_RETRY_MS = 500;
/** Below the grace that a process supervisor gives, with time left to close the store. */
const SHUTDOWN_MS = 1_500;

export class NodeStartError extends Error {
  constructor(readonly code: "genesis" | "listen" | "chain" | "device", message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "NodeStartError";
  }
}

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

interface Parts {
  config: NodeConfig;
  log: Logger;
  system: System;
  links: Links;
  genesis: Genesis;
  closers: (() => Promise<void> | void)[];
  now: () => number;
}

/** Role actors by their name below the supervisor. */
type Children = Map<string, Behavior<AnyProtocol>>;

/** Starts a node. Throws NodeStartError, or what the chain's store says of itself. */
export async function startNode(config: NodeConfig): Promise<RunningNode> {
  const log = createLogger(config.name);
  const genesis = readGenesis(config.genesis);
  mkdirSync(config.dataDir, { recursive: true, mode: 0o700 });
  const closers: Parts["closers"] = [];
  const system = createSystem({ name: config.name, logger: log });
  // actors end before what they use: stores, doors, devices
  const close = async (): Promise<void> => {
    await system.shutdown({ deadlineMs: SHUTDOWN_MS });
    await closeAll(closers);
  };
  try {
    const links = new Links(system, config.curve, (text) => log.warn(text));
    const parts: Parts = { config, log, system, links, genesis, closers, now: () => Date.now() };
    const children: Children = new Map();
    const role = await composeRole(parts, children);
    let fail!: (error: Error) => void;
    const failed = new Promise<never>((_, reject) => { fail = reject; });
    failed.catch(() => undefined);
    const root = system.spawn(supervisor(config, children), { name: "node", supervision: { maxRestarts: 0 } });
    root.watch((reason) => { if (reason.code !== "shutdown") fail(new Error(`the node's supervisor stopped: ${reason.message}`)); });
    const listener = await system.listen({ endpoint: config.listen, keys: config.curve, allow: "any" });
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

interface Role {
  rpcUrl: string | undefined;
  /** Done before each join: a worker registers on the chain first. */
  beforeJoin?: () => Promise<void>;
  isChainNode: boolean;
}

async function composeRole(parts: Parts, children: Children): Promise<Role> {
  switch (parts.config.role) {
    case "master": return composeMaster(parts, children);
    case "pos": return composePos(parts, children);
    case "pow": return composePow(parts, children);
    case "worker": return composeWorker(parts, children);
    case "ps": return composeParameterServer(parts, children);
  }
}

interface ChainParts { chain: Chain; jsonRpc: JsonRpc; gossip: Gossip; rpcUrl: string | undefined }

async function openChain(parts: Parts, device: Device, children: Children): Promise<ChainParts> {
  const { config, genesis, closers, system, now, log } = parts;
  const store = await openRocksStore(join(config.dataDir, "chain"));
  closers.push(() => store.close());
  const chain = await Chain.open({ store, genesis, device });
  const jsonRpc = createJsonRpc(chain);
  const gossip = new Gossip(chain, { now, warn: (text) => log.warn(text) });
  closers.push(chain.subscribe((event) => {
    if (event.type === "transaction") gossip.broadcast("transaction", event.raw);
    else if (event.type === "certificate") gossip.broadcast("certificate", event.encoded);
  }));
  closers.push(system.onPeer((peer) => void gossip.meet(peer)));
  children.set("chain", chainNode({ chain, jsonRpc, gossip, now }));
  let rpcUrl: string | undefined;
  if (config.rpc) {
    const server = await serveJsonRpc(jsonRpc, config.rpc);
    closers.push(() => server.close());
    rpcUrl = server.url;
  }
  log.info(`chain opened at block ${chain.head.number}`);
  return { chain, jsonRpc, gossip, rpcUrl };
}

function openComputeDevice(parts: Parts): Device {
  const { compute } = parts.config;
  const device = openDevice({ backend: compute.backend, threads: compute.threads, gpu: compute.gpu });
  parts.closers.push(() => device.close());
  return device;
}

async function composeMaster(parts: Parts, children: Children): Promise<Role> {
  const { config, genesis, links, log, system, now } = parts;
  const device = openComputeDevice(parts);
  const { chain, jsonRpc, rpcUrl } = await openChain(parts, device, children);
  const transactor = new Transactor({ privateKey: config.privateKey as Hex, chainId: genesis.chainId }, {
    rpc: (request) => jsonRpc.handle(request),
  });
  children.set("master", master({
    device, chain, transactor, links, system, now, dataDir: config.dataDir, chainId: BigInt(genesis.chainId),
    self: { endpoint: config.listen, serverKey: config.curve.publicKey }, random: (size) => crypto.getRandomValues(new Uint8Array(size)),
    warn: (text) => log.warn(text),
  }));
  return { rpcUrl, isChainNode: true };
}

async function composePos(parts: Parts, children: Children): Promise<Role> {
  const { config, now } = parts;
  if (!config.blsSecretKey) throw new NodeStartError("chain", "a pos node needs blsSecretKey in its config: 0x and 64 hex digits");
  const device = openComputeDevice(parts);
  const { chain, gossip, rpcUrl } = await openChain(parts, device, children);
  const keys = createProducer({ privateKey: hexToBytes(config.privateKey as Hex), blsSecretKey: hexToBytes(config.blsSecretKey as Hex) });
  children.set("producer", producer({ chain, gossip, keys, now }));
  return { rpcUrl, isChainNode: true };
}

async function composePow(parts: Parts, children: Children): Promise<Role> {
  const { config, now } = parts;
  const device = openComputeDevice(parts);
  const { chain, gossip, rpcUrl } = await openChain(parts, device, children);
  children.set("miner", challengeMiner(config.pow, {
    chain, gossip, device, now, privateKey: hexToBytes(config.privateKey as Hex), hasPaidWork: () => hasRunningTasks(chain),
  }));
  return { rpcUrl, isChainNode: true };
}

async function composeWorker(parts: Parts, children: Children): Promise<Role> {
  const { config, genesis, links, now } = parts;
  const device = openComputeDevice(parts);
  const masterKey = masterKeyOf(config);
  const masterRef = () => links.ref(masterKey, MasterProtocol, MASTER_ACTOR);
  const transactor = new Transactor({ privateKey: config.privateKey as Hex, chainId: genesis.chainId }, { rpc: remoteRpc(links, masterKey) });
  const privateKey = hexToBytes(config.privateKey as Hex);
  children.set("worker", worker({
    device, transactor, now, sleep, dataDir: config.dataDir, chainId: BigInt(genesis.chainId), master: masterRef,
    sealing: { privateKey: Buffer.from(config.curve.secretKey, "hex"), publicKey: Buffer.from(config.curve.publicKey, "hex") },
    isMaster: (nodeId) => config.bootstrap.some(({ serverKey }) => serverKey === nodeId),
    parameterServer: (address) => {
      links.dial(address);
      return () => links.ref(address.serverKey, ParameterServerProtocol, PARAMETER_SERVER_ACTOR);
    },
    signDigest: (digest) => signDigest(digest, privateKey),
    fetchShard: async (hash) => {
      const result = await masterRef()?.call("getShard", { hash }, { timeoutMs: RPC_TIMEOUT_MS });
      if (!result?.ok) throw new Error(`shard ${hash} cannot be fetched: ${result?.error.message ?? "the master is not linked"}`);
      return result.value.bytes;
    },
  }));
  return { rpcUrl: undefined, isChainNode: false, beforeJoin: () => registerComputeNode(transactor, `0x${config.curve.publicKey}`) };
}

async function composeParameterServer(parts: Parts, children: Children): Promise<Role> {
  const { config, log } = parts;
  const device = openComputeDevice(parts);
  children.set("parameter-server", parameterServer({
    device, dataDir: config.dataDir, warn: (text) => log.warn(text),
    isMaster: (nodeId) => config.bootstrap.some(({ serverKey }) => serverKey === nodeId),
  }));
  return { rpcUrl: undefined, isChainNode: false };
}

/** Joins at every master that comes up, again after each of its restarts; resolves after the first. */
function keepJoined(parts: Parts, endpoint: string, role: Role): Promise<void> {
  const { config, links, system, closers, log } = parts;
  if (config.bootstrap.length === 0) return Promise.resolve();
  return new Promise((resolve) => {
    const join = async (nodeId: string): Promise<void> => {
      while (!system.isShuttingDown) {
        try {
          await role.beforeJoin?.();
          const ref = links.ref(nodeId, MasterProtocol, MASTER_ACTOR);
          if (!ref) return; // down again: onPeer tells when it is back
          const result = await ref.call("join", {
            role: config.role, name: config.name, account: privateKeyToAddress(config.privateKey as Hex), memoryBytes: totalmem(),
            listen: { endpoint, serverKey: config.curve.publicKey },
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
        await sleep(JOIN_RETRY_MS);
      }
    };
    closers.push(system.onPeer((peer) => {
      if (config.bootstrap.some(({ serverKey }) => serverKey === peer.nodeId)) void join(peer.nodeId);
    }));
  });
}

function remoteRpc(links: Links, masterKey: string): RpcCall {
  return async (request) => {
    const result = await links.ref(masterKey, ChainProtocol, CHAIN_ACTOR)?.call("rpc", { request }, { timeoutMs: RPC_TIMEOUT_MS });
    if (!result?.ok) throw new Error(`no chain node answers: ${result?.error.message ?? "the master is not linked"}`);
    return result.value.response;
  };
}

function masterKeyOf(config: NodeConfig): string {
  const [first] = config.bootstrap;
  if (!first) throw new NodeStartError("listen", `a ${config.role} node needs a bootstrap address in its config: [{ endpoint, serverKey }]`);
  return first.serverKey;
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

const sleep = (ms: number, signal?: AbortSignal): Promise<void> => new Promise((resolve) => {
  const timer = setTimeout(resolve, ms);
  signal?.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
});
