import { describe, expect, it } from "vitest";
import { SUPPLY_WEI } from "../../src/chain/genesis.js";
import { toHex } from "../../src/chain/bytes.js";
import { alice, bob, genesisFor, GENESIS_MS, openChain, party, produceNext, signed, TSR } from "./devnet.js";

const v1 = party("v1");
const v2 = party("v2");

describe("a chain of two nodes", () => {
  it("has the same genesis on two machines, with the exact supply", async () => {
    const genesis = genesisFor([v1, v2]);
    const a = await openChain(genesis);
    const b = await openChain(JSON.parse(JSON.stringify(genesis)));
    expect(toHex(a.genesisHash)).toBe(toHex(b.genesisHash));
    const ledger = await a.ledger();
    expect(ledger.total).toBe(SUPPLY_WEI);
    expect(ledger.accounts.every((account) => account.address !== undefined)).toBe(true);
    expect(a.stakers().length).toBe(2);
  });

  it("produces, imports elsewhere and pays", async () => {
    const genesis = genesisFor([v1, v2]);
    const [a, b] = [await openChain(genesis), await openChain(genesis)];
    const submitted = await a.submitTransaction(await signed(alice, { nonce: 0, to: bob.address, value: 5n * TSR }));
    expect(submitted).toHaveProperty("hash");
    const { header, encoded } = await produceNext(a, v1, GENESIS_MS);
    expect(header.number).toBe(1);
    expect(header.gasUsed).toBe(21_000n);
    const result = await b.importBlock(encoded, header.timestampMs);
    expect(result).toMatchObject({ status: "imported" });
    expect((await b.account(bob.address)).balance).toBe(1_000_005n * TSR);
    expect((await b.ledger()).total).toBe(SUPPLY_WEI);
    expect((await b.account(v1.address)).balance).toBeGreaterThan(0n);
    expect(b.confirmations((submitted as { hash: Uint8Array }).hash)).toBe(1);
    expect(await b.importBlock(encoded, header.timestampMs)).toMatchObject({ status: "known" });
  });
});
