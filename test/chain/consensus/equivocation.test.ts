// Two blocks of one producer in one slot: seen by whoever gets both, proven to the contract, and paid with all of its stake.
import { encodeFunctionData } from "viem";
import { beforeAll, describe, expect, it } from "vitest";
import { reportEquivocations } from "../../../src/actors/pos/equivocation-reporter.js";
import { Transactor } from "../../../src/actors/chain-node/transactor.js";
import { headerDigest, sealHeader, signedFields, type Header } from "../../../src/chain/block/header.js";
import { toHex } from "../../../src/chain/bytes.js";
import type { Chain, ChainEvent, ProducedBlock } from "../../../src/chain/chain.js";
import { stakeRegistryAbi } from "../../../src/chain/contracts/abi.js";
import { systemAddresses } from "../../../src/chain/contracts/system.js";
import { signDigest } from "../../../src/chain/crypto/signature.js";
import { SUPPLY_WEI } from "../../../src/chain/genesis.js";
import { createJsonRpc } from "../../../src/chain/rpc/json-rpc.js";
import { bob, carol, CHAIN_ID, forge, genesisFor, GENESIS_MS, openChain, party, produceNext, TSR, type Party } from "../devnet.js";

const v1 = party("v1"), v2 = party("v2"), v3 = party("v3"), v4 = party("v4");
const genesis = genesisFor([v1, v2, v3, v4]);
const slotLater = Number.MAX_SAFE_INTEGER;

/** The same slot, another block. */
const twin = (block: ProducedBlock, by: Party) => forge(block.block, { extraData: Uint8Array.of(7) }, by);
function another(header: Header, changes: Partial<Header>, by: Party, chainId = CHAIN_ID): Header {
  const fields = { ...header, ...changes };
  return sealHeader(fields, signDigest(headerDigest(fields, BigInt(chainId)), by.privateKey));
}

describe("equivocation", () => {
  let chain: Chain;
  let first: ProducedBlock;
  beforeAll(async () => {
    chain = await openChain(genesis);
    first = await produceNext(chain, v1, GENESIS_MS);
  });
  const report = (a: Header, b: Header, change: { fields?: (bytes: Uint8Array) => Uint8Array } = {}) => {
    const [one, two] = [signedFields(a), signedFields(b)];
    const fields = change.fields ?? ((bytes: Uint8Array) => bytes);
    return chain.call({
      from: bob.address, to: Buffer.from(systemAddresses.stakeRegistry.slice(2), "hex"), gas: 5_000_000n,
      data: Buffer.from(encodeFunctionData({
        abi: stakeRegistryAbi, functionName: "reportEquivocation",
        args: [toHex(fields(one.fields)), toHex(one.signature), toHex(two.fields), toHex(two.signature)],
      }).slice(2), "hex"),
    });
  };

  it("is told with proof, also about a block that is refused or was seen before a restart", async () => {
    const seen: ChainEvent[] = [];
    const stop = chain.subscribe((event) => seen.push(event));
    await chain.importBlock(twin(first, v1), slotLater);
    expect(seen).toMatchObject([{ type: "equivocation", evidence: { first: { slot: first.header.slot }, second: { slot: first.header.slot } } }]);
    await chain.importBlock(forge(first.block, { extraData: Uint8Array.of(8), stateRoot: new Uint8Array(32) }, v1), slotLater);
    expect(seen.filter(({ type }) => type === "equivocation")).toHaveLength(2);
    await chain.importBlock(forge(first.block, { extraData: Uint8Array.of(9) }, v2), slotLater); // not signed by its producer
    expect(seen.filter(({ type }) => type === "equivocation")).toHaveLength(2);
    stop();
  });

  it("costs the producer all of its stake, bonded and leaving; the supply stays", async () => {
    const jsonRpc = createJsonRpc(chain);
    const transactor = new Transactor({ privateKey: toHex(carol.privateKey), chainId: CHAIN_ID }, { rpc: (request) => jsonRpc.handle(request) });
    const told: string[] = [];
    const stop = reportEquivocations({ chain, transactor, log: { info: (text) => told.push(text), warn: (text) => told.push(text) } });
    const sent = new Promise<void>((resolve) => { chain.subscribe((event) => { if (event.type === "transaction") resolve(); }); });
    await chain.importBlock(forge(first.block, { extraData: Uint8Array.of(1) }, v1), slotLater);
    await sent;
    await produceNext(chain, v2);
    const stakers = () => chain.stakers().map(({ address }) => toHex(address));
    expect(stakers()).not.toContain(toHex(v1.address));
    expect(stakers()).toContain(toHex(v2.address));
    expect((await chain.account(systemAddresses.stakeRegistry)).balance).toBe(3n * 1_000n * TSR);
    expect((await chain.ledger()).total).toBe(SUPPLY_WEI);
    expect(told[0]).toContain("two blocks");
    stop();
    // there is nothing left to take
    expect((await report(first.header, another(first.header, { extraData: Uint8Array.of(1) }, v1))).failure).toBe("revert");
  });

  it("is not proven by one header twice, other slots, other signers, other chains or bent bytes", async () => {
    const { header } = await produceNext(chain, v2);
    const other = another(header, { extraData: Uint8Array.of(1) }, v2);
    expect((await report(header, other)).failure).toBeUndefined(); // this is a proof; all below is not
    expect((await report(header, header)).failure).toBe("revert");
    expect((await report(header, another(header, { slot: header.slot + 1 }, v2))).failure).toBe("revert");
    expect((await report(header, another(header, { extraData: Uint8Array.of(1) }, v3))).failure).toBe("revert");
    expect((await report(header, another(header, { coinbase: v3.address }, v3))).failure).toBe("revert");
    expect((await report(header, another(header, { extraData: Uint8Array.of(1) }, v2, CHAIN_ID + 1))).failure).toBe("revert");
    for (const fields of [
      (bytes: Uint8Array) => bytes.subarray(0, bytes.length - 1),
      (bytes: Uint8Array) => Uint8Array.from([...bytes, 0]),
      (bytes: Uint8Array) => bytes.map((byte, i) => (i === 200 ? byte ^ 1 : byte)),
      (bytes: Uint8Array) => bytes.map((byte, i) => (i === 3 ? 0xbf : byte)),
      (bytes: Uint8Array) => bytes.map((byte, i) => (i === 3 ? 0xf9 : byte)),
      () => new Uint8Array(0),
    ]) expect((await report(header, other, { fields })).failure).toBe("revert");
  });
});
