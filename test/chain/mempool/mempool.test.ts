import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { TransactionDecoder, type Transaction } from "../../../src/chain/block/transaction.js";
import { createRules } from "../../../src/chain/execution/rules.js";
import { Mempool, TRANSACTIONS_MAX, TRANSACTIONS_PER_ACCOUNT_MAX } from "../../../src/chain/mempool/mempool.js";
import { alice, bob, CHAIN_ID, party, signed, TSR, type Party, type TransferOptions } from "../devnet.js";

const decoder = new TransactionDecoder(createRules(CHAIN_ID));
const rich = { balance: 1_000_000n * TSR, nonce: 0n };
const make = async (from: Party, options: TransferOptions): Promise<Transaction> =>
  decoder.decode(await signed(from, { to: bob.address, ...options }));
const pool = () => new Mempool({ gasLimit: 30_000_000n });
const codeOf = (run: () => void): string => {
  try {
    run();
    return "added";
  } catch (error) {
    return (error as { code: string }).code;
  }
};

describe("mempool", () => {
  it("refuses what could never be included, each with its reason", async () => {
    const mempool = pool();
    const cases: [TransferOptions, { balance: bigint; nonce: bigint }, string][] = [
      [{ nonce: 0 }, { balance: rich.balance, nonce: 1n }, "nonce-too-low"],
      [{ nonce: 65 }, rich, "nonce-too-high"],
      [{ nonce: 0, gas: 20_999n }, rich, "intrinsic-gas"],
      [{ nonce: 0, gas: 30_000_001n }, rich, "gas-limit"],
      [{ nonce: 0, value: TSR }, { balance: TSR, nonce: 0n }, "insufficient-funds"],
      [{ nonce: 0, maxFeePerGas: 0n, maxPriorityFeePerGas: 0n }, rich, "underpriced"],
    ];
    for (const [options, account, code] of cases) {
      const transaction = await make(alice, options);
      expect(codeOf(() => mempool.add(transaction, account))).toBe(code);
    }
    expect(mempool.size).toBe(0);
  });

  it("replaces at +10 % of both fees, and counts the replaced cost no more", async () => {
    const mempool = pool();
    const old = await make(alice, { nonce: 0, maxFeePerGas: 100n, maxPriorityFeePerGas: 50n });
    const account = { balance: old.tx.gasLimit * 112n, nonce: 0n };
    mempool.add(old, account);
    const tooLittle = await make(alice, { nonce: 0, maxFeePerGas: 110n, maxPriorityFeePerGas: 54n });
    expect(codeOf(() => mempool.add(tooLittle, account))).toBe("underpriced");
    const enough = await make(alice, { nonce: 0, maxFeePerGas: 110n, maxPriorityFeePerGas: 55n });
    mempool.add(enough, account);
    expect(mempool.transactions()).toEqual([enough]);
    expect(codeOf(() => mempool.add(enough, account))).toBe("already-known");
  });

  it("queues behind a gap and offers in nonce order, best tip first", async () => {
    const mempool = pool();
    const a0 = await make(alice, { nonce: 0, maxPriorityFeePerGas: 1n });
    const a1 = await make(alice, { nonce: 1, maxPriorityFeePerGas: 900n });
    const b0 = await make(bob, { nonce: 0, maxPriorityFeePerGas: 10n });
    mempool.add(a1, rich);
    mempool.add(b0, rich);
    expect([...mempool.pick(1n)]).toEqual([b0]);
    expect(mempool.pendingNonce(a0.senderKey, 0n)).toBe(0n);
    mempool.add(a0, rich);
    expect([...mempool.pick(1n)]).toEqual([b0, a0, a1]);
    expect([...mempool.pick(10n ** 12n)]).toEqual([]);
    expect(mempool.pendingNonce(a0.senderKey, 0n)).toBe(2n);
    mempool.refresh(a0.senderKey, { balance: rich.balance, nonce: 1n });
    expect([...mempool.pick(1n)]).toEqual([a1, b0]);
  });

  it("bounds an account, and what it may commit to", async () => {
    const mempool = pool();
    for (let nonce = 0; nonce < TRANSACTIONS_PER_ACCOUNT_MAX; nonce++) mempool.add(await make(alice, { nonce }), rich);
    const next = await make(alice, { nonce: TRANSACTIONS_PER_ACCOUNT_MAX });
    expect(codeOf(() => mempool.add(next, rich))).toBe("account-limit");
    const b0 = await make(bob, { nonce: 0, value: 60n * TSR });
    const b1 = await make(bob, { nonce: 1, value: 60n * TSR });
    const hundred = { balance: 100n * TSR, nonce: 0n };
    mempool.add(b0, hundred);
    expect(codeOf(() => mempool.add(b1, hundred))).toBe("insufficient-funds");
    mempool.refresh(b0.senderKey, { balance: TSR, nonce: 0n });
    expect(mempool.has(b0.hash)).toBe(false);
  });

  it("when full lets the cheapest tail go for a better one, and refuses a worse one", async () => {
    const mempool = pool();
    const template = await make(alice, { nonce: 0, maxPriorityFeePerGas: 100n });
    for (let i = 0; i < TRANSACTIONS_MAX; i++) { // unsigned look-alikes of many senders: signing 8,192 would take minutes
      mempool.add({ ...template, key: `k${i}`, senderKey: `s${i}` }, rich);
    }
    const worse = await make(bob, { nonce: 0, maxPriorityFeePerGas: 99n });
    expect(codeOf(() => mempool.add(worse, rich))).toBe("underpriced");
    const better = await make(party("dave"), { nonce: 0, maxPriorityFeePerGas: 101n });
    mempool.add(better, rich);
    expect(mempool.size).toBe(TRANSACTIONS_MAX);
    expect([...mempool.pick(1n)][0]).toBe(better);
  });

  it("always offers each sender's nonces in order (property)", async () => {
    const transactions = await Promise.all([alice, bob].flatMap((from) =>
      [0, 1, 2, 3, 4].map((nonce) => make(from, { nonce, maxPriorityFeePerGas: BigInt((nonce * 7919) % 13) }))));
    fc.assert(fc.property(fc.shuffledSubarray(transactions), (subset) => {
      const mempool = pool();
      for (const transaction of subset) mempool.add(transaction, rich);
      const next = new Map<string, bigint>();
      for (const { senderKey, tx } of mempool.pick(1n)) {
        expect(tx.nonce).toBe(next.get(senderKey) ?? 0n);
        next.set(senderKey, tx.nonce + 1n);
      }
    }), { numRuns: 50 });
  });
});
