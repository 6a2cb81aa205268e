// Owns receipts and the stored outcome of a block. Invariant: receiptsRoot is over Ethereum's receipt encoding
// (EIP-658, EIP-2718), so standard tools can check it; the stored form adds what queries need.
import { concat, keccak, EMPTY } from "../bytes.js";
import { decodeRlp, encodeRlp, FieldReader, integer, type Nested } from "./rlp.js";

export interface Log {
  address: Uint8Array;
  topics: Uint8Array[];
  data: Uint8Array;
}

export interface Receipt {
  type: number;
  succeeded: boolean;
  gasUsed: bigint;
  cumulativeGasUsed: bigint;
  contractAddress: Uint8Array | undefined;
  logs: Log[];
}

export interface StoredPayment {
  to: Uint8Array;
  amount: bigint;
  role: number;
}

/** What executing a block gave, beyond what its header says. Totals count from genesis to this block. */
export interface Outcome {
  receipts: Receipt[];
  payments: StoredPayment[];
  usefulMultiplyAdds: bigint;
  usefulMultiplyAddsTotal: bigint;
  certificateMultiplyAdds: bigint;
  certificateMultiplyAddsTotal: bigint;
  certificatesTotal: number;
  rewardsTotal: bigint;
}

const BLOOM_BYTES = 256;
/** Written by this node only, so the bound just stops a damaged length from being believed. */
const OUTCOME_BYTES_MAX = 1 << 28;

export function logsBloom(logs: readonly Log[]): Uint8Array {
  const bloom = new Uint8Array(BLOOM_BYTES);
  for (const log of logs) {
    addToBloom(bloom, log.address);
    for (const topic of log.topics) addToBloom(bloom, topic);
  }
  return bloom;
}

function bloomBits(value: Uint8Array): number[] {
  const hash = keccak(value);
  return [0, 2, 4].map((i) => ((hash[i]! << 8) | hash[i + 1]!) & 2047);
}

function addToBloom(bloom: Uint8Array, value: Uint8Array): void {
  for (const bit of bloomBits(value)) bloom[BLOOM_BYTES - 1 - (bit >> 3)]! |= 1 << (bit & 7);
}

/** False only when no log of the block can hold the value. */
export function bloomMayContain(bloom: Uint8Array, value: Uint8Array): boolean {
  return bloomBits(value).every((bit) => (bloom[BLOOM_BYTES - 1 - (bit >> 3)]! & (1 << (bit & 7))) !== 0);
}

function logsToNested(logs: readonly Log[]): Nested[] {
  return logs.map((log) => [log.address, log.topics, log.data]);
}

/** The encoding that receiptsRoot commits to. */
export function encodeConsensusReceipt(receipt: Receipt): Uint8Array {
  const payload = encodeRlp([
    integer(receipt.succeeded ? 1 : 0), integer(receipt.cumulativeGasUsed), logsBloom(receipt.logs),
    logsToNested(receipt.logs),
  ]);
  return receipt.type === 0 ? payload : concat(Uint8Array.of(receipt.type), payload);
}

export function encodeOutcome(outcome: Outcome): Uint8Array {
  return encodeRlp([
    outcome.receipts.map((receipt) => [
      integer(receipt.type), integer(receipt.succeeded ? 1 : 0), integer(receipt.gasUsed),
      integer(receipt.cumulativeGasUsed), receipt.contractAddress ?? EMPTY, logsToNested(receipt.logs),
    ]),
    outcome.payments.map((payment) => [payment.to, integer(payment.amount), integer(payment.role)]),
    integer(outcome.usefulMultiplyAdds), integer(outcome.usefulMultiplyAddsTotal),
    integer(outcome.certificateMultiplyAdds), integer(outcome.certificateMultiplyAddsTotal),
    integer(outcome.certificatesTotal), integer(outcome.rewardsTotal),
  ]);
}

export function decodeOutcome(bytes: Uint8Array): Outcome {
  const read = new FieldReader(decodeRlp(bytes, "outcome", OUTCOME_BYTES_MAX), "outcome");
  const anyLength = Number.MAX_SAFE_INTEGER;
  return {
    receipts: read.list("receipts", anyLength).map(readReceipt),
    payments: read.list("payments", anyLength).map((item) => {
      const payment = new FieldReader(item, "payment");
      return { to: payment.bytes("to", 20), amount: payment.integer("amount", 32), role: payment.count("role") };
    }),
    usefulMultiplyAdds: read.integer("usefulMultiplyAdds", 32),
    usefulMultiplyAddsTotal: read.integer("usefulMultiplyAddsTotal", 32),
    certificateMultiplyAdds: read.integer("certificateMultiplyAdds", 64),
    certificateMultiplyAddsTotal: read.integer("certificateMultiplyAddsTotal", 64),
    certificatesTotal: read.count("certificatesTotal"),
    rewardsTotal: read.integer("rewardsTotal", 32),
  };
}

function readReceipt(item: Nested): Receipt {
  const read = new FieldReader(item, "receipt");
  const type = read.count("type");
  const succeeded = read.count("status") === 1;
  const gasUsed = read.integer("gasUsed", 8);
  const cumulativeGasUsed = read.integer("cumulativeGasUsed", 8);
  const contract = read.upTo("contractAddress", 20);
  const logs = read.list("logs", Number.MAX_SAFE_INTEGER).map((entry) => {
    const log = new FieldReader(entry, "log");
    return {
      address: log.bytes("address", 20),
      topics: log.list("topics", 4).map((topic) => topic as Uint8Array),
      data: log.upTo("data", Number.MAX_SAFE_INTEGER),
    };
  });
  return { type, succeeded, gasUsed, cumulativeGasUsed, contractAddress: contract.length ? contract : undefined, logs };
}
