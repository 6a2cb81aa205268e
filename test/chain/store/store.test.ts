import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { Chain } from "../../../src/chain/chain.js";
import { createMemoryStore } from "../../../src/chain/store/memory-store.js";
import { openRocksStore } from "../../../src/chain/store/rocks-store.js";
import { table, type Store } from "../../../src/chain/store/store.js";
import { toHex, utf8 } from "../../../src/chain/bytes.js";
import { genesisFor, GENESIS_MS, party, produceNext } from "../devnet.js";

const folder = mkdtempSync(join(tmpdir(), "tesra-store-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
let count = 0;
const fresh = () => join(folder, String(count++));

describe.each([["RocksDB", () => openRocksStore(fresh())], ["memory", async () => createMemoryStore()]])("%s store", (_, open) => {
  it("reads what a batch wrote, deletes, and scans a table in order", async () => {
    const store: Store = await open();
    store.write([1, 3, 2].map((i) => ({ key: table.block(Uint8Array.of(i)), value: Uint8Array.of(i, i) })));
    store.write([{ key: table.block(Uint8Array.of(9)), value: Uint8Array.of(9) }, { key: table.block(Uint8Array.of(9)), value: undefined }]);
    store.write([{ key: table.outcome(Uint8Array.of(1)), value: Uint8Array.of(7) }], { sync: true });
    expect([...store.get(table.block(Uint8Array.of(2)))!]).toEqual([2, 2]);
    expect(store.get(table.block(Uint8Array.of(9)))).toBeUndefined();
    expect(store.get(utf8("none"))).toBeUndefined();
    expect(store.scan(utf8("b"), 2).map((entry) => [...entry.value])).toEqual([[1, 1], [2, 2]]);
    await store.close();
  });

  it("refuses use after close instead of crashing", async () => {
    const store: Store = await open();
    await store.close();
    await store.close();
    for (const use of [() => store.get(utf8("a")), () => store.write([]), () => store.scan(utf8("b"), 1)]) {
      expect(use).toThrow(expect.objectContaining({ code: "closed" }));
    }
  });
});

describe("a store directory", () => {
  it("has one owner", async () => {
    const path = fresh();
    const store = await openRocksStore(path);
    await expect(openRocksStore(path)).rejects.toMatchObject({ code: "locked", message: expect.stringContaining(path) });
    await store.close();
    await (await openRocksStore(path)).close();
  });

  it("says when it is damaged", async () => {
    const path = fresh();
    await (await openRocksStore(path)).close();
    writeFileSync(join(path, "CURRENT"), "garbage\n");
    await expect(openRocksStore(path)).rejects.toMatchObject({ code: "corrupt" });
  });

  it("says when it cannot be made", async () => {
    const path = fresh();
    writeFileSync(path, "a file");
    await expect(openRocksStore(path)).rejects.toMatchObject({ code: "io" });
  });

  it("reopens at the same head and refuses another network", async () => {
    const path = fresh();
    const v1 = party("v1");
    const genesis = genesisFor([v1]);
    let store = await openRocksStore(path);
    let chain = await Chain.open({ store, genesis });
    await produceNext(chain, v1, GENESIS_MS);
    const head = toHex(chain.head.hash);
    await store.close();
    store = await openRocksStore(path);
    chain = await Chain.open({ store, genesis });
    expect(toHex(chain.head.hash)).toBe(head);
    await produceNext(chain, v1);
    await expect(Chain.open({ store, genesis: { ...genesis, chainId: 9 } })).rejects.toMatchObject({ code: "genesis" });
    await store.close();
    expect(readdirSync(path).length).toBeGreaterThan(0);
  });
});
