// Owns secp256k1 signatures over 32-byte digests. Invariant: one accepted encoding per signature (low s,
// recovery id 0 or 1), so that nobody but the signer can give a signed block a second hash.
import secp256k1 from "secp256k1";
import { concat, keccak, toBigInt } from "../bytes.js";
import { reject } from "../errors.js";

export const SIGNATURE_BYTES = 65;
const HALF_ORDER = 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0n;

/** 64 bytes r || s and the recovery id. */
export function signDigest(digest: Uint8Array, privateKey: Uint8Array): Uint8Array {
  const { signature, recid } = secp256k1.ecdsaSign(digest, privateKey); // the library returns the low s
  return concat(signature, Uint8Array.of(recid));
}

/** The 20-byte address that signed. Throws ChainError "signature" when the signature is malformed. */
export function recoverAddress(digest: Uint8Array, signature: Uint8Array): Uint8Array {
  if (signature.length !== SIGNATURE_BYTES) {
    reject("signature", `a signature has ${SIGNATURE_BYTES} bytes, got ${signature.length}`);
  }
  const recovery = signature[64]!;
  if (recovery > 1) reject("signature", `a recovery id is 0 or 1, got ${recovery}`);
  if (toBigInt(signature.subarray(32, 64)) > HALF_ORDER) reject("signature", "s is in the upper half of the order");
  try {
    return addressOfPublicKey(secp256k1.ecdsaRecover(signature.subarray(0, 64), recovery, digest, false));
  } catch {
    return reject("signature", "the signature recovers no public key");
  }
}

export function addressOfPublicKey(publicKey: Uint8Array): Uint8Array {
  const uncompressed = publicKey.length === 65 ? publicKey : secp256k1.publicKeyConvert(publicKey, false);
  return keccak(uncompressed.subarray(1)).slice(12);
}

export function addressOfPrivateKey(privateKey: Uint8Array): Uint8Array {
  return addressOfPublicKey(secp256k1.publicKeyCreate(privateKey, false));
}

/** The hooks that @ethereumjs/tx and the ecrecover precompile call: the native library is 20 times the JavaScript one. */
export const nativeCrypto = {
  ecrecover(digest: Uint8Array, v: bigint, r: Uint8Array, s: Uint8Array, chainId?: bigint): Uint8Array {
    const recovery = v === 0n || v === 1n ? v : chainId === undefined ? v - 27n : v - (chainId * 2n + 35n);
    if (recovery !== 0n && recovery !== 1n) throw new Error("Invalid signature v value");
    const signature = new Uint8Array(64);
    signature.set(r, 32 - r.length);
    signature.set(s, 64 - s.length);
    return secp256k1.ecdsaRecover(signature, Number(recovery), digest, false).subarray(1);
  },
};
