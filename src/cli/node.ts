/**
 * Owns `supernet node`: one role as this process.
 * Invariant: it ends when it is told to (signal, or its parent's channel), closes its store first, and a
 * parent that vanishes takes it along.
 */
import { readFileSync } from "node:fs";
import type { Command } from "commander";
import type { CliContext } from "./context.js";
import { fileFault, OperationalError, UserError } from "./errors.js";

export function register(program: Command, context: CliContext): void {
  program.command("node")
    .description("run one node: master, pos, pow, worker or ps")
    .requiredOption("--config <file>", "configuration of the node (JSON, or TOML by its ending)")
    .option("--role <role>", "overrides the file's role")
    .addHelpText("after", `
The file holds: role, name, dataDir, listen, curve {publicKey, secretKey}, privateKey, genesis,
bootstrap [{endpoint, serverKey}], and optionally blsSecretKey (pos), rpc {host, port}, compute, pow.
\`supernet up\` writes such files for a network on one machine; docs/operations.md explains each field.

Examples:
  $ supernet node --config /etc/tesra/worker.toml
  $ supernet node --role pos --config node.json`)
    .action((flags: { config: string; role?: string }) => node(context, flags));
}

async function node(context: CliContext, flags: { config: string; role?: string }): Promise<void> {
  const told = toldToEnd();
  const config = await readConfig(flags);
  const { startNode, NodeStartError } = await import("../actors/node/node.js");
  let running: Awaited<ReturnType<typeof startNode>>;
  try {
    running = await startNode(config);
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    if (error instanceof NodeStartError || code === "port-taken") throw new UserError(message, { cause: error });
    throw new OperationalError(message, { cause: error });
  }
  const { endpoint, rpcUrl } = running;
  running.joined.then(() => {
    if (process.send) process.send({ type: "ready", info: { endpoint, rpcUrl } });
    else context.world.stderr.write(`${config.role} ${config.name} is on ${endpoint}${rpcUrl ? `, JSON-RPC ${rpcUrl}` : ""}\n`);
  }, () => undefined);
  try {
    await Promise.race([told, running.failed]);
  } catch (error) {
    throw new OperationalError(`${config.name}: ${(error as Error).message}`, { cause: error });
  } finally {
    await running.close();
    if (process.connected) process.disconnect();
  }
}

/** Listens from the first moment: a parent may vanish while this node still starts. */
function toldToEnd(): Promise<void> {
  return new Promise((resolve) => {
    process.on("message", (message: { type?: string }) => { if (message?.type === "shutdown") resolve(); });
    process.on("disconnect", resolve);
    process.on("SIGTERM", resolve);
    // a terminal sends Ctrl-C to the whole group: a child waits for its parent's word, which comes at once
    process.on("SIGINT", () => { if (!process.connected) resolve(); });
    if (process.connected === false) resolve(); // undefined without a parent's channel
  });
}

async function readConfig(flags: { config: string; role?: string }) {
  const { NodeConfigSchema } = await import("../actors/node/config.js");
  let text: string;
  try {
    text = readFileSync(flags.config, "utf8");
  } catch (error) {
    throw fileFault("read the node's configuration", flags.config, error);
  }
  let raw: unknown;
  try {
    raw = flags.config.endsWith(".toml") ? (await import("smol-toml")).parse(text) : JSON.parse(text);
  } catch (error) {
    throw new UserError(`the node's configuration ${flags.config} cannot be parsed: ${(error as Error).message.split("\n")[0]}`);
  }
  if (flags.role !== undefined && typeof raw === "object" && raw !== null) Object.assign(raw, { role: flags.role });
  const parsed = NodeConfigSchema.safeParse(raw);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  const place = issue.path.length > 0 ? `"${issue.path.join(".")}"` : "the file";
  throw new UserError(`the node's configuration ${flags.config}: ${place}: ${issue.message}`);
}
