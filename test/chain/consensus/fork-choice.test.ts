import { describe, expect, it } from "vitest";
import { keyOf, toHex } from "../../../src/chain/bytes.js";
import type { Chain, ChainEvent } from "../../../src/chain/chain.js";
import { SUPPLY_WEI } from "../../../src/chain/genesis.js";
import { alice, bob, carol, genesisFor, GENESIS_MS, openChain, party, produceNext, signed, submit, TSR } from "../devnet.js";

const v1 = party("v1");
const v2 = party("v2");

async function extend(chain: Chain, producer: typeof v1, blocks: number): Promise<void> {
  for (let i = 0; i < blocks; i++) await produceNext(chain, producer);
}

async function deliver(from: Chain, to: Chain, first: number): Promise<void> {
  for (let number = first; number <= from.head.number; number++) {
    await to.importBlock(from.encodedBlock(from.index.canonicalHash(number)!)!, Number.MAX_SAFE_INTEGER);
  }
}

describe("fork choice", () => {
  it("follows the heavier branch, rewrites the indexes and gives transactions back", async () => {
    const genesis = genesisFor([v1, v2]);
    const [a, b] = [await openChain(genesis), await openChain(genesis)];
    const lost = await submit(a, await signed(alice, { nonce: 0, to: carol.address, value: 3n * TSR }));
    const shared = await signed(bob, { nonce: 0, to: carol.address, value: TSR });
    await submit(a, shared);
    const sharedHash = await submit(b, shared);
    await extend(a, v1, 2);
    await extend(b, v2, 3);
    expect(a.confirmations(lost)).toBe(2);
    const events: ChainEvent[] = [];
    a.subscribe((event) => events.push(event));
    await deliver(b, a, 1);
    expect(toHex(a.head.hash)).toBe(toHex(b.head.hash));
    expect(events.filter((event) => event.type === "reorg")).toMatchObject([{ depth: 2 }]);
    expect(a.confirmations(lost)).toBe(0);
    expect(a.mempool.get(lost)).toBeDefined();
    expect(a.confirmations(sharedHash)).toBe(3);
    expect(a.mempool.get(sharedHash)).toBeUndefined();
    for (let number = 0; number <= 3; number++) {
      expect(keyOf(a.index.canonicalHash(number)!)).toBe(keyOf(b.index.canonicalHash(number)!));
    }
    await extend(a, v1, 1); // the transaction that was given back gets into the next block
    expect(a.confirmations(lost)).toBe(1);
    expect((await a.ledger()).total).toBe(SUPPLY_WEI);
  });

  it("of equal weight takes the lower proof hash, whatever came first", async () => {
    const genesis = genesisFor([v1, v2]);
    const [a, b] = [await openChain(genesis), await openChain(genesis)];
    const one = await produceNext(a, v1, GENESIS_MS);
    const two = await produceNext(b, v2, GENESIS_MS);
    await a.importBlock(two.encoded, Number.MAX_SAFE_INTEGER);
    await b.importBlock(one.encoded, Number.MAX_SAFE_INTEGER);
    expect(toHex(a.head.hash)).toBe(toHex(b.head.hash));
  });

  it("keeps a bounded number of orphans and adopts them when the parent comes", async () => {
    const genesis = genesisFor([v1]);
    const [a, b] = [await openChain(genesis), await openChain(genesis)];
    await extend(a, v1, 4);
    const encoded = [1, 2, 3, 4].map((number) => a.encodedBlock(a.index.canonicalHash(number)!)!);
    for (const block of [encoded[3]!, encoded[1]!, encoded[2]!]) {
      expect((await b.importBlock(block, Number.MAX_SAFE_INTEGER)).status).toBe("orphan");
    }
    expect((await b.importBlock(encoded[0]!, Number.MAX_SAFE_INTEGER)).status).toBe("imported");
    expect(b.head.number).toBe(4);
  });

  it("refuses a branch that forks too deep, however heavy", async () => {
    const genesis = genesisFor([v1, v2], { consensus: { reorganisationBlocksMax: 3 } });
    const [a, b] = [await openChain(genesis), await openChain(genesis)];
    await extend(a, v1, 5);
    await extend(b, v2, 8);
    const first = await a.importBlock(b.encodedBlock(b.index.canonicalHash(1)!)!, Number.MAX_SAFE_INTEGER);
    expect(first).toMatchObject({ status: "rejected", code: "too-deep" });
    await deliver(b, a, 2);
    expect(a.head.number).toBe(5);
  });

  it("synchronises from a locator across a fork", async () => {
    const genesis = genesisFor([v1, v2]);
    const [a, b] = [await openChain(genesis), await openChain(genesis)];
    await extend(a, v1, 3);
    await deliver(a, b, 1);
    await extend(a, v1, 2);
    await extend(b, v2, 30);
    expect(b.ancestorsLocator().length).toBeLessThan(20);
    while (toHex(a.head.hash) !== toHex(b.head.hash)) {
      const blocks = b.blocksAfter(a.ancestorsLocator(), 7);
      expect(blocks.length).toBeGreaterThan(0);
      for (const block of blocks) await a.importBlock(block, Number.MAX_SAFE_INTEGER);
    }
    expect(b.blocksAfter(a.ancestorsLocator(), 7)).toEqual([]);
    expect(b.blocksAfter([new Uint8Array(32)], 7)).toEqual([]);
  });

  it("never produces twice in a slot, on any branch", async () => {
    const genesis = genesisFor([v1, v2]);
    const a = await openChain(genesis);
    const b = await openChain(genesis);
    const own = await produceNext(a, v1, GENESIS_MS);
    expect(await a.produce(own.header.timestampMs, v1)).toBeUndefined();
    await extend(b, v2, 2);
    await deliver(b, a, 1); // a is reorganised; its producer must not use the slot again
    expect(a.head.number).toBe(2);
    expect(a.nextAttemptMs(own.header.timestampMs, v1)).toBeGreaterThan(own.header.timestampMs);
  });
});
