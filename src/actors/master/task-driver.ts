// Owns one task at its master: feeds the task book with what happens and carries out what it commands.
// Invariant: every event is journalled before its commands run; money moves by transactions of the book alone;
// a worker's work is metered by the master's own figure, samples x cost of the graph.
import { bytesToHex, type Address, type Hex } from "viem";
import { priceFeedAbi, taskMarketAbi } from "../../chain/contracts/abi.js";
import { systemAddresses } from "../../chain/contracts/system.js";
import { recoverAddress, type Chain } from "../../chain/index.js";
import { createHash } from "../../data/hash.js";
import { parseManifest } from "../../data/manifest.js";
import { Refusal, type CallResult, type Ref } from "../../runtime/index.js";
import {
  decodeReceipt, isFinalPhase, Meter, placeTask, receiptDigest, TaskBook, toWei, type Candidate, type FinalPhase, type TaskCommand,
  type TaskEvent as BookEvent,
} from "../../scheduler/index.js";
import { parseJob, type ParsedJob } from "../../training/index.js";
import type { Transactor } from "../chain-node/transactor.js";
import { CLIENT_ACTOR, ClientProtocol, type TaskEvent } from "../client/protocol.js";
import type { NodeAddress } from "../node/config.js";
import type { Links } from "../node/links.js";
import { PARAMETER_SERVER_ACTOR, ParameterServerProtocol, type Progress } from "../parameter-server/protocol.js";
import { WORKER_ACTOR, WorkerProtocol, type Unit } from "../worker/protocol.js";
import type { KnownNode, NodeBook } from "./node-book.js";
import type { TaskFiles, TaskRecord } from "./task-file.js";

const CALL_TIMEOUT_MS = 15_000;
/** An offer takes a transaction and its block. */
const OFFER_TIMEOUT_MS = 45_000;
/** Deleting waits for the receipt's block. */
const FINISH_TIMEOUT_MS = 45_000;
const RETRY_MS = 500;
/** A client or a parameter server that is away longer than this ends the wait of one command. */
const PATIENCE_MS = 60_000;
/** A transaction that was refused or not mined is looked at, and sent again if the chain lacks it, after so many ticks. */
const REPEAT_TICKS = 5;
/** After a restart of the master its workers are back within this, or lost. */
const REJOIN_MS = 20_000;
/** Least fp32 power that a task asks for: any proven node. */
const ASK_MICRO_USD = 0n;

export interface TaskDriverModules {
  chain: Chain;
  chainId: bigint;
  transactor: Transactor;
  links: Links;
  nodes: NodeBook;
  files: TaskFiles;
  /** Accounts bound to any task of this master. */
  isBusy: (account: string, exceptTaskId: string) => boolean;
  spendableOf: (account: Address) => Promise<bigint>;
  /** Removes a task's ciphertexts from the relay, but those that another task of this master names too. */
  dropShards: (task: TaskDriver) => Promise<void>;
  sleep: (ms: number) => Promise<void>;
  now: () => number;
  log: { info: (text: string) => void; warn: (text: string) => void };
}

interface Terms {
  computeMicroUsd: bigint; storageMicroUsd: bigint; quotedMultiplyAdds: bigint;
  minerCollateral: bigint; minGrade: number; minWorkers: number; maxWorkers: number; microUsdPerTsr: bigint;
}

export class TaskDriver {
  private readonly job: ParsedJob;
  private readonly multiplyAddsPerSample: bigint;
  private readonly meter: Meter;
  private readonly leased = new Map<string, Set<number>>();
  private readonly lost = new Set<string>();
  /** Commands that are being carried out: none runs twice at a time. */
  private readonly inFlight = new Set<string>();
  private ticks = 0;
  private hosting: Promise<void> | undefined;
  private lastProgress: Progress | undefined;

  private constructor(
    private readonly record: TaskRecord, private readonly terms: Terms, private readonly book: TaskBook,
    private readonly modules: TaskDriverModules,
  ) {
    this.job = parseJob(record.job);
    const { run, cost } = this.job;
    this.multiplyAddsPerSample = BigInt(cost.multiplyAddsPerStep) / BigInt(run.batchSize);
    const options = {
      chainId: modules.chainId, taskId: BigInt(record.taskId), multiplyAddsPerSample: this.multiplyAddsPerSample,
      recover: (digest: Uint8Array, signature: Uint8Array) => {
        try {
          return bytesToHex(recoverAddress(digest, signature));
        } catch {
          return undefined;
        }
      },
    };
    this.meter = Meter.restore(options, record.meter);
  }

