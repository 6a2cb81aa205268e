// Owns the block header: its fields, its one encoding, its hash and its signature. Invariant: hash = keccak of
// the canonical encoding, so two headers with one hash are one header.
import { concat, keccak, padTo, fromBigInt, utf8 } from "../bytes.js";
import { recoverAddress, SIGNATURE_BYTES } from "../crypto/signature.js";
import { VRF_PROOF_BYTES } from "../crypto/vrf.js";
import { decodeRlp, encodeRlp, FieldReader, integer, type Nested } from "./rlp.js";

export interface HeaderFields {
  parentHash: Uint8Array;
  number: number;
  stateRoot: Uint8Array;
  transactionsRoot: Uint8Array;
  receiptsRoot: Uint8Array;
  certificatesRoot: Uint8Array;
  /** 2,048-bit bloom filter of the log addresses and topics, as in Ethereum. */
  logsBloom: Uint8Array;
  gasLimit: bigint;
  gasUsed: bigint;
  /** Milliseconds since 1970; the EVM sees whole seconds. */
  timestampMs: number;
  baseFeePerGas: bigint;
  /** The staker who produced the block, who signs it and is paid. */
  coinbase: Uint8Array;
  /** Slot since genesis, and step within the slot at which the leader rule was met. */
  slot: number;
  step: number;
  vrfProof: Uint8Array;
  /** Randomness after this block: H(parent's modifier, vrfProof, certificatesRoot). */
  modifier: Uint8Array;
  /** What a certificate that names this block as its tip must meet. */
  powTarget: bigint;
  /** Sum of block weights from genesis to here. */
  totalWeight: bigint;
  extraData: Uint8Array;
}

export interface Header extends HeaderFields {
  signature: Uint8Array;
  hash: Uint8Array;
  /** Whole seconds, as contracts see them. */
  timestamp: number;
}

const BLOOM_BYTES = 256;
const EXTRA_DATA_BYTES_MAX = 32;
/** Fixed fields take under 900 bytes; the rest is room for integers to grow. */
export const HEADER_BYTES_MAX = 1_200;
const UINT256_BYTES = 32;

function fieldList(fields: HeaderFields): Nested[] {
  return [
    fields.parentHash, integer(fields.number), fields.stateRoot, fields.transactionsRoot, fields.receiptsRoot,
    fields.certificatesRoot, fields.logsBloom, integer(fields.gasLimit), integer(fields.gasUsed),
    integer(fields.timestampMs), integer(fields.baseFeePerGas), fields.coinbase, integer(fields.slot),
    integer(fields.step), fields.vrfProof, fields.modifier, integer(fields.powTarget), integer(fields.totalWeight),
    fields.extraData,
  ];
}

/** What a producer signed, as StakeRegistry.reportEquivocation takes it. */
export function signedFields(header: Header): { fields: Uint8Array; signature: Uint8Array } {
  return { fields: encodeRlp(fieldList(header)), signature: header.signature };
}

/** What the producer signs; the chain id keeps a signature from meaning anything on another network. */
export function headerDigest(fields: HeaderFields, chainId: bigint): Uint8Array {
  return keccak(concat(utf8("TSR/header/1"), padTo(fromBigInt(chainId), 32), encodeRlp(fieldList(fields))));
}

export function sealHeader(fields: HeaderFields, signature: Uint8Array): Header {
  const encoded = encodeRlp([...fieldList(fields), signature]);
  return { ...fields, signature, hash: keccak(encoded), timestamp: Math.floor(fields.timestampMs / 1000) };
}

export function headerToNested(header: Header): Nested[] {
  return [...fieldList(header), header.signature];
}

export function encodeHeader(header: Header): Uint8Array {
  return encodeRlp(headerToNested(header));
}

export function decodeHeader(bytes: Uint8Array): Header {
  return headerFromNested(decodeRlp(bytes, "header", HEADER_BYTES_MAX));
}

export function headerFromNested(value: Nested): Header {
  const read = new FieldReader(value, "header");
  const fields: HeaderFields = {
    parentHash: read.bytes("parentHash", 32), number: read.count("number"), stateRoot: read.bytes("stateRoot", 32),
    transactionsRoot: read.bytes("transactionsRoot", 32), receiptsRoot: read.bytes("receiptsRoot", 32),
    certificatesRoot: read.bytes("certificatesRoot", 32), logsBloom: read.bytes("logsBloom", BLOOM_BYTES),
    gasLimit: read.integer("gasLimit", 8), gasUsed: read.integer("gasUsed", 8),
    timestampMs: read.count("timestampMs"), baseFeePerGas: read.integer("baseFeePerGas", UINT256_BYTES),
    coinbase: read.bytes("coinbase", 20), slot: read.count("slot"), step: read.count("step"),
    vrfProof: read.bytes("vrfProof", VRF_PROOF_BYTES), modifier: read.bytes("modifier", 32),
    powTarget: read.integer("powTarget", UINT256_BYTES), totalWeight: read.integer("totalWeight", UINT256_BYTES),
    extraData: read.upTo("extraData", EXTRA_DATA_BYTES_MAX),
  };
  const signature = read.bytes("signature", SIGNATURE_BYTES);
  read.end();
  return sealHeader(fields, signature);
}

/** The address that signed. Throws ChainError "signature". */
export function headerSigner(header: Header, chainId: bigint): Uint8Array {
  return recoverAddress(headerDigest(header, chainId), header.signature);
}
