// Owns: what a link needs of a network: frames over three ordered channels. Invariant: the runtime above knows no
// socket, so a simulated network can take this place.
import type { CurveKeys } from "./keys.js";

/** Control carries heartbeats and credit; message carries calls and casts; bulk carries tensors. */
export const LANES = ["control", "message", "bulk"] as const;
export type LaneName = (typeof LANES)[number];
export const Lane = { control: 0, message: 1, bulk: 2 } as const;
export const LANE_COUNT = 3;

/** `busy`: nothing was sent, try later. `gone`: the other end is not there any more. */
export type SendOutcome = "sent" | "busy" | "gone";

export interface Channel {
  /** One call at a time: the next only after the last has resolved. */
  send(parts: readonly Uint8Array[]): Promise<SendOutcome>;
  close(isGraceful: boolean): void;
}

export type DialFailure =
  | "unreachable" // nobody listens there
  | "handshake" // keys do not fit
  | "denied" // the other end's allow-list says no
  | "lost"; // an open channel went down

export interface DialedChannel extends Channel {
  /** The id under which the other end sees this channel: random, so that nobody can take it first. */
  readonly id: Uint8Array;
}

export interface DialOptions {
  readonly endpoint: string;
  readonly keys: CurveKeys;
  readonly serverKey: string;
  readonly isPlain: boolean;
  readonly onFrame: (parts: Uint8Array[]) => void;
  readonly onLost: (failure: DialFailure) => void;
}

export interface BoundSocket {
  /** With the port that the system chose, if it was left open. */
  readonly endpoint: string;
  channel(id: Uint8Array): Channel;
  close(isGraceful: boolean): Promise<void>;
}

export interface BindOptions {
  readonly endpoint: string;
  readonly keys: CurveKeys;
  readonly isPlain: boolean;
  /** Asked for each connection's proven CURVE key before it may send anything. */
  readonly isAllowed: (publicKey: string) => boolean;
  readonly onFrame: (id: Uint8Array, parts: Uint8Array[]) => void;
  /** Some connection went down; which one is found by sending. */
  readonly onDisconnect: () => void;
  /** A connection was turned away before its first frame: a key not allowed, no key, a foreign protocol. */
  readonly onRejected: () => void;
}

export interface Transport {
  dial(options: DialOptions): DialedChannel;
  bind(options: BindOptions): Promise<BoundSocket>;
  /** Gives back what is left; all channels and sockets are closed before. */
  close(): Promise<void>;
}
