import fc from "fast-check";
import { createMPT } from "@ethereumjs/mpt";
import { RLP } from "@ethereumjs/rlp";
import { expect, it } from "vitest";
import { orderedTrieRoot } from "../../../src/chain/block/trie-root.js";
import { toHex } from "../../../src/chain/bytes.js";

async function inserted(values: readonly Uint8Array[]): Promise<Uint8Array> {
  const trie = await createMPT();
  for (const [index, value] of values.entries()) await trie.put(RLP.encode(index), value);
  return trie.root();
}

it("equals the root of inserting one by one", async () => {
  await fc.assert(fc.asyncProperty(fc.array(fc.uint8Array({ minLength: 1, maxLength: 80 }), { maxLength: 40 }), async (values) => {
    expect(toHex(orderedTrieRoot(values))).toBe(toHex(await inserted(values)));
  }), { numRuns: 40 });
});

it.each([0, 1, 2, 15, 16, 17, 127, 128, 129, 255, 256, 257, 600])("also for %i items, where key lengths change", async (count) => {
  const values = Array.from({ length: count }, (_, i) => Uint8Array.of(1 + (i & 63), i >> 6, 3));
  expect(toHex(orderedTrieRoot(values))).toBe(toHex(await inserted(values)));
});
