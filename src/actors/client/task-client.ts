// Owns a client's side of a task: shards and keys, quote and escrow, the session with the master, evaluation.
// Invariant: the data set leaves this process only as ciphertext; keys go out wrapped for one worker each;
// test data never leaves at all. close() always returns.
import { randomBytes } from "node:crypto";
import { decodeEventLog, hexToBytes, type Address, type Hex, type TransactionReceipt } from "viem";
import { behavior, createSystem, curveKeys, Refusal, replyLater, silentLogger, type CallResult, type CurveKeys, type Peer, type Ref, type System } from "../../runtime/index.js";
import { canonicalJob, Evaluator, jobId, type Job } from "../../training/index.js";
import { computeRegistryAbi, taskMarketAbi } from "../../chain/contracts/abi.js";
import { systemAddresses } from "../../chain/contracts/system.js";
import { KeyLeaseBook } from "../../data/key-lease.js";
import { wrapKey } from "../../data/key-wrap.js";
import { encodeManifest } from "../../data/manifest.js";
import { cutDataset, type CutDataset } from "../../data/shard.js";
import type { Device } from "../../device/device.js";
import { CHAIN_ACTOR, ChainProtocol } from "../chain-node/protocol.js";
import { createRemoteRpc } from "../chain-node/remote-rpc.js";
import { Transactor } from "../chain-node/transactor.js";
import { readTaskAccount, type TaskAccount } from "../market.js";
import { MASTER_ACTOR, MasterProtocol, type QuoteReply } from "../master/protocol.js";
import type { NodeAddress } from "../node/config.js";
import { sleep } from "../node/sleep.js";
import { PARAMETER_SERVER_ACTOR, ParameterServerProtocol, type Progress } from "../parameter-server/protocol.js";
import type { Lease } from "../worker/protocol.js";
import { CLIENT_ACTOR, ClientProtocol, type TaskEvent } from "./protocol.js";

const CONNECT_TIMEOUT_MS = 15_000;
const CALL_TIMEOUT_MS = 30_000;
const POLL_MS = 250;
/** A cancellation takes a transaction and its block. */
const CANCEL_MS = 3_000;
/** A network that has just started proves its workers first. */
const WORKERS_WAIT_MS = 60_000;
/** A master that restarts is back within seconds. */
const PATIENCE_MS = 30_000;
/** Leases are renewed by the task's end at the latest; a dead client's keys stop working by then. */
const LEASE_MS = 24 * 3_600_000;
/** Shards a worker gets: enough that losing a worker returns small pieces, few enough to stay large. */
const SHARDS_PER_WORKER = 8;
/** WorkerStatus.Accepted of TaskTypes.sol. */
const WORKER_ACCEPTED = 2;

export interface TaskClientOptions {
  master: NodeAddress;
  privateKey: Hex;
  chainId: number;
}

export interface TaskClientModules {
  device: Device;
  /** Default: a system and keys of its own. */
  createSystem?: () => System;
  keys?: CurveKeys;
}

export interface TrainRequest {
  job: Job;
  name: string;
  train: { images: Uint8Array; labels: Uint8Array };
  /** Evaluated here after every epoch and at the end; optional. */
  test?: { images: Uint8Array; labels: Uint8Array };
  workers: number;
}

export type ClientEvent =
  | { type: "cut"; shards: number; plainBytes: number; storedBytes: number; seconds: number }
  | { type: "quote"; quote: QuoteReply }
  | { type: "opened"; taskId: bigint; collateral: bigint; block: bigint }
  | { type: "progress"; progress: Progress; samplesTotal: number; epoch: number; samplesPerSecond: number; cost: bigint }
  | { type: "evaluation"; epoch: number; accuracy: number; loss: number }
  | { type: "task"; event: TaskEvent };

export interface TrainOutcome {
  taskId: bigint;
  jobId: string;
  /** Null without test data. */
  accuracy: number | null;
  samples: number;
  trainingSeconds: number;
  samplesPerSecond: number;
  progress: Progress;
  parameters: Float32Array;
  account: TaskAccount;
  settlement: Hex;
}

export class TaskFailed extends Error {
  readonly code = "task-failed";
  constructor(readonly taskId: bigint, readonly outcome: string, reason: string) {
    super(`task ${taskId} ended as ${outcome}: ${reason}`);
    this.name = "TaskFailed";
  }
}

interface Session {
  taskId: string;
  cut: CutDataset;
  leases: KeyLeaseBook;
  onEvent: (event: TaskEvent) => Promise<void>;
}

export class TaskClient {
  private session: Session | undefined;

