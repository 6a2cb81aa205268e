// A whole run over real processes: what was trained, what was paid, what is left on the chain and on the disks.
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { decodeEventLog, hexToBytes, type Address, type DecodeEventLogReturnType, type Hex } from "viem";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type ClientEvent, type TrainOutcome } from "../../src/actors/client/task-client.js";
import { certificateMiner, decodeCertificate } from "../../src/chain/certificate/certificate.js";
import { verifyCertificate } from "../../src/chain/certificate/verify.js";
import { taskMarketAbi } from "../../src/chain/contracts/abi.js";
import { systemAddresses } from "../../src/chain/contracts/system.js";
import { settle, splitForfeit } from "../../src/scheduler/index.js";
import { CHAIN_ID, PATIENCE_MS, syntheticRows, TestNetwork, until, type ChainDoor } from "./harness.js";

const EPOCHS = 3;
const ROWS = syntheticRows(2_000, 1);
const SUPPLY = 10_000_000_000n * 10n ** 18n;
const CHAIN_NODES = ["master", "pos-1", "pos-2", "pow"];

type MarketEvent = DecodeEventLogReturnType<typeof taskMarketAbi>;
interface RpcBlock { number: Hex; hash: Hex; parentHash: Hex; powTarget: Hex; certificates: Hex[] }

async function marketEvents(door: ChainDoor): Promise<MarketEvent[]> {
  const logs = await door.client.getLogs({ address: systemAddresses.taskMarket, fromBlock: 0n });
  return logs.map(({ data, topics }) => decodeEventLog({ abi: taskMarketAbi, data, topics }));
}

const named = <Name extends MarketEvent["eventName"]>(events: MarketEvent[], name: Name) =>
  events.filter((event): event is Extract<MarketEvent, { eventName: Name }> => event.eventName === name).map(({ args }) => args);

