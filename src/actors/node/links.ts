// Owns the links that a node keeps: dials until somebody answers, and finds the current reference of a peer.
// Invariant: an address is dialed once; after the first link the runtime itself opens it again when it is lost.
import type { AnyProtocol, CurveKeys, Peer, Ref, System } from "../../runtime/index.js";
import type { NodeAddress } from "./config.js";

const DIAL_TIMEOUT_MS = 5_000;

export class Links {
  private readonly dialed = new Set<string>();

  constructor(private readonly system: System, private readonly keys: CurveKeys, private readonly warn: (text: string) => void) {}

  /** Keeps a link to an address from now on. */
  dial(address: NodeAddress): void {
    if (this.dialed.has(address.serverKey) || address.serverKey === this.keys.publicKey) return;
    this.dialed.add(address.serverKey);
    void this.dialUntilAnswered(address);
  }

  /** The actor at a node, if the node is linked now. */
  ref<P extends AnyProtocol>(nodeId: string, protocol: P, actor: string): Ref<P> | undefined {
    const peer: Peer | undefined = this.system.peer(nodeId);
    return peer?.isUp ? peer.ref(protocol, actor) : undefined;
  }

  private async dialUntilAnswered(address: NodeAddress): Promise<void> {
    while (!this.system.isShuttingDown) {
      try {
        await this.system.connect({ ...address, keys: this.keys, timeoutMs: DIAL_TIMEOUT_MS });
        return;
      } catch (error) {
        if (!this.system.isShuttingDown) this.warn((error as Error).message);
      }
    }
  }
}