  private constructor(
    private readonly system: System, private readonly keys: ReturnType<typeof curveKeys>, private readonly masterOf: () => Peer,
    readonly transactor: Transactor, private readonly device: Device,
  ) {}

  /** Connects to a master. Throws when nobody answers there within 15 s. */
  static async connect(options: TaskClientOptions, modules: TaskClientModules): Promise<TaskClient> {
    const system = modules.createSystem?.() ?? createSystem({ name: "client", logger: silentLogger });
    try {
      const keys = modules.keys ?? curveKeys();
      const first = await system.connect({ ...options.master, keys, timeoutMs: CONNECT_TIMEOUT_MS });
      // looked up for each call: a master that restarted is another peer
      const masterOf = (): Peer => system.peer(options.master.serverKey) ?? first;
      const transactor = new Transactor({ privateKey: options.privateKey, chainId: options.chainId }, {
        rpc: createRemoteRpc(() => masterOf().ref(ChainProtocol, CHAIN_ACTOR), () => system.isShuttingDown, {
          now: () => Date.now(), sleep,
        }),
      });
      const client = new TaskClient(system, keys, masterOf, transactor, modules.device);
      client.spawnSession();
      return client;
    } catch (error) {
      await system.shutdown({ deadlineMs: 1_000 });
      throw error;
    }
  }

  get address(): Address {
    return this.transactor.address;
  }

  get master(): Ref<typeof MasterProtocol> {
    return this.masterOf().ref(MasterProtocol, MASTER_ACTOR);
  }

  async close(): Promise<void> {
    await this.system.shutdown({ deadlineMs: 2_000 });
  }

  /** Trains a job on the network and waits for its settlement. Throws TaskFailed when the task ends otherwise. */
  async train(request: TrainRequest, onEvent: (event: ClientEvent) => void, signal: AbortSignal): Promise<TrainOutcome> {
    const job = canonicalJob(request.job);
    const cut = await this.cut(request, onEvent);
    const manifest = encodeManifest(cut.manifest);
    const quote = await this.quote(job, request, cut, signal);
    onEvent({ type: "quote", quote });
    for (const [i, bytes] of cut.shards.entries()) {
      await this.ask(signal, () => this.master.call("putShard", { hash: cut.manifest.shards[i]!.hash, bytes }, { timeoutMs: CALL_TIMEOUT_MS, signal }));
    }
    const { taskId, receipt } = await this.open(quote, request, job, cut);
    onEvent({ type: "opened", taskId, collateral: BigInt(quote.collateral), block: receipt.blockNumber });
    return this.follow({ taskId, job, manifest, cut, request }, onEvent, signal);
  }

  private async quote(job: string, request: TrainRequest, cut: CutDataset, signal: AbortSignal): Promise<QuoteReply> {
    const untilMs = Date.now() + WORKERS_WAIT_MS;
    for (;;) {
      const reply = await this.master.call("quote", {
        job, workers: request.workers, samples: request.train.labels.length * request.job.run.epochs,
        storedBytes: cut.shards.reduce((sum, shard) => sum + shard.length, 0),
      }, { timeoutMs: CALL_TIMEOUT_MS, signal });
      if (reply.ok) return reply.value;
      const isPassing = reply.error.reason === "no-workers" || reply.error.code === "unreachable" || reply.error.code === "timeout";
      if (!isPassing || Date.now() > untilMs) throw new Error(reply.error.message);
      await sleep(POLL_MS, signal);
      signal.throwIfAborted();
    }
  }

  private async cut(request: TrainRequest, onEvent: (event: ClientEvent) => void): Promise<CutDataset> {
    const startMs = Date.now();
    const { images, labels } = request.train;
    const cut = await cutDataset(images, labels, {
      name: request.name, shardCount: Math.min(labels.length, request.workers * SHARDS_PER_WORKER),
      random: (count) => randomBytes(count), device: this.device,
    });
    onEvent({
      type: "cut", shards: cut.shards.length, plainBytes: images.length + labels.length,
      storedBytes: cut.shards.reduce((sum, shard) => sum + shard.length, 0), seconds: (Date.now() - startMs) / 1000,
    });
    return cut;
  }

