/**
 * Owns the challenge certificate: its fields, its one encoding, its signature and its names.
 * Invariant: one certificate has exactly one encoding. decodeCertificate refuses every byte string
 * that encodeCertificate would not write, so a certificate cannot be altered and stay itself.
 */
import { RLP } from "@ethereumjs/rlp";
import { keccak_256 } from "@noble/hashes/sha3.js";
import { hashFields } from "./hash.js";
import { isLowS, publicKeyOf, signRecoverable, uncompressed } from "./secp256k1.js";

/** A proof that a key's owner multiplied challenge matrices, and its vote for `tip`. */
export interface Certificate {
  readonly mode: "challenge";
  readonly chainId: bigint;
  /** Height of the block that gave the challenge. */
  readonly height: number;
  /** 32 bytes, the hash of that block: the challenge's seed and the fork vote. */
  readonly tip: Uint8Array;
  /** 33 bytes, compressed secp256k1 key of the miner. */
  readonly publicKey: Uint8Array;
  /** 1..2^64-1, the power in the Pell step. */
  readonly nonce: bigint;
  /** Index of the winning tile of the product. */
  readonly tile: number;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  /** 65 bytes: r || s || recovery id, over all the fields above. */
  readonly signature: Uint8Array;
}

export type UnsignedCertificate = Omit<Certificate, "signature">;

export type CertificateErrorCode =
  | "too-long" | "malformed" | "not-canonical" | "out-of-range" | "bad-key" | "device-mismatch";

/** A certificate that cannot be read, or a miner that cannot make one. */
export class CertificateError extends Error {
  constructor(readonly code: CertificateErrorCode, message: string) {
    super(message);
    this.name = "CertificateError";
  }
}

/** Every certificate is below this; longer input is refused before it is parsed. */
export const CERTIFICATE_BYTES_MAX = 256;

const NONCE_MAX = 2n ** 64n - 1n;
/** chainId and height fit the places that hash them, and a JSON number holds a height. */
const CHAIN_ID_MAX = 2n ** 64n - 1n;
/** Wire numbers of the modes: 1 is the task mode of the same core, which has other fields. */
const MODE_CHALLENGE = 2;

/** RLP of the fields in the order of the interface, signature last: about 170 bytes. */
export function encodeCertificate(certificate: Certificate): Uint8Array {
  return RLP.encode([...fieldList(certificate), certificate.signature]);
}

/** The only reading of `bytes`. Throws CertificateError with what was wrong. */
export function decodeCertificate(bytes: Uint8Array): Certificate {
  if (bytes.length > CERTIFICATE_BYTES_MAX) {
    throw new CertificateError("too-long",
      `a certificate has at most ${CERTIFICATE_BYTES_MAX} bytes, got ${bytes.length}`);
  }
  let list: unknown;
  try {
    list = RLP.decode(bytes);
  } catch (error) {
    throw new CertificateError("malformed", `not an RLP list: ${(error as Error).message}`);
  }
  if (!Array.isArray(list) || list.length !== 11 || list.some((f) => !(f instanceof Uint8Array))) {
    throw new CertificateError("malformed", "a certificate is an RLP list of 11 byte strings");
  }
  const [mode, chainId, height, tip, publicKey, nonce, tile, m, n, k, signature] =
    list as Uint8Array[];
  if (integer(mode!) !== BigInt(MODE_CHALLENGE)) {
    throw new CertificateError("malformed", `mode must be ${MODE_CHALLENGE} (challenge)`);
  }
  const certificate: Certificate = {
    mode: "challenge",
    chainId: integer(chainId!),
    height: safe("height", height!),
    tip: Uint8Array.from(tip!),
    publicKey: Uint8Array.from(publicKey!),
    nonce: integer(nonce!),
    tile: safe("tile", tile!),
    m: safe("m", m!),
    n: safe("n", n!),
    k: safe("k", k!),
    signature: Uint8Array.from(signature!),
  };
  const fault = fieldFault(certificate);
  if (fault) throw new CertificateError("out-of-range", fault);
  if (Buffer.compare(encodeCertificate(certificate), bytes) !== 0) {
    throw new CertificateError("not-canonical", "the same fields have another, shorter encoding");
  }
  return certificate;
}

