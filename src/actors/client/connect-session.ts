// Owns Session over the network: `connectSession("tesra://KEY@host:port", ...)` gives the Session of the training
// library whose link is a TaskClient. Invariant: progress is what the parameter server and the chain say.
import { parseJob, Session, type Progress as SessionProgress, type SessionLink, type SessionOptions, type SubmittedJob } from "../../training/index.js";
import type { Hex } from "viem";
import { openDevice, type Device } from "../../device/device.js";
import { TaskClient, type ClientEvent, type TrainRequest } from "./task-client.js";

const TARGET = /^tesra:\/\/([0-9a-f]{64})@([^\s/@]+:\d{1,5})$/;

export interface ConnectOptions extends SessionOptions {
  /** Account that opens and pays the task. */
  privateKey: Hex;
  chainId: number;
  /** Where the client evaluates; default: this machine's best. */
  device?: Device;
}

/** What `session.run(step, { feeds })` takes: the data to train on, and to evaluate on after each epoch. */
export interface DatasetFeeds extends Record<string, unknown> {
  name: string;
  train: TrainRequest["train"];
  test?: TrainRequest["test"];
}

/** Connects to a master named by key and address: `tesra://<public key, hex>@host:port`. Throws SessionError or RuntimeError. */
export function connectSession(target: string, options: ConnectOptions): Promise<Session> {
  return Session.connect(target, options, {
    sleep: (ms) => new Promise((resolve) => { setTimeout(resolve, ms).unref(); }),
    connect: async (address) => {
      const match = TARGET.exec(address);
      if (!match) throw new Error(`expected tesra://<public key of 64 hex digits>@host:port, got ${address}`);
      const device = options.device ?? openDevice();
      const client = await TaskClient.connect({
        master: { endpoint: `tcp://${match[2]!}`, serverKey: match[1]! }, privateKey: options.privateKey, chainId: options.chainId,
      }, { device });
      return new TaskSessionLink(client, options.device ? undefined : device);
    },
  });
}

/** Reports waiting for a slow reader; older ones say nothing that newer ones do not. */
const REPORTS_MAX = 256;

class TaskSessionLink implements SessionLink {
  private readonly abort = new AbortController();
  private readonly reports: SessionProgress[] = [];
  private wake: (() => void) | undefined;
  private finished: { error?: unknown } | undefined;
  private accuracy: number | undefined;

  constructor(private readonly client: TaskClient, private readonly ownDevice: Device | undefined) {}

  submit(submitted: SubmittedJob, signal: AbortSignal): Promise<{ taskId: string }> {
    const job = parseJob(submitted.canonical);
    const { name, train, test } = submitted.feeds as DatasetFeeds;
    const workers = submitted.cluster?.taskCount("worker") ?? 1;
    signal.addEventListener("abort", () => this.abort.abort(), { once: true });
    return new Promise((resolve, reject) => {
      this.client.train({ job, name, train, test, workers }, (event) => {
        if (event.type === "opened") resolve({ taskId: String(event.taskId) });
        this.take(event);
      }, this.abort.signal).then(
        () => this.finish({}),
        (error: unknown) => { reject(error as Error); this.finish({ error }); },
      );
    });
  }

  async *progress(_taskId: string, signal: AbortSignal): AsyncIterable<unknown> {
    signal.addEventListener("abort", () => this.wake?.(), { once: true });
    while (!signal.aborted) {
      const report = this.reports.shift();
      if (report) yield report;
      else if (this.finished) {
        if (this.finished.error) throw this.finished.error;
        return;
      } else await new Promise<void>((resolve) => { this.wake = resolve; });
    }
  }

  async cancel(): Promise<void> {
    this.abort.abort();
  }

  async close(): Promise<void> {
    this.abort.abort();
    await this.client.close();
    this.ownDevice?.close();
  }

  private take(event: ClientEvent): void {
    if (event.type === "evaluation") this.accuracy = event.accuracy;
    if (event.type !== "progress" || event.progress.loss === null) return;
    if (this.reports.length >= REPORTS_MAX) this.reports.shift();
    this.reports.push({
      step: event.progress.version, version: event.progress.version, epoch: event.epoch, loss: event.progress.loss,
      staleness: event.progress.maxStaleness, samplesPerSecond: event.samplesPerSecond, cost: event.cost,
      ...(this.accuracy === undefined ? {} : { accuracy: this.accuracy }),
    });
    this.wake?.();
  }

  private finish(end: { error?: unknown }): void {
    this.finished = end;
    this.wake?.();
  }
}