  private async open(quote: QuoteReply, request: TrainRequest, job: string, cut: CutDataset): Promise<{ taskId: bigint; receipt: TransactionReceipt }> {
    const terms = {
      manifestRoot: `0x${cut.manifest.root}` as Hex, graphHash: `0x${jobId(job)}` as Hex,
      computeMicroUsd: BigInt(quote.computeMicroUsd), storageMicroUsd: BigInt(quote.storageMicroUsd),
      quotedMultiplyAdds: BigInt(quote.quotedMultiplyAdds), rangeBps: quote.rangeBps,
      expectedSeconds: quote.expectedSeconds, deadlineSeconds: quote.deadlineSeconds, acceptSeconds: quote.acceptSeconds,
      minWorkers: 1, maxWorkers: request.workers, minGrade: quote.minGrade, allowStandby: true, master: quote.master as Address,
    };
    const receipt = await this.transactor.send({
      address: systemAddresses.taskMarket, abi: taskMarketAbi, functionName: "open", args: [terms], value: BigInt(quote.collateral),
    });
    for (const log of receipt.logs) {
      if (log.address.toLowerCase() !== systemAddresses.taskMarket) continue;
      const event = decodeEventLog({ abi: taskMarketAbi, data: log.data, topics: log.topics });
      if (event.eventName === "TaskOpened") return { taskId: event.args.taskId, receipt };
    }
    throw new Error("the chain opened no task: its receipt has no TaskOpened event");
  }

  private async follow(
    task: { taskId: bigint; job: string; manifest: string; cut: CutDataset; request: TrainRequest },
    onEvent: (event: ClientEvent) => void, signal: AbortSignal,
  ): Promise<TrainOutcome> {
    const { request, taskId } = task;
    const { graph } = request.job.operation.loss;
    const evaluator = new Evaluator(this.device, graph, { loss: request.job.operation.loss, correct: request.job.operation.correct });
    const samplesTotal = request.train.labels.length * request.job.run.epochs;
    const state = { cost: 0n, startMs: 0, endMs: 0, epochsEvaluated: 0 };
    let serverKey: string | undefined;
    const serverRef = (): Ref<typeof ParameterServerProtocol> | undefined =>
      (serverKey === undefined ? undefined : this.system.peer(serverKey)?.ref(ParameterServerProtocol, PARAMETER_SERVER_ACTOR));
    let end: Extract<TaskEvent, { type: "settled" | "ended" }> | undefined;
    let progress: Progress | undefined;
    let parameters: Float32Array | undefined;
    let accuracy: number | null = null;
    const evaluate = async (): Promise<void> => {
      const pulled = await serverRef()?.call("pull", { taskId: String(taskId) }, { timeoutMs: CALL_TIMEOUT_MS });
      if (!pulled?.ok) return;
      if (state.endMs > 0) parameters = pulled.value.parameters;
      if (!request.test) return;
      const result = await evaluator.evaluate(pulled.value.parameters, request.test.images, request.test.labels);
      accuracy = result.accuracy;
      onEvent({ type: "evaluation", epoch: state.epochsEvaluated, accuracy: result.accuracy, loss: result.loss });
    };
    const poll = async (): Promise<void> => {
      const polled = await serverRef()?.call("progress", { taskId: String(taskId) }, { timeoutMs: CALL_TIMEOUT_MS });
      if (!polled?.ok) return;
      progress = polled.value;
      const seconds = ((state.endMs || Date.now()) - state.startMs) / 1000;
      onEvent({
        type: "progress", progress, samplesTotal, cost: state.cost,
        epoch: Math.floor(progress.samples / request.train.labels.length), samplesPerSecond: progress.samples / Math.max(seconds, 0.001),
      });
    };
    this.session = {
      taskId: String(taskId), cut: task.cut, leases: new KeyLeaseBook({ random: (count) => randomBytes(count) }),
      onEvent: async (event) => {
        if (event.type === "unit") state.cost = BigInt(event.cost);
        if (event.type === "running") {
          state.startMs ||= Date.now();
          if (serverKey !== event.parameterServer.serverKey) {
            serverKey = event.parameterServer.serverKey;
            void this.keepLinked(event.parameterServer);
          }
        }
        if (event.type === "trained") {
          state.endMs = Date.now();
          await poll();
        }
        onEvent({ type: "task", event });
        // the answer lets the parameter server forget the task: the result is fetched before it
        if (event.type === "trained") await evaluate();
        if (event.type === "settled" || event.type === "ended") end = event;
      },
    };
    try {
      await this.ask(signal, () => this.master.call("submit", {
        taskId: String(taskId), job: task.job, manifest: task.manifest, workers: request.workers,
      }, { timeoutMs: CALL_TIMEOUT_MS, signal }));
      while (!end) {
        if (signal.aborted) {
          await this.cancel(taskId);
          throw new DOMException("interrupted", "AbortError");
        }
        await sleep(POLL_MS, signal);
        if (state.endMs > 0 || !serverRef()) continue;
        await poll();
        const epochs = Math.floor((progress?.samples ?? 0) / request.train.labels.length);
        if (request.test && epochs > state.epochsEvaluated && epochs < request.job.run.epochs) {
          state.epochsEvaluated = epochs;
          await evaluate();
        }
      }
      const account = await readTaskAccount(this.transactor.client, taskId);
      if (end.type === "ended") throw new TaskFailed(taskId, end.outcome, end.reason);
      if (!progress || !parameters) throw new TaskFailed(taskId, "settled", "the parameter server could not be asked for the result");
      const trainingSeconds = (state.endMs - state.startMs) / 1000;
      return {
        taskId, jobId: jobId(task.job), accuracy, samples: progress.samples, trainingSeconds,
        samplesPerSecond: progress.samples / trainingSeconds, progress, parameters, account, settlement: end.transaction as Hex,
      };
    } finally {
      this.session = undefined;
      evaluator.close();
    }
  }

