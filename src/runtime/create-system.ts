// Owns: the public face of a system: local actors plus, when asked for, the network.
// Invariant: a system that never listens or connects opens no socket and loads no native code.
import { SystemCore, type SystemReport } from "./core/system.js";
import type { Tracer } from "./core/trace.js";
import type { Host, Logger, Clock, Metrics } from "./host/host.js";
import type { SharedMemory } from "./host/shared-memory.js";
import { createNodeHost } from "./host/node-host.js";
import type { LinkReport } from "./remote/link.js";
import type { Peer } from "./remote/peer.js";
import { Remoting, type ConnectOptions, type Listener, type ListenOptions } from "./remote/remoting.js";
import type { Transport } from "./remote/transport.js";
import { ZeroMqTransport } from "./remote/zeromq-transport.js";

export interface SystemOptions {
  readonly name: string;
  readonly logger?: Logger;
  readonly clock?: Clock;
  readonly random?: (sizeBytes: number) => Uint8Array;
  readonly metrics?: Metrics;
  readonly tasks?: Host["tasks"];
  /** Spans for calls, casts and handlers. Without one, trace contexts that come in are only passed on. */
  readonly tracer?: Tracer;
  /** For tensors between processes of one host: what the package's device area opens, see `openSharedMemory`. */
  readonly sharedMemory?: SharedMemory;
  /** Another network than ZeroMQ, made when the system first listens or connects. */
  readonly transport?: () => Promise<Transport>;
}

/** Of the shutdown deadline, what remains for the links to send the actors' last words. */
const FLUSH_MS_MIN = 200;

export class System extends SystemCore {
  readonly #remoting: Remoting;

  constructor(name: string, host: Host, createTransport: () => Promise<Transport>, tracer?: Tracer) {
    super(name, host, tracer);
    this.#remoting = new Remoting(this, host, createTransport);
  }

  /** @throws RuntimeError when the endpoint cannot be used. */
  listen(options: ListenOptions): Promise<Listener> {
    return this.#remoting.listen(options);
  }

  /** @throws RuntimeError "connect-timeout" or "connect-refused" with the reason as far as the network tells it. */
  connect(options: ConnectOptions): Promise<Peer> {
    return this.#remoting.connect(options);
  }

  disconnect(nodeId: string): void {
    this.#remoting.disconnect(nodeId);
  }

  /** `listener` runs for each peer that comes up, whoever dialed. @returns the function that ends the subscription. */
  onPeer(listener: (peer: Peer) => void): () => void {
    return this.#remoting.onPeer(listener);
  }

  /** The current incarnation of a node that has been linked before; see `peer.isUp`. */
  peer(nodeId: string): Peer | undefined {
    return this.#remoting.peer(nodeId);
  }

  peers(): Peer[] {
    return this.#remoting.peers();
  }

  links(): LinkReport[] {
    return this.#remoting.links();
  }

  override inspect(): SystemReport & { readonly links: readonly LinkReport[] } {
    return { ...super.inspect(), links: this.links() };
  }

  protected override closeLinks(leftMs: number): Promise<void> {
    return this.#remoting.close(Math.max(FLUSH_MS_MIN, leftMs));
  }
}

export function createSystem(options: SystemOptions): System {
  const { name, transport, tracer, ...parts } = options;
  const host = createNodeHost(name, parts);
  return new System(name, host, transport ?? (() => ZeroMqTransport.create(host)), tracer);
}
