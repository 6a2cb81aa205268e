// Owns: every ZeroMQ socket of one system: ROUTER to listen, one DEALER per dialed channel, and the ZAP handler.
// Invariants: CURVE unless plain was asked for; sends never wait inside ZeroMQ (sendTimeout 0); a DEALER never
// reconnects by itself, so one socket is one connection and frames cannot slip from an old session into a new one.
import { statSync, unlinkSync } from "node:fs";
import { createConnection } from "node:net";
import type { Context, Dealer, Reply, Router, Socket } from "zeromq";
import { RuntimeError } from "../core/failure.js";
import type { Host } from "../host/host.js";
import { freeMemory } from "../wire/array-memory.js";
import { BULK_BYTES_MIN, FRAME_BYTES_MAX, SOCKET_HIGH_WATER_MARK } from "../wire/limits.js";
import { onRelease } from "../wire/releasable.js";
import { toZ85 } from "./keys.js";
import type { BindOptions, BoundSocket, Channel, DialedChannel, DialOptions, SendOutcome, Transport } from "./transport.js";

type ZeroMq = typeof import("zeromq");
/** What of the host the sockets use. */
type TransportHost = Pick<Host, "clock" | "tasks" | "random" | "logger">;

const ZAP_ENDPOINT = "inproc://zeromq.zap.01";
const ROUTING_ID_BYTES = 17;
/** A connection that has not finished the CURVE handshake by then is dropped. */
const HANDSHAKE_MS_MAX = 5000;
/** On an orderly close the last frames may still leave; never long enough to be noticed at exit. */
const LINGER_GRACEFUL_MS = 200;
/** sun_path holds 108 bytes with its end mark. */
const IPC_PATH_BYTES_MAX = 107;
/** Received frames are handled for this long before the event loop gets its turn. */
const RECEIVE_BURST_MS = 5;
const ZAP_BIND_ATTEMPTS = 50;
/**
 * Pings go over the control lane; a data lane whose connection alone has died silently is given up by the kernel after
 * about as long as three missed pings take, instead of after its default of 15 minutes. Ignored on ipc.
 */
const KERNEL_LIVENESS = Object.freeze({
  tcpKeepalive: 1,
  tcpKeepaliveIdle: 3, // seconds, like the next
  tcpKeepaliveInterval: 1,
  tcpKeepaliveCount: 3,
  tcpMaxRetransmitTimeout: 6000, // milliseconds
});

/**
 * libzmq contexts that ended systems left behind. zeromq.js terminates a context only at exit, and each holds two
 * threads; handing it to the next system keeps their number at the most systems ever open at once. A context
 * carries no state of its system: its sockets and its ZAP handler are closed before it gets here.
 */
const idleContexts: Context[] = [];

export class ZeroMqTransport implements Transport {
  readonly #zmq: ZeroMq;
  readonly #host: TransportHost;
  readonly #context: Context;
  readonly #domains = new Map<string, (publicKey: string) => boolean>();
  #domainNumber = 0;
  #zap: Reply | undefined;
  #zapReady: Promise<void> | undefined;

  private constructor(zmq: ZeroMq, host: TransportHost) {
    this.#zmq = zmq;
    this.#host = host;
    this.#context = idleContexts.pop() ?? new zmq.Context({ blocky: false, ioThreads: 1 });
  }

  /** Loads ZeroMQ only now: a system without links needs no native code. */
  static async create(host: TransportHost): Promise<ZeroMqTransport> {
    return new ZeroMqTransport(await import("zeromq"), host);
  }

  dial(options: DialOptions): DialedChannel {
    const id = Buffer.from(this.#host.random(ROUTING_ID_BYTES));
    id[0] = 1; // ids that begin with 0 are ROUTER's own
    const socket = new this.#zmq.Dealer({
      context: this.#context,
      linger: 0,
      sendTimeout: 0,
      reconnectInterval: -1,
      ...KERNEL_LIVENESS,
      handshakeInterval: HANDSHAKE_MS_MAX,
      maxMessageSize: FRAME_BYTES_MAX,
      sendHighWaterMark: SOCKET_HIGH_WATER_MARK,
      receiveHighWaterMark: SOCKET_HIGH_WATER_MARK,
      routingId: id as unknown as string,
      ...(options.isPlain
        ? {}
        : {
            curvePublicKey: toZ85(options.keys.publicKey),
            curveSecretKey: toZ85(options.keys.secretKey),
            curveServerKey: toZ85(options.serverKey),
          }),
    });
    const channel = new DealerChannel(socket, id, options, this.#host);
    try {
      socket.connect(options.endpoint);
    } catch (error) {
      channel.close(false);
      throw error;
    }
    channel.start();
    return channel;
  }

