// kill -9 of every role in the middle of a run, over real processes: the run ends, nothing is counted or paid twice.
import { randomBytes } from "node:crypto";
import { readdirSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { decodeEventLog, type DecodeEventLogReturnType } from "viem";
import { afterEach, describe, expect, it } from "vitest";
import type { ClientEvent } from "../../src/actors/client/task-client.js";
import { readTaskAccount } from "../../src/actors/market.js";
import { taskMarketAbi } from "../../src/chain/contracts/abi.js";
import { systemAddresses } from "../../src/chain/contracts/system.js";
import { demoJob } from "../../src/cli/models.js";
import { encodeManifest } from "../../src/data/manifest.js";
import { cutDataset } from "../../src/data/shard.js";
import type { CallResult } from "../../src/runtime/index.js";
import { canonicalJob } from "../../src/training/index.js";
import { PATIENCE_MS, syntheticRows, TestNetwork, until, type ChainDoor } from "./harness.js";

const RUN = { batchSize: 64, epochs: 3, seed: 1 };
const ROWS = syntheticRows(3_000, 1);
const SAMPLES = ROWS.labels.length * RUN.epochs;
const RUN_TIMEOUT_MS = 6 * PATIENCE_MS;

type MarketEvent = DecodeEventLogReturnType<typeof taskMarketAbi>;
async function marketEvents(door: ChainDoor): Promise<MarketEvent[]> {
  const logs = await door.client.getLogs({ address: systemAddresses.taskMarket, fromBlock: 0n });
  return logs.map(({ data, topics }) => decodeEventLog({ abi: taskMarketAbi, data, topics }));
}

/** Calls `strike` once, when this share of the units is booked. */
function atShare(share: number, strike: () => void): (event: ClientEvent) => void {
  let struck = false;
  return (event) => {
    if (struck || event.type !== "task" || event.event.type !== "unit" || event.event.done < share * event.event.total) return;
    struck = true;
    strike();
  };
}

// 0.1 is chance; how far a short run gets depends on how stale its gradients were on a loaded machine
const LEARNED = 0.7;

describe("kill -9", () => {
  let net: TestNetwork | undefined;
  afterEach(async () => {
    await net?.stop();
    net = undefined;
  });

  it("of a worker: the survivor finishes, each sample counts once, the dead one's collateral is the survivor's", async () => {
    net = await TestNetwork.start();
    const { outcome } = await net.train("cnn", ROWS, RUN, atShare(0.2, () => net!.network.kill("worker-1", "SIGKILL")));
    expect(outcome.account.outcome).toBe("settled");
    expect(outcome.progress.samples).toBe(SAMPLES);
    expect(outcome.accuracy).toBeGreaterThan(LEARNED);
    const dead = net.accountOf("worker-1");
    const survivor = net.accountOf("worker-2");
    const events = await marketEvents(await net.door("master"));
    const opened = events.find((event) => event.eventName === "TaskOpened")!.args;
    const aborted = events.filter((event) => event.eventName === "Aborted").map(({ args }) => args);
    expect(aborted).toMatchObject([{ worker: dead, forfeited: opened.minerCollateral }]);
    const parts = events.filter((event) => event.eventName === "WorkerSettled").map(({ args }) => args);
    expect(parts.map(({ worker }) => worker)).toEqual([survivor]);
    expect(parts[0]!.account).toMatchObject({ forfeitShare: opened.minerCollateral, collateralReturned: opened.minerCollateral });
    expect(parts[0]!.account.payment).toBeGreaterThan(0n);
    expect(parts[0]!.account.multiplyAdds).toBeLessThan(opened.terms.quotedMultiplyAdds);
    expect([...outcome.account.paid.keys()]).toEqual([survivor]);
    expect(outcome.account.balance).toBe(0n);
  }, RUN_TIMEOUT_MS);

  it("of the master, then of the parameter server: they go on where they were, and the task settles with both workers paid", async () => {
    net = await TestNetwork.start();
    const { network } = net;
    const struck: string[] = [];
    const kill = (name: string) => () => { if (network.kill(name, "SIGKILL")) struck.push(name); };
    const first = atShare(0.2, kill("master"));
    const second = atShare(0.5, kill("ps"));
    const { outcome } = await net.train("cnn", ROWS, RUN, (event) => { first(event); second(event); });
    expect(struck).toEqual(["master", "ps"]);
    expect(outcome.accuracy).toBeGreaterThan(LEARNED);
    expect(outcome.account.outcome).toBe("settled");
    expect(outcome.account.balance).toBe(0n);
    expect(outcome.account.paid.size).toBe(2);
    expect(outcome.account.forfeited).toBe(0n);
    expect(outcome.progress.samples).toBe(SAMPLES);
    const door = await net.door("master");
    expect((await readTaskAccount(door.client, outcome.taskId)).rows).toEqual(outcome.account.rows);
    await until("the task's file is gone", () => readdirSync(join(net!.dirOf("master"), "tasks")).length === 0);
  }, RUN_TIMEOUT_MS);

  it("of PoS and PoW nodes: each opens at a block it had and catches up with the others", async () => {
    net = await TestNetwork.start({ workers: 1 });
    const master = await net.door("master");
    const height = () => master.client.getBlockNumber({ cacheTime: 0 });
    await until("the chain has some blocks", async () => await height() >= 3n);
    for (const name of ["pos-1", "pow"]) {
      const before = await height();
      const hash = (await master.client.getBlock({ blockNumber: before - 2n })).hash;
      await net.killAndAwaitRestart(name);
      const door = await net.door(name);
      const target = await height();
      await until(`${name} catches up to block ${target}`, async () => await door.client.getBlockNumber({ cacheTime: 0 }) >= target);
      expect((await door.client.getBlock({ blockNumber: before - 2n })).hash).toBe(hash);
      const confirmed = target > 6n ? target - 6n : 0n;
      expect((await door.client.getBlock({ blockNumber: confirmed })).hash).toBe((await master.client.getBlock({ blockNumber: confirmed })).hash);
    }
    const last = await height();
    await until("blocks go on", async () => await height() > last + 2n);
  }, RUN_TIMEOUT_MS);
});

describe("hostile input to a running network", () => {
  it("a damaged shard is refused, its worker gives up aloud, and the client can stop; a foreign job is refused", async () => {
    const net = await TestNetwork.start();
    const intruder = await net.client();
    const foreign = canonicalJob(demoJob("cnn", { ...RUN, rows: 10 }));
    const cut = await cutDataset(new Uint8Array(40), new Uint8Array(10), { name: "foreign", shardCount: 2, random: randomBytes });
    let submitted: Promise<CallResult<unknown>> | undefined;
    const stop = new AbortController();
    const lost: string[] = [];
    try {
      const run = net.train("mlp", ROWS, RUN, (event) => {
        if (event.type === "opened") {
          submitted = intruder.master.call("submit", {
            taskId: String(event.taskId), job: foreign, manifest: encodeManifest(cut.manifest), workers: 1,
          }, { timeoutMs: PATIENCE_MS });
          // between the upload and the first fetch: the relay's disk lies
          const dir = join(net.dirOf("master"), "shards");
          for (const name of readdirSync(dir)) truncateSync(join(dir, name), 100);
        }
        if (event.type === "task" && event.event.type === "worker-lost") {
          lost.push(event.event.worker.toLowerCase());
          if (lost.length === 2) stop.abort();
        }
      }, stop.signal);
      await expect(run).rejects.toMatchObject({ name: "AbortError" });
      expect(await submitted).toMatchObject({ ok: false, error: { code: "refused", reason: "not-the-task" } });
      expect(new Set(lost)).toEqual(new Set(["worker-1", "worker-2"].map((name) => net.accountOf(name).toLowerCase())));
      const door = await net.door("master");
      const account = await until("the task is closed", async () => {
        const each = await readTaskAccount(door.client, 1n);
        return each.outcome !== "open" && each;
      });
      expect(account.balance).toBe(0n);
      expect(account.refunded).toBe(account.collateral);
    } finally {
      await net.stop();
    }
  }, RUN_TIMEOUT_MS);
});
