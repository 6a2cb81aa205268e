// Owns the search for logs: by range or block, and between two heads. Invariant: bounded work: at most LOG_BLOCKS_MAX
// blocks are looked at and LOGS_MAX logs returned; a block is read only when its bloom filter says that it may match.
import { bloomMayContain, type Log } from "../block/receipt.js";
import { equals, keccak } from "../bytes.js";
import type { Header } from "../block/header.js";
import type { Chain } from "../chain.js";
import type { BranchChange } from "../consensus/branches.js";
import { invalidParams, RpcError, rpcCode } from "./errors.js";
import { findHeader, needHeader } from "./blocks.js";
import { formatLog } from "./format.js";
import { addressParam, hashParam, objectParam } from "./params.js";

export const LOG_BLOCKS_MAX = 10_000;
const LOGS_MAX = 10_000;
const TOPICS_MAX = 4;

export interface LogFilter {
  addresses: Uint8Array[];
  /** For each position: any of these, or anything. */
  topics: (Uint8Array[] | undefined)[];
}

export function getLogs(chain: Chain, param: unknown): unknown[] {
  const request = objectParam(param, "filter");
  const filter = readFilter(request);
  const found: unknown[] = [];
  for (const header of headersOf(chain, request)) {
    if (!mayMatch(filter, header)) continue;
    collect(chain, header, filter, found);
    if (found.length > LOGS_MAX) throw new RpcError(rpcCode.server, `more than ${LOGS_MAX} logs match; ask for fewer blocks`);
  }
  return found;
}

/** What a change of head brought and took away: logs of abandoned blocks come first, newest first, marked removed. */
export function logsOfChange(chain: Chain, filter: LogFilter, change: BranchChange): unknown[] {
  const found: unknown[] = [];
  for (const header of change.abandoned) {
    const gone: unknown[] = [];
    if (mayMatch(filter, header)) collect(chain, header, filter, gone);
    found.push(...gone.reverse().map((log) => ({ ...(log as object), removed: true })));
  }
  for (const header of change.adopted) if (mayMatch(filter, header)) collect(chain, header, filter, found);
  return found;
}

function* headersOf(chain: Chain, request: Record<string, unknown>): Generator<Header> {
  if (request["blockHash"] !== undefined) {
    if (request["fromBlock"] !== undefined || request["toBlock"] !== undefined) {
      invalidParams("filter: give blockHash or fromBlock and toBlock, not both");
    }
    yield needHeader(chain, hashParam(request["blockHash"], "filter.blockHash") && request["blockHash"]);
    return;
  }
  const from = findHeader(chain, request["fromBlock"] ?? "latest");
  const to = findHeader(chain, request["toBlock"] ?? "latest") ?? chain.head;
  if (!from) return;
  if (from.number > to.number) invalidParams("filter: fromBlock is after toBlock");
  if (to.number - from.number >= LOG_BLOCKS_MAX) {
    throw new RpcError(rpcCode.server, `the range covers ${to.number - from.number + 1} blocks, at most ${LOG_BLOCKS_MAX} are searched`);
  }
  for (let number = from.number; number <= to.number; number++) {
    const header = chain.index.canonicalHeader(number);
    if (header) yield header;
  }
}

export function readFilter(request: Record<string, unknown>): LogFilter {
  const address = request["address"];
  const addresses = address === undefined || address === null ? [] : Array.isArray(address) ? address : [address];
  const topics = request["topics"] ?? [];
  if (!Array.isArray(topics) || topics.length > TOPICS_MAX) {
    return invalidParams(`filter.topics: expected an array of at most ${TOPICS_MAX}`);
  }
  return {
    addresses: addresses.map((each) => addressParam(each, "filter.address")),
    topics: topics.map((each: unknown) => {
      if (each === null) return undefined;
      const anyOf = (Array.isArray(each) ? each : [each]).map((topic) => hashParam(topic, "filter.topics"));
      return anyOf.length === 0 ? undefined : anyOf;
    }),
  };
}

function mayMatch({ addresses, topics }: LogFilter, header: Header): boolean {
  const has = (value: Uint8Array) => bloomMayContain(header.logsBloom, value);
  return (addresses.length === 0 || addresses.some(has)) && topics.every((anyOf) => !anyOf || anyOf.some(has));
}

function matches({ addresses, topics }: LogFilter, log: Log): boolean {
  if (addresses.length > 0 && !addresses.some((address) => equals(address, log.address))) return false;
  return topics.every((anyOf, position) => {
    const topic = log.topics[position];
    return topic === undefined ? position < log.topics.length : !anyOf || anyOf.some((each) => equals(each, topic));
  });
}

function collect(chain: Chain, header: Header, filter: LogFilter, found: unknown[]): void {
  const block = chain.index.block(header.hash);
  const outcome = chain.index.outcome(header.hash);
  if (!block || !outcome) return;
  let logIndex = 0;
  outcome.receipts.forEach((receipt, index) => {
    for (const log of receipt.logs) {
      if (matches(filter, log)) found.push(formatLog(log, keccak(block.transactions[index]!), { header, index }, logIndex));
      logIndex += 1;
    }
  });
}
