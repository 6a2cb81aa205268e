// Owns the block: header, transactions and certificates, and the one encoding of the three. Invariant: a decoded
// block is within every size bound; whether its content obeys the rules is for consensus and execution to say.
import { reject } from "../errors.js";
import { headerFromNested, headerToNested, type Header } from "./header.js";
import { decodeRlp, encodeRlp, FieldReader, type Nested } from "./rlp.js";

export interface Block {
  header: Header;
  /** Canonical encodings: EIP-2718 envelopes or legacy RLP lists. */
  transactions: Uint8Array[];
  certificates: Uint8Array[];
}

/** 4 MiB: a full block of transfers is 0.2 MiB, one of call data (16 gas a byte) 1.9 MiB at 30 M gas. */
export const BLOCK_BYTES_MAX = 4 * 1024 * 1024;
/** geth's pool takes 128 KiB; contract creation is bound to 48 KiB of init code anyway. */
export const TRANSACTION_BYTES_MAX = 128 * 1024;
export const CERTIFICATE_BYTES_MAX = 512;
export const CERTIFICATES_PER_BLOCK_MAX = 10;
const TRANSACTIONS_PER_BLOCK_MAX = 20_000;

export function encodeBlock(block: Block): Uint8Array {
  return encodeRlp([headerToNested(block.header), block.transactions, block.certificates]);
}

export function decodeBlock(bytes: Uint8Array): Block {
  const read = new FieldReader(decodeRlp(bytes, "block", BLOCK_BYTES_MAX), "block");
  const header = headerFromNested(read.next("header"));
  const transactions = read.list("transactions", TRANSACTIONS_PER_BLOCK_MAX)
    .map((item) => byteString(item, "transaction", TRANSACTION_BYTES_MAX));
  const certificates = read.list("certificates", CERTIFICATES_PER_BLOCK_MAX)
    .map((item) => byteString(item, "certificate", CERTIFICATE_BYTES_MAX));
  read.end();
  return { header, transactions, certificates };
}

function byteString(item: Nested, what: string, maxBytes: number): Uint8Array {
  if (!(item instanceof Uint8Array)) return reject("encoding", `a ${what} is a list, expected bytes`);
  if (item.length === 0 || item.length > maxBytes) {
    reject("encoding", `a ${what} has ${item.length} bytes; 1 to ${maxBytes} are allowed`);
  }
  return item.slice(); // a view would keep the whole block alive
}
