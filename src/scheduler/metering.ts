/**
 * Owns: work receipts (white paper 3.1): what a worker signs after a batch, and the master's meter
 * that turns them into cumulative verified work.
 * Invariants: a receipt binds chain, task, worker, sequence and the samples it is for; each sequence
 * counts once and in order; multiply-adds are the master's figure (samples x cost of the graph),
 * never the worker's claim.
 */
import { blake3 } from "@noble/hashes/blake3.js";
import { bytesToHex, concatBytes, hexToBytes, utf8ToBytes } from "@noble/hashes/utils.js";
import { requireInput, SchedulerError } from "./errors.js";

export interface WorkReceipt {
  readonly chainId: bigint;
  readonly taskId: bigint;
  /** Lower-case 20-byte address with 0x. */
  readonly worker: string;
  /** From 1, no gaps needed, strictly rising. */
  readonly sequence: bigint;
  readonly epoch: number;
  readonly shard: number;
  /** Samples [from, to) of the shard. */
  readonly from: number;
  readonly to: number;
  /** Computing time of this batch. */
  readonly activeMs: number;
  /** 32 bytes, hex: hash of what was pushed. */
  readonly result: string;
}

export type SignDigest = (digest: Uint8Array) => Uint8Array | Promise<Uint8Array>;
/** The address that signed, lower-case with 0x, or undefined when the signature is none. */
export type RecoverSigner = (digest: Uint8Array, signature: Uint8Array) => string | undefined;

const DOMAIN = utf8ToBytes("TSR/receipt/1");
/** 8 chainId, 8 taskId, 20 worker, 8 sequence, 4 epoch, 4 shard, 4 from, 4 to, 4 activeMs, 32 result. */
export const RECEIPT_BYTES = 96;
const U32_MAX = 2 ** 32 - 1;
const U64_MAX = 2n ** 64n - 1n;

/** Fixed layout, big-endian. Throws SchedulerError on a field out of range. */
export function encodeReceipt(receipt: WorkReceipt): Uint8Array {
  const bytes = new Uint8Array(RECEIPT_BYTES);
  const view = new DataView(bytes.buffer);
  const u64 = (field: "chainId" | "taskId" | "sequence", offset: number) => {
    requireInput(receipt[field] >= 0n && receipt[field] <= U64_MAX, field, `expected 64 bits, got ${receipt[field]}`);
    view.setBigUint64(offset, receipt[field]);
  };
  const u32 = (field: "epoch" | "shard" | "from" | "to" | "activeMs", offset: number) => {
    const value = receipt[field];
    requireInput(Number.isInteger(value) && value >= 0 && value <= U32_MAX, field, `expected 32 bits, got ${value}`);
    view.setUint32(offset, value);
  };
  requireInput(/^0x[0-9a-f]{40}$/.test(receipt.worker), "worker", `expected a lower-case address, got ${receipt.worker}`);
  requireInput(/^[0-9a-f]{64}$/.test(receipt.result), "result", `expected 32 bytes of hex, got ${receipt.result}`);
  u64("chainId", 0);
  u64("taskId", 8);
  bytes.set(hexToBytes(receipt.worker.slice(2)), 16);
  u64("sequence", 36);
  u32("epoch", 44);
  u32("shard", 48);
  u32("from", 52);
  u32("to", 56);
  u32("activeMs", 60);
  bytes.set(hexToBytes(receipt.result), 64);
  return bytes;
}

