// Owns what a header must say given its parent, before anything is executed. Invariant: every field is either
// derived from parent and content, or covered by the leader proof and the signature; none is free to choose.
import { equals, compare, toHex } from "../bytes.js";
import { reject } from "../errors.js";
import type { Block } from "../block/block.js";
import { headerSigner, type Header } from "../block/header.js";
import { orderedTrieRoot } from "../block/trie-root.js";
import { proofHash, verifyVrf, vrfMessage } from "../crypto/vrf.js";
import type { Genesis } from "../genesis.js";
import { nextBaseFee } from "./base-fee.js";
import { blockWeight, nextPowTarget } from "./difficulty.js";
import { isLeader, nextModifier, stepsPerSlot, timestampOf, type Staker } from "./leader.js";

/**
 * That the body is the one the header commits to. A block that fails here says nothing about its header: anybody
 * can put another body under an honest header, so such a refusal must never be held against the hash.
 */
export function checkBody(block: Block): void {
  const { header } = block;
  if (!equals(header.transactionsRoot, orderedTrieRoot(block.transactions))) reject("transactions-root", "the transactions root does not match");
  if (!equals(header.certificatesRoot, orderedTrieRoot(block.certificates))) reject("certificates-root", "the certificates root does not match");
}

/** What needs no parent: form, time and signature. Cheapest first; run before a block may even wait as an orphan. */
export function checkClaim(block: Block, genesis: Genesis, nowMs: number): void {
  const { header } = block;
  const { consensus } = genesis;
  if (header.number < 1) reject("number", `a block has a number of at least 1, got ${header.number}`);
  if (header.step >= stepsPerSlot(consensus)) reject("step", `step ${header.step} is outside 0 to ${stepsPerSlot(consensus) - 1}`);
  const expectedMs = timestampOf(header.slot, header.step, genesis.timestampMs, consensus);
  if (header.timestampMs !== expectedMs) {
    reject("timestamp", `slot ${header.slot} step ${header.step} is at ${expectedMs} ms, the header says ${header.timestampMs}`);
  }
  if (header.timestampMs > nowMs + consensus.clockDriftMs) {
    reject("future", `the block is from ${header.timestampMs - nowMs} ms ahead, at most ${consensus.clockDriftMs} are allowed`);
  }
  if (header.gasLimit !== BigInt(consensus.gasLimit)) reject("gas-limit", `the gas limit is ${consensus.gasLimit}, got ${header.gasLimit}`);
  if (header.gasUsed > header.gasLimit) reject("over-gas", `gas used ${header.gasUsed} exceeds the limit ${header.gasLimit}`);
  if (!equals(headerSigner(header, BigInt(genesis.chainId)), header.coinbase)) {
    reject("signature", `the header is not signed by its producer ${toHex(header.coinbase)}`);
  }
}

/** Fields that follow from the parent and the number of certificates. */
export function checkDerived(block: Block, parent: Header, certificateTargets: readonly bigint[], genesis: Genesis): void {
  const { header } = block;
  if (header.number !== parent.number + 1) reject("number", `expected number ${parent.number + 1}, got ${header.number}`);
  if (header.slot <= parent.slot) reject("slot", `slot ${header.slot} is not after the parent's ${parent.slot}`);
  const baseFee = nextBaseFee(parent);
  if (header.baseFeePerGas !== baseFee) reject("base-fee", `expected base fee ${baseFee}, got ${header.baseFeePerGas}`);
  if (!equals(header.modifier, nextModifier(parent.modifier, header.vrfProof, header.certificatesRoot))) {
    reject("modifier", "the modifier does not follow from the parent");
  }
  const powTarget = nextPowTarget(parent.powTarget, block.certificates.length, genesis.certificates);
  if (header.powTarget !== powTarget) reject("pow-target", `expected target ${powTarget}, got ${header.powTarget}`);
  const totalWeight = parent.totalWeight + blockWeight(certificateTargets, genesis.certificates);
  if (header.totalWeight !== totalWeight) reject("weight", `expected total weight ${totalWeight}, got ${header.totalWeight}`);
}

/** equity x target > ProofHash with the producer's own proof over the lagged modifier. */
export function checkLeader(header: Header, stakers: readonly Staker[], modifier: Uint8Array, genesis: Genesis): void {
  const staker = stakers.find((each) => equals(each.address, header.coinbase));
  if (!staker) return reject("leader", `${toHex(header.coinbase)} has no active stake`);
  const total = stakers.reduce((sum, each) => sum + each.equity, 0n);
  if (!isLeader(header.vrfProof, staker.equity, total, header.step)) {
    reject("leader", `${toHex(header.coinbase)} is not authorised in slot ${header.slot} at step ${header.step}`);
  }
  const message = vrfMessage(BigInt(genesis.chainId), modifier, header.slot);
  if (!verifyVrf(staker.blsPublicKey, message, header.vrfProof)) reject("vrf", "the leader proof is not the staker's for this slot");
}

/**
 * Heavier chain first; of equals the lower ProofHash, which a producer cannot choose, then the lower hash.
 * Total order, so all nodes that know both blocks agree.
 */
export function isBetterHead(candidate: Header, current: Header): boolean {
  if (candidate.totalWeight !== current.totalWeight) return candidate.totalWeight > current.totalWeight;
  const byProof = compare(proofHash(candidate.vrfProof), proofHash(current.vrfProof));
  return byProof !== 0 ? byProof < 0 : compare(candidate.hash, current.hash) < 0;
}
