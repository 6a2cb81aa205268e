/**
 * Owns the watching of new blocks for people: one callback a block, in order, none twice.
 */
import type { PublicClient } from "viem";

const POLL_MS = 400;

export interface SeenBlock { number: number; producer: string; transactions: number; certificates: number }

/** Calls back for each block from now on. @returns the function that stops it. */
export function watchBlocks(client: PublicClient, onBlock: (block: SeenBlock) => void): () => void {
  let next: bigint | undefined;
  let stopped = false;
  let timer: NodeJS.Timeout;
  const poll = async (): Promise<void> => {
    try {
      const head = await client.getBlockNumber({ cacheTime: 0 });
      next ??= head;
      for (; next <= head && !stopped; next += 1n) {
        const block = await client.getBlock({ blockNumber: next });
        const extra = block as unknown as { certificates?: unknown[] };
        onBlock({
          number: Number(block.number), producer: block.miner, transactions: block.transactions.length,
          certificates: extra.certificates?.length ?? 0,
        });
      }
    } catch {
      // the master may be restarting: the next poll goes on where this one stopped
    }
    if (!stopped) timer = setTimeout(poll, POLL_MS);
  };
  timer = setTimeout(poll, 0);
  return () => {
    stopped = true;
    clearTimeout(timer);
  };
}
