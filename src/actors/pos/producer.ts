// Owns block production on a PoS node: asks the chain whether this node leads, and sends what it packed.
// Invariant: one attempt at a time; the chain itself decides (equity x target > ProofHash), this actor only asks.
import { z } from "zod";
import { behavior, defineProtocol } from "../../runtime/index.js";
import type { Chain, Producer } from "../../chain/index.js";
import type { Gossip } from "../chain-node/chain-node.js";

export const ProducerProtocol = defineProtocol("tesra.producer", 1, {
  call: { status: { request: z.object({}), reply: z.object({ produced: z.number() }) } },
});

/** Longest sleep between two looks at the clock; a head that moves meanwhile is seen by then. */
const SLEEP_MS_MAX = 250;

export function producer(modules: { chain: Chain; gossip: Gossip; keys: Producer; now: () => number }) {
  const { chain, gossip, keys, now } = modules;
  return behavior(ProducerProtocol, (ctx) => {
    let produced = 0;
    const schedule = (): void => {
      const delayMs = Math.max(1, Math.min(SLEEP_MS_MAX, chain.nextAttemptMs(now(), keys) - now()));
      ctx.timers.once("attempt", delayMs, attempt);
    };
    const attempt = async (): Promise<void> => {
      const block = await chain.produce(now(), keys);
      if (block) {
        produced += 1;
        gossip.broadcast("block", block.encoded);
      }
      schedule();
    };
    schedule();
    return { call: { status: () => ({ produced }) } };
  });
}
