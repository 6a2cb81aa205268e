// Owns: a system's links: listeners, dialers and peers, and the heartbeat that drives them all.
// Invariant: per node id at most one peer object is current; another incarnation ends it before the new one starts.
import { RuntimeError } from "../core/failure.js";
import type { SystemCore } from "../core/system.js";
import type { Host, MetricSample, TimerHandle } from "../host/host.js";
import {
  CHUNK_BYTES_IPC, CHUNK_BYTES_TCP, LINK_VERSION_MAX, LINK_VERSION_MIN, LINK_VERSION_SHARED,
} from "../wire/limits.js";
import { Acceptor } from "./acceptor.js";
import { Dialer } from "./dialer.js";
import { assertKeys, isKey, type CurveKeys } from "./keys.js";
import { Link, PING_PERIOD_MS, type LinkReport } from "./link.js";
import { PenaltyBox } from "./penalty-box.js";
import { Peer } from "./peer.js";
import type { SharedReport } from "./shared-lane.js";
import type { BoundSocket, Channel, Transport } from "./transport.js";

export interface ListenOptions {
  /** `ipc:///absolute/path` or `tcp://host:port`; port 0 lets the system choose. */
  readonly endpoint: string;
  readonly keys: CurveKeys;
  /** Which node ids may connect. "any" still demands proof of the id. */
  readonly allow: "any" | ((publicKey: string) => boolean);
  /** No encryption; only on loopback and ipc. Ids are proven all the same. */
  readonly plain?: boolean;
  /** Speak no higher link version, while a rolling upgrade may still be taken back. Default: the highest. */
  readonly linkVersionMax?: number;
}

export interface Listener {
  readonly endpoint: string;
  readonly nodeId: string;
  close(): Promise<void>;
}

export interface ConnectOptions {
  readonly endpoint: string;
  /** The other node's id: its public key in hex. */
  readonly serverKey: string;
  readonly keys: CurveKeys;
  readonly timeoutMs?: number;
  readonly plain?: boolean;
  /** Default true: a lost link is opened again until the system shuts down or `disconnect` is called. */
  readonly reconnect?: boolean;
  /** Speak no higher link version, while a rolling upgrade may still be taken back. Default: the highest. */
  readonly linkVersionMax?: number;
  readonly signal?: AbortSignal;
}

const CONNECT_TIMEOUT_MS_DEFAULT = 10_000;
/** A beat that comes this much late means that this process was held up, not that the peers were. */
const STALL_MS = 500;
/** Peers that are down are remembered so that refs revive on reconnect, but not without bound. */
const DOWN_PEERS_MAX = 4096;
/** Two ends that dial each other have two; a few more may linger until their loss is seen. Past that the oldest goes. */
const LINKS_PER_PEER_MAX = 8;
/** Each link may hold some hundred MiB in queues at worst; three sockets each is also near the usual limit of files. */
const LINKS_MAX = 4096;
/** Looking for the lost connection means a ping to every peer: once for all that break within this time. */
const PROBE_DELAY_MS = 10;

/** Of forgotten peers only what keeps a reliable cast from being taken twice: 150 B each. */
const FORGOTTEN_PEERS_MAX = 65_536;

/** What a finished handshake hands over. */
interface OpenedChannels {
  readonly nodeId: string;
  readonly incarnation: string;
  readonly channels: readonly Channel[];
  readonly version: number;
  readonly endpoint: string;
  readonly isDialer: boolean;
  readonly onEnd: (link: Link) => void;
}

interface OpenListener extends Listener {
  readonly socket: BoundSocket;
  readonly acceptor: Acceptor;
}

export class Remoting {
  readonly #system: SystemCore;
  readonly #host: Host;
  readonly #createTransport: () => Promise<Transport>;
  #transport: Promise<Transport> | undefined;
  readonly #listeners = new Set<OpenListener>();
  readonly #dialers = new Map<Dialer, string>();
  readonly #peers = new Map<string, Peer>();
  readonly #peerListeners = new Set<(peer: Peer) => void>();
  readonly #links = new Set<Link>();
  readonly #forgotten = new Map<string, { readonly incarnation: string; readonly lastStreamId: number }>();
  #streamId = 0;
  #beatTimer: TimerHandle;
  #beatDueMs = 0;
  #probeTimer: TimerHandle;
  readonly #penalties: PenaltyBox;
  #violations = 0;
  #rejected = 0;
  #isClosed = false;
  readonly #unregisterMetrics: () => void;

  constructor(system: SystemCore, host: Host, createTransport: () => Promise<Transport>) {
    this.#system = system;
    this.#host = host;
    this.#createTransport = createTransport;
    this.#penalties = new PenaltyBox(host.clock);
    this.#unregisterMetrics = host.metrics.register(() => this.#collect());
  }

