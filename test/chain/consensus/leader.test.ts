import { describe, expect, it } from "vitest";
import { keccak, utf8 } from "../../../src/chain/bytes.js";
import { nextBaseFee } from "../../../src/chain/consensus/base-fee.js";
import { isLeader, nextModifier, slotAt, stepAt, stepsPerSlot, timestampOf, winningStep } from "../../../src/chain/consensus/leader.js";
import { blsPublicKey, proveVrf, verifyVrf, vrfMessage } from "../../../src/chain/crypto/vrf.js";
import { mainnetConsensus } from "../../../src/chain/genesis.js";
import { genesisFor, GENESIS_MS, openChain, party, produceNext } from "../devnet.js";

const draw = (staker: string, slot: number) => keccak(utf8(`${staker} ${slot}`));

describe("the leader rule", () => {
  it("gives slots in proportion to equity, and a slot to somebody (statistics over 4,000 slots)", () => {
    const equities = { big: 60n, middle: 30n, small: 10n };
    const wins = { big: 0, middle: 0, small: 0 };
    const slots = 4_000;
    let unled = 0;
    for (let slot = 0; slot < slots; slot++) {
      let best: { name: keyof typeof wins; step: number }[] = [];
      for (const name of Object.keys(equities) as (keyof typeof wins)[]) {
        const step = winningStep(draw(name, slot), equities[name], 100n, mainnetConsensus);
        if (step === undefined) continue;
        if (best.length === 0 || step < best[0]!.step) best = [{ name, step }];
        else if (step === best[0]!.step) best.push({ name, step });
      }
      if (best.length === 0) unled += 1;
      for (const { name } of best) wins[name] += 1 / best.length;
    }
    expect(unled).toBe(0);
    expect(wins.big / slots).toBeGreaterThan(0.5);
    expect(wins.middle / slots).toBeGreaterThan(0.2);
    expect(wins.small / slots).toBeGreaterThan(0.05);
    expect(wins.small / slots).toBeLessThan(0.15);
  });

  it("expects one winner at the base target, and doubles each step", () => {
    let winners = 0;
    const slots = 3_000;
    for (let slot = 0; slot < slots; slot++) {
      for (let i = 0; i < 10; i++) if (isLeader(draw(`s${i}`, slot), 5n, 50n, 0)) winners += 1;
    }
    expect(winners / slots).toBeGreaterThan(0.9);
    expect(winners / slots).toBeLessThan(1.1);
    let [first, second] = [0, 0];
    for (let slot = 0; slot < 20_000; slot++) {
      if (isLeader(draw("one", slot), 1n, 100n, 0)) first += 1;
      if (isLeader(draw("one", slot), 1n, 100n, 1)) second += 1;
    }
    expect(second / first).toBeGreaterThan(1.7);
    expect(second / first).toBeLessThan(2.3);
  });

  it("a staker of a thousandth, alone online, still leads mainnet slots", () => {
    for (let slot = 0; slot < 50; slot++) expect(winningStep(draw("alone", slot), 1n, 1_000n, mainnetConsensus)).toBeDefined();
    expect(isLeader(draw("none", 1), 0n, 1_000n, 90)).toBe(false);
    expect(isLeader(draw("none", 1), 1n, 0n, 90)).toBe(false);
  });

  it("splitting a stake over keys gains nothing", () => {
    let [whole, split] = [0, 0];
    for (let slot = 0; slot < 5_000; slot++) {
      if (isLeader(draw("whole", slot), 20n, 100n, 0)) whole += 1;
      for (let i = 0; i < 10; i++) if (isLeader(draw(`part${i}`, slot), 2n, 100n, 0)) split += 1;
    }
    expect(Math.abs(split - whole) / whole).toBeLessThan(0.15);
  });

  it("proofs are unique to key, modifier and slot", () => {
    const { blsSecretKey } = party("v1");
    const message = vrfMessage(1n, new Uint8Array(32), 5);
    const proof = proveVrf(blsSecretKey, message);
    expect(proveVrf(blsSecretKey, message)).toEqual(proof);
    expect(verifyVrf(blsPublicKey(blsSecretKey), message, proof)).toBe(true);
    expect(verifyVrf(blsPublicKey(blsSecretKey), vrfMessage(1n, new Uint8Array(32), 6), proof)).toBe(false);
    expect(verifyVrf(blsPublicKey(party("v2").blsSecretKey), message, proof)).toBe(false);
    const infinity = new Uint8Array(96);
    infinity[0] = 0xc0;
    expect(verifyVrf(blsPublicKey(blsSecretKey), message, infinity)).toBe(false);
    expect(verifyVrf(new Uint8Array(48), message, proof)).toBe(false);
  });

  it("the randomness of a block is fixed before the lag: the next lottery ignores the newest blocks", async () => {
    const v1 = party("v1");
    const chain = await openChain(genesisFor([v1], { consensus: { modifierLagBlocks: 2 } }));
    const modifiers = [chain.head.modifier];
    for (let i = 0; i < 4; i++) {
      const { header } = await produceNext(chain, v1, i === 0 ? GENESIS_MS : undefined);
      const used = modifiers[Math.max(0, header.number - 1 - 2)]!;
      expect(verifyVrf(blsPublicKey(v1.blsSecretKey), vrfMessage(chain.chainId, used, header.slot), header.vrfProof)).toBe(true);
      expect(header.modifier).toEqual(nextModifier(modifiers.at(-1)!, header.vrfProof, header.certificatesRoot));
      modifiers.push(header.modifier);
    }
  });
});

describe("time", () => {
  it("slots and steps tile it", () => {
    expect(stepsPerSlot(mainnetConsensus)).toBe(60);
    for (const ms of [0, 1, 999, 1_000, 59_999, 60_000, 123_456]) {
      const [slot, step] = [slotAt(GENESIS_MS + ms, GENESIS_MS, mainnetConsensus), stepAt(GENESIS_MS + ms, GENESIS_MS, mainnetConsensus)];
      const start = timestampOf(slot, step, GENESIS_MS, mainnetConsensus);
      expect(start).toBeLessThanOrEqual(GENESIS_MS + ms);
      expect(GENESIS_MS + ms - start).toBeLessThan(mainnetConsensus.stepMs);
    }
  });
});

it("the base fee moves by at most an eighth (EIP-1559)", () => {
  const block = { baseFeePerGas: 1_000n, gasLimit: 30_000_000n, number: 5 };
  expect(nextBaseFee({ ...block, gasUsed: 15_000_000n })).toBe(1_000n);
  expect(nextBaseFee({ ...block, gasUsed: 30_000_000n })).toBe(1_125n);
  expect(nextBaseFee({ ...block, gasUsed: 0n })).toBe(875n);
  expect(nextBaseFee({ ...block, baseFeePerGas: 1n, gasUsed: 15_000_001n })).toBe(2n);
});