  async bind(options: BindOptions): Promise<BoundSocket> {
    const path = ipcPath(options.endpoint);
    if (path !== undefined) await assertPathFree(path);
    let domain: string | undefined;
    if (!options.isPlain) {
      await this.#startZap();
      domain = `link-${++this.#domainNumber}`;
      this.#domains.set(domain, options.isAllowed);
    }
    const socket = new this.#zmq.Router({
      context: this.#context,
      linger: 0,
      mandatory: true,
      sendTimeout: 0,
      ...KERNEL_LIVENESS,
      handshakeInterval: HANDSHAKE_MS_MAX,
      maxMessageSize: FRAME_BYTES_MAX,
      sendHighWaterMark: SOCKET_HIGH_WATER_MARK,
      receiveHighWaterMark: SOCKET_HIGH_WATER_MARK,
      ...(domain === undefined
        ? {}
        : { curveServer: true, curveSecretKey: toZ85(options.keys.secretKey), zapDomain: domain, zapEnforceDomain: true }),
    });
    const release = (): void => {
      if (domain !== undefined) this.#domains.delete(domain);
    };
    const bound = new RouterSocket(socket, options, this.#host, release);
    try {
      await socket.bind(options.endpoint);
    } catch (error) {
      await bound.close(false);
      const reason = error instanceof Error ? error.message : String(error);
      throw new RuntimeError("listen-failed", `cannot listen on ${options.endpoint}: ${reason}`, undefined, { cause: error });
    }
    bound.start(path);
    return bound;
  }

  async close(): Promise<void> {
    this.#zap?.close();
    this.#zap = undefined;
    this.#domains.clear();
    idleContexts.push(this.#context);
  }

  async #startZap(): Promise<void> {
    this.#zapReady ??= (async () => {
      for (let attempt = 1; ; attempt++) {
        const zap = new this.#zmq.Reply({ context: this.#context, linger: 0 });
        try {
          await zap.bind(ZAP_ENDPOINT);
          this.#zap = zap;
          void this.#answerZap(zap);
          return;
        } catch (error) {
          zap.close();
          // The last user's handler of a reused context is closed by another thread; give that a moment.
          if (attempt === ZAP_BIND_ATTEMPTS) throw error;
          await new Promise<void>((resolve) => this.#host.clock.setTimer(resolve, 2));
        }
      }
    })();
    return this.#zapReady;
  }

  /** ZeroMQ RFC 27: one request per connection, with the CURVE key that the client has proven to hold. */
  async #answerZap(zap: Reply): Promise<void> {
    for (;;) {
      try {
        const [version, requestId, domain, , , mechanism, key] = await zap.receive();
        const allow = this.#domains.get(domain?.toString() ?? "");
        const isCurve = mechanism?.toString() === "CURVE" && key?.length === 32;
        let isAllowed = false;
        if (isCurve && allow !== undefined) {
          try {
            isAllowed = allow(key.toString("hex"));
          } catch (error) {
            this.#host.logger.error("allow-list threw; connection refused", { error });
          }
        }
        const status = isAllowed ? "200" : "400";
        await zap.send([version!, requestId!, status, isAllowed ? "OK" : "not allowed", isAllowed ? key!.toString("hex") : "", ""]);
      } catch (error) {
        if (zap.closed) return;
        this.#host.logger.error("ZAP handler failed", { error });
        return;
      }
    }
  }
}

/** Reads frames until the socket closes, yielding to the event loop every few milliseconds. */
async function receiveLoop(socket: Router | Dealer, host: TransportHost, handle: (parts: Buffer[]) => void): Promise<void> {
  const { clock, tasks } = host;
  let burstStartMs = clock.nowMs();
  for (;;) {
    let parts: Buffer[];
    try {
      parts = await socket.receive();
    } catch {
      return; // closed
    }
    const last = parts[parts.length - 1]!;
    if (last.length >= BULK_BYTES_MIN) onRelease(last.buffer, freeMemory);
    handle(parts);
    // receive() resolves up to 512 times without leaving the microtask queue.
    if (clock.nowMs() - burstStartMs >= RECEIVE_BURST_MS) {
      await new Promise<void>((resolve) => tasks.macro(resolve));
      burstStartMs = clock.nowMs();
    }
  }
}

const sent = (): SendOutcome => "sent";
const notSent = (error: unknown): SendOutcome => ((error as { code?: string }).code === "EAGAIN" ? "busy" : "gone");

function sendOn(socket: Router | Dealer, parts: readonly Uint8Array[]): Promise<SendOutcome> {
  try {
    return socket.send(parts as Buffer[]).then(sent, notSent);
  } catch (error) {
    return Promise.resolve(notSent(error)); // another send is under way, or the socket is closed
  }
}

