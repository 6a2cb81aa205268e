/**
 * Owns what a demo says at its end: the ledger of the task, who was paid what and why, the sums.
 * Invariant: everything is read from the chain and from what was measured.
 */
import Table from "cli-table3";
import type { TaskClient, TrainOutcome } from "../actors/client/task-client.js";
import type { LedgerRow } from "../actors/market.js";
import type { Device } from "../device/device.js";
import { formatTsr } from "./amounts.js";
import { colorsFor } from "./colors.js";
import type { DemoOptions } from "./demo.js";

const colors = colorsFor(process.stdout);

export interface DemoJson {
  accuracy: number;
  epochs: number;
  samplesPerSecond: number;
  maxStaleness: number;
  workers: number;
  blocks: number;
  certificates: number;
  /** Paid multiply-adds over all that the chain has proven. */
  usefulWorkShare: number;
  /** Amounts in the smallest unit (10^-18 TSR), decimal. */
  task: { price: string; paid: Record<string, string>; fee: string; refunded: string; collateral: string; forfeited: string; outcome: string };
  ledger: { total: string; conserved: boolean };
  backend: string;
  seconds: number;
}

export interface DemoReport { json: DemoJson; text: string }

export interface ReportInput {
  options: DemoOptions;
  outcome: TrainOutcome;
  client: TaskClient;
  device: Device;
  nameOf: (address: string) => string;
  seconds: number;
}

interface WorkCounts { count: string; multiplyAdds: string; usefulMultiplyAdds: string }
interface LedgerSum { total: string; supply: string; accounts: string; blockNumber: string }

export async function demoReport(input: ReportInput): Promise<DemoReport> {
  const { outcome, client, options, device } = input;
  const request = client.transactor.client.request as (call: { method: string; params?: unknown[] }) => Promise<unknown>;
  const work = await request({ method: "tesra_certificates", params: ["0x0"] }) as WorkCounts;
  const ledger = await request({ method: "tesra_ledger" }) as LedgerSum;
  const useful = BigInt(work.usefulMultiplyAdds);
  const proven = useful + BigInt(work.multiplyAdds);
  const { account } = outcome;
  const json: DemoJson = {
    accuracy: outcome.accuracy ?? Number.NaN,
    epochs: options.epochs,
    samplesPerSecond: round(outcome.samplesPerSecond, 1),
    maxStaleness: outcome.progress.maxStaleness,
    workers: options.workers,
    blocks: Number(BigInt(ledger.blockNumber)),
    certificates: Number(BigInt(work.count)),
    usefulWorkShare: proven === 0n ? 0 : round(Number((useful * 1_000_000n) / proven) / 1_000_000, 6),
    task: {
      price: String(account.price),
      paid: Object.fromEntries([...account.paid].map(([address, amount]) => [input.nameOf(address), String(amount)])),
      fee: String(account.fee), refunded: String(account.refunded), collateral: String(account.collateral),
      forfeited: String(account.forfeited), outcome: account.outcome,
    },
    ledger: {
      total: String(BigInt(ledger.total)),
      conserved: BigInt(ledger.total) === BigInt(ledger.supply) && account.balance === 0n,
    },
    backend: `${device.backend}/${device.isa}`,
    seconds: round(input.seconds, 1),
  };
  return { json, text: render(json, input, BigInt(ledger.supply), Number(BigInt(ledger.accounts))) };
}

function render(json: DemoJson, input: ReportInput, supply: bigint, accounts: number): string {
  const { outcome, nameOf, options } = input;
  const table = new Table({
    head: ["WHO", "WHAT", "TSR", "WHY"].map((title) => colors.bold(title)), colAligns: ["left", "left", "right", "left"],
    style: { head: [], border: [], "padding-left": 0, "padding-right": 2 }, chars: NO_BORDERS,
  });
  for (const row of outcome.account.rows) table.push([whoOf(row, nameOf), row.what, signed(row.amount), row.why]);
  const percent = (value: number): string => `${(value * 100).toFixed(2)} %`;
  const lines = [
    "", colors.bold(`Task ${outcome.taskId}: ${json.task.outcome}`), "",
    table.toString().split("\n").map((line) => line.trimEnd()).join("\n"), "",
    `${colors.bold("Model")}     ${options.model}, ${json.epochs} epochs, test accuracy ${colors.bold(percent(json.accuracy))}`,
    `${colors.bold("Training")}  ${outcome.samples} samples in ${outcome.trainingSeconds.toFixed(1)} s = ${Math.round(json.samplesPerSecond)} images/s, `
      + `${json.workers} workers (${json.backend}), staleness at most ${json.maxStaleness}`,
    `${colors.bold("Chain")}     ${json.blocks} blocks, ${json.certificates} matrix-work certificates, useful work ${percent(json.usefulWorkShare)} of all proven`,
    `${colors.bold("Ledger")}    ${accounts} accounts sum to ${formatTsr(BigInt(json.ledger.total))} TSR, the supply is ${formatTsr(supply)}: `
      + (json.ledger.conserved ? colors.green("conserved exactly") : colors.red("NOT CONSERVED")),
    `${colors.bold("Time")}      ${json.seconds} s`,
  ];
  return lines.join("\n");
}

function whoOf(row: LedgerRow, nameOf: (address: string) => string): string {
  return row.role === "platform" || row.role === "ecology" ? row.role : nameOf(row.who);
}

function signed(amount: bigint): string {
  if (amount === 0n) return "";
  return amount > 0n ? colors.green(`+${formatTsr(amount)}`) : `-${formatTsr(-amount)}`;
}

const round = (value: number, digits: number): number => Math.round(value * 10 ** digits) / 10 ** digits;

const NO_BORDERS = {
  top: "", "top-mid": "", "top-left": "", "top-right": "", bottom: "", "bottom-mid": "", "bottom-left": "", "bottom-right": "",
  left: "", "left-mid": "", mid: "", "mid-mid": "", right: "", "right-mid": "", middle: "",
};
