// Owns the types of the npm package secp256k1 that this project calls; the package ships none.
declare module "secp256k1" {
  interface Secp256k1 {
    privateKeyVerify(privateKey: Uint8Array): boolean;
    publicKeyCreate(privateKey: Uint8Array, compressed?: boolean): Uint8Array;
    publicKeyConvert(publicKey: Uint8Array, compressed?: boolean): Uint8Array;
    ecdsaSign(message: Uint8Array, privateKey: Uint8Array): { signature: Uint8Array; recid: number };
    ecdsaVerify(signature: Uint8Array, message: Uint8Array, publicKey: Uint8Array): boolean;
    ecdsaRecover(signature: Uint8Array, recid: number, message: Uint8Array, compressed?: boolean): Uint8Array;
  }
  const secp256k1: Secp256k1;
  export default secp256k1;
}