  /** The first link may take several attempts; after it the runtime keeps it. */
  private async keepLinked(address: NodeAddress): Promise<void> {
    while (!this.system.isShuttingDown) {
      const isLinked = await this.system.connect({ ...address, keys: this.keys, timeoutMs: CONNECT_TIMEOUT_MS }).then(() => true, () => false);
      if (isLinked) return;
    }
  }

  /** Stop means stop: what was verified is paid, the rest returns. Bounded, because a person waits. */
  private async cancel(taskId: bigint): Promise<void> {
    const stopped = this.transactor.send({ address: systemAddresses.taskMarket, abi: taskMarketAbi, functionName: "cancel", args: [taskId] })
      .then(() => this.master.call("cancel", { taskId: String(taskId) }, { timeoutMs: CANCEL_MS })).catch(() => undefined);
    await Promise.race([stopped, new Promise((resolve) => setTimeout(resolve, CANCEL_MS))]);
  }

  /** The actor through which the master asks for leases and tells what happens. */
  private spawnSession(): void {
    this.system.spawn(behavior(ClientProtocol, () => ({
      call: {
        grant: async ({ taskId, worker, shards }) => {
          const session = this.sessionOf(taskId);
          const sealingKey = await this.sealingKeyOf(BigInt(taskId), worker as Address);
          return { leases: shards.map((shard) => leaseShard(session, shard, sealingKey)) };
        },
        event: ({ taskId, event }) => {
          const { onEvent } = this.sessionOf(taskId);
          return replyLater(onEvent(event).then(() => ({})));
        },
      },
    })), { name: CLIENT_ACTOR });
  }

  /** The X25519 key to wrap for: the chain's word, not the master's. Refused unless the worker has accepted. */
  private async sealingKeyOf(taskId: bigint, worker: Address): Promise<Uint8Array> {
    const part = await this.transactor.client.readContract({
      address: systemAddresses.taskMarket, abi: taskMarketAbi, functionName: "workerOf", args: [taskId, worker],
    });
    if (part.status !== WORKER_ACCEPTED) throw new Refusal("not-assigned", `the chain does not have ${worker} as a worker of task ${taskId}`);
    const node = await this.transactor.client.readContract({
      address: systemAddresses.computeRegistry, abi: computeRegistryAbi, functionName: "nodeOf", args: [worker],
    });
    return hexToBytes(node.transportKey);
  }

  private sessionOf(taskId: string): Session {
    if (this.session?.taskId !== taskId) throw new Refusal("no-session", `no session for task ${taskId}`);
    return this.session;
  }

  /** Repeats an idempotent call while the master is away; any other error ends it. */
  private async ask<T>(signal: AbortSignal, attempt: () => Promise<CallResult<T>>): Promise<T> {
    const untilMs = Date.now() + PATIENCE_MS;
    for (;;) {
      const result = await attempt();
      if (result.ok) return result.value;
      const isPassing = result.error.code === "unreachable" || result.error.code === "timeout";
      if (!isPassing || signal.aborted || Date.now() > untilMs) throw new Error(result.error.message);
      await sleep(POLL_MS, signal);
    }
  }
}

function leaseShard(session: Session, shard: number, sealingKey: Uint8Array): Lease {
  const { taskId, cut, leases } = session;
  const entry = cut.manifest.shards[shard];
  if (!entry) throw new Refusal("no-shard", `the data set has no shard ${shard}`);
  const recipient = Buffer.from(sealingKey).toString("hex");
  const nowMs = Date.now();
  for (const old of leases.active(taskId, nowMs)) {
    if (old.shardHash === entry.hash && old.recipient !== recipient) leases.revoke(old.id); // its worker was lost
  }
  const { id, expiresMs } = leases.issue({ taskId, shardHash: entry.hash, recipient, durationMs: LEASE_MS }, nowMs);
  const wrappedKey = wrapKey(cut.keys[shard]!, sealingKey, { taskId, shardHash: entry.hash }, (count) => randomBytes(count));
  return { id, shard, expiresMs, wrappedKey };
}