  /** Takes over a task that the chain has as open and this master's own. Throws Refusal. */
  static async open(
    request: { taskId: string; job: string; manifest: string; shardSamples: number[]; clientNodeId: string; parameterServer: NodeAddress },
    modules: TaskDriverModules,
  ): Promise<TaskDriver> {
    const { taskId, job, manifest, clientNodeId, parameterServer } = request;
    const { terms, acceptBy, allowStandby } = await readTerms(modules, BigInt(taskId));
    const { book, commands } = TaskBook.open({
      taskId, minWorkers: terms.minWorkers, maxWorkers: terms.maxWorkers, allowStandby, acceptBy,
      epochs: parseJob(job).run.epochs, shardSamples: request.shardSamples,
    });
    const record: TaskRecord = {
      version: 1, taskId, job, manifest, clientNodeId, parameterServer, nextFence: 1, fences: {}, journal: book.journal(), meter: [],
    };
    const driver = new TaskDriver(record, terms, book, modules);
    driver.save();
    driver.carryOut(commands);
    return driver;
  }

  /**
   * Goes on with a task after a restart of the master. The chain says what has happened; what it lacks is asked
   * of it again, and what a worker lacks when the worker is back.
   */
  static async resume(record: TaskRecord, modules: TaskDriverModules): Promise<TaskDriver> {
    const { terms } = await readTerms(modules, BigInt(record.taskId));
    const driver = new TaskDriver(record, terms, TaskBook.replay(record.journal), modules);
    if (driver.isOver) {
      driver.run(driver.conclude(), "conclude");
      return driver;
    }
    await driver.learnFromChain();
    driver.carryOut([...driver.book.outstanding(), ...driver.book.pendingMatch()]);
    driver.run(driver.loseAbsent(), "wait for the workers");
    return driver;
  }

  get taskId(): string { return this.record.taskId; }
  get isOver(): boolean { return isFinalPhase(this.book.phase); }

  status() {
    const { samplesDone, samplesTotal, phase } = this.book;
    const workers = this.meter.aggregate().map(({ worker, totals }) => ({
      address: worker, name: this.modules.nodes.get(worker)?.name ?? worker,
      alive: this.isActive(worker), multiplyAdds: totals.multiplyAdds.toString(),
    }));
    return { taskId: this.taskId, state: phase, samplesDone, samplesTotal, workers, progress: this.lastProgress };
  }

  /** Whether an account works on this task now. */
  uses(account: string): boolean {
    const phase = this.book.workerPhase(account.toLowerCase());
    return !this.isOver && (phase === "assigned" || phase === "accepted" || phase === "ready");
  }

  /** Whether a submission is the one that this task came from. */
  isOf(request: { job: string; manifest: string }, clientNodeId: string): boolean {
    const { job, manifest } = this.record;
    return job === request.job && manifest === request.manifest && this.record.clientNodeId === clientNodeId;
  }

  get shardHashes(): string[] {
    return parseManifest(this.record.manifest, createHash()).shards.map(({ hash }) => hash);
  }

  tick(timeSeconds: number): void {
    if (this.isOver) return;
    this.apply({ kind: "tick", time: timeSeconds });
    this.ticks += 1;
    if (this.ticks % REPEAT_TICKS === 0) this.run(this.repeat(), "repeat");
  }

  /** Books a signed receipt. Throws Refusal. */
  receipt(encoded: Uint8Array, signature: Uint8Array): void {
    const receipt = decodeReceipt(encoded);
    let leaseId: number | undefined;
    const verdict = this.meter.accept(receipt, signature, (each) => {
      leaseId = this.book.leaseFor(each.worker, each);
      return leaseId === undefined ? 0 : each.to - each.from;
    });
    if (!verdict.ok) {
      // booked before, and the answer was lost
      if (this.meter.totalsOf(receipt.worker).digest === bytesToHex(receiptDigest(receipt))) return;
      throw new Refusal(verdict.code, verdict.message);
    }
    const commands = this.book.apply({ kind: "progressed", worker: receipt.worker, leaseId: leaseId!, from: receipt.from, to: receipt.to });
    this.save();
    void this.tellUnit(receipt.worker);
    this.carryOut(commands);
  }

