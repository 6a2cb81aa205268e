// Owns the roles that keep a chain: master, PoS and PoW nodes.
// Invariant: one store a node, closed after the actors that use it.
import { join } from "node:path";
import { hexToBytes, type Hex } from "viem";
import { Chain, createJsonRpc, createProducer, type JsonRpc, type Store } from "../../chain/index.js";
import type { Device } from "../../device/device.js";
import { chainNode, Gossip } from "../chain-node/chain-node.js";
import { serveJsonRpc } from "../chain-node/http.js";
import { Transactor } from "../chain-node/transactor.js";
import { hasRunningTasks } from "../market.js";
import { NodeStartError, openComputeDevice, type Children, type Parts, type Role } from "./parts.js";

interface ChainParts { chain: Chain; jsonRpc: JsonRpc; gossip: Gossip; rpcUrl: string | undefined }

/** A store that cannot write (a full disk) ends the node: the chain in memory must not run ahead of it. */
function withFaultsTold(store: Store, fail: (error: Error) => void): Store {
  return {
    location: store.location,
    get: (key) => store.get(key),
    scan: (prefix, limit) => store.scan(prefix, limit),
    write: (operations, options) => {
      try {
        store.write(operations, options);
      } catch (error) {
        fail(error as Error);
        throw error;
      }
    },
    close: () => store.close(),
  };
}

async function openChain(parts: Parts, device: Device, children: Children): Promise<ChainParts> {
  const { config, genesis, closers, system, now, log, world } = parts;
  const store = withFaultsTold(await world.openStore(join(config.dataDir, "chain")), parts.fail);
  closers.push(() => store.close());
  const chain = await Chain.open({ store, genesis, device });
  const gossip = new Gossip(chain, { now, warn: (text) => log.warn(text) });
  const jsonRpc = createJsonRpc(chain, { peerCount: () => gossip.size });
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

export async function composeMaster(parts: Parts, children: Children): Promise<Role> {
  const { config, genesis, links, log, system, now, world } = parts;
  const device = openComputeDevice(parts);
  const { chain, jsonRpc, rpcUrl } = await openChain(parts, device, children);
  const transactor = new Transactor({ privateKey: config.privateKey as Hex, chainId: genesis.chainId }, {
    rpc: (request) => jsonRpc.handle(request),
  });
  const { master } = await import("../master/master.js");
  children.set("master", master({
    device, chain, transactor, links, system, now, dataDir: config.dataDir, chainId: BigInt(genesis.chainId),
    self: { endpoint: config.listen, serverKey: config.curve.publicKey }, random: world.random,
    warn: (text) => log.warn(text),
  }));
  return { rpcUrl, isChainNode: true };
}

export async function composePos(parts: Parts, children: Children): Promise<Role> {
  const { config, genesis, closers, now, log } = parts;
  if (!config.blsSecretKey) throw new NodeStartError("chain", "a pos node needs blsSecretKey in its config: 0x and 64 hex digits");
  const device = openComputeDevice(parts);
  const { chain, gossip, jsonRpc, rpcUrl } = await openChain(parts, device, children);
  const keys = createProducer({ privateKey: hexToBytes(config.privateKey as Hex), blsSecretKey: hexToBytes(config.blsSecretKey as Hex) });
  const { producer } = await import("../pos/producer.js");
  const { reportEquivocations } = await import("../pos/equivocation-reporter.js");
  const transactor = new Transactor({ privateKey: config.privateKey as Hex, chainId: genesis.chainId }, {
    rpc: (request) => jsonRpc.handle(request),
  });
  closers.push(reportEquivocations({ chain, transactor, log }));
  children.set("producer", producer({ chain, gossip, keys, now }));
  return { rpcUrl, isChainNode: true };
}

export async function composePow(parts: Parts, children: Children): Promise<Role> {
  const { config } = parts;
  const device = openComputeDevice(parts);
  const { chain, rpcUrl } = await openChain(parts, device, children);
  const { challengeMiner } = await import("../pow/miner.js");
  children.set("miner", challengeMiner(config.pow, {
    chain, compute: config.compute, privateKey: hexToBytes(config.privateKey as Hex), hasPaidWork: () => hasRunningTasks(chain),
    openSearch: parts.world.openSearch,
  }));
  return { rpcUrl, isChainNode: true };
}
