// Owns: the listening half of opening links. Invariants: a frame from an unknown channel is a HELLO or is dropped;
// nothing is kept for a peer before its HELLO, little before its proof; handshakes are bounded in number and time; a
// channel that sends junk costs a few looks at it and then no more than a table look-up a frame.
import type { Host, TimerHandle } from "../host/host.js";
import type { SystemCore } from "../core/system.js";
import { WireError } from "../wire/codec.js";
import { createFrame, FrameKind, readHeader } from "../wire/frame.js";
import {
  bodyOf, chooseVersion, decodeHello, encodeChallenge, joinMac, NONCE_BYTES, Proofs, REFUSED_FOR_NOW, type Hello,
  type ProofRole,
} from "./handshake.js";
import type { CurveKeys } from "./keys.js";
import type { Link } from "./link.js";
import { LANE_COUNT, type BoundSocket, type Channel } from "./transport.js";

const HANDSHAKE_MS_MAX = 5000;
/** When there are more, the oldest makes room: an honest handshake takes milliseconds, so a flood seldom hits one. */
const HANDSHAKES_MAX = 256;
/** Frames that are looked at after a channel's first bad one. ROUTER cannot hang up, so they keep coming. */
const OFFENCES_MAX = 8;
/** Channels remembered for that; the oldest are forgotten. */
const OFFENDERS_MAX = 4096;

export interface AcceptorOptions {
  readonly keys: CurveKeys;
  readonly isAllowed: (publicKey: string) => boolean;
  /** Nodes that broke the protocol just now and have to wait. */
  readonly isBarred: (nodeId: string) => boolean;
  readonly linkVersionMax: number;
}

export interface AcceptorModules {
  readonly system: SystemCore;
  readonly host: Host;
  /** @returns undefined when the system takes no more links. */
  readonly openLink: (
    nodeId: string,
    incarnation: string,
    channels: readonly Channel[],
    version: number,
  ) => Link | undefined;
}

interface Pending {
  readonly hello: Hello;
  readonly version: number;
  readonly proofs: Proofs;
  readonly laneIds: readonly Uint8Array[];
  readonly proven: boolean[];
  readonly timer: TimerHandle;
}

type Route = { pending: Pending; lane: number; link?: undefined } | { link: Link; lane: number; pending?: undefined };

export class Acceptor {
  readonly #options: AcceptorOptions;
  readonly #system: SystemCore;
  readonly #host: Host;
  readonly #openLink: AcceptorModules["openLink"];
  #socket: BoundSocket | undefined;
  readonly #routes = new Map<string, Route>();
  readonly #pendings = new Set<Pending>();
  readonly #offenders = new Map<string, number>();
  /** Frames and handshakes turned away. */
  refused = 0;

  constructor(options: AcceptorOptions, modules: AcceptorModules) {
    this.#options = options;
    this.#system = modules.system;
    this.#host = modules.host;
    this.#openLink = modules.openLink;
  }

  attach(socket: BoundSocket): void {
    this.#socket = socket;
  }