  /** The worker's link is gone for good, or it came back without its task. */
  async workerLost(account: string, reason: string): Promise<void> {
    const worker = account.toLowerCase();
    if (!this.uses(worker) || this.lost.has(worker)) return;
    this.lost.add(worker);
    this.modules.log.warn(`task ${this.taskId}: worker ${worker} is lost: ${reason}`);
    await this.bookAppliedPart(worker);
    const before = this.book.samplesDone;
    this.apply({ kind: "lost", worker, reason });
    void this.tell({ type: "worker-lost", worker: this.nameAddress(worker), samplesLeft: this.book.samplesTotal - before });
  }

  /** A worker of this task is linked again: it is asked again for what it has not done. */
  workerBack(account: string): void {
    const worker = account.toLowerCase();
    if (this.lost.has(worker) || this.isOver) return;
    this.run(this.admit(worker), "admit"); // the parameter server may have restarted while this worker was away
    this.carryOut(this.book.pendingOf(worker));
  }

  /** The client has cancelled on the chain: stop means stop. */
  async cancelled(): Promise<void> {
    const { status } = await readTask(this.modules, BigInt(this.taskId));
    if (status === STOPPING) this.apply({ kind: "stop-requested" });
    else if (status > STOPPING) await this.closed(FINAL_PHASES[status]!, "cancelled by the client");
    else throw new Refusal("not-cancelled", "the chain has no cancellation of this task; send TaskMarket.cancel first");
  }

  // --- book ----------------------------------------------------------------------------------------------------

  private apply(event: BookEvent): void {
    const commands = this.book.apply(event);
    if (event.kind !== "tick" || commands.length > 0) this.save();
    this.carryOut(commands);
  }

  private save(): void {
    this.record.journal = this.book.journal();
    this.record.meter = this.meter.snapshot();
    this.modules.files.save(this.record);
  }

  private carryOut(commands: readonly TaskCommand[]): void {
    for (const command of commands) {
      const key = JSON.stringify(command);
      if (this.inFlight.has(key)) continue;
      this.inFlight.add(key);
      this.run(this.execute(command).finally(() => this.inFlight.delete(key)), command.kind);
    }
  }

  /** Sends again what the chain has neither taken nor made needless. */
  private async repeat(): Promise<void> {
    const isIdle = (): TaskCommand[] => this.book.outstanding().filter((command) => !this.inFlight.has(JSON.stringify(command)));
    if (isIdle().length === 0) return;
    await this.learnFromChain();
    this.carryOut(isIdle());
  }

  /** Books what the chain has and this master did not hear of: a transaction's answer may be lost with a crash. */
  private async learnFromChain(): Promise<void> {
    const taskId = BigInt(this.taskId);
    const { status, deadline } = await readTask(this.modules, taskId);
    const final = FINAL_PHASES[status];
    if (final !== undefined) return this.closed(final, await this.closingTransaction());
    let isPosted = this.book.outstanding().some(({ kind }) => kind === "post-final-receipts");
    for (const { worker, phase } of this.book.workers()) {
      if (phase === "gone") continue;
      const part = await this.modules.transactor.client.readContract({
        address: systemAddresses.taskMarket, abi: taskMarketAbi, functionName: "workerOf", args: [taskId, worker as Address],
      });
      if (this.isActive(worker) && part.sequence < this.meter.totalsOf(worker).sequence) isPosted = false;
      if (part.status === WORKER_ABORTED) this.apply({ kind: "aborted", worker });
      else if (part.status === WORKER_RELEASED) this.apply({ kind: "released", worker });
      else if (part.status === WORKER_ACCEPTED && phase === "assigned") {
        this.meter.admit(worker);
        this.apply({ kind: "accepted", worker, deadline: Number(deadline) });
      }
    }
    if (status === RUNNING && this.book.phase === "accepted") this.apply({ kind: "started" });
    else if (status === STOPPING && this.book.phase !== "stopping") this.apply({ kind: "stop-requested" });
    if (isPosted) this.apply({ kind: "receipts-posted" });
  }

