// Owns filling a block from the pool. Invariant: what is returned was executed, in this order, and fits the block.
import type { Transaction } from "../block/transaction.js";
import { BLOCK_BYTES_MAX } from "../block/block.js";
import { ChainError } from "../errors.js";
import type { Mempool } from "../mempool/mempool.js";
import type { BlockRun } from "./block-run.js";

const TRANSFER_GAS = 21_000n;
/** Room for the header and ten certificates. */
const OVERHEAD_BYTES = 64 * 1024;

/** Best tip first until no transfer would fit; a transaction that cannot start leaves the pool. */
export async function fillBlock(run: BlockRun, mempool: Mempool, baseFee: bigint): Promise<Transaction[]> {
  const included: Transaction[] = [];
  const candidates = mempool.pick(baseFee);
  let answer: "skip" | undefined;
  let bytes = 0;
  while (run.gasLeft >= TRANSFER_GAS) {
    const next = candidates.next(answer);
    if (next.done) break;
    const transaction = next.value;
    answer = "skip";
    if (transaction.tx.gasLimit > run.gasLeft || bytes + transaction.raw.length > BLOCK_BYTES_MAX - OVERHEAD_BYTES) continue;
    try {
      await run.transact(transaction);
      included.push(transaction);
      bytes += transaction.raw.length;
      answer = undefined;
    } catch (error) {
      if (!(error instanceof ChainError)) throw error;
      mempool.drop(transaction);
    }
  }
  return included;
}
