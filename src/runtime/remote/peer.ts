// Owns: one incarnation of one other node: its links, and when it is up, down or replaced.
// Invariants: when its last link goes, every pending call fails and every watch fires, each exactly once; when the
// node comes back as another incarnation this object is over for good, and so are all refs made from it.
import type { CallOptions } from "../core/calls.js";
import type { CallResult, CastResult, StopReason } from "../core/failure.js";
import type { AnyProtocol } from "../core/protocol.js";
import type { CastOptions, Ref } from "../core/ref.js";
import type { SystemCore } from "../core/system.js";
import { ConfirmedReceiver } from "./confirmed-receiver.js";
import { Inbound } from "./inbound.js";
import type { Arrival, Link, LinkEnd, LinkReport } from "./link.js";
import { Outgoing, type ConfirmedCast } from "./outgoing.js";
import type { PeerLine, PeerState } from "./peer-line.js";
import { readRecord, type ProtocolTag } from "./record.js";
import { ReliableReceiver } from "./reliable-receiver.js";
import { ReliableSender, type ReliableReport } from "./reliable-sender.js";
import type { TypedArray } from "../wire/codec.js";
import { RemoteRef } from "./remote-ref.js";
import { Watches } from "./watches.js";

export type { PeerState } from "./peer-line.js";

export interface PeerDown {
  readonly end: LinkEnd | "replaced";
  readonly message: string;
}

export interface TensorType<T extends TypedArray> {
  readonly BYTES_PER_ELEMENT: number;
  new (length: number): T;
  new (buffer: ArrayBuffer, byteOffset: number, length: number): T;
}

/** Node ids are 64 digits; the first eight tell them apart in logs. */
const LABEL_LENGTH = 8;

export interface PeerModules {
  readonly system: SystemCore;
  /** Counts streams and runs for the whole system: each number is used once in an incarnation. */
  readonly nextStreamId: () => number;
  /** The last stream of this node that an earlier, forgotten object of the same incarnation has seen. */
  readonly forgottenStreamId: number;
}

export class Peer {
  readonly nodeId: string;
  readonly incarnation: string;
  readonly #line: PeerLine;
  #links: Link[] = [];
  #state: PeerState = "down";
  readonly #outgoing: Outgoing;
  readonly #inbound: Inbound;
  readonly #watches: Watches;
  readonly #reliableOut: ReliableSender;
  readonly #reliableIn: ReliableReceiver;
  readonly #confirmed: ConfirmedReceiver;
  readonly #downListeners = new Set<(down: PeerDown) => void>();