  private async closingTransaction(): Promise<Hex> {
    const logs = await this.modules.transactor.client.getContractEvents({
      address: systemAddresses.taskMarket, abi: taskMarketAbi, eventName: "Settled", args: { taskId: BigInt(this.taskId) }, fromBlock: 0n,
    });
    return logs.at(-1)?.transactionHash ?? "0x";
  }

  /** After a restart of this master: workers that do not come back are lost. */
  private async loseAbsent(): Promise<void> {
    await this.modules.sleep(REJOIN_MS);
    for (const { worker } of this.book.workers()) {
      if (this.uses(worker) && this.worker(worker) === undefined) await this.workerLost(worker, "it did not come back after the master's restart");
    }
  }

  private run(work: Promise<void>, what: string): void {
    work.catch((error: Error) => this.modules.log.warn(`task ${this.taskId}: ${what}: ${error.message}`));
  }

  private execute(command: TaskCommand): Promise<void> {
    switch (command.kind) {
      case "match": return this.match(command.workers, command.except);
      case "assign": return this.assign(command.workers);
      case "start": return this.start();
      case "prepare": return this.prepare(command.worker);
      case "grant": return this.grant(command.worker, command);
      case "post-final-receipts": return this.postReceipts();
      case "settle": return this.settle();
      case "abort": return this.abort(command.worker);
      case "finish-stop": return this.close("finishStop", "cancelled", "stopped by the client");
      case "fail": return this.close("fail", "aborted", "no worker is left and no standby was found");
      case "late": return this.close("late", "late", "the deadline has passed");
      case "expire": return this.close("expire", "expired", "no workers were found in time");
      case "stop-worker": return this.callWorker(command.worker, "stop");
      case "delete-data": return Promise.resolve(); // conclude() does it, in order with the rest
    }
  }

  // --- matching ------------------------------------------------------------------------------------------------

  private async match(workers: number, except: readonly string[]): Promise<void> {
    const excluded = new Set(except.map((each) => each.toLowerCase()));
    const nodes = this.modules.nodes.ofRole("worker").filter((node) =>
      node.capability !== undefined && !excluded.has(node.account.toLowerCase()) && this.worker(node.account) !== undefined);
    const candidates = await Promise.all(nodes.map((node) => this.candidate(node)));
    const { terms } = this;
    const isRefill = this.book.phase === "running";
    const placement = placeTask({
      taskId: this.taskId, precision: "fp32", minWorkers: isRefill ? 1 : terms.minWorkers, maxWorkers: workers,
      standby: workers, minGrade: terms.minGrade, memoryBytes: BigInt(this.job.cost.memoryBytes), minerCollateral: terms.minerCollateral,
      shareMicroUsd: 0n, freeShareMicroUsd: -1n, bidMicroUsd: ASK_MICRO_USD, maxDistanceMs: Number.MAX_SAFE_INTEGER,
    }, candidates);
    if (!placement.ok) {
      this.modules.log.info(`task ${this.taskId}: ${placement.eligible} of ${placement.wanted} workers found`);
      if (isRefill) return; // the others go on; a node that joins later is matched by the next loss
      await this.modules.sleep(RETRY_MS);
      if (this.book.phase === "matching") return this.match(workers, except);
      return;
    }
    void this.tell({
      type: "matched", workers: placement.workers.map((address) => {
        const node = this.modules.nodes.get(address)!;
        return { address: node.account, name: node.name, gflops: Number(node.capability!.power.fp32) * 2 / 1e9 };
      }),
    });
    this.apply({ kind: "matched", workers: placement.workers, standby: placement.standby });
  }

  private async candidate(node: KnownNode): Promise<Candidate> {
    const account = node.account.toLowerCase();
    return {
      node: account, capability: node.capability!, commentBps: 10_000n, reliabilityBps: 10_000n,
      spendable: await this.modules.spendableOf(node.account), askMicroUsd: ASK_MICRO_USD,
      isBusy: this.modules.isBusy(account, this.taskId), hasFreeTask: true, distanceMs: 0,
    };
  }

