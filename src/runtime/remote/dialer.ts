// Owns: the dialing half: opens a link, and after a loss opens it again with jittered, growing pauses.
// Invariant: at most one attempt or link is alive at a time; each attempt uses new channels with new random ids.
import { RuntimeError } from "../core/failure.js";
import { backoffDelayMs } from "../core/supervision.js";
import type { SystemCore } from "../core/system.js";
import { randomUnit, type Host, type TimerHandle } from "../host/host.js";
import { WireError } from "../wire/codec.js";
import { createFrame, FrameKind, readHeader } from "../wire/frame.js";
import {
  BULK_WINDOW_BYTES, FRAME_BYTES_MAX, FRAME_OVERHEAD_BYTES, LINK_VERSION_MIN, MESSAGE_WINDOW_BYTES,
} from "../wire/limits.js";
import {
  bodyOf, decodeChallenge, encodeHello, NONCE_BYTES, Proofs, REFUSED_FOR_NOW, splitMac, type Challenge, type Hello,
} from "./handshake.js";
import type { CurveKeys } from "./keys.js";
import type { Link } from "./link.js";
import type { Peer } from "./peer.js";
import { LANE_COUNT, type DialedChannel, type DialFailure, type SendOutcome, type Transport } from "./transport.js";

const RECONNECT = { initialMs: 50, maxMs: 5000, factor: 2, jitter: 0.3 } as const;
/** A server that accepts but does not answer costs this much before the next attempt. */
const ATTEMPT_MS_MAX = 5000;
/**
 * Frames of the message and bulk lanes may overtake READY on the control lane: at most what both windows let out, and
 * the frames that overshoot them.
 */
const EARLY_BYTES_MAX = MESSAGE_WINDOW_BYTES + BULK_WINDOW_BYTES + 2 * FRAME_BYTES_MAX;
/** A link that broke sooner counts as another failure, so that two ends that cannot agree do not meet 20 times a second. */
const STABLE_MS = 1000;

export interface DialerOptions {
  readonly endpoint: string;
  readonly serverKey: string;
  readonly keys: CurveKeys;
  readonly isPlain: boolean;
  readonly isReconnecting: boolean;
  readonly linkVersionMax: number;
}

export interface DialerModules {
  readonly system: SystemCore;
  readonly host: Host;
  readonly transport: Transport;
  readonly openLink: (
    nodeId: string,
    incarnation: string,
    channels: readonly DialedChannel[],
    version: number,
  ) => { readonly link: Link; readonly peer: Peer } | undefined;
}

const FAILURE_TEXT: Readonly<Record<DialFailure | "silent" | "refused" | "proof", string>> = {
  unreachable: "nobody listens there",
  handshake: "the CURVE handshake failed; the server's key is probably another one",
  denied: "the server's allow-list does not hold this node's key",
  lost: "the connection was dropped while it was being opened",
  silent: "the server did not answer",
  refused: "the server refused",
  proof: "the server could not prove its key",
};

type Failure = { readonly kind: keyof typeof FAILURE_TEXT; readonly detail?: string };

export class Dialer {
  readonly #options: DialerOptions;
  readonly #modules: DialerModules;
  readonly #host: Host;
  #attempt: Attempt | undefined;
  #link: Link | undefined;
  #failures = 0;
  #openedAtMs = 0;
  #timer: TimerHandle;
  #isClosed = false;
  #first: { resolve: (peer: Peer) => void; reject: (error: Error) => void } | undefined;
  #lastFailure: Failure | undefined;

  constructor(options: DialerOptions, modules: DialerModules) {
    this.#options = options;
    this.#modules = modules;
    this.#host = modules.host;
  }