  peer(nodeId: string): Peer | undefined {
    return this.#peers.get(nodeId);
  }

  peers(): Peer[] {
    return [...this.#peers.values()];
  }

  links(): LinkReport[] {
    return [...this.#links].map((link) => link.report());
  }

  onPeer(listener: (peer: Peer) => void): () => void {
    this.#peerListeners.add(listener);
    return () => void this.#peerListeners.delete(listener);
  }

  async listen(options: ListenOptions): Promise<Listener> {
    this.#assertOpen();
    assertKeys(options.keys);
    assertEndpoint(options.endpoint, options.plain === true);
    const transport = await this.#getTransport();
    this.#assertOpen();
    const { keys, allow } = options;
    const isAllowed = (publicKey: string): boolean => allow === "any" || allow(publicKey) === true;
    const acceptor = new Acceptor(
      {
        keys,
        isAllowed,
        isBarred: (nodeId) => this.#penalties.holds(nodeId),
        linkVersionMax: versionMax(options.linkVersionMax),
      },
      {
        system: this.#system,
        host: this.#host,
        openLink: (nodeId, incarnation, channels, version) =>
          this.#openLink({
            nodeId, incarnation, channels, version, endpoint: options.endpoint, isDialer: false,
            onEnd: (link) => acceptor.forget(link),
          })?.link,
      },
    );
    const socket = await transport.bind({
      endpoint: options.endpoint,
      keys,
      isPlain: options.plain === true,
      isAllowed,
      onFrame: (id, parts) => acceptor.onFrame(id, parts),
      onDisconnect: () => this.#probeSoon(),
      onRejected: () => void (this.#rejected += 1),
    });
    acceptor.attach(socket);
    const listener: OpenListener = {
      endpoint: socket.endpoint,
      nodeId: keys.publicKey,
      socket,
      acceptor,
      close: async () => {
        if (!this.#listeners.delete(listener)) return;
        acceptor.close();
        await socket.close(false);
      },
    };
    this.#listeners.add(listener);
    if (this.#isClosed) {
      await listener.close();
      this.#assertOpen();
    }
    return listener;
  }

  async connect(options: ConnectOptions): Promise<Peer> {
    this.#assertOpen();
    assertKeys(options.keys);
    assertEndpoint(options.endpoint, options.plain === true);
    if (!isKey(options.serverKey)) {
      throw new RuntimeError("bad-key", `serverKey must be the server's public key, 64 hex digits; got ${JSON.stringify(options.serverKey)}`);
    }
    const transport = await this.#getTransport();
    this.#assertOpen();
    const { endpoint, serverKey, keys } = options;
    const dialer = new Dialer(
      {
        endpoint,
        serverKey,
        keys,
        isPlain: options.plain === true,
        isReconnecting: options.reconnect !== false,
        linkVersionMax: versionMax(options.linkVersionMax),
      },
      {
        system: this.#system,
        host: this.#host,
        transport,
        openLink: (nodeId, incarnation, channels, version) =>
          this.#openLink({
            nodeId, incarnation, channels, version, endpoint, isDialer: true, onEnd: (link) => dialer.onLinkEnd(link),
          }),
      },
    );
    this.#dialers.set(dialer, serverKey);
    try {
      return await dialer.connect(options.timeoutMs ?? CONNECT_TIMEOUT_MS_DEFAULT, options.signal);
    } catch (error) {
      this.#dialers.delete(dialer);
      throw error;
    }
  }

  /** Closes the links to a node and stops dialing it. */
  disconnect(nodeId: string): void {
    for (const [dialer, key] of this.#dialers) {
      if (key !== nodeId) continue;
      dialer.close();
      this.#dialers.delete(dialer);
    }
    this.#peers.get(nodeId)?.closeLinks();
  }

