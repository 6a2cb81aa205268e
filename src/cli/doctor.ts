/**
 * Owns `supernet doctor`: what this machine has, what is missing and how to mend it.
 * Invariant: each check stands alone (its failure is its line, never the command's), and the exit
 * code is 0 unless something that the network needs is missing.
 */
import type { Command } from "commander";
import type { CliContext } from "./context.js";
import { EXIT_FAILURE } from "./errors.js";

export type CheckStatus = "ok" | "warn" | "fail";

/** One line of the report. */
export interface Check {
  readonly check: string;
  readonly status: CheckStatus;
  readonly detail: string;
  /** How to mend it; for warn and fail. */
  readonly mend?: string;
}

export function register(program: Command, context: CliContext): void {
  program.command("doctor")
    .description("check this machine and say how to mend what is missing")
    .addHelpText("after", `
Exit code 0: all that is needed is here (warnings do not count); 1: something is missing.

Examples:
  $ supernet doctor
  $ supernet doctor -o json | jq '.[] | select(.status != "ok")'`)
    .action(() => doctor(context));
}

async function doctor(context: CliContext): Promise<void> {
  const { runChecks } = await import("./doctor-checks.js");
  const checks = await runChecks(await context.settings(), context.world);
  const output = await context.output();
  const { colors } = output;
  const paint = { ok: colors.green, warn: colors.yellow, fail: colors.red };
  output.list(checks, [
    { title: "", value: (row) => row.status, color: (text, row) => paint[row.status](text) },
    { title: "CHECK", value: (row) => row.check },
    { title: "FOUND", value: (row) => (row.mend ? `${row.detail}; ${row.mend}` : row.detail) },
  ]);
  const failed = checks.filter(({ status }) => status === "fail").length;
  const warned = checks.filter(({ status }) => status === "warn").length;
  output.note(failed > 0
    ? `${failed} thing(s) that the network needs are missing.`
    : `Ready${warned > 0 ? `, with ${warned} warning(s)` : ""}.`);
  if (failed > 0) context.setExitCode(EXIT_FAILURE);
}