  connect(timeoutMs: number, signal?: AbortSignal): Promise<Peer> {
    return new Promise((resolve, reject) => {
      const { endpoint } = this.#options;
      const timer = this.#host.clock.setTimer(() => {
        const why = this.#lastFailure === undefined ? FAILURE_TEXT.silent : describe(this.#lastFailure);
        fail(new RuntimeError("connect-timeout", `no link to ${endpoint} within ${timeoutMs} ms: ${why}`));
      }, timeoutMs);
      const fail = (error: Error): void => {
        finish();
        this.close();
        reject(error);
      };
      const onAbort = (): void => fail(new RuntimeError("connect-timeout", `connecting to ${endpoint} was aborted`));
      const finish = (): void => {
        this.#first = undefined;
        this.#host.clock.clearTimer(timer);
        signal?.removeEventListener("abort", onAbort);
      };
      this.#first = { resolve: (peer) => (finish(), resolve(peer)), reject: fail };
      signal?.addEventListener("abort", onAbort, { once: true });
      if (signal?.aborted === true) onAbort();
      else this.#start();
    });
  }

  /** The link that this dialer opened has ended. */
  onLinkEnd(link: Link): void {
    if (link !== this.#link) return;
    this.#link = undefined;
    if (this.#host.clock.nowMs() - this.#openedAtMs >= STABLE_MS) this.#failures = 0;
    if (this.#options.isReconnecting) this.#later();
    else this.close();
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    if (this.#timer !== undefined) this.#host.clock.clearTimer(this.#timer);
    this.#attempt?.cancel();
    this.#first?.reject(new RuntimeError("connect-timeout", `connecting to ${this.#options.endpoint} was given up`));
  }

  #start(): void {
    this.#timer = undefined;
    if (this.#isClosed || this.#modules.system.isShuttingDown) return;
    const attempt = new Attempt(this.#options, this.#modules, {
      onOpen: (link, peer) => {
        this.#attempt = undefined;
        this.#link = link;
        this.#openedAtMs = this.#host.clock.nowMs();
        this.#first?.resolve(peer);
      },
      onFailed: (failure) => {
        this.#attempt = undefined;
        this.#lastFailure = failure;
        const isRefused = failure.kind === "refused" && failure.detail !== REFUSED_FOR_NOW;
        const isFinal = failure.kind === "denied" || isRefused || failure.kind === "proof";
        if (isFinal && this.#first !== undefined) {
          const { endpoint } = this.#options;
          this.#first.reject(new RuntimeError("connect-refused", `no link to ${endpoint}: ${describe(failure)}`));
        } else this.#later();
      },
    });
    this.#attempt = attempt;
    attempt.start();
  }

  #later(): void {
    if (this.#isClosed || this.#timer !== undefined) return;
    this.#failures += 1;
    const delayMs = backoffDelayMs(RECONNECT, this.#failures, randomUnit(this.#host.random));
    this.#timer = this.#host.clock.setTimer(() => this.#start(), delayMs);
  }
}

function describe(failure: Failure): string {
  const text = FAILURE_TEXT[failure.kind];
  return failure.detail === undefined ? text : `${text}: ${failure.detail}`;
}

interface AttemptEvents {
  onOpen(link: Link, peer: Peer): void;
  onFailed(failure: Failure): void;
}

/** One try: three channels, HELLO, CHALLENGE, PROOF, READY. */
class Attempt {
  readonly #options: DialerOptions;
  readonly #modules: DialerModules;
  readonly #events: AttemptEvents;
  #channels: DialedChannel[] = [];
  #hello: Hello | undefined;
  #challenge: Challenge | undefined;
  #proofs: Proofs | undefined;
  #link: Link | undefined;
  #early: { readonly lane: number; readonly parts: Uint8Array[] }[] = [];
  #earlyBytes = 0;
  #timer: TimerHandle;
  #isOver = false;

  constructor(options: DialerOptions, modules: DialerModules, events: AttemptEvents) {
    this.#options = options;
    this.#modules = modules;
    this.#events = events;
  }

  start(): void {
    const { host, system, transport } = this.#modules;
    const { endpoint, keys, serverKey, isPlain } = this.#options;
    this.#timer = host.clock.setTimer(() => this.#fail({ kind: "silent" }), ATTEMPT_MS_MAX);
    try {
      for (let lane = 0; lane < LANE_COUNT; lane++) {
        const onFrame = (parts: Uint8Array[]): void => this.#onFrame(lane, parts);
        const onLost = (failure: DialFailure): void => this.#onLost(failure);
        this.#channels.push(inOrder(transport.dial({ endpoint, keys, serverKey, isPlain, onFrame, onLost })));
      }
    } catch (error) {
      this.#fail({ kind: "unreachable", detail: error instanceof Error ? error.message : String(error) });
      return;
    }
    this.#hello = {
      versionMin: LINK_VERSION_MIN,
      versionMax: this.#options.linkVersionMax,
      nodeId: keys.publicKey,
      serverId: serverKey,
      incarnation: system.incarnation,
      nonce: host.random(NONCE_BYTES),
      lanes: [this.#channels[1]!.id, this.#channels[2]!.id],
    };
    this.#send(0, FrameKind.hello, encodeHello(this.#hello));
  }

  cancel(): void {
    this.#finish();
    for (const channel of this.#channels) channel.close(false);
  }

  #finish(): void {
    this.#isOver = true;
    this.#modules.host.clock.clearTimer(this.#timer);
    this.#early = [];
  }

  #fail(failure: Failure): void {
    if (this.#isOver) return;
    this.cancel();
    this.#events.onFailed(failure);
  }

  #onLost(kind: DialFailure): void {
    if (this.#link !== undefined) this.#link.close("lost", "the connection went down");
    else this.#fail({ kind });
  }

  #onFrame(lane: number, parts: Uint8Array[]): void {
    if (this.#link !== undefined) this.#link.receive(lane, parts);
    else if (this.#isOver) return;
    else if (lane !== 0) {
      this.#earlyBytes += parts.reduce((sum, part) => sum + part.length, FRAME_OVERHEAD_BYTES);
      if (this.#proofs === undefined || this.#earlyBytes > EARLY_BYTES_MAX) this.#fail({ kind: "lost" });
      else this.#early.push({ lane, parts });
    } else {
      try {
        this.#onHandshake(parts);
      } catch (error) {
        const detail = error instanceof WireError ? error.message : String(error);
        this.#fail({ kind: "proof", detail });
      }
    }
  }

  #onHandshake(parts: readonly Uint8Array[]): void {
    const header = readHeader(parts[0]);
    const body = bodyOf(parts[0]!);
    if (header.kind === FrameKind.refuse) {
      this.#fail({ kind: "refused", detail: Buffer.from(body.subarray(0, 200)).toString() });
    } else if (header.kind === FrameKind.challenge && this.#proofs === undefined) this.#onChallenge(body);
    else if (header.kind === FrameKind.ready && this.#proofs !== undefined) this.#onReady(body);
    else throw new WireError("malformed", `an unexpected frame of kind ${header.kind}`);
  }

  #onChallenge(body: Uint8Array): void {
    const { mac, rest } = splitMac(body);
    this.#challenge = decodeChallenge(rest);
    const { version } = this.#challenge;
    if (version < LINK_VERSION_MIN || version > this.#options.linkVersionMax) throw new WireError("malformed", "a foreign link version");
    const proofs = new Proofs(this.#options.keys.secretKey, this.#options.serverKey, this.#hello!, rest);
    if (!proofs.check("server", mac)) throw new WireError("malformed", "a false proof");
    this.#proofs = proofs;
    this.#send(0, FrameKind.proof, proofs.make("client"));
    this.#send(1, FrameKind.lane, proofs.make("lane1"));
    this.#send(2, FrameKind.lane, proofs.make("lane2"));
  }

  #onReady(body: Uint8Array): void {
    if (!this.#proofs!.check("server", body)) throw new WireError("malformed", "a false proof");
    const { incarnation, version } = this.#challenge!;
    const opened = this.#modules.openLink(this.#options.serverKey, incarnation, this.#channels, version);
    const early = this.#early;
    this.#finish();
    if (opened === undefined) {
      for (const channel of this.#channels) channel.close(false);
      return;
    }
    this.#link = opened.link;
    this.#events.onOpen(opened.link, opened.peer);
    for (const { lane, parts } of early) opened.link.receive(lane, parts);
  }

  #send(lane: number, kind: FrameKind, body: Uint8Array): void {
    const frame = createFrame(kind, 0, 0, 0, body);
    void this.#channels[lane]!.send([frame]).then((outcome) => {
      // A HELLO that finds the connection gone already: the socket's own event, still to come, knows why.
      if (outcome !== "sent" && this.#proofs !== undefined) this.#fail({ kind: "lost" });
    });
  }
}

/**
 * An answer may come before the send it answers is seen to resolve, so the next send waits for the last here: a channel
 * takes one at a time, and the link that gets it next relies on that as well.
 */
function inOrder(channel: DialedChannel): DialedChannel {
  let last: Promise<SendOutcome> | undefined;
  return {
    id: channel.id,
    send: (parts) => {
      const sent = last === undefined ? channel.send(parts) : last.then(() => channel.send(parts));
      last = sent;
      void sent.then(() => {
        if (last === sent) last = undefined;
      });
      return sent;
    },
    close: (isGraceful) => channel.close(isGraceful),
  };
}