  onFrame(id: Uint8Array, parts: Uint8Array[]): void {
    const key = routeKey(id);
    const route = this.#routes.get(key);
    if (route?.link !== undefined) {
      route.link.receive(route.lane, parts);
      return;
    }
    if ((this.#offenders.get(key) ?? 0) >= OFFENCES_MAX) {
      this.refused += 1;
      return;
    }
    try {
      if (route === undefined) this.#onHello(id, parts);
      else this.#onProof(route.pending, route.lane, parts);
    } catch (error) {
      this.refused += 1;
      if (!(error instanceof WireError)) this.#host.logger.error("handshake failed", { error });
      if (route?.pending !== undefined) this.#drop(route.pending);
      this.#countOffence(key);
    }
  }

  forget(link: Link): void {
    for (const [key, route] of this.#routes) if (route.link === link) this.#routes.delete(key);
  }

  close(): void {
    for (const route of [...this.#routes.values()]) if (route.pending !== undefined) this.#drop(route.pending);
    this.#routes.clear();
  }

  #onHello(id: Uint8Array, parts: readonly Uint8Array[]): void {
    const header = readHeader(parts[0]);
    if (header.kind !== FrameKind.hello || parts.length !== 1) throw new WireError("malformed", "no hello");
    const hello = decodeHello(bodyOf(parts[0]!));
    const { keys } = this.#options;
    const laneIds = [id, ...hello.lanes];
    const laneKeys = laneIds.map(routeKey);
    if (new Set(laneKeys).size !== LANE_COUNT || laneKeys.some((key) => this.#routes.has(key))) {
      throw new WireError("malformed", "channel ids that are taken");
    }
    if (hello.nodeId === keys.publicKey) return this.#refuse(id, "this is the node itself");
    if (hello.serverId !== keys.publicKey) return this.#refuse(id, "another node was meant");
    if (!this.#options.isAllowed(hello.nodeId)) return this.#refuse(id, "not on the allow-list");
    const version = chooseVersion(hello, this.#options.linkVersionMax);
    if (version === undefined) return this.#refuse(id, "no common link version");
    if (this.#system.isShuttingDown || this.#options.isBarred(hello.nodeId)) return this.#refuse(id, REFUSED_FOR_NOW);
    for (const oldest of this.#pendings) {
      if (this.#pendings.size < HANDSHAKES_MAX) break;
      this.refused += 1;
      this.#drop(oldest);
    }

    const challenge = encodeChallenge({
      version,
      incarnation: this.#system.incarnation,
      nonce: this.#host.random(NONCE_BYTES),
    });
    const proofs = new Proofs(keys.secretKey, hello.nodeId, hello, challenge);
    const pending: Pending = {
      hello,
      version,
      proofs,
      laneIds: laneIds.map((each) => Uint8Array.from(each)),
      proven: [false, false, false],
      timer: this.#host.clock.setTimer(() => this.#drop(pending), HANDSHAKE_MS_MAX),
    };
    this.#pendings.add(pending);
    for (const [lane, key] of laneKeys.entries()) this.#routes.set(key, { pending, lane });
    this.#send(id, FrameKind.challenge, joinMac(proofs.make("server"), challenge));
  }

  #onProof(pending: Pending, lane: number, parts: readonly Uint8Array[]): void {
    const header = readHeader(parts[0]);
    const expected = lane === 0 ? FrameKind.proof : FrameKind.lane;
    if (header.kind !== expected || parts.length !== 1) throw new WireError("malformed", "no proof");
    const role: ProofRole = lane === 0 ? "client" : lane === 1 ? "lane1" : "lane2";
    if (!pending.proofs.check(role, bodyOf(parts[0]!))) throw new WireError("malformed", "a false proof");
    pending.proven[lane] = true;
    if (!pending.proven.every(Boolean)) return;
    this.#settle(pending);
    const { hello, laneIds, version } = pending;
    const socket = this.#socket!;
    const link = this.#openLink(hello.nodeId, hello.incarnation, laneIds.map((each) => socket.channel(each)), version);
    if (link === undefined) {
      for (const each of laneIds) this.#routes.delete(routeKey(each));
      return this.#refuse(laneIds[0]!, REFUSED_FOR_NOW);
    }
    for (const [index, each] of laneIds.entries()) this.#routes.set(routeKey(each), { link, lane: index });
    const ready = createFrame(FrameKind.ready, 0, 0, 0, pending.proofs.make("server"));
    void socket.channel(laneIds[0]!).send([ready]).then((outcome) => {
      // Without it the dialer takes the next frame for a broken handshake and gives up for good.
      if (outcome !== "sent") link.close("lost", "the connection did not take the end of the handshake");
    });
  }

  #settle(pending: Pending): void {
    this.#host.clock.clearTimer(pending.timer);
    this.#pendings.delete(pending);
  }

  #drop(pending: Pending): void {
    const first = this.#routes.get(routeKey(pending.laneIds[0]!));
    if (first?.pending !== pending) return;
    this.#settle(pending);
    for (const id of pending.laneIds) this.#routes.delete(routeKey(id));
  }

  #countOffence(key: string): void {
    const count = (this.#offenders.get(key) ?? 0) + 1;
    this.#offenders.delete(key); // to the end: the map's order is that of the last offence
    this.#offenders.set(key, count);
    if (this.#offenders.size > OFFENDERS_MAX) this.#offenders.delete(this.#offenders.keys().next().value!);
  }

  #refuse(id: Uint8Array, why: string): void {
    this.refused += 1;
    this.#countOffence(routeKey(id));
    this.#send(id, FrameKind.refuse, Buffer.from(why));
  }

  #send(id: Uint8Array, kind: FrameKind, body: Uint8Array): void {
    void this.#socket?.channel(id).send([createFrame(kind, 0, 0, 0, body)]);
  }
}

function routeKey(id: Uint8Array): string {
  return Buffer.from(id.buffer, id.byteOffset, id.byteLength).toString("latin1");
}

