// Owns the roles that compute and keep no chain: worker and parameter server. They ask a master's chain node.
import type { Hex } from "viem";
import { signDigest } from "../../chain/crypto/signature.js";
import { CHAIN_ACTOR, ChainProtocol } from "../chain-node/protocol.js";
import { createRemoteRpc } from "../chain-node/remote-rpc.js";
import type { RpcCall } from "../chain-node/transactor.js";
import { MASTER_ACTOR, MasterProtocol } from "../master/protocol.js";
import { PARAMETER_SERVER_ACTOR, ParameterServerProtocol } from "../parameter-server/protocol.js";
import { createShardFetch } from "../worker/fetch-shard.js";
import type { NodeConfig } from "./config.js";
import { NodeStartError, openComputeDevice, type Children, type Parts, type Role } from "./parts.js";

export async function composeWorker(parts: Parts, children: Children): Promise<Role> {
  const { config, genesis, links, now } = parts;
  const [{ worker }, { Transactor }, { registerComputeNode }] = await Promise.all([
    import("../worker/worker.js"), import("../chain-node/transactor.js"), import("../market.js"),
  ]);
  const device = openComputeDevice(parts);
  const vm = parts.world.openTaskVm(config, { device, log: parts.log });
  parts.closers.push(() => vm.close());
  const masterKey = masterKeyOf(config);
  const masterRef = () => links.ref(masterKey, MasterProtocol, MASTER_ACTOR);
  const transactor = new Transactor({ privateKey: config.privateKey as Hex, chainId: genesis.chainId }, { rpc: remoteRpc(parts, masterKey) });
  const privateKey = Buffer.from(config.privateKey.slice(2), "hex");
  children.set("worker", worker({
    device, vm, transactor, now, sleep: parts.world.sleep, dataDir: config.dataDir, chainId: BigInt(genesis.chainId), master: masterRef,
    sealing: { privateKey: Buffer.from(config.curve.secretKey, "hex"), publicKey: Buffer.from(config.curve.publicKey, "hex") },
    isMaster: (nodeId) => config.bootstrap.some(({ serverKey }) => serverKey === nodeId),
    parameterServer: (address) => {
      links.dial(address);
      return () => links.ref(address.serverKey, ParameterServerProtocol, PARAMETER_SERVER_ACTOR);
    },
    signDigest: (digest) => signDigest(digest, privateKey),
    fetchShard: createShardFetch(masterRef, () => parts.system.isShuttingDown, parts.world),
  }));
  return { rpcUrl: undefined, isChainNode: false, beforeJoin: () => registerComputeNode(transactor, `0x${config.curve.publicKey}`) };
}

export async function composeParameterServer(parts: Parts, children: Children): Promise<Role> {
  const { config, log } = parts;
  const device = openComputeDevice(parts);
  const { parameterServer } = await import("../parameter-server/server.js");
  children.set("parameter-server", parameterServer({
    device, dataDir: config.dataDir, now: parts.now, warn: (text) => log.warn(text),
    isMaster: (nodeId) => config.bootstrap.some(({ serverKey }) => serverKey === nodeId),
  }));
  return { rpcUrl: undefined, isChainNode: false };
}

function remoteRpc({ links, system, world }: Parts, masterKey: string): RpcCall {
  return createRemoteRpc(() => links.ref(masterKey, ChainProtocol, CHAIN_ACTOR), () => system.isShuttingDown, world);
}

function masterKeyOf(config: NodeConfig): string {
  const [first] = config.bootstrap;
  if (!first) throw new NodeStartError("listen", `a ${config.role} node needs a bootstrap address in its config: [{ endpoint, serverKey }]`);
  return first.serverKey;
}
