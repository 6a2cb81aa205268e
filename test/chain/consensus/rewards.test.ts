import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { blockPayments, subsidyMax } from "../../../src/chain/consensus/rewards.js";
import type { RewardParams } from "../../../src/chain/genesis.js";
import { toHex } from "../../../src/chain/bytes.js";
import { genesisFor, GENESIS_MS, openChain, party, produceNext, TSR } from "../devnet.js";

const params: RewardParams = { miningBlocks: 1_000, alphaBps: 2_000, producerBps: 3_000, masterBps: 2_000, certificateBps: 5_000 };
const producer = new Uint8Array(20).fill(1);
const master = new Uint8Array(20).fill(2);
const miner = (i: number) => new Uint8Array(20).fill(16 + i);
const total = (payments: { amount: bigint }[]) => payments.reduce((sum, each) => sum + each.amount, 0n);

describe("rewards", () => {
  it("pay alpha of the maximum when idle and all of it at full use", () => {
    const input = { number: 1, reserve: 10_000_000n, producer, master, certificates: [], usefulMultiplyAdds: 0n };
    const idle = blockPayments({ ...input, certificates: [{ miner: miner(0), multiplyAdds: 5n }] }, params);
    expect(total(idle)).toBe(2_000n); // R_max = 10,000, alpha = 0.2
    const busy = blockPayments({ ...input, usefulMultiplyAdds: 9n }, params);
    expect(busy).toMatchObject([{ role: "producer", amount: 3_000n }, { role: "master", amount: 2_000n }]);
    const half = blockPayments({ ...input, usefulMultiplyAdds: 5n, certificates: [{ miner: miner(0), multiplyAdds: 5n }] }, params);
    expect(half[0]!.amount).toBe(1_800n); // 10,000 x (0.2 + 0.8 / 2) x 0.3
    expect(half[2]!.amount).toBe(1_000n); // the challenge lane gets the alpha part alone
  });

  it("share the pot pro rata to work, one payment per miner", () => {
    const payments = blockPayments({
      number: 1, reserve: 10_000_000n, producer, master: undefined, usefulMultiplyAdds: 0n,
      certificates: [{ miner: miner(0), multiplyAdds: 1n }, { miner: miner(1), multiplyAdds: 2n }, { miner: miner(0), multiplyAdds: 1n }],
    }, params);
    expect(payments.filter((each) => each.role === "certificate").map((each) => each.amount)).toEqual([500n, 500n]);
  });

  it("never exceed the maximum, which never exceeds the reserve, to the last block (property)", () => {
    fc.assert(fc.property(fc.record({
      number: fc.integer({ min: 1, max: 1_001 }), reserve: fc.bigInt({ min: 0n, max: 10n ** 28n }),
      useful: fc.bigInt({ min: 0n, max: 10n ** 30n }), work: fc.array(fc.bigInt({ min: 1n, max: 10n ** 20n }), { maxLength: 10 }),
      hasMaster: fc.boolean(),
    }), ({ number, reserve, useful, work, hasMaster }) => {
      const max = subsidyMax(number, reserve, params);
      expect(max <= reserve).toBe(true);
      const payments = blockPayments({
        number, reserve, producer, master: hasMaster ? master : undefined, usefulMultiplyAdds: useful,
        certificates: work.map((multiplyAdds, i) => ({ miner: miner(i % 3), multiplyAdds })),
      }, params);
      expect(total(payments) <= max).toBe(true);
      if (number > params.miningBlocks) expect(payments).toEqual([]);
    }));
  });

  it("what was not paid is spread over the blocks to come, and all of it can be paid", () => {
    let reserve = 1_000_000n;
    for (let number = 1; number <= 1_000; number++) reserve -= number < 500 ? 0n : subsidyMax(number, reserve, params);
    expect(reserve).toBe(0n);
  });

  it("go in turn to the masters that are alive", async () => {
    const v1 = party("v1");
    const masters = [party("m1"), party("m2"), party("m3")];
    const chain = await openChain(genesisFor([v1], {
      masters: masters.map((each) => ({ address: toHex(each.address), pledge: 50_000n * TSR })),
    }));
    const paid: string[] = [];
    for (let i = 0; i < 6; i++) {
      const { header } = await produceNext(chain, v1, i === 0 ? GENESIS_MS : undefined);
      paid.push(...chain.outcomeOf(header.hash)!.payments.filter((each) => each.role === 1).map((each) => toHex(each.to)));
    }
    expect(paid.slice(0, 3).sort()).toEqual(masters.map((each) => toHex(each.address)).sort());
    expect(paid.slice(3)).toEqual(paid.slice(0, 3));
  });
});
