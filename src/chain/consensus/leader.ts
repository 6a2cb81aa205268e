// Owns the leader rule of PoVC (white paper 4.3.3.1): a staker may produce in a slot when
//     equity x target > ProofHash,   ProofHash = H(VRF(secret key, modifier, slot)).
// The target starts where one winner is expected over all stake and doubles after every step of the slot, so the
// luckiest stake is authorised first and the next ones only while it stays silent; a slot cannot stall as long as
// anyone with stake is online.
// Equity is pledged stake x uptime share with the share fixed at 1: eligibility is private until a leader speaks
// (the VRF), so a chain without attestations cannot tell a silent leader from one that lost the draw, and any
// share derived from produced blocks alone would punish small stakers for bad luck.
// Invariant: eligibility depends only on (modifier, slot, key, equities); block content cannot change it.
import { concat, keccak, toBigInt, utf8 } from "../bytes.js";
import type { ConsensusParams } from "../genesis.js";
import { proofHash } from "../crypto/vrf.js";

export interface Staker {
  address: Uint8Array;
  blsPublicKey: Uint8Array;
  /** Wei of matured pledge. */
  equity: bigint;
}

const HASH_SPACE = 1n << 256n;

/** H(parent's modifier, VRF proof, certificates root): no transaction and no header field that can be tried anew. */
export function nextModifier(parentModifier: Uint8Array, vrfProof: Uint8Array, powRoot: Uint8Array): Uint8Array {
  return keccak(concat(utf8("TSR/modifier/1"), parentModifier, vrfProof, powRoot));
}

/** The lowest step at which the rule holds, or undefined where not even the last step of the slot is enough. */
export function winningStep(proof: Uint8Array, equity: bigint, totalEquity: bigint, params: ConsensusParams): number | undefined {
  for (let step = 0; step < stepsPerSlot(params); step++) {
    if (isLeader(proof, equity, totalEquity, step)) return step;
  }
  return undefined;
}

/** equity x (2^256 / totalEquity) x 2^step > ProofHash, without the rounding of the division. */
export function isLeader(proof: Uint8Array, equity: bigint, totalEquity: bigint, step: number): boolean {
  if (equity <= 0n || totalEquity <= 0n) return false;
  return (equity * HASH_SPACE) << BigInt(Math.min(step, STEP_DOUBLINGS_MAX)) > toBigInt(proofHash(proof)) * totalEquity;
}

/** 2^90 tops the ratio of any two stakes (10^28 wei), so later steps would change nothing. */
const STEP_DOUBLINGS_MAX = 96;

export function stepsPerSlot(params: ConsensusParams): number {
  return Math.max(1, Math.floor(params.slotMs / params.stepMs));
}

export function slotAt(timeMs: number, genesisMs: number, params: ConsensusParams): number {
  return Math.floor((timeMs - genesisMs) / params.slotMs);
}

export function stepAt(timeMs: number, genesisMs: number, params: ConsensusParams): number {
  const withinMs = (timeMs - genesisMs) - slotAt(timeMs, genesisMs, params) * params.slotMs;
  return Math.min(stepsPerSlot(params) - 1, Math.floor(withinMs / params.stepMs));
}

/** The only timestamp that a block of this slot and step may carry: a producer has no time to choose. */
export function timestampOf(slot: number, step: number, genesisMs: number, params: ConsensusParams): number {
  return genesisMs + slot * params.slotMs + step * params.stepMs;
}
