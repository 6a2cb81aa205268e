// The block-wise state against the plain state manager of @ethereumjs: same operations, same root.
import fc from "fast-check";
import { MerkleStateManager } from "@ethereumjs/statemanager";
import { Account, Address } from "@ethereumjs/util";
import { expect, it } from "vitest";
import { createRules } from "../../../src/chain/execution/rules.js";
import { NodeCache, WorldState } from "../../../src/chain/execution/state.js";
import { createMemoryStore } from "../../../src/chain/store/memory-store.js";
import { toHex } from "../../../src/chain/bytes.js";

const common = createRules(1);
const addressOf = (i: number) => new Address(new Uint8Array(20).fill(i + 1));
const slotOf = (i: number) => new Uint8Array(32).fill(i);

const operation = fc.oneof(
  fc.record({ kind: fc.constant("balance" as const), address: fc.nat(2), value: fc.nat(1_000) }),
  fc.record({ kind: fc.constant("storage" as const), address: fc.nat(2), slot: fc.nat(2), value: fc.nat(3) }),
  fc.record({ kind: fc.constant("code" as const), address: fc.nat(2), value: fc.nat(3) }),
  fc.record({ kind: fc.constant("delete" as const), address: fc.nat(2) }),
  fc.record({ kind: fc.constant("clear" as const), address: fc.nat(2) }),
  fc.record({ kind: fc.constant("read" as const), address: fc.nat(2), slot: fc.nat(2) }),
);
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;
/** A transaction: operations that are kept or undone as one. */
const transaction = fc.record({ operations: fc.array(operation, { maxLength: 6 }), isKept: fc.boolean() });

async function apply(manager: MerkleStateManager, each: Operation, isPlain: boolean): Promise<void> {
  const address = addressOf(each.address);
  switch (each.kind) {
    case "balance": {
      const account = (await manager.getAccount(address)) ?? new Account(1n, 0n);
      account.balance = BigInt(each.value);
      return manager.putAccount(address, account);
    }
    case "delete":
      // the plain one keeps cached slots of a deleted account, and gives them to the next account of that address
      if (isPlain && await manager.getAccount(address)) await manager.clearStorage(address);
      return manager.deleteAccount(address);
    case "read": return void await manager.getStorage(address, slotOf(each.slot));
  }
  if ((await manager.getAccount(address)) === undefined) return;
  if (each.kind === "storage") return manager.putStorage(address, slotOf(each.slot), Uint8Array.of(each.value));
  if (each.kind === "code") return manager.putCode(address, Uint8Array.of(0x60, each.value));
  return manager.clearStorage(address);
}

it("gives the root of the plain manager, block after block, from memory and from the store (property)", async () => {
  await fc.assert(fc.asyncProperty(fc.array(fc.array(transaction, { maxLength: 5 }), { minLength: 1, maxLength: 4 }), async (blocks) => {
    const plain = new MerkleStateManager({ common });
    const store = createMemoryStore();
    const cache = new NodeCache();
    let warm = new WorldState({ root: undefined, common }, { store, cache });
    for (const [index, block] of blocks.entries()) {
      for (const { operations, isKept } of block) {
        for (const manager of [plain, warm.manager]) {
          await manager.checkpoint();
          for (const each of operations) await apply(manager as MerkleStateManager, each, manager === plain);
          await (isKept ? manager.commit() : manager.revert());
        }
      }
      const root = await warm.root();
      expect(toHex(root)).toBe(toHex(await plain.getStateRoot()));
      store.write(warm.takeWrites());
      // every other block starts from what was stored
      if (index % 2 === 1) warm = new WorldState({ root, common, isShortLived: true }, { store, cache: new NodeCache() });
    }
  }), { numRuns: 150 });
});

it("brings back what an undone clearing or deletion took, also from earlier transactions of the block", async () => {
  for (const undo of ["clearStorage", "deleteAccount"] as const) {
    const { manager } = new WorldState({ root: undefined, common }, { store: createMemoryStore(), cache: new NodeCache() });
    await manager.checkpoint();
    await manager.putAccount(addressOf(0), new Account(1n, 1n));
    await manager.putStorage(addressOf(0), slotOf(1), Uint8Array.of(5));
    await manager.commit();
    await manager.checkpoint();
    await manager[undo](addressOf(0));
    expect([...await manager.getStorage(addressOf(0), slotOf(1))]).toEqual([]);
    await manager.revert();
    expect([...await manager.getStorage(addressOf(0), slotOf(1))]).toEqual([5]);
    await manager.getStateRoot();
    manager.clearCaches();
    expect([...await manager.getStorage(addressOf(0), slotOf(1))]).toEqual([5]);
  }
});
