/**
 * Owns `supernet submit`: trains a model on a network that runs already.
 */
import { writeFileSync } from "node:fs";
import type { Command } from "commander";
import type { CliContext } from "./context.js";
import { OperationalError, UserError } from "./errors.js";
import { readNetworkFile } from "./network-file.js";
import { modelNamed, wholeNumber } from "./options.js";
import type { ModelName } from "../training/index.js";

interface SubmitFlags {
  model: string; epochs: string; workers: string; batch: string; seed: string; data?: string; save?: string; metricsDir?: string;
  master?: string; masterKey?: string; keyFile?: string; chainId?: string;
}

export function register(program: Command, context: CliContext): void {
  program.command("submit")
    .description("submit a training task")
    .option("--model <name>", "mlp, cnn or cnn-wide", "cnn")
    .option("--epochs <n>", "passes over the training set", "3")
    .option("--workers <n>", "workers to train on", "2")
    .option("--batch <rows>", "rows of one gradient", "128")
    .option("--seed <n>", "seeds initial values and sample order", "1")
    .option("--data <folder>", "folder with the four Fashion-MNIST files; default: the usual places")
    .option("--save <file>", "write the trained parameters (safetensors)")
    .option("--metrics-dir <folder>", "write loss, accuracy, staleness, speed and cost as TensorBoard events and JSON lines")
    .option("--master <endpoint>", "a master of the network; default: the one that `supernet up` started")
    .option("--master-key <hex>", "the master's public key")
    .option("--chain-id <id>", "chain of the network")
    .option("--key-file <file>", "private key that pays, 64 hex digits")
    .addHelpText("after", `
Ctrl-C cancels the task: what was verified until then is paid, the rest of the escrow returns.

Examples:
  $ supernet submit --model mlp --epochs 2
  $ supernet submit --model cnn-wide --epochs 8   larger, slower and better
  $ supernet submit --save model.safetensors -o json
  $ supernet submit --metrics-dir runs/1          then: tensorboard --logdir runs
  $ supernet submit --master tcp://10.0.0.5:7400 --master-key 5f..c2 --chain-id 7357 --key-file me.key`)
    .action((flags: SubmitFlags) => submit(context, flags));
}

async function submit(context: CliContext, flags: SubmitFlags): Promise<void> {
  const settings = await context.settings();
  const output = await context.output();
  const model = modelNamed("--model", flags.model);
  const run = {
    epochs: wholeNumber("--epochs", flags.epochs, 1, 1_000), batchSize: wholeNumber("--batch", flags.batch, 1, 4_096),
    seed: wholeNumber("--seed", flags.seed, 0, Number.MAX_SAFE_INTEGER),
  };
  const workers = wholeNumber("--workers", flags.workers, 1, 64);
  const target = await findTarget(flags, settings.dataDir);
  const { loadDataset } = await import("./dataset.js");
  const dataset = await loadDataset(flags.data);
  const { openDevice } = await import("../device/device.js");
  const { TaskClient, TaskFailed } = await import("../actors/client/task-client.js");
  const { createView } = await import("./run-view.js");
  const { createTaskTeller } = await import("./task-view.js");
  const { demoJob } = await import("./models.js");
  const { createRunMetrics } = await import("./run-metrics.js");
  const device = openDevice({ backend: settings.device.backend, threads: settings.device.threads });
  const view = createView();
  const metrics = flags.metricsDir === undefined ? undefined
    : createRunMetrics(flags.metricsDir, `${flags.model}, ${run.epochs} epochs, batch ${run.batchSize}, ${workers} workers, seed ${run.seed}`, view.detail);
  let client: Awaited<ReturnType<typeof TaskClient.connect>> | undefined;
  try {
    client = await TaskClient.connect(target, { device });
    const tell = createTaskTeller(view, { epochs: run.epochs, nameOf: (address) => address });
    const outcome = await client.train({
      job: demoJob(model, { ...run, rows: dataset.train.rows }), name: "fashion-mnist", train: dataset.train, test: dataset.test, workers,
    }, (event) => {
      tell(event);
      metrics?.take(event);
    }, context.signal);
    view.close();
    if (flags.save) await saveParameters(flags.save, model, outcome.parameters);
    output.record({
      task: outcome.taskId, outcome: outcome.account.outcome, accuracy: outcome.accuracy, samples: outcome.samples,
      samplesPerSecond: Math.round(outcome.samplesPerSecond), maxStaleness: outcome.progress.maxStaleness,
      price: outcome.account.price, paid: Object.fromEntries(outcome.account.paid), fee: outcome.account.fee,
      refunded: outcome.account.refunded, settlement: outcome.settlement, saved: flags.save,
    });
  } catch (error) {
    if (error instanceof TaskFailed || (error as { name?: string }).name === "RuntimeError") {
      throw new OperationalError((error as Error).message, { cause: error });
    }
    throw error;
  } finally {
    metrics?.close();
    view.close();
    await client?.close();
    device.close();
  }
}

async function findTarget(flags: SubmitFlags, dataDir: string) {
  if (flags.master === undefined) {
    const network = readNetworkFile(dataDir);
    if (!network) throw new UserError("no network runs on this machine; start one with `supernet up`, or name a master with --master, --master-key, --chain-id and --key-file");
    return { master: network.master, privateKey: network.clientKey, chainId: network.chainId };
  }
  const { hexBytes } = await import("./options.js");
  const { readFileSync } = await import("node:fs");
  const { fileFault } = await import("./errors.js");
  if (!flags.masterKey || !flags.keyFile || !flags.chainId) throw new UserError("--master also needs --master-key, --chain-id and --key-file");
  let key: string;
  try {
    key = readFileSync(flags.keyFile, "utf8").trim();
  } catch (error) {
    throw fileFault("read the key", flags.keyFile, error);
  }
  const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
  return {
    master: { endpoint: flags.master, serverKey: hex(hexBytes("--master-key", flags.masterKey, 32)) },
    privateKey: `0x${hex(hexBytes("--key-file", key, 32))}` as const,
    chainId: wholeNumber("--chain-id", flags.chainId, 1, Number.MAX_SAFE_INTEGER),
  };
}

async function saveParameters(path: string, model: ModelName, parameters: Float32Array): Promise<void> {
  const { encodeSafetensors, MODELS, parameterLayout } = await import("../training/index.js");
  const { fileFault } = await import("./errors.js");
  const layout = parameterLayout(MODELS[model]().loss.graph);
  const tensors = new Map(layout.parameters.map(({ name, shape, offset, size }) => [name, { shape, data: parameters.subarray(offset, offset + size) }]));
  try {
    writeFileSync(path, encodeSafetensors(tensors, { model }));
  } catch (error) {
    throw fileFault("write", path, error);
  }
}
