// What a peer can send: every broken rule is refused with its own code, and the chain stays as it was.
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { encodeBlock, BLOCK_BYTES_MAX, type Block } from "../../../src/chain/block/block.js";
import { encodeRlp, integer } from "../../../src/chain/block/rlp.js";
import { headerToNested, type HeaderFields } from "../../../src/chain/block/header.js";
import { orderedTrieRoot } from "../../../src/chain/block/trie-root.js";
import { toHex } from "../../../src/chain/bytes.js";
import type { Chain, ProducedBlock } from "../../../src/chain/chain.js";
import { nextModifier } from "../../../src/chain/consensus/leader.js";
import { proveVrf, vrfMessage } from "../../../src/chain/crypto/vrf.js";
import { alice, bob, CHAIN_ID, forge, genesisFor, GENESIS_MS, openChain, party, produceNext, signed, submit, TSR } from "../devnet.js";

const v1 = party("v1");
const v2 = party("v2");
const stranger = party("stranger");
const genesis = genesisFor([v1, v2]);

let victim: Chain;
let good: ProducedBlock;
beforeAll(async () => {
  victim = await openChain(genesis);
  const source = await openChain(genesis);
  await submit(source, await signed(alice, { nonce: 0, to: bob.address, value: TSR }));
  good = await produceNext(source, v1, GENESIS_MS);
});

async function refuse(encoded: Uint8Array, code: string, nowMs = good.header.timestampMs + 5_000): Promise<void> {
  const before = toHex(victim.head.hash);
  const result = await victim.importBlock(encoded, nowMs);
  expect({ status: result.status, code: result.code }).toEqual({ status: "rejected", code });
  expect(toHex(victim.head.hash)).toBe(before);
}

const flipped = (bytes: Uint8Array): Uint8Array => bytes.map((byte, i) => (i === 7 ? byte ^ 1 : byte));
const change = (changes: Partial<HeaderFields>) => forge(good.block, changes, v1);

describe("a block is refused for", () => {
  const cases: [string, () => Uint8Array, string][] = [
    ["a wrong state root", () => change({ stateRoot: flipped(good.header.stateRoot) }), "state-root"],
    ["a wrong receipts root", () => change({ receiptsRoot: flipped(good.header.receiptsRoot) }), "receipts-root"],
    ["a wrong transactions root", () => change({ transactionsRoot: flipped(good.header.transactionsRoot) }), "transactions-root"],
    ["a wrong certificates root", () => change({ certificatesRoot: flipped(good.header.certificatesRoot) }), "certificates-root"],
    ["a wrong bloom", () => change({ logsBloom: flipped(good.header.logsBloom) }), "logs-bloom"],
    ["wrong gas used", () => change({ gasUsed: good.header.gasUsed + 1n }), "gas-used"],
    ["more gas than the limit", () => change({ gasUsed: good.header.gasLimit + 1n }), "over-gas"],
    ["another gas limit", () => change({ gasLimit: good.header.gasLimit * 2n }), "gas-limit"],
    ["a wrong base fee", () => change({ baseFeePerGas: 1n }), "base-fee"],
    ["more weight than it has", () => change({ totalWeight: good.header.totalWeight + 1n }), "weight"],
    ["an easier target", () => change({ powTarget: good.header.powTarget + 1n }), "pow-target"],
    ["a chosen modifier", () => change({ modifier: flipped(good.header.modifier) }), "modifier"],
    ["a wrong number", () => change({ number: 2 }), "number"],
    ["a time of its own choice", () => change({ timestampMs: good.header.timestampMs + 1 }), "timestamp"],
    ["somebody else's signature", () => forge(good.block, {}, v2), "signature"],
    ["a producer without stake", () => forge(good.block, { coinbase: stranger.address }, stranger), "leader"],
    ["another staker's proof", () => forge(good.block, { coinbase: v2.address }, v2), "vrf"],
  ];
  it.each(cases)("%s", async (_, make, code) => {
    await refuse(make(), code);
  });

  it("a leader proof for another slot", async () => {
    // a proof that wins, but over another slot's message
    for (let slot = good.header.slot + 1; ; slot++) {
      const vrfProof = proveVrf(v1.blsSecretKey, vrfMessage(BigInt(CHAIN_ID), victim.head.modifier, slot + 1_000));
      const step = genesis.consensus.slotMs / genesis.consensus.stepMs - 1;
      const timestampMs = GENESIS_MS + slot * genesis.consensus.slotMs + step * genesis.consensus.stepMs;
      const modifier = nextModifier(victim.head.modifier, vrfProof, good.header.certificatesRoot);
      await refuse(change({ slot, step, timestampMs, vrfProof, modifier }), "vrf", timestampMs);
      return;
    }
  });

  it("coming from the future, but not for good", async () => {
    await refuse(good.encoded, "future", good.header.timestampMs - genesis.consensus.clockDriftMs - 1);
    const patient = await openChain(genesis);
    expect((await patient.importBlock(good.encoded, good.header.timestampMs - 10_000)).status).toBe("rejected");
    expect((await patient.importBlock(good.encoded, good.header.timestampMs)).status).toBe("imported");
  });

  it("a transaction that is invalid where it stands", async () => {
    const overdraft = await signed(stranger, { nonce: 0, to: bob.address, value: 1n });
    const wrongNonce = await signed(alice, { nonce: 7, to: bob.address });
    const repeated = good.block.transactions[0]!;
    for (const transactions of [[overdraft], [wrongNonce], [repeated, repeated]]) {
      await refuse(forge(good.block, { transactionsRoot: orderedTrieRoot(transactions) }, v1, { transactions }), "transaction");
    }
  });

  it("more gas in its transactions than it may use", async () => {
    const transactions = [
      await signed(alice, { nonce: 0, to: bob.address, gas: 20_000_000n }),
      await signed(alice, { nonce: 1, to: bob.address, gas: 29_999_999n }),
    ];
    await refuse(forge(good.block, { transactionsRoot: orderedTrieRoot(transactions) }, v1, { transactions }), "transaction");
  });

  it("a transaction for another chain, or of a type that burns coins", async () => {
    const elsewhere = new Uint8Array(Buffer.from((await alice.account.signTransaction({
      type: "eip1559", chainId: 1, nonce: 0, gas: 21_000n, to: "0x0000000000000000000000000000000000000001", maxFeePerGas: 10n ** 10n,
    })).slice(2), "hex"));
    const blob = Uint8Array.of(3, 0xc0);
    for (const transactions of [[elsewhere], [blob]]) {
      await refuse(forge(good.block, { transactionsRoot: orderedTrieRoot(transactions) }, v1, { transactions }), "transaction");
    }
  });
});