/** The monitor must be read to its end: libzmq's I/O thread blocks on a monitor that nobody reads. */
async function monitorLoop(socket: Socket, handle: (type: string) => void): Promise<void> {
  const { events } = socket;
  for (;;) {
    try {
      const event = await events.receive();
      if (event === undefined || event.type === "end") break;
      handle(event.type);
    } catch {
      break;
    }
  }
  events.close();
}

function closeSocket(socket: Socket, isGraceful: boolean): void {
  if (socket.closed) return;
  if (isGraceful) socket.linger = LINGER_GRACEFUL_MS;
  socket.close();
}

class DealerChannel implements DialedChannel {
  readonly id: Uint8Array;
  readonly #socket: Dealer;
  readonly #options: DialOptions;
  readonly #host: TransportHost;
  #isConnected = false;
  #isAuthenticated = false;
  #isOver = false;

  constructor(socket: Dealer, id: Uint8Array, options: DialOptions, host: TransportHost) {
    this.#socket = socket;
    this.id = id;
    this.#options = options;
    this.#host = host;
    void monitorLoop(socket, (type) => this.#onEvent(type));
  }

  start(): void {
    void receiveLoop(this.#socket, this.#host, (parts) => {
      if (!this.#isOver) this.#options.onFrame(parts);
    });
  }

  send(parts: readonly Uint8Array[]): Promise<SendOutcome> {
    return sendOn(this.#socket, parts);
  }

  close(isGraceful: boolean): void {
    this.#isOver = true;
    closeSocket(this.#socket, isGraceful);
  }

  #onEvent(type: string): void {
    if (this.#isOver) return;
    if (type === "handshake:error:auth") this.#lose("denied");
    else if (type.startsWith("handshake:error")) this.#lose("handshake");
    else if (type === "connect") this.#isConnected = true;
    else if (type === "handshake") this.#isAuthenticated = true;
    else if (type === "disconnect" || type === "close") {
      this.#lose(this.#isAuthenticated ? "lost" : this.#isConnected ? "handshake" : "unreachable");
    }
  }

  #lose(failure: "denied" | "handshake" | "lost" | "unreachable"): void {
    this.#isOver = true;
    this.#options.onLost(failure);
  }
}

class RouterSocket implements BoundSocket {
  endpoint: string;
  readonly #socket: Router;
  readonly #options: BindOptions;
  readonly #host: TransportHost;
  readonly #release: () => void;
  #file: { readonly path: string; readonly inode: number } | undefined;
  /** All channels share the socket, and zeromq.js takes one send at a time: sendTimeout 0 keeps each immediate. */
  constructor(socket: Router, options: BindOptions, host: TransportHost, release: () => void) {
    this.#socket = socket;
    this.#options = options;
    this.#host = host;
    this.#release = release;
    this.endpoint = options.endpoint;
    void monitorLoop(socket, (type) => {
      if (socket.closed) return;
      if (type === "disconnect") options.onDisconnect();
      else if (type.startsWith("handshake:error")) options.onRejected();
    });
  }

  start(path: string | undefined): void {
    this.endpoint = this.#socket.lastEndpoint ?? this.#options.endpoint;
    if (path !== undefined) this.#file = { path, inode: statSync(path).ino };
    void receiveLoop(this.#socket, this.#host, ([id, ...parts]) => {
      if (id !== undefined) this.#options.onFrame(id, parts);
    });
  }

  channel(id: Uint8Array): Channel {
    return {
      send: (parts) => sendOn(this.#socket, [id, ...parts]),
      close: () => undefined, // ROUTER drops a connection when the other end does
    };
  }

  async close(isGraceful: boolean): Promise<void> {
    closeSocket(this.#socket, isGraceful);
    this.#release();
    if (this.#file === undefined) return;
    try {
      // Only our own file: a successor may have bound the path meanwhile.
      if (statSync(this.#file.path).ino === this.#file.inode) unlinkSync(this.#file.path);
    } catch {
      // Gone already.
    }
  }
}

export function ipcPath(endpoint: string): string | undefined {
  return endpoint.startsWith("ipc://") ? endpoint.slice("ipc://".length) : undefined;
}

/** ZeroMQ would silently take the path away from a living owner, so ask first. */
async function assertPathFree(path: string): Promise<void> {
  if (Buffer.byteLength(path) > IPC_PATH_BYTES_MAX) {
    throw new RuntimeError(
      "listen-failed",
      `the ipc path ${path} has ${Buffer.byteLength(path)} bytes; the system allows ${IPC_PATH_BYTES_MAX}`,
      "use a shorter directory",
    );
  }
  const isTaken = await new Promise<boolean>((resolve) => {
    const probe = createConnection({ path });
    probe.once("connect", () => (probe.destroy(), resolve(true)));
    probe.once("error", () => (probe.destroy(), resolve(false)));
  });
  if (isTaken) throw new RuntimeError("listen-failed", `another process listens on ipc://${path}`, "stop it or use another path");
}