/** Strict inverse of encodeReceipt. */
export function decodeReceipt(bytes: Uint8Array): WorkReceipt {
  if (bytes.length !== RECEIPT_BYTES) {
    throw new SchedulerError("bad-encoding", "receipt", `receipt: expected ${RECEIPT_BYTES} bytes, got ${bytes.length}`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return {
    chainId: view.getBigUint64(0),
    taskId: view.getBigUint64(8),
    worker: `0x${bytesToHex(bytes.subarray(16, 36))}`,
    sequence: view.getBigUint64(36),
    epoch: view.getUint32(44),
    shard: view.getUint32(48),
    from: view.getUint32(52),
    to: view.getUint32(56),
    activeMs: view.getUint32(60),
    result: bytesToHex(bytes.subarray(64, 96)),
  };
}

export function receiptDigest(receipt: WorkReceipt): Uint8Array {
  return blake3(concatBytes(DOMAIN, encodeReceipt(receipt)));
}

export async function signReceipt(receipt: WorkReceipt, sign: SignDigest): Promise<Uint8Array> {
  return sign(receiptDigest(receipt));
}

export interface WorkTotals {
  readonly sequence: bigint;
  readonly samples: bigint;
  readonly multiplyAdds: bigint;
  readonly activeMs: bigint;
  /** Digest of the last receipt, 0x-hex; what the chain records. */
  readonly digest: string;
}

export type MeterVerdict =
  | { ok: true; samples: number; totals: WorkTotals }
  | {
    ok: false;
    code: "wrong-chain" | "wrong-task" | "unknown-worker" | "bad-signature" | "replayed" | "empty" | "not-accounted";
    message: string;
  };

export interface MeterOptions {
  readonly chainId: bigint;
  readonly taskId: bigint;
  /** Forward and backward, of one sample. */
  readonly multiplyAddsPerSample: bigint;
  readonly recover: RecoverSigner;
}

const nothing: WorkTotals = { sequence: 0n, samples: 0n, multiplyAdds: 0n, activeMs: 0n, digest: `0x${"0".repeat(64)}` };

/** The master's meter of one task. */
export class Meter {
  readonly #options: MeterOptions;
  readonly #totals = new Map<string, WorkTotals>();

  constructor(options: MeterOptions) {
    this.#options = options;
  }

  /** A node that accepted the task: its receipts count from now on. */
  admit(worker: string): void {
    if (!this.#totals.has(worker)) this.#totals.set(worker, nothing);
  }

  /**
   * Takes a signed receipt. `account` books the samples exactly once (the shard ledger) and says how
   * many were new; a receipt that it does not know counts nothing.
   */
  accept(receipt: WorkReceipt, signature: Uint8Array, account: (receipt: WorkReceipt) => number): MeterVerdict {
    const { chainId, taskId, multiplyAddsPerSample, recover } = this.#options;
    if (receipt.chainId !== chainId) return refuse("wrong-chain", `expected chain ${chainId}, got ${receipt.chainId}`);
    if (receipt.taskId !== taskId) return refuse("wrong-task", `expected task ${taskId}, got ${receipt.taskId}`);
    const before = this.#totals.get(receipt.worker);
    if (before === undefined) return refuse("unknown-worker", `${receipt.worker} has not accepted this task`);
    if (receipt.sequence <= before.sequence) {
      return refuse("replayed", `sequence ${receipt.sequence} is not above ${before.sequence}`);
    }
    if (receipt.to <= receipt.from) return refuse("empty", `no samples in [${receipt.from}, ${receipt.to})`);
    const digest = receiptDigest(receipt);
    if (recover(digest, signature) !== receipt.worker) {
      return refuse("bad-signature", `the signature is not ${receipt.worker}'s`);
    }
    const samples = account(receipt);
    if (samples === 0) return refuse("not-accounted", "these samples were not this worker's to do");
    const totals: WorkTotals = {
      sequence: receipt.sequence,
      samples: before.samples + BigInt(samples),
      multiplyAdds: before.multiplyAdds + BigInt(samples) * multiplyAddsPerSample,
      activeMs: before.activeMs + BigInt(receipt.activeMs),
      digest: `0x${bytesToHex(digest)}`,
    };
    this.#totals.set(receipt.worker, totals);
    return { ok: true, samples, totals };
  }

  totalsOf(worker: string): WorkTotals {
    return this.#totals.get(worker) ?? nothing;
  }

  /** Cumulative work of each admitted worker, as TaskMarket.postReceipts takes it. */
  aggregate(): { worker: string; totals: WorkTotals }[] {
    return [...this.#totals].map(([worker, totals]) => ({ worker, totals }));
  }

  /** For the journal: restoring it makes every receipt taken so far a replay. */
  snapshot(): [string, Record<keyof WorkTotals, string>][] {
    return [...this.#totals].map(([worker, t]) => [worker, {
      sequence: `${t.sequence}`, samples: `${t.samples}`, multiplyAdds: `${t.multiplyAdds}`,
      activeMs: `${t.activeMs}`, digest: t.digest,
    }]);
  }

  static restore(options: MeterOptions, snapshot: ReturnType<Meter["snapshot"]>): Meter {
    const meter = new Meter(options);
    for (const [worker, t] of snapshot) {
      meter.#totals.set(worker, {
        sequence: BigInt(t.sequence), samples: BigInt(t.samples), multiplyAdds: BigInt(t.multiplyAdds),
        activeMs: BigInt(t.activeMs), digest: t.digest,
      });
    }
    return meter;
  }
}

function refuse(code: Extract<MeterVerdict, { ok: false }>["code"], message: string): MeterVerdict {
  return { ok: false, code, message };
}
