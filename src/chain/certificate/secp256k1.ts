/**
 * Owns how certificates are signed and their signatures judged, by native libsecp256k1.
 * Invariant: a signature here is 65 bytes, r || s || recovery id, and s is in the lower half.
 */
import native from "secp256k1";

/** (group order - 1) / 2: a larger s has a twin, so it is refused. */
export const HALF_ORDER =
  0x7fffffff_ffffffff_ffffffff_ffffffff_5d576e73_57a4501d_dfe92f46_681b20a0n;

export function isPrivateKey(key: Uint8Array): boolean {
  return key.length === 32 && native.privateKeyVerify(key);
}

/** 33-byte compressed public key. */
export function publicKeyOf(privateKey: Uint8Array): Uint8Array {
  return native.publicKeyCreate(privateKey, true);
}

/** 64 bytes x || y of a compressed key; throws if it is no point of the curve. */
export function uncompressed(publicKey: Uint8Array): Uint8Array {
  return native.publicKeyConvert(publicKey, false).subarray(1);
}

/** r || s || recovery id, deterministic (RFC 6979), low s. */
export function signRecoverable(digest: Uint8Array, privateKey: Uint8Array): Uint8Array {
  const { signature, recid } = native.ecdsaSign(digest, privateKey);
  const out = new Uint8Array(65);
  out.set(signature);
  out[64] = recid;
  return out;
}

/** True if the signature is canonical and recovers exactly this key: that binds the recovery id. */
export function isSignatureBy(
  publicKey: Uint8Array, digest: Uint8Array, signature: Uint8Array,
): boolean {
  if (signature.length !== 65 || signature[64]! > 3 || !isLowS(signature)) return false;
  try {
    const key = native.ecdsaRecover(signature.subarray(0, 64), signature[64]!, digest, true);
    return Buffer.compare(key, publicKey) === 0;
  } catch {
    return false; // r or s out of range, or no such point
  }
}

/** s <= (order - 1) / 2. */
export function isLowS(signature: Uint8Array): boolean {
  return BigInt(`0x${Buffer.from(signature.subarray(32, 64)).toString("hex")}`) <= HALF_ORDER;
}
