// Owns the challenge miner of a PoW node: certificates on the newest head, at a duty cycle.
// Invariant: while the network has paid work, challenges take only the small share that is configured,
// because the useful products are the training's own.
import { z } from "zod";
import { behavior, defineProtocol } from "../../runtime/index.js";
import type { Chain } from "../../chain/index.js";
import type { NodeConfig } from "../node/config.js";
import type { ChallengeSearch, SearchThreadData } from "./search.js";

export const MinerProtocol = defineProtocol("tesra.miner", 1, {
  call: {
    status: {
      request: z.object({}),
      reply: z.object({ certificates: z.number(), nonces: z.number(), multiplyAdds: z.string(), paidWork: z.boolean() }),
    },
  },
});

/** More certificates from one head than a block takes would only be thrown away. */
const CERTIFICATES_PER_HEAD_MAX = 4;
/** One product a turn, so that a new head is noticed at once. */
const NONCES_PER_TURN = 1;
const IDLE_MS = 250;

export interface MinerModules {
  chain: Chain;
  compute: NodeConfig["compute"];
  privateKey: Uint8Array;
  hasPaidWork: () => Promise<boolean>;
  openSearch: (data: SearchThreadData) => Promise<ChallengeSearch>;
}

export function challengeMiner(options: NodeConfig["pow"], modules: MinerModules) {
  const { chain } = modules;
  return behavior(MinerProtocol, async (ctx) => {
    const { m, n, k } = chain.genesis.certificates;
    const data: SearchThreadData = {
      chainId: BigInt(chain.genesis.chainId), privateKey: modules.privateKey, dims: { m, n, k }, compute: modules.compute,
    };
    const search = await modules.openSearch(data);
    const total = { certificates: 0, nonces: 0, multiplyAdds: 0n };
    let height = -1;
    let foundAtHeight = 0;
    let nonce = 1n;
    let paidWork = false;

    const turn = async (): Promise<void> => {
      const head = chain.head;
      const number = Number(head.number);
      if (number !== height) {
        height = number;
        foundAtHeight = 0;
        nonce = 1n;
        paidWork = await modules.hasPaidWork();
      }
      const duty = paidWork ? options.dutyCycleWhilePaidWork : options.dutyCycle;
      if (duty === 0 || foundAtHeight >= CERTIFICATES_PER_HEAD_MAX) {
        ctx.timers.once("turn", IDLE_MS, turn);
        return;
      }
      const result = await search.search({
        height, tip: head.hash, target: head.powTarget, nonceStart: nonce, maxNonces: NONCES_PER_TURN,
      });
      nonce += BigInt(result.noncesTried);
      total.nonces += result.noncesTried;
      total.multiplyAdds += result.multiplyAdds;
      for (const encoded of result.certificates.slice(0, CERTIFICATES_PER_HEAD_MAX - foundAtHeight)) {
        const outcome = await chain.addCertificate(encoded);
        if (!("added" in outcome)) continue;
        foundAtHeight += 1;
        total.certificates += 1; // the chain's event sends it to the peers
      }
      ctx.timers.once("turn", Math.max(1, Math.round(result.busyMs * (1 / duty - 1))), turn);
    };
    ctx.timers.once("turn", 1, turn);

    return {
      stopped: () => search.close(),
      call: {
        status: () => ({
          certificates: total.certificates, nonces: total.nonces, multiplyAdds: total.multiplyAdds.toString(), paidWork,
        }),
      },
    };
  });
}
