/**
 * Owns `supernet task`: what the network's tasks are doing, and what a task came to on the chain.
 */
import type { Command } from "commander";
import type { CliContext } from "./context.js";
import { OperationalError, UserError } from "./errors.js";
import { formatTsr } from "./amounts.js";

export function register(program: Command, context: CliContext): void {
  const task = program.command("task").description("look at tasks: those that run, and what a task came to");

  task.command("list")
    .description("tasks of the market, newest first")
    .option("--count <n>", "how many", "10")
    .addHelpText("after", `
Examples:
  $ supernet task list
  $ supernet task list --count 50 -o ndjson`)
    .action((flags: { count: string }) => list(context, flags.count));

  task.command("show").argument("<id>", "number of the task")
    .description("every movement of a task's money: who, what, how much, why")
    .addHelpText("after", `
Examples:
  $ supernet task show 1
  $ supernet task show 1 -o json --rpc http://127.0.0.1:8545`)
    .action((id: string) => show(context, id));
}

async function openMarket(context: CliContext) {
  const { rpc } = await context.settings();
  const { createPublicClient, http } = await import("viem");
  const client = createPublicClient({ transport: http(rpc, { retryCount: 0 }) });
  try {
    await client.getChainId();
  } catch (error) {
    throw new OperationalError(`no chain node answers at ${rpc}; start one with \`supernet up\`, or name another with --rpc`, { cause: error });
  }
  return client;
}

async function list(context: CliContext, countText: string): Promise<void> {
  const { wholeNumber } = await import("./options.js");
  const count = wholeNumber("--count", countText, 1, 1_000);
  const client = await openMarket(context);
  const { readTask, readTaskCount, TASK_STATUS } = await import("../actors/market.js");
  const newest = await readTaskCount(client);
  const rows = [];
  for (let id = newest; id > 0n && id > newest - BigInt(count); id -= 1n) {
    const { status, client: owner, master, collateral, activeWorkers, deadline } = await readTask(client, id);
    rows.push({ task: id, status: TASK_STATUS[status] ?? String(status), client: owner, master, collateral, workers: activeWorkers, deadline });
  }
  (await context.output()).list(rows, [
    { title: "TASK", value: (row) => row.task, align: "right" }, { title: "STATUS", value: (row) => row.status },
    { title: "CLIENT", value: (row) => row.client }, { title: "WORKERS", value: (row) => row.workers, align: "right" },
    { title: "ESCROW TSR", value: (row) => formatTsr(row.collateral), align: "right" },
    { title: "DEADLINE", value: (row) => (row.deadline === 0n ? "-" : new Date(Number(row.deadline) * 1_000).toISOString()) },
  ]);
}

async function show(context: CliContext, idText: string): Promise<void> {
  if (!/^\d{1,18}$/.test(idText)) throw new UserError(`expected the number of a task, got "${idText}"`);
  const client = await openMarket(context);
  const { readTaskAccount, readTaskCount } = await import("../actors/market.js");
  const id = BigInt(idText);
  const newest = await readTaskCount(client);
  if (id < 1n || id > newest) throw new UserError(`there is no task ${id}: the chain has tasks 1 to ${newest}`);
  const account = await readTaskAccount(client, id);
  const output = await context.output();
  if (output.format !== "table") return output.record({ ...account, paid: Object.fromEntries(account.paid) });
  output.record({ task: id, outcome: account.outcome, client: account.client, price: `${formatTsr(account.price)} TSR`, refunded: `${formatTsr(account.refunded)} TSR` });
  output.list(account.rows, [
    { title: "WHO", value: (row) => row.who }, { title: "ROLE", value: (row) => row.role }, { title: "WHAT", value: (row) => row.what },
    { title: "TSR", value: (row) => formatTsr(row.amount), align: "right" }, { title: "WHY", value: (row) => row.why },
  ]);
}