  constructor(nodeId: string, incarnation: string, { system, nextStreamId, forgottenStreamId }: PeerModules) {
    this.nodeId = nodeId;
    this.incarnation = incarnation;
    const state = (): PeerState => this.#state;
    const link = (): Link | undefined => this.#links[0];
    this.#line = {
      system,
      nodeId,
      label: nodeId.slice(0, LABEL_LENGTH),
      get state() {
        return state();
      },
      get link() {
        return link();
      },
    };
    this.#outgoing = new Outgoing(this.#line);
    const sender = Object.freeze({ nodeId, link: this });
    this.#inbound = new Inbound(this.#line, sender);
    this.#watches = new Watches(this.#line);
    this.#reliableOut = new ReliableSender(this.#line, nextStreamId);
    this.#reliableIn = new ReliableReceiver(this.#line, sender, forgottenStreamId);
    this.#confirmed = new ConfirmedReceiver(this.#line, sender);
  }

  get state(): PeerState {
    return this.#state;
  }

  get isUp(): boolean {
    return this.#state === "up";
  }

  ref<P extends AnyProtocol>(protocol: P, name: string): Ref<P> {
    return new RemoteRef(this, protocol, name);
  }

  /**
   * An array to fill and send to this peer, once: between processes of one host its memory is handed over and nothing
   * is copied. A cast or call that took it ("accepted", not "full") leaves it empty then; elsewhere, or when it is too
   * small to be worth it, this is an ordinary array that is copied when sent. Zero-filled or not: fill all of it.
   */
  createTensor<T extends TypedArray>(type: TensorType<T>, length: number): T {
    const buffer = this.#links[0]?.draft(length * type.BYTES_PER_ELEMENT);
    return buffer === undefined ? new type(length) : new type(buffer, 0, length);
  }

  /** `listener` runs each time the peer goes down. @returns the function that ends the subscription. */
  onDown(listener: (down: PeerDown) => void): () => void {
    this.#downListeners.add(listener);
    return () => void this.#downListeners.delete(listener);
  }

  report(): LinkReport[] {
    return this.#links.map((link) => link.report());
  }

  reliableReport(): ReliableReport {
    return this.#reliableOut.report();
  }

  castTo(protocol: AnyProtocol, target: string, name: string, message: unknown, options?: CastOptions): CastResult {
    if (options?.delivery !== "reliable") return this.#outgoing.cast(protocol, target, name, message);
    const { system } = this.#line;
    const span = system.tracer === undefined ? undefined : system.traceOut("cast", target, name);
    const trace = span?.context ?? system.currentTrace();
    const result = this.#reliableOut.cast(protocol, target, name, message, trace);
    span?.end();
    return result;
  }

  /** A cast that is answered when its handler has finished; for outboxes, which number and repeat theirs. */
  confirmTo(
    cast: ConfirmedCast,
    target: { readonly protocol: ProtocolTag; readonly path: string; readonly name: string },
    message: unknown,
    options: CallOptions,
  ): Promise<CallResult<unknown>> {
    return this.#outgoing.confirmed(cast, target, message, options);
  }

  callTo(
    protocol: AnyProtocol,
    target: string,
    name: string,
    message: unknown,
    options: CallOptions | undefined,
  ): Promise<CallResult<unknown>> {
    return this.#outgoing.call(protocol, target, name, message, options);
  }

  watchAt(target: string, listener: (reason: StopReason) => void): () => void {
    return this.#watches.add(target, listener);
  }

  addLink(link: Link): void {
    this.#links.push(link);
    this.#state = "up";
    this.#reliableOut.onLinkChanged();
  }

  /** @returns true when that was the last one. */
  removeLink(link: Link, end: LinkEnd, message: string): boolean {
    this.#links = this.#links.filter((each) => each !== link);
    this.#inbound.onLinkEnd(link);
    if (this.#state !== "up") return false;
    if (this.#links.length > 0) {
      this.#outgoing.onLinkEnd(link, { code: "unreachable", message: `the link to node ${this.#line.label} went down: ${message}` });
      this.#reliableOut.onLinkChanged();
      this.#reliableIn.onLinkChanged();
      return false;
    }
    this.#goDown("down", { end, message });
    return true;
  }

  /** The node has come back as another incarnation. */
  replace(): void {
    if (this.#state === "replaced") return;
    const links = this.#links;
    this.#links = [];
    const wasUp = this.#state === "up";
    this.#state = "replaced";
    for (const link of links) link.close("lost", "the node came back as a new incarnation");
    if (wasUp) this.#goDown("replaced", { end: "replaced", message: "the node came back as a new incarnation" });
    this.#reliableOut.abandon();
  }

  /** This system ends, or has no room to remember a peer that is down. @returns the last stream that came from it. */
  forget(): number {
    this.#reliableOut.abandon();
    return this.#reliableIn.lastId;
  }

  /** Nothing of it would be missed but its number of streams. */
  get isIdle(): boolean {
    return this.#state !== "up" && this.#reliableOut.isEmpty;
  }

  closeLinks(): void {
    for (const link of [...this.#links]) link.close("closed", "closed by this side");
  }

  sayGoodbye(): void {
    for (const link of this.#links) link.sayGoodbye();
  }

  async flushed(): Promise<void> {
    if (this.#links.length > 0) await this.#reliableOut.whenEmpty();
    await Promise.all(this.#links.map((link) => link.flushed()));
  }

  probe(): void {
    for (const link of [...this.#links]) link.probe();
  }

  beat(isStalled: boolean): void {
    for (const link of [...this.#links]) link.beat(isStalled);
  }

  #goDown(state: "down" | "replaced", down: PeerDown): void {
    this.#state = state;
    const { system, label } = this.#line;
    const { logger } = system.host;
    const { end, message } = down;
    (end === "violation" || end === "silent" ? logger.warn : logger.info)("peer is down", { nodeId: this.nodeId, end, message });
    this.#watches.endInbound();
    this.#reliableIn.onDown();
    this.#confirmed.onDown();
    this.#outgoing.failAll({ code: "unreachable", message: `node ${label} went down: ${message}` });
    this.#watches.fireOutbound(message);
    for (const listener of [...this.#downListeners]) {
      try {
        listener(down);
      } catch (failure) {
        logger.error("onDown listener failed", { nodeId: this.nodeId, error: failure });
      }
    }
  }

  /** @throws WireError when the record is none. */
  onRecord(raw: readonly unknown[], arrival: Arrival): void {
    const { link } = arrival;
    const record = readRecord(raw);
    switch (record.kind) {
      case "cast":
        this.#inbound.onCast(record, arrival);
        break;
      case "casts":
        this.#inbound.onCasts(record, arrival);
        break;
      case "call":
        this.#inbound.onCall(record, arrival);
        break;
      case "reply":
        this.#outgoing.onReply(record.id, record.payload, link);
        break;
      case "error":
        this.#outgoing.onError(record.id, record.error);
        break;
      case "watch":
        this.#watches.onWatch(record.id, record.target, link);
        break;
      case "unwatch":
        this.#watches.onUnwatch(record.id);
        break;
      case "down":
        this.#watches.onDown(record.id, record.reason);
        break;
      case "cancel":
        this.#inbound.onCancel(record.id);
        break;
      case "reliable":
        this.#reliableIn.onRecord(record, arrival);
        break;
      case "ack":
        this.#reliableOut.onAck(record);
        break;
      case "confirmed":
        this.#confirmed.onRecord(record, arrival);
    }
  }
}
