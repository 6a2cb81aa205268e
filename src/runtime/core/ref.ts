// Owns: the typed handle through which everybody talks to an actor. Invariant: cast and call never throw, whatever
// state the actor is in.
import type { CallOptions } from "./calls.js";
import type { Cell } from "./cell.js";
import type { CallResult, CastResult, StopReason } from "./failure.js";
import type { AnyProtocol, CallName, CastName, Message, Reply, Request } from "./protocol.js";

export interface CastOptions {
  /**
   * - left out: at most once, in order; what is under way when a link goes is lost
   * - `"reliable"`: kept until the other node's mailbox has taken it, over reconnects of the same incarnations
   * Within one system both are the same.
   */
  readonly delivery?: "reliable";
}

export interface Ref<P extends AnyProtocol> {
  readonly protocol: P;
  readonly path: string;
  /** Hex public key of the node it lives on; undefined for an actor of this system. */
  readonly nodeId: string | undefined;
  cast<N extends CastName<P>>(name: N, message: Message<P, N>, options?: CastOptions): CastResult;
  call<N extends CallName<P>>(
    name: N,
    message: Request<P, N>,
    options?: CallOptions,
  ): Promise<CallResult<Reply<P, N>>>;
  /**
   * `listener` runs exactly once, with the reason for which the actor is gone; asynchronously, also when it is
   * gone already. @returns the function that takes the watch back.
   */
  watch(listener: (reason: StopReason) => void): () => void;
}

export class LocalRef<P extends AnyProtocol> implements Ref<P> {
  readonly #cell: Cell;
  readonly protocol: P;
  readonly path: string;

  constructor(cell: Cell, protocol: P, path: string) {
    this.#cell = cell;
    this.protocol = protocol;
    this.path = path;
  }

  get nodeId(): undefined {
    return undefined;
  }

  // Between actors of one system a mailbox either takes the message or says so: there is nothing to resend.
  cast<N extends CastName<P>>(name: N, message: Message<P, N>, _options?: CastOptions): CastResult {
    return this.#cell.cast(name, message);
  }

  call<N extends CallName<P>>(
    name: N,
    message: Request<P, N>,
    options?: CallOptions,
  ): Promise<CallResult<Reply<P, N>>> {
    return this.#cell.call(name, message, options) as Promise<CallResult<Reply<P, N>>>;
  }

  watch(listener: (reason: StopReason) => void): () => void {
    return this.#cell.watch(listener);
  }

  static cellOf(ref: unknown): Cell | undefined {
    return ref instanceof LocalRef ? ref.#cell : undefined;
  }
}