  /** What was sent before leaves first, within `flushMs`. */
  async close(flushMs: number): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const dialer of this.#dialers.keys()) dialer.close();
    this.#dialers.clear();
    await this.#flush(flushMs);
    if (this.#beatTimer !== undefined) this.#host.clock.clearTimer(this.#beatTimer);
    if (this.#probeTimer !== undefined) this.#host.clock.clearTimer(this.#probeTimer);
    for (const link of [...this.#links]) link.close("closed", "the system shuts down");
    for (const peer of this.#peers.values()) peer.forget();
    for (const { acceptor, socket } of this.#listeners) {
      acceptor.close();
      await socket.close(true);
    }
    this.#listeners.clear();
    this.#unregisterMetrics();
    if (this.#transport !== undefined) await (await this.#transport).close();
  }

  async #flush(flushMs: number): Promise<void> {
    if (this.#links.size === 0) return;
    const flushed = Promise.all([...this.#peers.values()].map((peer) => peer.flushed())).then(async () => {
      for (const peer of this.#peers.values()) peer.sayGoodbye();
      await Promise.all([...this.#peers.values()].map((peer) => peer.flushed()));
    });
    await new Promise<void>((resolve) => {
      const timer = this.#host.clock.setTimer(resolve, flushMs);
      void flushed.then(() => {
        this.#host.clock.clearTimer(timer);
        resolve();
      });
    });
  }

  #getTransport(): Promise<Transport> {
    this.#transport ??= this.#createTransport();
    return this.#transport;
  }

  #assertOpen(): void {
    if (this.#isClosed || this.#system.isShuttingDown) {
      throw new RuntimeError("shut-down", `system ${this.#system.name} is shut down`);
    }
  }

  #openLink(made: OpenedChannels): { readonly link: Link; readonly peer: Peer } | undefined {
    const { nodeId, incarnation, channels, endpoint, isDialer, version, onEnd } = made;
    if (this.#isClosed || this.#system.isShuttingDown) return undefined;
    const siblings = [...this.#links].filter((each) => each.nodeId === nodeId);
    if (siblings.length >= LINKS_PER_PEER_MAX) siblings[0]!.close("closed", "the peer has opened too many links");
    if (this.#links.size >= LINKS_MAX && !isDialer) return undefined;
    const { peer, isNew } = this.#peerFor(nodeId, incarnation);
    const chunkBytes = endpoint.startsWith("ipc://") ? CHUNK_BYTES_IPC : CHUNK_BYTES_TCP;
    const link: Link = new Link(
      {
        nodeId,
        incarnation,
        endpoint,
        chunkBytes,
        isDialer,
        isSharing: isDialer && version >= LINK_VERSION_SHARED && isLocal(endpoint),
        version,
      },
      {
        host: this.#host,
        channels,
        events: {
          onRecord: (record, arrival) => peer.onRecord(record, arrival),
          onEnd: (end, message) => {
            this.#links.delete(link);
            if (end === "violation") {
              this.#violations += 1;
              this.#penalties.add(nodeId);
            }
            onEnd(link);
            peer.removeLink(link, end, message);
          },
        },
      },
    );
    const wasUp = peer.isUp;
    this.#links.add(link);
    peer.addLink(link);
    this.#startBeat();
    if (isNew || !wasUp) this.#announce(peer);
    return { link, peer };
  }

  #peerFor(nodeId: string, incarnation: string): { readonly peer: Peer; readonly isNew: boolean } {
    const known = this.#peers.get(nodeId);
    if (known !== undefined && known.incarnation === incarnation) return { peer: known, isNew: false };
    known?.replace();
    if (this.#peers.size >= DOWN_PEERS_MAX) this.#forgetPeers();
    const trace = this.#forgotten.get(nodeId);
    const peer = new Peer(nodeId, incarnation, {
      system: this.#system,
      nextStreamId: () => ++this.#streamId,
      forgottenStreamId: trace?.incarnation === incarnation ? trace.lastStreamId : 0,
    });
    this.#peers.set(nodeId, peer);
    return { peer, isNew: true };
  }

  /** Peers that are down, first those that nothing waits for. */
  #forgetPeers(): void {
    for (const isIdleOnly of [true, false]) {
      for (const [id, each] of this.#peers) {
        if (each.isUp || (isIdleOnly && !each.isIdle)) continue;
        this.#peers.delete(id);
        const lastStreamId = each.forget();
        if (lastStreamId === 0) continue;
        this.#forgotten.delete(id);
        this.#forgotten.set(id, { incarnation: each.incarnation, lastStreamId });
        for (const oldest of this.#forgotten.keys()) {
          if (this.#forgotten.size <= FORGOTTEN_PEERS_MAX) break;
          this.#forgotten.delete(oldest);
        }
      }
      if (this.#peers.size < DOWN_PEERS_MAX) return;
    }
  }

  #announce(peer: Peer): void {
    for (const listener of [...this.#peerListeners]) {
      try {
        listener(peer);
      } catch (error) {
        this.#host.logger.error("onPeer listener failed", { nodeId: peer.nodeId, error });
      }
    }
  }

  #probeSoon(): void {
    if (this.#probeTimer !== undefined || this.#isClosed) return;
    this.#probeTimer = this.#host.clock.setTimer(() => {
      this.#probeTimer = undefined;
      for (const peer of [...this.#peers.values()]) peer.probe();
    }, PROBE_DELAY_MS);
  }

  #startBeat(): void {
    if (this.#beatTimer !== undefined) return;
    const beat = (): void => {
      const isStalled = this.#host.clock.nowMs() - this.#beatDueMs > STALL_MS;
      this.#beatTimer = undefined;
      for (const peer of [...this.#peers.values()]) peer.beat(isStalled);
      if (this.#links.size > 0) plan();
    };
    const plan = (): void => {
      this.#beatDueMs = this.#host.clock.nowMs() + PING_PERIOD_MS;
      this.#beatTimer = this.#host.clock.setTimer(beat, PING_PERIOD_MS);
    };
    plan();
  }

  #collect(): MetricSample[] {
    const system = this.#system.name;
    const samples: MetricSample[] = [
      { name: "runtime_links_open", kind: "gauge", value: this.#links.size, labels: { system } },
      { name: "runtime_link_violations_total", kind: "counter", value: this.#violations, labels: { system } },
      { name: "runtime_connections_rejected_total", kind: "counter", value: this.#rejected, labels: { system } },
      { name: "runtime_peers_barred", kind: "gauge", value: this.#penalties.size, labels: { system } },
      {
        name: "runtime_handshakes_refused_total",
        kind: "counter",
        value: [...this.#listeners].reduce((sum, each) => sum + each.acceptor.refused, 0),
        labels: { system },
      },
    ];
    for (const peer of this.#peers.values()) {
      const { waitingMessages, waitingBytes, resent } = peer.reliableReport();
      if (waitingMessages === 0 && resent === 0) continue;
      const labels = { system, node: peer.nodeId.slice(0, 16) };
      samples.push({ name: "runtime_reliable_waiting_messages", kind: "gauge", value: waitingMessages, labels });
      samples.push({ name: "runtime_reliable_waiting_bytes", kind: "gauge", value: waitingBytes, labels });
      samples.push({ name: "runtime_reliable_resent_total", kind: "counter", value: resent, labels });
    }
    for (const link of this.#links) {
      const report = link.report();
      if (report.shared !== undefined) samples.push(...sharedSamples(report.shared, { system, node: report.nodeId.slice(0, 16) }));
      for (const each of report.lanes) {
        const labels = { system, node: report.nodeId.slice(0, 16), lane: each.lane };
        samples.push({ name: "runtime_link_sent_bytes_total", kind: "counter", value: each.sentBytes, labels });
        samples.push({ name: "runtime_link_received_bytes_total", kind: "counter", value: each.receivedBytes, labels });
        samples.push({ name: "runtime_link_outbox_bytes", kind: "gauge", value: each.queuedBytes, labels });
        samples.push({ name: "runtime_link_credit_bytes", kind: "gauge", value: each.creditBytes, labels });
      }
    }
    return samples;
  }
}

function versionMax(asked: number | undefined): number {
  if (asked === undefined) return LINK_VERSION_MAX;
  if (Number.isSafeInteger(asked) && asked >= LINK_VERSION_MIN && asked <= LINK_VERSION_MAX) return asked;
  throw new RuntimeError("bad-option", `linkVersionMax must be from ${LINK_VERSION_MIN} to ${LINK_VERSION_MAX}, got ${asked}`);
}

function assertEndpoint(endpoint: string, isPlain: boolean): void {
  const isIpc = /^ipc:\/\/\/./.test(endpoint);
  const tcp = /^tcp:\/\/(\[[0-9a-fA-F:]+\]|[^:/\s]+):(\d{1,5}|\*)$/.exec(endpoint);
  if (!isIpc && tcp === null) {
    throw new RuntimeError(
      "bad-option",
      `an endpoint must be ipc:///absolute/path or tcp://host:port, got ${JSON.stringify(endpoint)}`,
    );
  }
  if (isPlain && !isLocal(endpoint)) {
    throw new RuntimeError("insecure-endpoint", `plain links are for loopback only, not ${endpoint}`, "leave out `plain`");
  }
}

function sharedSamples(shared: SharedReport, labels: Readonly<Record<string, string>>): MetricSample[] {
  return [
    { name: "runtime_link_shared_sent_bytes_total", kind: "counter", value: shared.sentBytes, labels },
    { name: "runtime_link_shared_received_bytes_total", kind: "counter", value: shared.receivedBytes, labels },
    { name: "runtime_link_shared_misses_total", kind: "counter", value: shared.misses, labels },
    { name: "runtime_link_shared_own_bytes", kind: "gauge", value: shared.ownBytes, labels },
  ];
}

/** Whether an endpoint names this host and no other. */
function isLocal(endpoint: string): boolean {
  return /^(ipc:|tcp:\/\/(127\.\d+\.\d+\.\d+|localhost|\[::1\]):)/.test(endpoint);
}
