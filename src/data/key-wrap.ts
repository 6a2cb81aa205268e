/**
 * Owns: handing a shard key to one worker: X25519 with a fresh key pair, HKDF-SHA256, AES-256-GCM
 * (the scheme of RFC 9180's base mode, reduced to one suite). The task, the shard and the recipient
 * enter the derivation, so a wrapped key is useless in any other place.
 * Form: ephemeral public key (32) | encrypted key (32) | tag (16).
 */
import { createCipheriv, createDecipheriv, createPrivateKey, createPublicKey, diffieHellman, hkdfSync, type KeyObject } from "node:crypto";
import { DataError } from "./errors.js";
import { KEY_BYTES, type Random } from "./shard.js";

export const WRAPPED_KEY_BYTES = 80;

export interface WrapContext {
  taskId: string;
  /** Hex address of the shard. */
  shardHash: string;
}

// DER prefixes of RFC 8410: node takes raw X25519 keys in PKCS #8 and SPKI form only.
const PRIVATE_PREFIX = Buffer.from("302e020100300506032b656e04220420", "hex");
const PUBLIC_PREFIX = Buffer.from("302a300506032b656e032100", "hex");

function privateKey(raw: Uint8Array): KeyObject {
  if (raw.length !== 32) throw new DataError("key", `an X25519 private key has 32 bytes, got ${raw.length}`);
  return createPrivateKey({ key: Buffer.concat([PRIVATE_PREFIX, raw]), format: "der", type: "pkcs8" });
}

function publicKey(raw: Uint8Array): KeyObject {
  if (raw.length !== 32) throw new DataError("key", `an X25519 public key has 32 bytes, got ${raw.length}`);
  return createPublicKey({ key: Buffer.concat([PUBLIC_PREFIX, raw]), format: "der", type: "spki" });
}

const rawPublic = (key: KeyObject): Uint8Array =>
  new Uint8Array(createPublicKey(key).export({ format: "der", type: "spki" }).subarray(PUBLIC_PREFIX.length));

export interface WrapKeyPair { privateKey: Uint8Array; publicKey: Uint8Array }

/** An X25519 key pair from 32 random bytes. */
export function createWrapKeyPair(random: Random): WrapKeyPair {
  const secret = random(32);
  return { privateKey: secret, publicKey: rawPublic(privateKey(secret)) };
}

function derive(shared: Uint8Array, ephemeral: Uint8Array, recipient: Uint8Array, context: WrapContext):
  { key: Uint8Array; nonce: Uint8Array; aad: Uint8Array } {
  const aad = new TextEncoder().encode(JSON.stringify(["tesra/shard-key/1", context.taskId, context.shardHash,
    Buffer.from(recipient).toString("hex")]));
  const bytes = new Uint8Array(hkdfSync("sha256", shared, Buffer.concat([ephemeral, recipient]), aad, 44));
  return { key: bytes.subarray(0, 32), nonce: bytes.subarray(32), aad };
}

export function wrapKey(key: Uint8Array, recipientPublicKey: Uint8Array, context: WrapContext, random: Random): Uint8Array<ArrayBuffer> {
  if (key.length !== KEY_BYTES) throw new DataError("key", `a shard key has ${KEY_BYTES} bytes, got ${key.length}`);
  const ephemeral = createWrapKeyPair(random);
  const shared = agree(ephemeral.privateKey, recipientPublicKey);
  const derived = derive(shared, ephemeral.publicKey, recipientPublicKey, context);
  const cipher = createCipheriv("aes-256-gcm", derived.key, derived.nonce);
  cipher.setAAD(derived.aad);
  return new Uint8Array(Buffer.concat([ephemeral.publicKey, cipher.update(key), cipher.final(), cipher.getAuthTag()]));
}

/** Throws DataError "key" for anybody but the recipient, and for any other task or shard. */
export function unwrapKey(wrapped: Uint8Array, recipient: WrapKeyPair, context: WrapContext): Uint8Array {
  if (wrapped.length !== WRAPPED_KEY_BYTES) {
    throw new DataError("key", `a wrapped key has ${WRAPPED_KEY_BYTES} bytes, got ${wrapped.length}`,
      { expected: WRAPPED_KEY_BYTES, actual: wrapped.length });
  }
  const ephemeral = wrapped.subarray(0, 32);
  const derived = derive(agree(recipient.privateKey, ephemeral), ephemeral, recipient.publicKey, context);
  const decipher = createDecipheriv("aes-256-gcm", derived.key, derived.nonce);
  decipher.setAAD(derived.aad);
  decipher.setAuthTag(wrapped.subarray(64));
  try {
    return new Uint8Array(Buffer.concat([decipher.update(wrapped.subarray(32, 64)), decipher.final()]));
  } catch {
    throw new DataError("key", "the wrapped key is not for this recipient, task and shard, or was altered");
  }
}

function agree(secret: Uint8Array, peer: Uint8Array): Uint8Array {
  try {
    return diffieHellman({ privateKey: privateKey(secret), publicKey: publicKey(peer) });
  } catch (error) {
    if (error instanceof DataError) throw error;
    // OpenSSL refuses the points of small order, whose shared secret everybody knows.
    throw new DataError("key", "the X25519 public key is not usable");
  }
}
