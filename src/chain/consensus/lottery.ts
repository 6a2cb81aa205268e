// Owns who may produce after a given block, and when: the staker set and the randomness of a parent, this node's own
// proofs, and the slots in which it has already produced. Invariant: a producer never makes two blocks in one slot,
// on any branch and across restarts, because that is slashable.
import { compare, equals, keyOf, uint64 } from "../bytes.js";
import type { BlockIndex } from "../block/block-index.js";
import type { Header } from "../block/header.js";
import { proveVrf, vrfMessage } from "../crypto/vrf.js";
import type { Genesis } from "../genesis.js";
import { table, type Store, type StoreOperation } from "../store/store.js";
import { winningStep, type Staker } from "./leader.js";

export interface LotteryKeys {
  blsSecretKey: Uint8Array;
  address: Uint8Array;
}

/** Twice the deepest reorganisation of the presets. */
const STAKER_SETS_CACHED_MAX = 256;
/** nextAttemptMs looks 16 slots ahead; a few heads' worth. */
const VRF_PROOFS_CACHED_MAX = 64;

export class Lottery {
  private readonly stakerSets = new Map<string, Staker[]>();
  private readonly proofs = new Map<string, Uint8Array>();
  private readonly lastSlots = new Map<string, number>();

  constructor(private readonly genesis: Genesis,
    private readonly modules: { index: BlockIndex; store: Store; readStakers: (at: Header) => Promise<Staker[]> }) {}

  /** Stakers by the state and time of the parent: nothing in the block itself can change who may make it. */
  async stakersAfter(parent: Header): Promise<Staker[]> {
    const known = this.knownStakersAfter(parent);
    if (known) return known;
    const stakers = await this.modules.readStakers(parent);
    stakers.sort((a, b) => compare(a.address, b.address));
    bounded(this.stakerSets, keyOf(parent.hash), stakers, STAKER_SETS_CACHED_MAX);
    return stakers;
  }

  /** The same where it was read before, as it always was for the head. */
  knownStakersAfter(parent: Header): Staker[] | undefined {
    return this.stakerSets.get(keyOf(parent.hash));
  }

  modifierAfter(parent: Header): Uint8Array {
    const number = Math.max(0, parent.number - this.genesis.consensus.modifierLagBlocks);
    return this.modules.index.ancestor(parent, number).modifier;
  }

  proof(parent: Header, slot: number, keys: LotteryKeys): Uint8Array {
    const modifier = this.modifierAfter(parent);
    const key = `${keyOf(keys.address)}:${keyOf(modifier)}:${slot}`;
    let proof = this.proofs.get(key);
    if (!proof) {
      proof = proveVrf(keys.blsSecretKey, vrfMessage(BigInt(this.genesis.chainId), modifier, slot));
      bounded(this.proofs, key, proof, VRF_PROOFS_CACHED_MAX);
    }
    return proof;
  }

  winningStep(parent: Header, slot: number, keys: LotteryKeys): number | undefined {
    const stakers = this.knownStakersAfter(parent) ?? [];
    const own = stakers.find((each) => equals(each.address, keys.address));
    if (!own) return undefined;
    const total = stakers.reduce((sum, each) => sum + each.equity, 0n);
    return winningStep(this.proof(parent, slot, keys), own.equity, total, this.genesis.consensus);
  }

  lastProducedSlot(address: Uint8Array): number {
    const key = keyOf(address);
    let slot = this.lastSlots.get(key);
    if (slot === undefined) {
      const stored = this.modules.store.get(table.produced(address));
      slot = stored ? Number(Buffer.from(stored).readBigUInt64BE()) : -1;
      this.lastSlots.set(key, slot);
    }
    return slot;
  }

  /** From now on the slot is used; the operation belongs in the batch of the block. */
  recordProduced(address: Uint8Array, slot: number): StoreOperation {
    this.lastSlots.set(keyOf(address), slot);
    return { key: table.produced(address), value: uint64(slot) };
  }
}

function bounded<T>(map: Map<string, T>, key: string, value: T, max: number): void {
  if (map.size >= max) map.delete(map.keys().next().value!);
  map.set(key, value);
}
