// Owns the verifiable random function of the leader lottery: a BLS signature (BLS12-381, min-pk, 96 bytes) is
// unique per key and message, so its hash is a VRF output that nobody can choose (Boneh, Lynn, Shacham 2001;
// Micali, Rabin, Vadhan 1999). Invariant: proofs are accepted only after subgroup checks of key and signature.
import blst from "@chainsafe/blst";
import { concat, keccak, padTo, fromBigInt, uint64, utf8 } from "../bytes.js";

export const VRF_PROOF_BYTES = 96;
export const BLS_PUBLIC_KEY_BYTES = 48;

const DOMAIN = utf8("TSR/vrf/1");

export function vrfMessage(chainId: bigint, modifier: Uint8Array, slot: number): Uint8Array {
  return concat(DOMAIN, padTo(fromBigInt(chainId), 32), modifier, uint64(slot));
}

export function proveVrf(secretKey: Uint8Array, message: Uint8Array): Uint8Array {
  return blst.SecretKey.fromBytes(secretKey).sign(message).toBytes();
}

export function verifyVrf(publicKey: Uint8Array, message: Uint8Array, proof: Uint8Array): boolean {
  if (publicKey.length !== BLS_PUBLIC_KEY_BYTES || proof.length !== VRF_PROOF_BYTES) return false;
  try {
    const key = blst.PublicKey.fromBytes(publicKey, true);
    return blst.verify(message, key, blst.Signature.fromBytes(proof, true, true), false, false);
  } catch {
    return false; // not a point of the subgroup
  }
}

/** ProofHash of the leader rule: 256 uniform bits that only the holder of the key could compute. */
export function proofHash(proof: Uint8Array): Uint8Array {
  return keccak(concat(utf8("TSR/proof-hash/1"), proof));
}

export function blsPublicKey(secretKey: Uint8Array): Uint8Array {
  return blst.SecretKey.fromBytes(secretKey).toPublicKey().toBytes();
}

/** A BLS key from at least 32 bytes of randomness (EIP-2333 key generation). */
export function blsSecretKeyFromSeed(seed: Uint8Array): Uint8Array {
  return blst.SecretKey.fromKeygen(seed).toBytes();
}
