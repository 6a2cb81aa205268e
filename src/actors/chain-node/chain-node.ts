// Owns the chain actor of a node: what arrives from peers goes into the chain, what is new goes out to
// the others, and a node that is behind fetches what it lacks.
// Invariant: an object is relayed at most once and only after this node has accepted it; a peer on
// another genesis is never talked to again.
import { behavior, replyLater, type Peer, type Reply } from "../../runtime/index.js";
import type { Chain, JsonRpc } from "../../chain/index.js";
import { CHAIN_ACTOR, ChainProtocol, SYNC_BLOCKS_MAX } from "./protocol.js";

const STATUS_TIMEOUT_MS = 5_000;
const SYNC_TIMEOUT_MS = 20_000;
/** Waiting transactions told to a peer that is met (again): some full blocks of them. */
const PENDING_RESENT_MAX = 2_048;

type ChainRef = ReturnType<typeof chainRefOf>;
const chainRefOf = (peer: Peer) => peer.ref(ChainProtocol, CHAIN_ACTOR);

interface ChainPeer {
  peer: Peer;
  ref: ChainRef;
  syncing: boolean;
}

/** The chain peers of this node; the producer, the miner and the chain actor send through it. */
export class Gossip {
  private readonly peers = new Map<string, ChainPeer>();

  constructor(
    private readonly chain: Chain,
    private readonly modules: { now: () => number; warn: (text: string) => void },
  ) {}

  get size(): number {
    return this.peers.size;
  }

  /** Asks a new peer for its chain; keeps it as a chain peer when it has the same genesis. */
  async meet(peer: Peer): Promise<void> {
    const ref = chainRefOf(peer);
    const status = await askStatus(peer, ref);
    if (!status) return;
    if (!equal(status.genesisHash, this.chain.genesisHash)) {
      this.modules.warn(`peer ${peer.nodeId.slice(0, 12)} is on another genesis`);
      return;
    }
    const entry: ChainPeer = { peer, ref, syncing: false };
    this.peers.set(peer.nodeId, entry);
    peer.onDown(() => {
      if (this.peers.get(peer.nodeId) === entry) this.peers.delete(peer.nodeId);
    });
    if (BigInt(status.totalWeight) > this.chain.head.totalWeight) await this.sync(entry);
    // what was sent while the link was down did not arrive, and nobody else may send it again
    for (const { raw } of this.chain.mempool.transactions().slice(0, PENDING_RESENT_MAX)) ref.cast("transaction", { raw });
  }

  isBehindOf(nodeId: string): void {
    const entry = this.peers.get(nodeId);
    if (entry) void this.sync(entry);
  }

  broadcast(kind: "block" | "transaction" | "certificate", data: Uint8Array, exceptNodeId?: string): void {
    for (const [nodeId, { ref }] of this.peers) {
      if (nodeId === exceptNodeId) continue;
      // a full outbox drops the object; the peer then fetches it by sync when the next block does not fit
      if (kind === "block") ref.cast("block", { block: data });
      else if (kind === "transaction") ref.cast("transaction", { raw: data });
      else ref.cast("certificate", { certificate: data });
    }
  }

  private async sync(entry: ChainPeer): Promise<void> {
    if (entry.syncing) return;
    entry.syncing = true;
    try {
      for (;;) {
        const reply = await entry.ref.call("blocksAfter",
          { locator: this.chain.ancestorsLocator(), max: SYNC_BLOCKS_MAX }, { timeoutMs: SYNC_TIMEOUT_MS });
        if (!reply.ok || reply.value.blocks.length === 0) return;
        let progressed = false;
        for (const block of reply.value.blocks) {
          const result = await this.chain.importBlock(block, this.modules.now());
          if (result.status === "rejected") {
            this.modules.warn(`sync from ${entry.peer.nodeId.slice(0, 12)} stopped: ${result.reason}`);
            return;
          }
          progressed ||= result.status === "imported";
        }
        if (!progressed) return;
      }
    } finally {
      entry.syncing = false;
    }
  }
}

/** A busy node answers late; one that is gone, or keeps no chain, never. */
async function askStatus(peer: Peer, ref: ChainRef): Promise<Reply<typeof ChainProtocol, "status"> | undefined> {
  while (peer.isUp) {
    const status = await ref.call("status", {}, { timeoutMs: STATUS_TIMEOUT_MS });
    if (status.ok) return status.value;
    if (status.error.code !== "timeout") return undefined;
  }
  return undefined;
}

export function chainNode(modules: { chain: Chain; jsonRpc: JsonRpc; gossip: Gossip; now: () => number }) {
  const { chain, gossip, jsonRpc } = modules;
  return behavior(ChainProtocol, (ctx) => ({
    call: {
      status: () => ({
        genesisHash: chain.genesisHash, headNumber: Number(chain.head.number), headHash: chain.head.hash,
        totalWeight: chain.head.totalWeight.toString(),
      }),
      blocksAfter: async ({ locator, max }) => ({ blocks: await chain.blocksAfter(locator, max) }),
      // blocks and transactions are not held up by what a client asks
      rpc: ({ request }) => replyLater(jsonRpc.handle(request).then((response) => ({ response }))),
    },
    cast: {
      block: async ({ block }, meta) => {
        const result = await chain.importBlock(block, modules.now());
        const from = meta.sender?.nodeId;
        if (result.status === "imported") gossip.broadcast("block", block, from);
        else if (result.status === "orphan" && from) gossip.isBehindOf(from);
        else if (result.status === "rejected") ctx.log.warn(`block rejected: ${result.reason}`);
      },
      // what the chain accepts it announces as an event, which sends it on to all peers
      transaction: async ({ raw }) => void await chain.submitTransaction(raw),
      certificate: async ({ certificate }) => void await chain.addCertificate(certificate),
    },
  }));
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