  private async assign(workers: readonly string[]): Promise<void> {
    await this.transact("assign", [BigInt(this.taskId), workers]);
    await Promise.all(workers.map(async (worker) => {
      const answer = await this.worker(worker)?.call("offer", {
        taskId: this.taskId, job: this.record.job, collateral: this.terms.minerCollateral.toString(),
      }, { timeoutMs: OFFER_TIMEOUT_MS });
      if (!answer?.ok || !answer.value.accepted) {
        this.modules.log.warn(`worker ${worker} declined: ${answer?.ok ? answer.value.reason : answer?.error.message ?? "not linked"}`);
        return this.apply({ kind: "declined", worker });
      }
      this.meter.admit(worker);
      const { deadline } = await readTask(this.modules, BigInt(this.taskId));
      this.apply({ kind: "accepted", worker, deadline: Number(deadline) });
    }));
  }

  private async start(): Promise<void> {
    await this.transact("start", [BigInt(this.taskId)]);
    this.apply({ kind: "started" });
  }

  // --- work ----------------------------------------------------------------------------------------------------

  private async prepare(worker: string): Promise<void> {
    const { taskId, job, manifest, parameterServer } = this.record;
    const node = this.modules.nodes.get(worker);
    if (!node) throw new Error("the worker has left");
    await (this.hosting ??= this.host());
    // one fence a worker and task, on the disk before anybody hears of it
    const fence = this.record.fences[worker] ??= this.record.nextFence++;
    this.save();
    await this.admit(worker);
    await this.ask("assign the task", () => this.worker(worker)?.call("assign", { taskId, fence, job, manifest, parameterServer }, { timeoutMs: CALL_TIMEOUT_MS }));
    this.apply({ kind: "ready", worker });
  }

  private async host(): Promise<void> {
    const { taskId, job, clientNodeId, parameterServer } = this.record;
    await this.ask("host the task", () => this.server()?.call("host", { taskId, job, readers: [clientNodeId] }, { timeoutMs: CALL_TIMEOUT_MS }));
    await this.tell({ type: "running", parameterServer });
  }

  private async admit(worker: string): Promise<void> {
    const { taskId, fences } = this.record;
    const node = this.modules.nodes.get(worker);
    const fence = fences[worker];
    if (!node || fence === undefined) return;
    await this.ask("admit the worker", () => this.server()?.call("admit", { taskId, worker: node.account, nodeId: node.nodeId, fence }, { timeoutMs: CALL_TIMEOUT_MS }));
  }

  /** A parameter server that restarted takes the task up again from its checkpoint. */
  async serverBack(nodeId: string): Promise<void> {
    const { taskId, job, clientNodeId, parameterServer, fences } = this.record;
    if (Object.keys(fences).length === 0 || this.isOver || parameterServer.serverKey !== nodeId) return;
    await this.ask("host the task", () => this.server()?.call("host", { taskId, job, readers: [clientNodeId] }, { timeoutMs: CALL_TIMEOUT_MS }));
    for (const worker of Object.keys(fences)) if (this.isActive(worker)) await this.admit(worker);
  }

  private async grant(worker: string, unit: Unit): Promise<void> {
    if (this.lost.has(worker)) return;
    const { leaseId, epoch, shard, from, to } = unit;
    const held = this.leased.get(worker) ?? new Set<number>();
    const leases = held.has(shard) ? [] : (await this.ask("get the shard's key from the client", () => this.client()?.call(
      "grant", { taskId: this.taskId, worker: this.nameAddress(worker), shards: [shard] }, { timeoutMs: CALL_TIMEOUT_MS }))).leases;
    try {
      await this.ask("give it its unit", () => this.worker(worker)?.call("work", {
        taskId: this.taskId, unit: { leaseId, epoch, shard, from, to }, leases,
      }, { timeoutMs: CALL_TIMEOUT_MS }));
    } catch (error) {
      return this.workerLost(worker, (error as Error).message);
    }
    for (const [other, shards] of this.leased) if (other !== worker && leases.length > 0) shards.delete(shard);
    this.leased.set(worker, held.add(shard));
  }