/**
 * The first field whose form is wrong whatever the chain's rules are, as a sentence; else undefined.
 * Dimensions and the tile are judged against the rules by verifyCertificate.
 */
export function fieldFault(c: Certificate): string | undefined {
  if (c.mode !== "challenge") return `mode must be "challenge", got ${JSON.stringify(c.mode)}`;
  if (c.chainId < 1n || c.chainId > CHAIN_ID_MAX) return `chainId ${c.chainId} is not in 1..2^64-1`;
  for (const name of ["height", "tile", "m", "n", "k"] as const) {
    if (!Number.isSafeInteger(c[name]) || c[name] < 0) return `${name} ${c[name]} is no natural`;
  }
  if (c.tip.length !== 32) return `tip has ${c.tip.length} bytes, not 32`;
  if (c.publicKey.length !== 33 || (c.publicKey[0] !== 2 && c.publicKey[0] !== 3)) {
    return "publicKey must be a compressed secp256k1 key of 33 bytes";
  }
  if (c.nonce < 1n || c.nonce > NONCE_MAX) return `nonce ${c.nonce} is not in 1..2^64-1`;
  if (c.signature.length !== 65 || c.signature[64]! > 3) return "signature must be r, s, recid 0..3";
  if (!isLowS(c.signature)) return "signature has a high s, which has a low twin";
  return undefined;
}

/** What is signed: H("certificate", RLP of all fields but the signature). */
export function signingDigest(certificate: UnsignedCertificate): Uint8Array {
  return hashFields("certificate", [RLP.encode(fieldList(certificate))]);
}

/** Signs with the miner's key. Throws if the key is not the one named in the certificate. */
export function signCertificate(fields: UnsignedCertificate, privateKey: Uint8Array): Certificate {
  if (Buffer.compare(publicKeyOf(privateKey), fields.publicKey) !== 0) {
    throw new CertificateError("bad-key", "the private key does not belong to publicKey");
  }
  return { ...fields, signature: signRecoverable(signingDigest(fields), privateKey) };
}

/** BLAKE3 name of the whole certificate, 32 bytes. */
export function certificateHash(certificate: Certificate): Uint8Array {
  return hashFields("name", [encodeCertificate(certificate)]);
}

/** 20-byte account that earns the reward: the Ethereum address of the miner's key. */
export function certificateMiner(certificate: Pick<Certificate, "publicKey">): Uint8Array {
  try {
    return keccak_256(uncompressed(certificate.publicKey)).slice(12);
  } catch {
    throw new CertificateError("bad-key", "publicKey is no point of secp256k1");
  }
}

/**
 * What may be paid only once: H("nullifier", publicKey, height, nonce, tile). Signatures are not in
 * it, so signing the same win twice earns nothing.
 */
export function certificateNullifier(c: UnsignedCertificate): Uint8Array {
  const list = [c.publicKey, bytesOf(BigInt(c.height)), bytesOf(c.nonce), bytesOf(BigInt(c.tile))];
  return hashFields("nullifier", list);
}

function fieldList(c: UnsignedCertificate): Uint8Array[] {
  const numbers = [c.tile, c.m, c.n, c.k].map((value) => bytesOf(BigInt(value)));
  return [
    bytesOf(BigInt(MODE_CHALLENGE)), bytesOf(c.chainId), bytesOf(BigInt(c.height)),
    c.tip, c.publicKey, bytesOf(c.nonce), ...numbers,
  ];
}

/** Big-endian without leading zeros, as RLP wants integers; 0 is empty. */
function bytesOf(value: bigint): Uint8Array {
  if (value === 0n) return new Uint8Array(0);
  const hex = value.toString(16);
  return Uint8Array.from(Buffer.from(hex.length % 2 ? `0${hex}` : hex, "hex"));
}

function integer(bytes: Uint8Array): bigint {
  if (bytes.length === 0) return 0n;
  return BigInt(`0x${Buffer.from(bytes).toString("hex")}`);
}

function safe(name: string, bytes: Uint8Array): number {
  const value = integer(bytes);
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new CertificateError("out-of-range", `${name} is above 2^53 - 1`);
  }
  return Number(value);
}
