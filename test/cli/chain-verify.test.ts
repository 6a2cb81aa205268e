import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { decodeBlock } from "../../src/chain/block/block.js";
import { encodeCertificate } from "../../src/chain/certificate/certificate.js";
import { createMiner } from "../../src/chain/certificate/miner.js";
import { Chain } from "../../src/chain/chain.js";
import { openRocksStore } from "../../src/chain/store/rocks-store.js";
import { table, type Store } from "../../src/chain/store/store.js";
import { verifyStore } from "../../src/cli/chain-verify.js";
import { OperationalError, UserError } from "../../src/cli/errors.js";
import {
  alice, bob, CHAIN_ID, forge, genesisFor, party, produceNext, signed, submit,
} from "../chain/devnet.js";

const validator = party("validator");
const genesis = genesisFor([validator]);
const BLOCKS = 5;
let root: string;
let encodedBlocks: Uint8Array[];

/** A store on disk with real blocks: transfers, and certificates where they were won. */
async function makeStore(name: string, change?: (store: Store) => void): Promise<string> {
  const folder = join(root, name);
  const store = await openRocksStore(folder);
  const chain = await Chain.open({ store, genesis, isDurable: false });
  for (const encoded of encodedBlocks) {
    expect((await chain.importBlock(encoded, decodeBlock(encoded).header.timestampMs)).status).toBe("imported");
  }
  change?.(store);
  await store.close();
  return folder;
}

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), "tesra-chain-verify-"));
  writeFileSync(join(root, "genesis.json"), JSON.stringify(genesis));
  const store = await openRocksStore(join(root, "source"));
  const chain = await Chain.open({ store, genesis, isDurable: false });
  const { m, n, k } = genesis.certificates;
  const miner = createMiner({ chainId: BigInt(CHAIN_ID), privateKey: bob.privateKey, dims: { m, n, k } });
  encodedBlocks = [];
  for (let nonce = 0; nonce < BLOCKS; nonce += 1) {
    await submit(chain, await signed(alice, { nonce, to: bob.address, value: 5n }));
    if (nonce === 2) { // one real certificate: the replay has to verify it as well
      const { head } = chain;
      const { certificates } = await miner.mine({
        height: head.number, tip: head.hash, target: head.powTarget, nonceStart: 1n,
        maxNonces: 2_000, maxCertificates: 1,
      });
      expect(await chain.addCertificate(encodeCertificate(certificates[0]!))).toEqual({ added: true });
    }
    encodedBlocks.push((await produceNext(chain, validator)).encoded);
  }
  expect(encodedBlocks.flatMap((encoded) => decodeBlock(encoded).certificates)).toHaveLength(1);
  await store.close();
}, 120_000);
afterAll(() => rmSync(root, { recursive: true, force: true }));

const verify = (folder: string, genesisFile = join(root, "genesis.json"), signal = new AbortController().signal) =>
  verifyStore({ folder, genesisFile, signal, progress: () => ({ update() {}, stop() {} }) });

describe("chain verify", () => {
  it("replays a sound store to the same head and state root", async () => {
    const { header } = decodeBlock(encodedBlocks.at(-1)!);
    const before = readdirSync(tmpdir()).filter((name) => name.startsWith("tesra-verify-"));
    expect(await verify(await makeStore("sound"))).toEqual({
      ok: true, blocks: BLOCKS, head: `0x${Buffer.from(header.hash).toString("hex")}`,
      stateRoot: `0x${Buffer.from(header.stateRoot).toString("hex")}`,
    });
    expect(readdirSync(tmpdir()).filter((name) => name.startsWith("tesra-verify-"))).toEqual(before);
  });

  it("finds a state root that the transactions do not lead to, though it is signed", async () => {
    const block = decodeBlock(encodedBlocks[3]!);
    const forged = forge(block, { stateRoot: new Uint8Array(32).fill(7) }, validator);
    const { hash } = decodeBlock(forged).header;
    const folder = await makeStore("forged", (store) => store.write([
      { key: table.canonical(4), value: hash }, { key: table.block(hash), value: forged },
    ]));
    expect(await verify(folder)).toMatchObject({ ok: false, blocks: 3, reason: expect.stringMatching(/^block 4 is rejected: .*/) });
  });

  it("finds a missing block, a swapped one, a broken one and a wrong head", async () => {
    const hash = (number: number) => decodeBlock(encodedBlocks[number - 1]!).header.hash;
    const cases: [string, (store: Store) => void, RegExp][] = [
      ["missing", (store) => store.write([{ key: table.block(hash(2)), value: undefined }]), /^block 2 .* is missing/],
      ["swapped", (store) => store.write([{ key: table.block(hash(2)), value: encodedBlocks[2]! }]), /^block 2 is filed as .* it is block 3/],
      ["broken", (store) => store.write([{ key: table.block(hash(5)), value: encodedBlocks[4]!.subarray(0, 100) }]), /^block 5 cannot be read/],
      ["head", (store) => store.write([{ key: table.head, value: hash(4) }]), /^the store's head is/],
    ];
    for (const [name, change, reason] of cases) {
      const result = await verify(await makeStore(name, change));
      expect(result).toMatchObject({ ok: false, reason: expect.stringMatching(reason) });
    }
  });

  it("refuses what it cannot judge, in one sentence", async () => {
    const folder = await makeStore("again");
    await expect(verify(join(root, "none"))).rejects.toThrow(/none holds no chain store/);
    await expect(verify(folder, join(root, "none.json"))).rejects.toThrow(UserError);
    writeFileSync(join(root, "bad.json"), "{}");
    await expect(verify(folder, join(root, "bad.json"))).rejects.toThrow(/bad\.json is no genesis file/);
    writeFileSync(join(root, "other.json"), JSON.stringify(genesisFor([party("someone else")])));
    await expect(verify(folder, join(root, "other.json"))).rejects.toThrow(/genesis of another network/);
    await expect(verify(folder, undefined, AbortSignal.abort())).rejects.toMatchObject({ name: "AbortError" });
    const owner = await openRocksStore(folder);
    await expect(verify(folder)).rejects.toThrow(OperationalError);
    await expect(verify(folder)).rejects.toThrow(/in use/);
    await owner.close();
  });
});
