/**
 * Owns the run of a demo: network up, task through, report made, network down.
 */
import { openDevice } from "../device/device.js";
import { TaskClient, type TrainOutcome } from "../actors/client/task-client.js";
import { LocalNetwork, type LocalNetworkEvent } from "../actors/local-network.js";
import { loadDataset } from "./dataset.js";
import type { DemoOptions } from "./demo.js";
import { demoReport, type DemoReport } from "./demo-report.js";
import { demoJob } from "./models.js";
import { createRunMetrics } from "./run-metrics.js";
import type { View } from "./run-view.js";
import { createTaskTeller } from "./task-view.js";
import { watchBlocks } from "./watch-blocks.js";

const CHAIN_ID = 7357;
const BLOCK_TIME_MS = 1_000;
/** Share of the units after which --kill-worker strikes: the task is well under way and far from its end. */
const KILL_AT_SHARE = 0.3;
/** A transaction under six blocks is confirmed (white paper 4.3.3.3). */
const CONFIRMATIONS = 6n;

export async function runDemo(options: DemoOptions, view: View, signal: AbortSignal): Promise<DemoReport> {
  const startMs = Date.now();
  view.stage("Data set");
  const dataset = await loadDataset(options.data);
  view.detail(`Fashion-MNIST, ${dataset.train.rows} + ${dataset.test.rows} images, from ${dataset.source}`);
  signal.throwIfAborted();
  const metrics = options.metricsDir === undefined ? undefined : createRunMetrics(options.metricsDir,
    `${options.model}, ${options.epochs} epochs, batch ${options.batchSize}, ${options.workers} workers, seed ${options.seed}`, view.detail);
  const device = openDevice({ backend: options.backend, threads: options.threads });
  const network = await startNetwork(options, view, signal);
  let client: TaskClient | undefined;
  let stopWatching: (() => void) | undefined;
  try {
    client = await TaskClient.connect({ master: network.master, privateKey: network.clientKey, chainId: CHAIN_ID }, { device });
    const names = new Map(network.identities.map(({ address, name }) => [address.toLowerCase(), name]));
    names.set(client.address.toLowerCase(), "client");
    const nameOf = (address: string): string => names.get(address.toLowerCase()) ?? address;
    stopWatching = watchBlocks(client.transactor.client, (block) => view.block({ ...block, producer: nameOf(block.producer) }));
    const job = demoJob(options.model, { ...options, rows: dataset.train.rows });
    view.stage(`Task: ${options.model}, ${options.epochs} epochs, ${options.workers} workers`);
    const tell = createTaskTeller(view, { epochs: options.epochs, nameOf, onShare: killOnce(options, network, view) });
    const outcome = await client.train({
      job, name: "fashion-mnist", train: dataset.train, test: dataset.test, workers: options.workers,
    }, (event) => {
      tell(event);
      metrics?.take(event);
    }, signal);
    view.trainingDone();
    view.stage(`Waiting for ${CONFIRMATIONS} confirmations of the settlement`);
    await confirmed(client, outcome, signal);
    stopWatching();
    return await demoReport({ options, outcome, client, device, nameOf, seconds: (Date.now() - startMs) / 1000 });
  } finally {
    stopWatching?.();
    metrics?.close();
    view.trainingDone();
    await client?.close();
    await network.stop();
    device.close();
  }
}

async function startNetwork(options: DemoOptions, view: View, signal: AbortSignal): Promise<LocalNetwork> {
  view.stage("Network");
  const startMs = Date.now();
  const network = await LocalNetwork.start({
    posNodes: options.posNodes, workers: options.workers, blockTimeMs: BLOCK_TIME_MS, rpcPort: options.rpcPort,
    backend: options.backend, threads: options.threads, restart: true, chainId: CHAIN_ID,
    pow: { dutyCycle: 0.2, dutyCycleWhilePaidWork: 0.02 },
  }, (event) => tellProcess(event, view), signal);
  const roles = network.identities.map(({ name }) => `${name} (${network.pidOf(name)})`).join(", ");
  view.detail(`${network.identities.length} processes in ${((Date.now() - startMs) / 1000).toFixed(1)} s: ${roles}`);
  view.detail(`JSON-RPC ${network.rpcUrl}`);
  return network;
}

function tellProcess(event: LocalNetworkEvent, view: View): void {
  if (event.type === "exited") view.detail(`process ${event.name} (${event.pid}) ended: ${event.signal ?? `exit ${event.code}`}`);
  if (event.type === "started" && event.restarts > 0) view.detail(`process ${event.name} started again (${event.pid})`);
  if (event.type === "gave-up") view.detail(`process ${event.name} is not started again`);
}

/** For --kill-worker: kill -9 of the first worker, once. */
function killOnce(options: DemoOptions, network: LocalNetwork, view: View): (share: number) => void {
  let killed = !options.killWorker;
  return (share) => {
    if (killed || share < KILL_AT_SHARE) return;
    killed = true;
    view.detail("kill -9 worker-1");
    network.kill("worker-1", "SIGKILL");
  };
}

async function confirmed(client: TaskClient, outcome: TrainOutcome, signal: AbortSignal): Promise<void> {
  const receipt = await client.transactor.client.getTransactionReceipt({ hash: outcome.settlement });
  for (;;) {
    signal.throwIfAborted();
    if (await client.transactor.client.getBlockNumber({ cacheTime: 0 }) >= receipt.blockNumber + CONFIRMATIONS - 1n) return;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

