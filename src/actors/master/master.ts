// Owns the master actor: who is on the network, quotes, the shard relay, and one driver a task.
// Invariant: a master moves no money of its own on behalf of a task but by the task book's commands; what it
// relays is ciphertext, verified by its address.
import { join } from "node:path";
import type { Address } from "viem";
import { computeRegistryAbi, masterRegistryAbi, priceFeedAbi, taskMarketAbi } from "../../chain/contracts/abi.js";
import { systemAddresses } from "../../chain/contracts/system.js";
import type { Chain } from "../../chain/index.js";
import { createHash } from "../../data/hash.js";
import { parseManifest } from "../../data/manifest.js";
import { ShardStore } from "../../data/shard-store.js";
import type { Device } from "../../device/device.js";
import { behavior, Refusal, replyLater, type Meta, type System } from "../../runtime/index.js";
import { DEFAULT_RANGE_BPS, defaultUnitPrices, quoteTask } from "../../scheduler/index.js";
import { canonicalJob, jobId, parseJob } from "../../training/index.js";
import { parseNetworkJob } from "../parameter-server/hosted-task.js";
import type { Transactor } from "../chain-node/transactor.js";
import type { NodeAddress, Role } from "../node/config.js";
import type { Links } from "../node/links.js";
import { refusing } from "../refusing.js";
import { WORKER_ACTOR, WorkerProtocol } from "../worker/protocol.js";
import { enrol } from "./enrolment.js";
import { NodeBook, type KnownNode } from "./node-book.js";
import { MasterProtocol, SHARD_BYTES_MAX, type QuoteReply } from "./protocol.js";
import { TaskDriver, type TaskDriverModules } from "./task-driver.js";
import { TaskFiles } from "./task-file.js";

/**
 * A worker whose link stays down this long is lost. A process that was killed and started again is known at once by
 * its new incarnation; one that is only starved of its cores reconnects within seconds and must keep its collateral.
 */
const LOST_AFTER_MS = 10_000;
const TICK_MS = 1_000;
/** A third of the registry's window of an hour. */
const HEARTBEAT_MS = 20 * 60_000;
/** Open tasks of one master; each holds a journal of some hundred kilobytes. */
const TASKS_MAX = 256;
/** A miner pledges a fifth of its part of the estimate (the market's own default). */
const MINER_COLLATERAL_BPS = 2_000n;
/** Deadline = 5 x the expected time and at least ten minutes: nodes share their cores with other work. */
const DEADLINE_FACTOR_BPS = 50_000n;
const DEADLINE_SECONDS_MIN = 600n;
const ACCEPT_SECONDS = 120;
const CHAIN_ROLES: readonly Role[] = ["master", "pos", "pow"];

export interface MasterModules {
  device: Device;
  chain: Chain;
  chainId: bigint;
  transactor: Transactor;
  links: Links;
  system: System;
  self: NodeAddress;
  dataDir: string;
  random: (size: number) => Uint8Array;
  now: () => number;
  warn: (text: string) => void;
}

