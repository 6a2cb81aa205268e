// The batched trie against @ethereumjs/mpt, which inserts and deletes one by one.
import fc from "fast-check";
import { createMPT } from "@ethereumjs/mpt";
import { RLP } from "@ethereumjs/rlp";
import { expect, it } from "vitest";
import { EMPTY_TRIE_ROOT, TrieBatch } from "../../../src/chain/execution/trie-batch.js";
import { keccak, toHex } from "../../../src/chain/bytes.js";

// few keys, so that deletions hit; some share long prefixes, so that extensions split and merge
const keys = Array.from({ length: 24 }, (_, i) => {
  const key = i < 12 ? keccak(Uint8Array.of(i)) : keccak(Uint8Array.of(7)).slice();
  if (i >= 12) key[i < 18 ? 31 : 15] = i;
  return key;
});
const change = fc.record({
  key: fc.nat(keys.length - 1),
  value: fc.option(fc.uint8Array({ minLength: 1, maxLength: 40 }), { nil: undefined, freq: 3 }),
});

it("has the root of doing the same one by one, over several batches (property)", async () => {
  await fc.assert(fc.asyncProperty(fc.array(fc.array(change, { maxLength: 14 }), { minLength: 1, maxLength: 5 }), async (batches) => {
    const reference = await createMPT();
    const nodes = new Map<string, Uint8Array>();
    let root = EMPTY_TRIE_ROOT;
    for (const changes of batches) {
      const batch = new TrieBatch(root, (hash) => nodes.get(hash));
      for (const { key, value } of changes) {
        batch.set(keys[key]!, value && RLP.encode(value));
        if (value === undefined) await reference.del(keys[key]!);
        else await reference.put(keys[key]!, RLP.encode(value));
      }
      root = batch.commit((hash, encoded) => nodes.set(hash, encoded));
      expect(toHex(root)).toBe(toHex(reference.root()));
    }
  }), { numRuns: 150 });
});

it("writes nothing when nothing changes", () => {
  const nodes = new Map<string, Uint8Array>();
  const first = new TrieBatch(EMPTY_TRIE_ROOT, (hash) => nodes.get(hash));
  for (const key of keys) first.set(key, key);
  const root = first.commit((hash, encoded) => nodes.set(hash, encoded));
  const again = new TrieBatch(root, (hash) => nodes.get(hash));
  for (const key of keys) again.set(key, key);
  again.set(keccak(Uint8Array.of(99)), undefined);
  let written = 0;
  expect(toHex(again.commit(() => { written += 1; }))).toBe(toHex(root));
  expect(written).toBe(0);
});

it("says which node is missing instead of making up a root", () => {
  const batch = new TrieBatch(keccak(Uint8Array.of(1)), () => undefined);
  expect(() => batch.set(keys[0]!, keys[0]!)).toThrow(expect.objectContaining({ code: "corrupt" }));
});
