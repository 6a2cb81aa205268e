// The public face of the chain package (`tesra-supernet/chain`).
export {
  Chain, type ChainEvent, type ChainOptions, type Failure, type ImportResult, type ProducedBlock, type Producer, type ProducerKeys,
} from "./chain.js";
export { ChainError, StoreError } from "./errors.js";
export { decodeBlock, encodeBlock, type Block } from "./block/block.js";
export { decodeHeader, encodeHeader, signedFields, type Header } from "./block/header.js";
export { toHex } from "./bytes.js";
export type { Equivocation } from "./consensus/equivocation.js";
export type { Log, Outcome, Receipt } from "./block/receipt.js";
export {
  checkGenesis, createDevnetGenesis, genesisConfigHash, mainnetConsensus, RESERVE_ADDRESS, SUPPLY_WEI,
  type DevnetOptions, type Genesis,
} from "./genesis.js";
export { createMemoryStore } from "./store/memory-store.js";
export { openRocksStore } from "./store/rocks-store.js";
export type { Store, StoreOperation } from "./store/store.js";
export { blsPublicKey, blsSecretKeyFromSeed } from "./crypto/vrf.js";
export { addressOfPrivateKey, recoverAddress, signDigest } from "./crypto/signature.js";
export { createJsonRpc, type JsonRpc } from "./rpc/json-rpc.js";
export { createProducer } from "./producer.js";
export type { Ledger } from "./ledger.js";
export * as system from "./contracts/system.js";
export * as abi from "./contracts/abi.js";