describe("a network of real processes", () => {
  let net: TestNetwork;
  let outcome: TrainOutcome;
  let master: ChainDoor;
  const events: ClientEvent[] = [];

  beforeAll(async () => {
    net = await TestNetwork.start();
    ({ outcome } = await net.train("mlp", ROWS, { batchSize: 64, epochs: EPOCHS, seed: 1 }, (event) => events.push(event)));
    master = await net.door("master");
  }, 5 * PATIENCE_MS);
  afterAll(() => net?.stop());

  it("trains on every sample once an epoch and learns", () => {
    expect(outcome.samples).toBe(ROWS.labels.length * EPOCHS);
    expect(outcome.progress.samples).toBe(outcome.samples);
    expect(outcome.progress.rejectedPushes).toBe(0);
    expect(outcome.accuracy).toBeGreaterThan(0.9);
    expect(outcome.account.outcome).toBe("settled");
    const kinds = events.map((event) => (event.type === "task" ? event.event.type : event.type));
    for (const kind of ["cut", "quote", "opened", "matched", "running", "unit", "trained", "settled"]) expect(kinds).toContain(kind);
  });

  it("pays by the formula, from what the chain has, to the last unit", async () => {
    const chain = await marketEvents(master);
    expect(["TaskOpened", "Started", "Settled"].map((name) => named(chain, name as "Settled").length)).toEqual([1, 1, 1]);
    const [opened] = named(chain, "TaskOpened");
    const [settled] = named(chain, "Settled");
    const parts = named(chain, "WorkerSettled");
    const receipts = named(chain, "Receipt");
    const task = await master.client.readContract({ address: systemAddresses.taskMarket, abi: taskMarketAbi, functionName: "taskOf", args: [outcome.taskId] });
    const [, feeBps] = await master.client.readContract({ address: systemAddresses.taskMarket, abi: taskMarketAbi, functionName: "parameters" });
    const recomputed = settle({
      computeMicroUsd: opened!.terms.computeMicroUsd, storageMicroUsd: opened!.terms.storageMicroUsd,
      quotedMultiplyAdds: opened!.terms.quotedMultiplyAdds, deadlineSeconds: BigInt(opened!.terms.deadlineSeconds),
      elapsedSeconds: task.stoppedAt - task.startedAt, microUsdPerTsr: settled!.account.microUsdPerTsr,
      collateral: opened!.collateral, feeBps: BigInt(feeBps),
    }, parts.map(({ worker, account }) => {
      const last = receipts.filter((receipt) => receipt.worker === worker).at(-1)!;
      return { multiplyAdds: last.multiplyAdds, activeMs: last.activeMs, commentBps: account.commentBps };
    }));
    const { account } = outcome;
    expect(parts.map((part) => part.account.payment)).toEqual(recomputed.payments);
    expect(parts.map((part) => part.account.speedBps)).toEqual(recomputed.speedBps);
    expect(account.price).toBe(recomputed.price);
    expect(account.fee).toBe(recomputed.fee);
    expect(account.refunded).toBe(recomputed.refund);
    expect(account.collateral).toBe(recomputed.paid + recomputed.fee + recomputed.refund);
    expect(account.balance).toBe(0n);
    expect(account.forfeited).toBe(0n);
    expect(splitForfeit(0n, [1n])).toEqual({ parts: [0n], rest: 0n });
    // what was quoted is what was done: the price comes from the metered work, and all of it is metered
    expect(receipts.filter((receipt) => receipt.isFinished).reduce((sum, receipt) => sum + receipt.multiplyAdds, 0n))
      .toBe(opened!.terms.quotedMultiplyAdds);
    expect(parts).toHaveLength(2);
    expect(new Set(parts.map(({ worker }) => worker))).toEqual(new Set(["worker-1", "worker-2"].map((name) => net.accountOf(name))));
  });

  it("conserves the supply exactly, on every chain node", async () => {
    for (const name of CHAIN_NODES) {
      const door = await net.door(name);
      const ledger = await door.rpc<{ total: Hex; supply: Hex }>("tesra_ledger");
      expect(BigInt(ledger.total)).toBe(SUPPLY);
      expect(BigInt(ledger.supply)).toBe(SUPPLY);
    }
  });

  it("leaves every chain node with the same confirmed chain, its certificates verified by each", async () => {
    const settlement = await master.client.getTransactionReceipt({ hash: outcome.settlement });
    const confirmed = settlement.blockNumber + 6n;
    const chains = await Promise.all(CHAIN_NODES.map(async (name) => {
      const door = await net.door(name);
      await until(`${name} reaches block ${confirmed}`, async () => await door.client.getBlockNumber({ cacheTime: 0 }) >= confirmed);
      const blocks: RpcBlock[] = [];
      for (let number = 0n; number <= settlement.blockNumber; number += 1n) {
        blocks.push(await door.rpc<RpcBlock>("eth_getBlockByNumber", [`0x${number.toString(16)}`, false]));
      }
      return blocks;
    }));
    for (const blocks of chains) expect(blocks.map(({ hash }) => hash)).toEqual(chains[0]!.map(({ hash }) => hash));
    const { certificate: dims } = await master.rpc<{ certificate: { m: number; n: number; k: number } }>("tesra_consensus");
    const miner = net.accountOf("pow").toLowerCase();
    let verified = 0;
    for (const block of chains[0]!) {
      const parent = chains[0]![Number(BigInt(block.number)) - 1];
      for (const encoded of block.certificates) {
        const certificate = decodeCertificate(hexToBytes(encoded));
        const rules = { chainId: BigInt(CHAIN_ID), dims, target: BigInt(parent!.powTarget) };
        expect(verifyCertificate(certificate, rules)).toMatchObject({ ok: true });
        expect(`0x${Buffer.from(certificateMiner(certificate)).toString("hex")}`).toBe(miner);
        verified += 1;
      }
    }
    expect(verified).toBeGreaterThan(0);
  });

  it("records a deletion receipt for each worker and keeps no shard, no task and no checkpoint", async () => {
    const deleted = await until("both deletion receipts are on the chain", async () => {
      const receipts = named(await marketEvents(master), "DeletionReceipt");
      return receipts.length >= 2 && receipts;
    });
    expect(new Set(deleted.map(({ worker }) => worker as Address)))
      .toEqual(new Set(["worker-1", "worker-2"].map((name) => net.accountOf(name))));
    for (const name of ["worker-1", "worker-2"]) expect(filesBelow(join(net.dirOf(name), "shards"))).toEqual([]);
    await until("the parameter server forgets the task", () => filesBelow(join(net.dirOf("ps"), "tasks")).length === 0);
    expect(filesBelow(join(net.dirOf("master"), "tasks"))).toEqual([]);
    await until("the master's relay drops the ciphertext", () => filesBelow(join(net.dirOf("master"), "shards")).length === 0);
  });

  it("runs beside another network without touching it", async () => {
    const other = await TestNetwork.start({ posNodes: 1, workers: 1 });
    try {
      expect(other.network.runDir).not.toBe(net.network.runDir);
      expect(other.network.rpcUrl).not.toBe(net.network.rpcUrl);
      const genesis = await Promise.all([net, other].map(async (each) => (await each.door("master")).rpc<{ genesisHash: Hex }>("tesra_consensus")));
      expect(genesis[0]!.genesisHash).not.toBe(genesis[1]!.genesisHash);
      const before = await master.client.getBlockNumber({ cacheTime: 0 });
      await until("the first network goes on", async () => await master.client.getBlockNumber({ cacheTime: 0 }) > before);
    } finally {
      await other.stop();
    }
    expect(existsSync(other.network.runDir)).toBe(false);
  }, 2 * PATIENCE_MS);
});

function filesBelow(dir: string): string[] {
  if (!existsSync(dir)) return [];
  return readdirSync(dir, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile()).map((entry) => entry.name);
}
