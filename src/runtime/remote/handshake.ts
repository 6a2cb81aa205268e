// Owns: the messages that open a link, and the proof that binds a node id to them.
// CURVE authenticates the connection, but ZeroMQ for Node does not say which CURVE key a frame came under. So both
// ends prove here that they hold the secret key of the node id they claim: an HMAC over the whole exchange under a
// key that only the two X25519 key pairs can make. The proof names both keys, so it cannot be relayed to a third
// node. Limit: who has stolen a node's secret key can pose to that node as others (key-compromise impersonation).
import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { Packr } from "msgpackr";
import { WireError } from "../wire/codec.js";
import { HEADER_BYTES } from "../wire/frame.js";
import { LINK_VERSION_MAX, LINK_VERSION_MIN } from "../wire/limits.js";
import { isSafeMsgpack } from "../wire/msgpack-guard.js";
import { isKey, sharedSecret } from "./keys.js";

export const NONCE_BYTES = 32;
const MAC_BYTES = 32;
/** A handshake message is a few keys and numbers. */
const HANDSHAKE_BYTES_MAX = 1024;
const INCARNATION = /^[0-9a-f]{16}$/;
const LABEL = "tesra-supernet link 1";
/** The one refusal after which it makes sense to try again. */
export const REFUSED_FOR_NOW = "busy";

export interface Hello {
  readonly versionMin: number;
  readonly versionMax: number;
  readonly nodeId: string;
  readonly serverId: string;
  readonly incarnation: string;
  readonly nonce: Uint8Array;
  /** Ids of the message and the bulk channel; control is the one this came on. */
  readonly lanes: readonly [Uint8Array, Uint8Array];
}

export interface Challenge {
  readonly version: number;
  readonly incarnation: string;
  readonly nonce: Uint8Array;
}

const packr = new Packr({ useRecords: false, mapsAsObjects: true, copyBuffers: true } as object);

export function encodeHello(hello: Hello): Uint8Array {
  const { versionMin, versionMax, nodeId, serverId, incarnation, nonce, lanes } = hello;
  return Uint8Array.from(packr.pack([versionMin, versionMax, nodeId, serverId, incarnation, nonce, lanes[0], lanes[1]]));
}

export function decodeHello(body: Uint8Array): Hello {
  const [versionMin, versionMax, nodeId, serverId, incarnation, nonce, message, bulk] = list(body, 8);
  if (
    !isVersion(versionMin) || !isVersion(versionMax) || versionMin > versionMax || !isKey(nodeId) || !isKey(serverId) ||
    !isIncarnation(incarnation) || !isBytes(nonce, NONCE_BYTES) || !isBytes(message) || !isBytes(bulk)
  ) {
    throw new WireError("malformed", "a bad hello");
  }
  return { versionMin, versionMax, nodeId, serverId, incarnation, nonce, lanes: [message, bulk] };
}

export function encodeChallenge(challenge: Challenge): Uint8Array {
  return Uint8Array.from(packr.pack([challenge.version, challenge.incarnation, challenge.nonce]));
}

export function decodeChallenge(body: Uint8Array): Challenge {
  const [version, incarnation, nonce] = list(body, 3);
  if (!isVersion(version) || !isIncarnation(incarnation) || !isBytes(nonce, NONCE_BYTES)) {
    throw new WireError("malformed", "a bad challenge");
  }
  return { version, incarnation, nonce };
}

/** @returns the version both ends speak, or undefined. */
export function chooseVersion(
  hello: { readonly versionMin: number; readonly versionMax: number },
  ownMax = LINK_VERSION_MAX,
): number | undefined {
  const version = Math.min(hello.versionMax, ownMax);
  return version >= Math.max(hello.versionMin, LINK_VERSION_MIN) ? version : undefined;
}

export type ProofRole = "server" | "client" | "lane1" | "lane2";

/** Both ends of one exchange hold an equal Proofs and nobody else can. */
export class Proofs {
  readonly #key: Buffer;
  readonly #transcript: Buffer;

  constructor(secretKey: string, otherId: string, hello: Hello, challengeBody: Uint8Array) {
    let shared: Buffer;
    try {
      shared = sharedSecret(secretKey, otherId);
    } catch {
      throw new WireError("malformed", "a node id that is no usable key"); // a point of low order
    }
    this.#key = createHmac("sha256", shared).update(LABEL).update(hello.nodeId).update(hello.serverId).digest();
    this.#transcript = createHash("sha256").update(encodeHello(hello)).update(challengeBody).digest();
  }

  make(role: ProofRole): Buffer {
    return createHmac("sha256", this.#key).update(role).update(this.#transcript).digest();
  }

  check(role: ProofRole, mac: Uint8Array): boolean {
    return mac.length === MAC_BYTES && timingSafeEqual(mac, this.make(role));
  }
}

/** The challenge frame's body is [mac 32 B][challenge]. */
export function joinMac(mac: Uint8Array, body: Uint8Array): Uint8Array {
  return Buffer.concat([mac, body]);
}

export function splitMac(body: Uint8Array): { readonly mac: Uint8Array; readonly rest: Uint8Array } {
  if (body.length < MAC_BYTES) throw new WireError("malformed", "a proof that is too short");
  return { mac: body.subarray(0, MAC_BYTES), rest: body.subarray(MAC_BYTES) };
}

export function bodyOf(frame: Uint8Array): Uint8Array {
  return frame.subarray(HEADER_BYTES);
}

function list(body: Uint8Array, length: number): unknown[] {
  if (body.length > HANDSHAKE_BYTES_MAX || !isSafeMsgpack(body)) throw new WireError("malformed", "a bad handshake message");
  const plain = new Uint8Array(body.buffer, body.byteOffset, body.byteLength);
  let value: unknown;
  try {
    value = packr.unpack(plain as Buffer);
  } catch {
    throw new WireError("malformed", "a bad handshake message");
  }
  if (!Array.isArray(value) || value.length !== length) throw new WireError("malformed", "a bad handshake message");
  return value;
}

function isVersion(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 1 && value <= 0xffff;
}

function isIncarnation(value: unknown): value is string {
  return typeof value === "string" && INCARNATION.test(value);
}

function isBytes(value: unknown, length?: number): value is Uint8Array {
  if (!(value instanceof Uint8Array)) return false;
  return length === undefined ? value.length >= 8 && value.length <= 64 : value.length === length;
}