  /** What a lost worker has put into the parameters is done, though nobody is paid for it. */
  private async bookAppliedPart(worker: string): Promise<void> {
    const node = this.modules.nodes.get(worker);
    await this.server()?.call("expel", { taskId: this.taskId, worker: node?.account ?? worker }, { timeoutMs: CALL_TIMEOUT_MS });
    const unit = this.book.pendingOf(worker).find((command) => command.kind === "grant");
    if (!unit) return;
    const shards = this.book.terms.shardSamples.length;
    const applied = await this.server()?.call("unitProgress", { taskId: this.taskId, unit: unit.epoch * shards + unit.shard }, { timeoutMs: CALL_TIMEOUT_MS });
    if (!applied?.ok) return;
    const to = Math.min(unit.to, applied.value.appliedBatches * this.job.run.batchSize);
    if (to > unit.from) this.apply({ kind: "progressed", worker, leaseId: unit.leaseId, from: unit.from, to });
  }

  private async abort(worker: string): Promise<void> {
    await this.transact("abort", [BigInt(this.taskId), worker]);
    this.apply({ kind: "aborted", worker });
  }

  // --- the end -------------------------------------------------------------------------------------------------

  private async postReceipts(): Promise<void> {
    const receipts = this.meter.aggregate().filter(({ worker, totals }) => this.isActive(worker) && totals.sequence > 0n)
      .map(({ worker, totals }) => ({
        worker: worker as Address, sequence: totals.sequence, multiplyAdds: totals.multiplyAdds, activeMs: totals.activeMs,
        isFinished: this.book.phase === "finishing", digest: totals.digest as Hex,
      }));
    if (receipts.length > 0) await this.transact("postReceipts", [BigInt(this.taskId), receipts]);
    this.apply({ kind: "receipts-posted" });
  }

  private async settle(): Promise<void> {
    const result = await this.ask("finish at the parameter server", () => this.server()?.call("finish", { taskId: this.taskId }, { timeoutMs: CALL_TIMEOUT_MS }));
    this.lastProgress = result.progress;
    await this.tell({ type: "trained", parametersHash: result.parametersHash, version: result.version });
    const transaction = await this.transact("settle", [BigInt(this.taskId), result.parametersHash as Hex]);
    await this.closed("settled", transaction);
  }

  private async close(functionName: string, phase: Exclude<FinalPhase, "settled">, reason: string): Promise<void> {
    await this.transact(functionName, [BigInt(this.taskId)]);
    await this.closed(phase, reason);
  }

  /** The task's money has left. @param detail the settling transaction, or why the task ended otherwise. */
  private async closed(phase: FinalPhase, detail: string): Promise<void> {
    if (this.isOver) return;
    this.record.ended = phase === "settled" ? { type: "settled", transaction: detail } : { type: "ended", outcome: phase, reason: detail };
    this.apply({ kind: "closed", phase });
    await this.conclude();
  }

  /** What remains after the money: everybody is told and deletes. The task's file goes last, so that a restart goes on here. */
  private async conclude(): Promise<void> {
    const { taskId, record, modules } = this;
    if (record.ended) await this.tell(record.ended);
    const workers = this.book.workers().map(({ worker }) => worker).filter((worker) => this.book.pendingOf(worker).length > 0);
    await Promise.allSettled([
      this.ask("drop the task", () => this.server()?.call("drop", { taskId }, { timeoutMs: CALL_TIMEOUT_MS })),
      ...workers.map((worker) => this.callWorker(worker, "finish")),
    ]);
    await modules.dropShards(this);
    modules.files.remove(taskId);
  }

  private async callWorker(worker: string, name: "stop" | "finish"): Promise<void> {
    if (this.lost.has(worker)) return;
    const { taskId } = this;
    try {
      await this.ask(name, () => this.worker(worker)?.call(name, { taskId }, { timeoutMs: FINISH_TIMEOUT_MS }));
    } catch (error) {
      this.modules.log.warn(`task ${taskId}: worker ${worker} ${(error as Error).message}`);
    }
  }

  // --- others --------------------------------------------------------------------------------------------------

