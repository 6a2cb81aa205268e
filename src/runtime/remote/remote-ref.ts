// Owns: the handle on an actor of another node. Invariant: same contract as a local ref; what the network adds is
// only more ways to say "full", "stopped" or "unreachable".
import type { CallOptions } from "../core/calls.js";
import type { CallResult, CastResult, StopReason } from "../core/failure.js";
import type { AnyProtocol, CallName, CastName, Message, Reply, Request } from "../core/protocol.js";
import type { CastOptions, Ref } from "../core/ref.js";
import type { Peer } from "./peer.js";

export class RemoteRef<P extends AnyProtocol> implements Ref<P> {
  readonly #peer: Peer;
  readonly protocol: P;
  readonly path: string;
  readonly nodeId: string;

  constructor(peer: Peer, protocol: P, path: string) {
    this.#peer = peer;
    this.protocol = protocol;
    this.path = path;
    this.nodeId = peer.nodeId;
  }

  cast<N extends CastName<P>>(name: N, message: Message<P, N>, options?: CastOptions): CastResult {
    return this.#peer.castTo(this.protocol, this.path, name, message, options);
  }

  call<N extends CallName<P>>(
    name: N,
    message: Request<P, N>,
    options?: CallOptions,
  ): Promise<CallResult<Reply<P, N>>> {
    return this.#peer.callTo(this.protocol, this.path, name, message, options) as Promise<CallResult<Reply<P, N>>>;
  }

  watch(listener: (reason: StopReason) => void): () => void {
    return this.#peer.watchAt(this.path, listener);
  }
}
