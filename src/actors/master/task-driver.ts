// Owns one task at its master: feeds the task book with what happens and carries out what it commands.
// Invariant: every event is journalled before its commands run; money moves by transactions of the book alone;
// a worker's work is metered by the master's own figure, samples x cost of the graph.
import { bytesToHex, type Hex } from "viem";
import { recoverAddress, type Chain } from "../../chain/index.js";
import { createHash } from "../../data/hash.js";
import { parseManifest } from "../../data/manifest.js";
import { Refusal } from "../../runtime/index.js";
import {
  decodeReceipt, isFinalPhase, Meter, receiptDigest, TaskBook, toWei, type FinalPhase, type TaskCommand, type TaskEvent as BookEvent,
} from "../../scheduler/index.js";
import { parseJob, type ParsedJob } from "../../training/index.js";
import type { Transactor } from "../chain-node/transactor.js";
import type { NodeAddress } from "../node/config.js";
import type { Progress } from "../parameter-server/protocol.js";
import type { Unit } from "../worker/protocol.js";
import { FINAL_PHASES, RUNNING, STOPPING, TaskContract, WORKER_ABORTED, WORKER_ACCEPTED, WORKER_RELEASED, type Terms } from "./task-contract.js";
import type { TaskFiles, TaskRecord } from "./task-file.js";
import { TaskMatching, type TaskMatchingModules } from "./task-matching.js";
import { CALL_TIMEOUT_MS, TaskPeers, type TaskPeersModules } from "./task-peers.js";
import { TaskServers } from "./task-servers.js";

/** Deleting waits for the receipt's block. */
const FINISH_TIMEOUT_MS = 45_000;
/** Between two searches for workers while there are too few. */
const MATCH_AGAIN_MS = 500;
/** A transaction that was refused or not mined is looked at, and sent again if the chain lacks it, after so many ticks. */
const REPEAT_TICKS = 5;
/** After a restart of the master its workers are back within this, or lost. */
const REJOIN_MS = 20_000;