  private async tellUnit(worker: string): Promise<void> {
    const total = this.meter.aggregate().reduce((sum, { totals }) => sum + totals.multiplyAdds, 0n);
    const { computeMicroUsd, quotedMultiplyAdds, microUsdPerTsr } = this.terms;
    await this.tell({
      type: "unit", done: this.book.samplesDone, total: this.book.samplesTotal, worker: this.nameAddress(worker),
      multiplyAdds: total.toString(), cost: (toWei(computeMicroUsd, microUsdPerTsr) * total / quotedMultiplyAdds).toString(),
    });
  }

  /** The result and the end wait for a client that is reconnecting; the rest is only news. */
  private async tell(event: TaskEvent): Promise<void> {
    const call = () => this.client()?.call("event", { taskId: this.taskId, event }, { timeoutMs: CALL_TIMEOUT_MS });
    const isNeeded = ["trained", "settled", "ended"].includes(event.type);
    const isTold = isNeeded ? await this.ask("tell", call).then(() => true, () => false) : (await call())?.ok;
    if (!isTold) this.modules.log.info(`task ${this.taskId}: the client was not told of "${event.type}"`);
  }

  private isActive(worker: string): boolean {
    const phase = this.book.workerPhase(worker);
    return phase === "accepted" || phase === "ready";
  }

  private nameAddress(worker: string): string {
    return this.modules.nodes.get(worker)?.account ?? worker;
  }

  private worker(account: string): Ref<typeof WorkerProtocol> | undefined {
    const node = this.modules.nodes.get(account);
    return node && this.modules.links.ref(node.nodeId, WorkerProtocol, WORKER_ACTOR);
  }

  private server(): Ref<typeof ParameterServerProtocol> | undefined {
    return this.modules.links.ref(this.record.parameterServer.serverKey, ParameterServerProtocol, PARAMETER_SERVER_ACTOR);
  }

  private client(): Ref<typeof ClientProtocol> | undefined {
    return this.modules.links.ref(this.record.clientNodeId, ClientProtocol, CLIENT_ACTOR);
  }

  private async transact(functionName: string, args: readonly unknown[]): Promise<Hex> {
    const receipt = await this.modules.transactor.send({ address: systemAddresses.taskMarket, abi: taskMarketAbi, functionName, args });
    return receipt.transactionHash;
  }

  /** Repeats a call while the other side is away; a refusal ends it at once. */
  private async ask<T>(what: string, attempt: () => Promise<CallResult<T>> | undefined): Promise<T> {
    const untilMs = this.modules.now() + PATIENCE_MS;
    for (;;) {
      const result = await attempt();
      if (result?.ok) return result.value;
      const error = result?.error ?? { code: "unreachable", message: "not linked" };
      if (error.code === "refused" || error.code === "protocol" || this.modules.now() > untilMs) throw new Error(`cannot ${what}: ${error.message}`);
      await this.modules.sleep(RETRY_MS);
    }
  }
}

/** TaskStatus of TaskTypes.sol; those above Stopping are final. */
const RUNNING = 2;
const STOPPING = 3;
const FINAL_PHASES: Record<number, FinalPhase> = { 4: "settled", 5: "cancelled", 6: "aborted", 7: "late", 8: "expired" };
/** WorkerStatus of TaskTypes.sol. */
const WORKER_ACCEPTED = 2;
const WORKER_RELEASED = 4;
const WORKER_ABORTED = 5;

function readTask(modules: TaskDriverModules, taskId: bigint) {
  return modules.transactor.client.readContract({
    address: systemAddresses.taskMarket, abi: taskMarketAbi, functionName: "taskOf", args: [taskId],
  });
}

async function readTerms(modules: TaskDriverModules, taskId: bigint) {
  const task = await readTask(modules, taskId);
  const microUsdPerTsr = await modules.transactor.client.readContract({
    address: systemAddresses.priceFeed, abi: priceFeedAbi, functionName: "price",
  });
  const { computeMicroUsd, storageMicroUsd, quotedMultiplyAdds, minGrade, minWorkers, maxWorkers, allowStandby } = task.terms;
  const terms: Terms = {
    computeMicroUsd, storageMicroUsd, quotedMultiplyAdds, minGrade, minWorkers, maxWorkers, microUsdPerTsr,
    minerCollateral: task.minerCollateral,
  };
  return { terms, acceptBy: Number(task.acceptBy), allowStandby };
}
