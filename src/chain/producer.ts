// Owns turning a PoS node's two keys into a Producer.
import type { Producer } from "./chain.js";
import { addressOfPrivateKey, signDigest } from "./crypto/signature.js";

/** From the account's secp256k1 key and the BLS key that its stake is registered with. */
export function createProducer(keys: { privateKey: Uint8Array; blsSecretKey: Uint8Array }): Producer {
  return {
    address: addressOfPrivateKey(keys.privateKey),
    blsSecretKey: keys.blsSecretKey,
    sign: (digest) => signDigest(digest, keys.privateKey),
  };
}
