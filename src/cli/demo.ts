/**
 * Owns `supernet demo`: a whole network on this machine, one training task on it, its settlement and
 * the report. Invariant: every figure of the report was measured in this run; whatever happens, the
 * processes that it started are gone when it returns.
 */
import type { Command } from "commander";
import type { CliContext } from "./context.js";
import { UserError } from "./errors.js";
import { modelNamed, wholeNumber } from "./options.js";
import type { ModelName } from "../training/index.js";

const WORKERS_MAX = 64;
const EPOCHS_MAX = 1_000;
const BATCH_MAX = 4_096;

export interface DemoFlags {
  model: string; epochs: string; workers: string; posNodes: string; batch: string; seed: string;
  data?: string; dataDir?: string; metricsDir?: string; rpcPort: string; backend?: string; threads?: string;
  json?: boolean; killWorker?: boolean; quiet?: boolean;
}

export function register(program: Command, context: CliContext): void {
  program.command("demo")
    .description("start a network here, train Fashion-MNIST on it, settle and report")
    .option("--model <name>", "mlp, cnn or cnn-wide", "cnn")
    .option("--epochs <n>", "passes over the training set", "3")
    .option("--workers <n>", "worker processes", "2")
    .option("--pos-nodes <n>", "PoS nodes", "2")
    .option("--batch <rows>", "rows of one gradient", "128")
    .option("--seed <n>", "seeds initial values and sample order", "1")
    .option("--data <folder>", "folder with the four Fashion-MNIST files; default: the usual places")
    .option("--rpc-port <port>", "JSON-RPC port while it runs; 0: any free one", "0")
    .option("--backend <name>", "auto, cpu or cuda")
    .option("--threads <n>", "kernel threads of each worker")
    .option("--metrics-dir <folder>", "write the run's figures as TensorBoard events and JSON lines")
    .option("--kill-worker", "kill -9 one worker mid-run and show what happens")
    .option("--json", "print one JSON object at the end and nothing else on stdout")
    .addHelpText("after", `
Examples:
  $ supernet demo
  $ supernet demo --model mlp --epochs 3 --json
  $ supernet demo --kill-worker           the run finishes; the dead worker's collateral is forfeited`)
    .action((flags: DemoFlags) => demo(context, flags));
}

export interface DemoOptions {
  model: ModelName;
  epochs: number;
  workers: number;
  posNodes: number;
  batchSize: number;
  seed: number;
  data: string | undefined;
  metricsDir: string | undefined;
  rpcPort: number;
  backend: "auto" | "cpu" | "cuda";
  threads: number;
  killWorker: boolean;
}

async function demo(context: CliContext, flags: DemoFlags): Promise<void> {
  const settings = await context.settings();
  const options = readOptions(flags, settings.device);
  const { runDemo } = await import("./demo-run.js");
  const { createView } = await import("./run-view.js");
  const json = flags.json === true || settings.output !== "table";
  const view = createView();
  try {
    const report = await runDemo(options, view, context.signal);
    if (json) context.world.stdout.write(`${JSON.stringify(report.json)}\n`);
    else context.world.stdout.write(`${report.text}\n`);
    if (!report.json.ledger.conserved) context.setExitCode(1);
  } finally {
    view.close();
  }
}

function readOptions(flags: DemoFlags, device: { backend: DemoOptions["backend"]; threads?: number }): DemoOptions {
  const model = modelNamed("--model", flags.model);
  const backend = flags.backend ?? device.backend;
  if (backend !== "auto" && backend !== "cpu" && backend !== "cuda") throw new UserError(`--backend: expected auto, cpu or cuda, got "${backend}"`);
  const workers = wholeNumber("--workers", flags.workers, 1, WORKERS_MAX);
  if (flags.killWorker && workers < 2) throw new UserError("--kill-worker: expected at least 2 workers (--workers 2), got 1; a survivor has to finish the run");
  return {
    model, workers, backend, data: flags.data, metricsDir: flags.metricsDir, killWorker: flags.killWorker === true,
    epochs: wholeNumber("--epochs", flags.epochs, 1, EPOCHS_MAX),
    posNodes: wholeNumber("--pos-nodes", flags.posNodes, 1, 16),
    batchSize: wholeNumber("--batch", flags.batch, 1, BATCH_MAX),
    seed: wholeNumber("--seed", flags.seed, 0, Number.MAX_SAFE_INTEGER),
    rpcPort: wholeNumber("--rpc-port", flags.rpcPort, 0, 65_535),
    threads: flags.threads === undefined ? device.threads ?? 1 : wholeNumber("--threads", flags.threads, 1, 1_024),
  };
}
