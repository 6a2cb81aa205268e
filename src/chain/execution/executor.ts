// Owns the machines: one that stays warm at the head's state for blocks, and short-lived ones for reads.
// Invariant: a machine whose block was refused is thrown away, so no change of a refused block is ever seen.
import type { Common } from "@ethereumjs/common";
import { keyOf } from "../bytes.js";
import type { Store } from "../store/store.js";
import { Machine } from "./machine.js";
import { NodeCache, WorldState } from "./state.js";

/** A warm machine is rebuilt after this many blocks, so that its contract and account caches cannot only grow. */
const WARM_BLOCKS_MAX = 512;

export class Executor {
  private warm: { root: string; machine: Machine; blocks: number } | undefined;
  private readonly cache = new NodeCache();

  constructor(private readonly modules: { store: Store; common: Common }) {}

  /**
   * Lends the machine whose state is at `root`. The work returns the root it left the state at, or undefined
   * where its changes must not live on.
   */
  async withMachine<T>(root: Uint8Array | undefined, work: (machine: Machine) => Promise<{ value: T; root: Uint8Array | undefined }>): Promise<T> {
    const warm = this.warm;
    this.warm = undefined;
    const isWarm = root !== undefined && warm !== undefined && warm.root === keyOf(root) && warm.blocks < WARM_BLOCKS_MAX;
    const machine = isWarm ? warm.machine : await this.machineAt(root, false);
    const result = await work(machine);
    if (result.root) this.warm = { root: keyOf(result.root), machine, blocks: isWarm ? warm.blocks + 1 : 1 };
    return result.value;
  }

  /** A machine of its own for a read; it sees the state at `root` and nothing later. */
  machineAt(root: Uint8Array | undefined, isShortLived = true): Promise<Machine> {
    return Machine.create(this.stateAt(root, isShortLived), this.modules.common);
  }

  stateAt(root: Uint8Array | undefined, isShortLived = true): WorldState {
    return new WorldState({ root, common: this.modules.common, isShortLived }, { store: this.modules.store, cache: this.cache });
  }
}
