// Owns what a block parameter means. Invariant: "safe" and "finalized" are the newest block that a transaction's
// `confirmations` (genesis, 6) make final; "pending" is answered from the head, since the next block is not known.
import { equals, toHex } from "../bytes.js";
import type { Block } from "../block/block.js";
import type { Header } from "../block/header.js";
import type { Chain } from "../chain.js";
import { invalidParams, RpcError, rpcCode } from "./errors.js";
import { hashParam, objectParam, quantityParam } from "./params.js";

/** The header that a tag, number, hash or EIP-1898 object names; undefined when there is none. */
export function findHeader(chain: Chain, value: unknown): Header | undefined {
  if (value === undefined || value === null) return chain.head;
  if (typeof value === "object") return findByObject(chain, value);
  if (typeof value === "string" && value.length === 66) return chain.index.header(hashParam(value, "block hash"));
  switch (value) {
    case "latest": case "pending": return chain.head;
    case "earliest": return chain.index.canonicalHeader(0);
    case "safe": case "finalized": return chain.index.canonicalHeader(
      Math.max(0, chain.head.number - chain.genesis.consensus.confirmations + 1));
    default: return numbered(chain, value);
  }
}

function numbered(chain: Chain, value: unknown): Header | undefined {
  if (typeof value !== "string" || !value.startsWith("0x")) {
    return invalidParams(`block: expected a hex number, a hash, or latest, earliest, pending, safe or finalized, got ${JSON.stringify(value)}`);
  }
  const number = quantityParam(value, "block");
  return number > BigInt(Number.MAX_SAFE_INTEGER) ? undefined : chain.index.canonicalHeader(Number(number));
}

function findByObject(chain: Chain, value: object): Header | undefined {
  const { blockHash, blockNumber, requireCanonical } = objectParam(value, "block");
  if (blockHash === undefined) return findHeader(chain, blockNumber);
  const header = chain.index.header(hashParam(blockHash, "block.blockHash"));
  if (header && requireCanonical === true && !chain.index.isCanonical(header)) {
    throw new RpcError(rpcCode.server, `block ${toHex(header.hash)} is not canonical`);
  }
  return header;
}

export function needHeader(chain: Chain, value: unknown): Header {
  const header = findHeader(chain, value);
  if (!header) throw new RpcError(rpcCode.server, "header not found");
  return header;
}

export function findBlock(chain: Chain, value: unknown): Block | undefined {
  const header = findHeader(chain, value);
  return header && chain.index.block(header.hash);
}

export function canonicalPlace(chain: Chain, transactionHash: Uint8Array): { header: Header; index: number; block: Block } | undefined {
  const place = chain.index.place(transactionHash);
  const block = place && chain.index.block(place.blockHash);
  if (!place || !block || !equals(block.header.hash, place.blockHash)) return undefined;
  return { header: block.header, index: place.index, block };
}
