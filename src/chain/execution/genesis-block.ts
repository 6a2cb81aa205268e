// Owns block 0. Invariant: the same genesis document gives the same block on every machine.
import { Account, Address } from "@ethereumjs/util";
import { concat, keccak, utf8, ZERO_ADDRESS, EMPTY } from "../bytes.js";
import { sealHeader } from "../block/header.js";
import type { Block } from "../block/block.js";
import { orderedTrieRoot } from "../block/trie-root.js";
import type { Outcome } from "../block/receipt.js";
import { WEIGHT_UNIT } from "../consensus/difficulty.js";
import { accountBytes, genesisConfigHash, type Genesis } from "../genesis.js";
import type { StoreOperation } from "../store/store.js";
import { SIGNATURE_BYTES } from "../crypto/signature.js";
import { VRF_PROOF_BYTES } from "../crypto/vrf.js";
import type { Executor } from "./executor.js";
import type { Machine } from "./machine.js";

export interface GenesisBlock {
  block: Block;
  outcome: Outcome;
  writes: StoreOperation[];
}

/** Runs every contract's initialisation in the EVM. Throws ChainError when a contract refuses. */
export async function createGenesisBlock(genesis: Genesis, executor: Executor): Promise<GenesisBlock> {
  const configHash = genesisConfigHash(genesis);
  const modifier = keccak(concat(utf8("TSR/modifier/0"), configHash));
  const gasLimit = BigInt(genesis.consensus.gasLimit);
  const baseFeePerGas = BigInt(genesis.consensus.baseFeePerGas);
  return executor.withMachine(undefined, async (machine) => {
    machine.enter({
      number: 0, timestamp: Math.floor(genesis.timestampMs / 1000), coinbase: ZERO_ADDRESS, gasLimit, baseFeePerGas,
      random: modifier,
    }, () => configHash);
    await placeAccounts(genesis, machine);
    const stateRoot = await machine.state.root();
    const emptyRoot = orderedTrieRoot([]);
    const header = sealHeader({
      parentHash: configHash, number: 0, stateRoot, transactionsRoot: emptyRoot, receiptsRoot: emptyRoot,
      certificatesRoot: emptyRoot, logsBloom: new Uint8Array(256), gasLimit, gasUsed: 0n,
      timestampMs: genesis.timestampMs, baseFeePerGas, coinbase: ZERO_ADDRESS, slot: 0, step: 0,
      vrfProof: new Uint8Array(VRF_PROOF_BYTES), modifier, powTarget: BigInt(genesis.certificates.target),
      totalWeight: WEIGHT_UNIT, extraData: EMPTY,
    }, new Uint8Array(SIGNATURE_BYTES));
    const outcome: Outcome = {
      receipts: [], payments: [], usefulMultiplyAdds: 0n, usefulMultiplyAddsTotal: 0n, certificateMultiplyAdds: 0n,
      certificateMultiplyAddsTotal: 0n, certificatesTotal: 0, rewardsTotal: 0n,
    };
    const block: Block = { header, transactions: [], certificates: [] };
    return { value: { block, outcome, writes: machine.state.takeWrites() }, root: stateRoot };
  });
}

async function placeAccounts(genesis: Genesis, machine: Machine): Promise<void> {
  const accounts = genesis.accounts.map(accountBytes);
  for (const { address, balance, code } of accounts) {
    const key = new Address(address);
    await machine.state.manager.putAccount(key, new Account(0n, balance));
    if (code) await machine.state.manager.putCode(key, code);
  }
  for (const { address, init } of accounts) if (init) await machine.command(address, init);
}
