// Property: whatever transactions come, the balances add up to 10^10 x 10^18 after every block.
import fc from "fast-check";
import { expect, it } from "vitest";
import { SUPPLY_WEI } from "../../src/chain/genesis.js";
import { counterContract } from "./counter-contract.js";
import { alice, bob, carol, genesisFor, GENESIS_MS, openChain, party, produceNext, signed, type Party } from "./devnet.js";

const v1 = party("v1");
const parties: Party[] = [alice, bob, carol];
/** Init code that self-destructs to itself (ADDRESS SELFDESTRUCT) while it holds what the creation sent. */
const selfDestructToSelf = "0x30ff";
/** ... to the caller (CALLER SELFDESTRUCT). */
const selfDestructToCaller = "0x33ff";
/** Init code that returns run-time code 30ff, so that a later call self-destructs an old contract. */
const laterSelfDestruct = "0x6130ff6000526002601ef3";
const revertAlways = "0x60006000fd";

const action = fc.record({
  from: fc.nat(2),
  kind: fc.constantFrom("transfer", "create", "toReserve", "toContract", "burnAttempt", "fail"),
  code: fc.constantFrom(selfDestructToSelf, selfDestructToCaller, laterSelfDestruct, revertAlways, counterContract.bytecode),
  to: fc.nat(2),
  value: fc.bigInt({ min: 0n, max: 10n ** 22n }),
  tip: fc.bigInt({ min: 0n, max: 10n ** 9n }),
});

it("keeps the supply under any transactions", async () => {
  await fc.assert(fc.asyncProperty(fc.array(fc.array(action, { maxLength: 6 }), { minLength: 1, maxLength: 3 }), async (blocks) => {
    const chain = await openChain(genesisFor([v1]));
    const created: Uint8Array[] = [];
    const nonces = [0, 0, 0];
    let from: number | undefined = GENESIS_MS;
    for (const actions of blocks) {
      for (const each of actions) {
        const sender = parties[each.from]!;
        const target = each.kind === "toReserve" ? new Uint8Array([...new Uint8Array(18), 0x10, 0])
          : each.kind === "toContract" ? created.at(-1) ?? parties[each.to]!.address
          : each.kind === "burnAttempt" ? new Uint8Array(20) : parties[each.to]!.address;
        const isCreation = each.kind === "create" || each.kind === "fail";
        const raw = await signed(sender, {
          nonce: nonces[each.from]!, value: each.value, gas: 400_000n, maxPriorityFeePerGas: each.tip,
          ...(isCreation ? { data: (each.kind === "fail" ? revertAlways : each.code) as `0x${string}` } : { to: target }),
        });
        const result = await chain.submitTransaction(raw);
        if ("hash" in result) nonces[each.from]! += 1;
      }
      const { header } = await produceNext(chain, v1, from);
      from = undefined;
      for (const receipt of chain.outcomeOf(header.hash)!.receipts) if (receipt.contractAddress) created.push(receipt.contractAddress);
      const ledger = await chain.ledger();
      expect(ledger.total).toBe(SUPPLY_WEI);
      expect(ledger.accounts.every((account) => account.address !== undefined)).toBe(true);
    }
  }), { numRuns: 12 });
}, 60_000);