describe("an encoding is refused that is", () => {
  it("too large, empty, cut or prolonged", async () => {
    await refuse(new Uint8Array(BLOCK_BYTES_MAX + 1), "encoding");
    await refuse(new Uint8Array(0), "encoding");
    await refuse(good.encoded.slice(0, -1), "encoding");
    await refuse(Uint8Array.of(...good.encoded, 0), "encoding");
  });

  it("deeply nested", async () => {
    await refuse(new Uint8Array(1_000_000).fill(0xc1), "encoding");
  });

  it("not the shortest: a leading zero, a field too many, a list for bytes", async () => {
    const fields = headerToNested(good.header);
    const withField = (index: number, value: Uint8Array | []) => encodeRlp([
      fields.map((field, i) => (i === index ? value : field)), good.block.transactions, []]);
    await refuse(withField(1, Uint8Array.of(0, 1)), "encoding");
    await refuse(withField(0, []), "encoding");
    await refuse(encodeRlp([[...fields, integer(1)], good.block.transactions, []]), "encoding");
    await refuse(encodeRlp([fields, good.block.transactions, [], []]), "encoding");
  });

  it("any mutation of a good block (never a throw, never an import)", async () => {
    await fc.assert(fc.asyncProperty(fc.nat(good.encoded.length - 1), fc.integer({ min: 1, max: 255 }), async (at, mask) => {
      const mutated = good.encoded.slice();
      mutated[at]! ^= mask;
      const result = await victim.importBlock(mutated, good.header.timestampMs + 5_000);
      expect(["rejected", "orphan"]).toContain(result.status);
    }), { numRuns: 60 });
  });

  it("arbitrary bytes", async () => {
    await fc.assert(fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), async (bytes) => {
      expect((await victim.importBlock(bytes, good.header.timestampMs)).status).toBe("rejected");
    }), { numRuns: 100 });
  });
});

it("the honest block is still accepted after all that", async () => {
  const result = await victim.importBlock(encodeBlock(good.block as Block), good.header.timestampMs);
  expect(result.status).toBe("imported");
});
