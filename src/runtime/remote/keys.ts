// Owns: CURVE key pairs and their text forms. Invariant: a key is 64 lower-case hex digits (32 bytes) everywhere in
// the runtime; Z85 appears only at ZeroMQ's door.
import { createPrivateKey, createPublicKey, diffieHellman, generateKeyPairSync, type KeyObject } from "node:crypto";
import { RuntimeError } from "../core/failure.js";

export interface CurveKeys {
  /** X25519, 64 hex digits. The public key is the node's id on the network. */
  readonly publicKey: string;
  readonly secretKey: string;
}

/** DER wrappings (RFC 8410) in which Node takes raw X25519 keys. */
const PKCS8_PREFIX = Buffer.from("302e020100300506032b656e04220420", "hex");
const SPKI_PREFIX = Buffer.from("302a300506032b656e032100", "hex");
const KEY_HEX = /^[0-9a-f]{64}$/;

export function curveKeys(): CurveKeys {
  const { privateKey } = generateKeyPairSync("x25519");
  const secret = privateKey.export({ format: "der", type: "pkcs8" }).subarray(PKCS8_PREFIX.length);
  return curveKeysFromSecret(secret.toString("hex"));
}

export function curveKeysFromSecret(secretKey: string): CurveKeys {
  const spki = createPublicKey(privateKeyOf(secretKey)).export({ format: "der", type: "spki" });
  return { publicKey: spki.subarray(SPKI_PREFIX.length).toString("hex"), secretKey };
}

/** X25519 of the two: both ends get the same 32 bytes, nobody else does. */
export function sharedSecret(secretKey: string, publicKey: string): Buffer {
  return diffieHellman({ privateKey: privateKeyOf(secretKey), publicKey: publicKeyOf(publicKey) });
}

export function isKey(text: unknown): text is string {
  return typeof text === "string" && KEY_HEX.test(text);
}

export function assertKeys(keys: CurveKeys): void {
  if (!isKey(keys?.publicKey) || !isKey(keys?.secretKey)) {
    throw new RuntimeError("bad-key", "keys must be { publicKey, secretKey } of 64 hex digits each", "use curveKeys()");
  }
  if (curveKeysFromSecret(keys.secretKey).publicKey !== keys.publicKey) {
    throw new RuntimeError("bad-key", "the public key does not belong to the secret key");
  }
}

function privateKeyOf(secretKey: string): KeyObject {
  if (!isKey(secretKey)) throw new RuntimeError("bad-key", "a CURVE secret key must be 64 hex digits");
  return createPrivateKey({ key: Buffer.concat([PKCS8_PREFIX, Buffer.from(secretKey, "hex")]), format: "der", type: "pkcs8" });
}

function publicKeyOf(publicKey: string): KeyObject {
  if (!isKey(publicKey)) throw new RuntimeError("bad-key", "a CURVE public key must be 64 hex digits");
  return createPublicKey({ key: Buffer.concat([SPKI_PREFIX, Buffer.from(publicKey, "hex")]), format: "der", type: "spki" });
}

const Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

/** ZeroMQ RFC 32. */
export function toZ85(hex: string): string {
  const bytes = Buffer.from(hex, "hex");
  let text = "";
  for (let i = 0; i < bytes.length; i += 4) {
    let word = bytes.readUInt32BE(i);
    let group = "";
    for (let j = 0; j < 5; j++) {
      group = Z85[word % 85]! + group;
      word = Math.floor(word / 85);
    }
    text += group;
  }
  return text;
}