export interface TaskDriverModules extends TaskPeersModules, Omit<TaskMatchingModules, "peers" | "log"> {
  chain: Chain;
  chainId: bigint;
  transactor: Transactor;
  files: TaskFiles;
  /** Removes a task's ciphertexts from the relay, but those that another task of this master names too. */
  dropShards: (task: TaskDriver) => Promise<void>;
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
  private lastProgress: Progress | undefined;
  private readonly contract: TaskContract;
  private readonly peers: TaskPeers;
  private readonly servers: TaskServers;
  private readonly matching: TaskMatching;

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
    const { taskId, clientNodeId } = record;
    this.contract = new TaskContract(BigInt(taskId), modules.transactor);
    this.peers = new TaskPeers({ taskId, clientNodeId }, modules);
    this.servers = new TaskServers(record, {
      peers: this.peers, nodes: modules.nodes, isActive: (worker) => this.isActive(worker), save: () => this.save(),
    });
    this.matching = new TaskMatching({ taskId, job: record.job, memoryBytes: cost.memoryBytes, terms }, { ...modules, peers: this.peers });
  }

  /** Takes over a task that the chain has as open and this master's own. Throws Refusal. */
  static async open(
    request: { taskId: string; job: string; manifest: string; shardSamples: number[]; clientNodeId: string; parameterServer: NodeAddress },
    modules: TaskDriverModules,
  ): Promise<TaskDriver> {
    const { taskId, job, manifest, clientNodeId, parameterServer } = request;
    const { terms, acceptBy, allowStandby } = await new TaskContract(BigInt(taskId), modules.transactor).terms();
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
    const { terms } = await new TaskContract(BigInt(record.taskId), modules.transactor).terms();
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
    void this.peers.tell({ type: "worker-lost", worker: this.peers.addressOf(worker), samplesLeft: this.book.samplesTotal - before });
  }

  /** A worker of this task is linked again: it is asked again for what it has not done. */
  workerBack(account: string): void {
    const worker = account.toLowerCase();
    if (this.lost.has(worker) || this.isOver) return;
    this.run(this.servers.admit(worker), "admit"); // the parameter server may have restarted while this worker was away
    this.carryOut(this.book.pendingOf(worker));
  }

  async serverBack(nodeId: string): Promise<void> {
    if (!this.isOver) await this.servers.back(nodeId);
  }

  /** The client has cancelled on the chain: stop means stop. */
  async cancelled(): Promise<void> {
    const { status } = await this.contract.task();
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
    const { status, deadline } = await this.contract.task();
    const final = FINAL_PHASES[status];
    if (final !== undefined) return this.closed(final, await this.contract.closingTransaction());
    let isPosted = this.book.outstanding().some(({ kind }) => kind === "post-final-receipts");
    for (const { worker, phase } of this.book.workers()) {
      if (phase === "gone") continue;
      const part = await this.contract.part(worker);
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

  /** After a restart of this master: workers that do not come back are lost. */
  private async loseAbsent(): Promise<void> {
    await this.modules.sleep(REJOIN_MS);
    for (const { worker } of this.book.workers()) {
      if (this.uses(worker) && this.peers.worker(worker) === undefined) await this.workerLost(worker, "it did not come back after the master's restart");
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
    const isRefill = this.book.phase === "running";
    const placement = await this.matching.place(workers, isRefill ? 1 : this.terms.minWorkers, except);
    if (!placement.ok) {
      this.modules.log.info(`task ${this.taskId}: ${placement.eligible} of ${placement.wanted} workers found`);
      if (isRefill) return; // the others go on; a node that joins later is matched by the next loss
      await this.modules.sleep(MATCH_AGAIN_MS);
      if (this.book.phase === "matching") return this.match(workers, except);
      return;
    }
    void this.peers.tell({
      type: "matched", workers: placement.workers.map((address) => {
        const node = this.modules.nodes.get(address)!;
        return { address: node.account, name: node.name, gflops: Number(node.capability!.power.fp32) * 2 / 1e9 };
      }),
    });
    this.apply({ kind: "matched", workers: placement.workers, standby: placement.standby });
  }

  private async assign(workers: readonly string[]): Promise<void> {
    await this.contract.send("assign", workers);
    await Promise.all(workers.map(async (worker) => {
      if (!await this.matching.offer(worker)) return this.apply({ kind: "declined", worker });
      this.meter.admit(worker);
      const { deadline } = await this.contract.task();
      this.apply({ kind: "accepted", worker, deadline: Number(deadline) });
    }));
  }

  private async start(): Promise<void> {
    await this.contract.send("start");
    this.apply({ kind: "started" });
  }

  // --- work ----------------------------------------------------------------------------------------------------

  private async prepare(worker: string): Promise<void> {
    const { taskId, job, manifest, parameterServer } = this.record;
    if (!this.modules.nodes.get(worker)) throw new Error("the worker has left");
    await this.servers.host();
    const fence = this.servers.fence(worker);
    await this.servers.admit(worker);
    await this.peers.ask("assign the task", () => this.peers.worker(worker)?.call(
      "assign", { taskId, fence, job, manifest, parameterServer }, { timeoutMs: CALL_TIMEOUT_MS }));
    this.apply({ kind: "ready", worker });
  }

  private async grant(worker: string, unit: Unit): Promise<void> {
    if (this.lost.has(worker)) return;
    const { leaseId, epoch, shard, from, to } = unit;
    const held = this.leased.get(worker) ?? new Set<number>();
    const leases = held.has(shard) ? [] : (await this.peers.ask("get the shard's key from the client", () => this.peers.client()?.call(
      "grant", { taskId: this.taskId, worker: this.peers.addressOf(worker), shards: [shard] }, { timeoutMs: CALL_TIMEOUT_MS }))).leases;
    try {
      await this.peers.ask("give it its unit", () => this.peers.worker(worker)?.call("work", {
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
    await this.servers.expel(worker);
    const unit = this.book.pendingOf(worker).find((command) => command.kind === "grant");
    if (!unit) return;
    const shards = this.book.terms.shardSamples.length;
    const batches = await this.servers.appliedBatches(unit.epoch * shards + unit.shard);
    if (batches === undefined) return;
    const to = Math.min(unit.to, batches * this.job.run.batchSize);
    if (to > unit.from) this.apply({ kind: "progressed", worker, leaseId: unit.leaseId, from: unit.from, to });
  }

  private async abort(worker: string): Promise<void> {
    await this.contract.send("abort", worker);
    this.apply({ kind: "aborted", worker });
  }

  // --- the end -------------------------------------------------------------------------------------------------

  private async postReceipts(): Promise<void> {
    const receipts = this.meter.aggregate().filter(({ worker, totals }) => this.isActive(worker) && totals.sequence > 0n)
      .map(({ worker, totals }) => ({
        worker: worker as Hex, sequence: totals.sequence, multiplyAdds: totals.multiplyAdds, activeMs: totals.activeMs,
        isFinished: this.book.phase === "finishing", digest: totals.digest as Hex,
      }));
    if (receipts.length > 0) await this.contract.send("postReceipts", receipts);
    this.apply({ kind: "receipts-posted" });
  }

  private async settle(): Promise<void> {
    const result = await this.servers.finish();
    this.lastProgress = result.progress;
    await this.peers.tell({ type: "trained", parametersHash: result.parametersHash, version: result.version });
    const transaction = await this.contract.send("settle", result.parametersHash);
    await this.closed("settled", transaction);
  }

  private async close(functionName: string, phase: Exclude<FinalPhase, "settled">, reason: string): Promise<void> {
    await this.contract.send(functionName);
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
    if (record.ended) await this.peers.tell(record.ended);
    const workers = this.book.workers().map(({ worker }) => worker).filter((worker) => this.book.pendingOf(worker).length > 0);
    await Promise.allSettled([
      this.servers.drop(),
      ...workers.map((worker) => this.callWorker(worker, "finish")),
    ]);
    await modules.dropShards(this);
    modules.files.remove(taskId);
  }

  private async callWorker(worker: string, name: "stop" | "finish"): Promise<void> {
    if (this.lost.has(worker)) return;
    const { taskId } = this;
    try {
      await this.peers.ask(name, () => this.peers.worker(worker)?.call(name, { taskId }, { timeoutMs: FINISH_TIMEOUT_MS }));
    } catch (error) {
      this.modules.log.warn(`task ${taskId}: worker ${worker} ${(error as Error).message}`);
    }
  }

  // --- others --------------------------------------------------------------------------------------------------

  private async tellUnit(worker: string): Promise<void> {
    const total = this.meter.aggregate().reduce((sum, { totals }) => sum + totals.multiplyAdds, 0n);
    const { computeMicroUsd, quotedMultiplyAdds, microUsdPerTsr } = this.terms;
    await this.peers.tell({
      type: "unit", done: this.book.samplesDone, total: this.book.samplesTotal, worker: this.peers.addressOf(worker),
      multiplyAdds: total.toString(), cost: (toWei(computeMicroUsd, microUsdPerTsr) * total / quotedMultiplyAdds).toString(),
    });
  }

  private isActive(worker: string): boolean {
    const phase = this.book.workerPhase(worker);
    return phase === "accepted" || phase === "ready";
  }

}
