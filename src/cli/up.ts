/**
 * Owns `supernet up`: a whole network on this machine, kept running until it is told to stop.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "commander";
import type { CliContext } from "./context.js";
import { EXIT_INTERRUPTED, OperationalError, UserError } from "./errors.js";
import { wholeNumber } from "./options.js";
import { readNetworkFile, writeNetworkFile } from "./network-file.js";

const CHAIN_ID = 7357;

interface UpFlags { workers: string; posNodes: string; blockTimeMs: string; rpcPort: string; backend?: string; threads?: string }

export function register(program: Command, context: CliContext): void {
  program.command("up")
    .description("start a whole network on this machine and keep it running")
    .option("--workers <n>", "worker processes", "2")
    .option("--pos-nodes <n>", "PoS nodes", "2")
    .option("--block-time-ms <ms>", "length of a slot", "1000")
    .option("--rpc-port <port>", "JSON-RPC port of the master", "8545")
    .option("--backend <name>", "auto, cpu or cuda")
    .option("--threads <n>", "kernel threads of each worker")
    .addHelpText("after", `
Chain, keys and logs live in <data-dir>/devnet; a later start with the same folder goes on with them.

Examples:
  $ supernet up
  $ supernet up --data-dir ./net --rpc-port 0 --workers 4
  $ supernet submit --model mlp           in another terminal`)
    .action((flags: UpFlags) => up(context, flags));
}

async function up(context: CliContext, flags: UpFlags): Promise<void> {
  const settings = await context.settings();
  const output = await context.output();
  const backend = flags.backend ?? settings.device.backend;
  if (backend !== "auto" && backend !== "cpu" && backend !== "cuda") throw new UserError(`--backend: expected auto, cpu or cuda, got "${backend}"`);
  const dataDir = join(settings.dataDir, "devnet");
  const options = {
    dataDir, backend: backend as "auto" | "cpu" | "cuda", restart: true, chainId: CHAIN_ID,
    workers: wholeNumber("--workers", flags.workers, 1, 64),
    posNodes: wholeNumber("--pos-nodes", flags.posNodes, 1, 16),
    blockTimeMs: wholeNumber("--block-time-ms", flags.blockTimeMs, 100, 600_000),
    rpcPort: wholeNumber("--rpc-port", flags.rpcPort, 0, 65_535),
    threads: flags.threads === undefined ? settings.device.threads ?? 1 : wholeNumber("--threads", flags.threads, 1, 1_024),
    pow: { dutyCycle: 0.2, dutyCycleWhilePaidWork: 0.02 },
  };
  const other = readNetworkFile(settings.dataDir);
  if (other) throw new UserError(`a network already runs on ${dataDir} (pid ${other.pid}, JSON-RPC ${other.rpcUrl}); stop it, or give another --data-dir`);
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  const { signal } = context;
  const { LocalNetwork } = await import("../actors/local-network.js");
  let network: Awaited<ReturnType<typeof LocalNetwork.start>>;
  try {
    network = await LocalNetwork.start(options, (event) => {
      if (event.type === "exited") output.note(`process ${event.name} (${event.pid}) ended: ${event.signal ?? `exit ${event.code}`}`);
      if (event.type === "started" && event.restarts > 0) output.note(`process ${event.name} started again (${event.pid})`);
      if (event.type === "gave-up") output.note(`process ${event.name} is not started again; its log: ${join(dataDir, "logs", `${event.name}.log`)}`);
    }, signal);
  } catch (error) {
    if (signal.aborted) throw error;
    throw new OperationalError((error as Error).message, { cause: error });
  }
  try {
    const file = { pid: process.pid, rpcUrl: network.rpcUrl ?? "", master: network.master, chainId: network.chainId, clientKey: network.clientKey };
    writeNetworkFile(settings.dataDir, file);
    output.record({
      rpc: network.rpcUrl, chainId: network.chainId, master: network.master.endpoint, masterKey: network.master.serverKey,
      processes: network.identities.map(({ name }) => `${name} (${network.pidOf(name)})`).join(", "), dataDir,
    });
    output.note("Ctrl-C stops it.");
    await new Promise<void>((resolve) => {
      if (signal.aborted) resolve();
      else signal.addEventListener("abort", () => resolve(), { once: true });
    });
  } finally {
    writeNetworkFile(settings.dataDir, undefined);
    await network.stop();
  }
  context.setExitCode(EXIT_INTERRUPTED);
}