export function master(modules: MasterModules) {
  const { chain, device, links, now, system, transactor } = modules;
  return behavior(MasterProtocol, async (ctx) => {
    const nodes = new NodeBook();
    const shards = await ShardStore.open(join(modules.dataDir, "shards"), { device });
    const files = new TaskFiles(join(modules.dataDir, "tasks"));
    const tasks = new Map<string, TaskDriver>();
    const driverModules: TaskDriverModules = {
      chain, chainId: modules.chainId, transactor, links, nodes, files, now,
      isBusy: (account, except) => [...tasks.values()].some((task) => task.taskId !== except && task.uses(account)),
      spendableOf: async (account) => (await chain.account(account)).balance,
      sleep: (ms) => new Promise((resolve) => ctx.timers.once(`sleep-${(sleeps += 1)}`, ms, resolve)),
      dropShards: async (ended) => {
        const kept = new Set([...tasks.values()].filter((task) => !task.isOver).flatMap((task) => task.shardHashes));
        for (const hash of ended.shardHashes) if (!kept.has(hash)) await shards.delete(hash);
      },
      log: { info: (text) => ctx.log.info(text), warn: (text) => ctx.log.warn(text) },
    };
    let sleeps = 0;
    for (const record of files.load(modules.warn)) {
      try {
        const driver = await TaskDriver.resume(record, driverModules);
        tasks.set(driver.taskId, driver);
        ctx.log.info(`goes on with task ${driver.taskId}`);
      } catch (error) {
        ctx.log.error(`task ${record.taskId} cannot be resumed: ${(error as Error).message}`);
      }
    }
    const taskOf = (taskId: string): TaskDriver => {
      const task = tasks.get(taskId);
      if (!task) throw new Refusal("unknown-task", `this master does not schedule task ${taskId}`);
      return task;
    };
    const loseIfStillDown = (node: KnownNode, nodeId: string): void => {
      ctx.timers.once(`down-${nodeId}`, LOST_AFTER_MS, async () => {
        if (system.peer(nodeId)?.isUp) return;
        for (const task of tasks.values()) await task.workerLost(node.account, "its link is down");
      });
    };
    const unsubscribe = system.onPeer((peer) => {
      const incarnation = peer.incarnation;
      peer.onDown(() => {
        const node = nodes.byNodeId(peer.nodeId);
        if (node?.role !== "worker") return;
        if (system.peer(peer.nodeId)?.incarnation === incarnation) loseIfStillDown(node, peer.nodeId);
        else for (const task of tasks.values()) void task.workerLost(node.account, "its process was replaced");
      });
    });
    ctx.signal.addEventListener("abort", unsubscribe);
    ctx.timers.every("tick", TICK_MS, () => {
      const timeSeconds = Math.floor(chain.head.timestampMs / 1_000);
      for (const task of tasks.values()) task.tick(timeSeconds);
      if (tasks.size > TASKS_MAX / 2) for (const [id, task] of tasks) if (task.isOver) tasks.delete(id);
    });

    // the chain drops a master that is silent for a window; the first beat also revives one that slept
    const heartbeat = async (): Promise<void> => {
      try {
        await transactor.send({ address: systemAddresses.masterRegistry, abi: masterRegistryAbi, functionName: "heartbeat", args: [] });
      } catch (error) {
        ctx.log.warn((error as Error).message);
      }
    };
    ctx.timers.every("heartbeat", HEARTBEAT_MS, () => void heartbeat());
    if (now() - chain.genesis.timestampMs > HEARTBEAT_MS) void heartbeat();

    const join_ = async (request: JoinRequest, nodeId: string) => {
      const node: KnownNode = {
        role: request.role, name: request.name, account: request.account as Address, nodeId,
        listen: request.listen, memoryBytes: request.memoryBytes ?? 0,
      };
      if (request.role === "worker") await checkTransportKey(transactor, node.account, nodeId);
      const before = nodes.get(node.account);
      if (request.role === "worker" && before?.nodeId === nodeId) Object.assign(node, { capability: before.capability, grade: before.grade });
      nodes.put(node);
      if (request.role === "worker" && node.capability === undefined) {
        const ref = links.ref(nodeId, WorkerProtocol, WORKER_ACTOR);
        if (!ref) throw new Refusal("not-linked", "the worker's link is down");
        const proved = await enrol(ref, node.account, node.memoryBytes, { device, transactor, now, random: modules.random });
        Object.assign(node, proved);
        ctx.log.info(`${node.name} proved ${proved.capability.power.fp32 / 10n ** 9n} G multiply-adds/s fp32, grade ${proved.grade}`);
      }
      if (request.role === "worker") for (const task of tasks.values()) task.workerBack(node.account);
      if (request.role === "ps") for (const task of tasks.values()) await task.serverBack(nodeId);
      const chainNodes = nodes.all().filter((each) => CHAIN_ROLES.includes(each.role) && each.nodeId !== nodeId).map((each) => each.listen);
      return { chainNodes };
    };

    const quote = async (request: QuoteRequest): Promise<QuoteReply> => {
      const job = parseNetworkJob(request.job);
      const workers = nodes.ofRole("worker").filter((node) => node.capability !== undefined)
        .sort((a, b) => Number(b.capability!.power.fp32 - a.capability!.power.fp32)).slice(0, request.workers);
      if (workers.length < request.workers) {
        throw new Refusal("no-workers", `the network has ${workers.length} proven workers now, ${request.workers} were asked for`);
      }
      const microUsdPerTsr = await transactor.client.readContract({ address: systemAddresses.priceFeed, abi: priceFeedAbi, functionName: "price" });
      const multiplyAdds = (BigInt(job.cost.multiplyAddsPerStep) * BigInt(request.samples)) / BigInt(job.run.batchSize);
      const quoted = quoteTask({
        multiplyAdds, storageBytes: BigInt(request.storedBytes), workers: request.workers,
        power: workers.reduce((sum, node) => sum + node.capability!.power.fp32, 0n),
      }, {
        prices: defaultUnitPrices, rangeBps: DEFAULT_RANGE_BPS, minerCollateralBps: MINER_COLLATERAL_BPS, microUsdPerTsr,
        deadlineFactorBps: DEADLINE_FACTOR_BPS, minimumDeadlineSeconds: DEADLINE_SECONDS_MIN,
      });
      return {
        master: transactor.address, quotedMultiplyAdds: quoted.quotedMultiplyAdds.toString(),
        computeMicroUsd: quoted.computeMicroUsd.toString(), storageMicroUsd: quoted.storageMicroUsd.toString(),
        rangeBps: Number(DEFAULT_RANGE_BPS), expectedSeconds: Number(quoted.expectedSeconds),
        deadlineSeconds: Number(quoted.deadlineSeconds), acceptSeconds: ACCEPT_SECONDS, minGrade: 1,
        collateral: quoted.collateral.toString(), minerCollateral: quoted.minerCollateral.toString(), microUsdPerTsr: microUsdPerTsr.toString(),
      };
    };

    const submit = async (request: SubmitRequest, meta: Meta) => {
      const { taskId } = request;
      const known = tasks.get(taskId);
      if (known) {
        if (known.isOf(request, meta.sender?.nodeId ?? "")) return {}; // its answer was lost
        throw new Refusal("not-the-task", `task ${taskId} is scheduled for another client or another job`);
      }
      if (tasks.size >= TASKS_MAX) throw new Refusal("busy", `this master already schedules ${TASKS_MAX} tasks`);
      const server = nodes.ofRole("ps").find((node) => system.peer(node.nodeId)?.isUp);
      if (!server) throw new Refusal("no-parameter-server", "no parameter server is on the network now");
      const manifest = parseManifest(request.manifest, createHash(device));
      const task = await transactor.client.readContract({ address: systemAddresses.taskMarket, abi: taskMarketAbi, functionName: "taskOf", args: [BigInt(taskId)] });
      const expected = {
        master: transactor.address.toLowerCase(), graphHash: `0x${jobId(canonicalJob(parseJob(request.job)))}`, manifestRoot: `0x${manifest.root}`,
      };
      const found = { master: task.master.toLowerCase(), graphHash: task.terms.graphHash, manifestRoot: task.terms.manifestRoot };
      for (const field of ["master", "graphHash", "manifestRoot"] as const) {
        if (found[field] !== expected[field]) throw new Refusal("not-the-task", `task ${taskId} on the chain has ${field} ${found[field]}, submitted was ${expected[field]}`);
      }
      for (const { hash } of manifest.shards) {
        if (!await shards.has(hash)) throw new Refusal("missing-shard", `shard ${hash} was not uploaded`);
      }
      const driver = await TaskDriver.open({
        taskId, job: request.job, manifest: request.manifest, shardSamples: manifest.shards.map(({ rows }) => rows),
        clientNodeId: meta.sender?.nodeId ?? "", parameterServer: server.listen,
      }, driverModules);
      tasks.set(taskId, driver);
      return {};
    };

    nodes.put({
      role: "master", name: system.name, account: transactor.address, nodeId: modules.self.serverKey, listen: modules.self, memoryBytes: 0,
    });

    return {
      call: {
        join: (request, meta) => replyLater(refusing(() => join_(request, meta.sender?.nodeId ?? request.listen.serverKey))),
        quote: (request) => replyLater(refusing(() => quote(request))),
        putShard: ({ hash, bytes }) => replyLater(refusing(async () => {
          await shards.put(hash, bytes, { sizeBytesMax: SHARD_BYTES_MAX });
          return {};
        })),
        getShard: ({ hash }) => replyLater(refusing(async () => ({ bytes: await shards.get(hash) }))),
        submit: (request, meta) => refusing(() => submit(request, meta)),
        receipt: async ({ taskId, receipt, signature }) => {
          await refusing(() => taskOf(taskId).receipt(receipt, signature));
          return {};
        },
        abandon: ({ taskId, reason }, meta) => {
          const node = nodes.byNodeId(meta.sender?.nodeId ?? "");
          if (!node) throw new Refusal("not-a-worker", "only a worker of the task may give it up");
          return replyLater(taskOf(taskId).workerLost(node.account, reason).then(() => ({})));
        },
        cancel: ({ taskId }) => replyLater(refusing(async () => {
          await taskOf(taskId).cancelled();
          return {};
        })),
        task: ({ taskId }) => taskOf(taskId).status(),
        tasks: () => ({ tasks: [...tasks.values()].map((task) => task.status()) }),
        nodes: () => ({
          nodes: nodes.all().map(({ name, role, account, capability, grade, nodeId }) => ({
            name, role, address: account, online: nodeId === modules.self.serverKey || system.peer(nodeId)?.isUp === true,
            ...(capability ? { gflops: Number(capability.power.fp32) * 2 / 1e9, grade } : {}),
          })),
        }),
      },
    };
  });
}

/** The link has proven the node's key; the chain says whose key that is. Throws Refusal. */
async function checkTransportKey(transactor: Transactor, account: Address, nodeId: string): Promise<void> {
  const { transportKey } = await transactor.client.readContract({
    address: systemAddresses.computeRegistry, abi: computeRegistryAbi, functionName: "nodeOf", args: [account],
  });
  if (transportKey !== `0x${nodeId}`) throw new Refusal("not-registered", `the chain does not have this node's key for ${account}; register it first`);
}

type JoinRequest = { role: Role; name: string; account: string; listen: NodeAddress; memoryBytes?: number | undefined };
type QuoteRequest = { job: string; workers: number; samples: number; storedBytes: number };
type SubmitRequest = { taskId: string; job: string; manifest: string; workers: number };
