// Owns reporting: when this node sees two blocks of one staker in one slot, it sends the proof to StakeRegistry.
// Invariant: only stakers of the present head are reported, each once; a report that another node made first costs
// nothing, because gas is estimated before it is sent.
import { bytesToHex } from "viem";
import { signedFields, toHex, type Chain, type ChainEvent } from "../../chain/index.js";
import { stakeRegistryAbi } from "../../chain/contracts/abi.js";
import { systemAddresses } from "../../chain/contracts/system.js";
import type { Transactor } from "../chain-node/transactor.js";

export interface ReporterModules {
  chain: Chain;
  transactor: Transactor;
  log: { info: (text: string) => void; warn: (text: string) => void };
}

/** Watches until the returned function is called. */
export function reportEquivocations({ chain, transactor, log }: ReporterModules): () => void {
  const reported = new Set<string>();
  return chain.subscribe((event: ChainEvent) => {
    if (event.type !== "equivocation") return;
    const { first, second } = event.evidence;
    const offender = toHex(first.coinbase);
    if (reported.has(offender) || !chain.stakers().some((staker) => toHex(staker.address) === offender)) return;
    reported.add(offender);
    const [a, b] = [signedFields(first), signedFields(second)];
    log.warn(`${offender} made two blocks in slot ${first.slot}: reporting it`);
    transactor.send({
      address: systemAddresses.stakeRegistry, abi: stakeRegistryAbi, functionName: "reportEquivocation",
      args: [bytesToHex(a.fields), bytesToHex(a.signature), bytesToHex(b.fields), bytesToHex(b.signature)],
    }).then(
      ({ transactionHash }) => log.info(`${offender} is slashed: transaction ${transactionHash}`),
      (error: Error) => {
        reported.delete(offender); // told again, it is tried again
        log.info(`the report on ${offender} was not needed or not taken: ${error.message}`);
      },
    );
  });
}
