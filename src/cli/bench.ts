/**
 * Owns `supernet bench`: hands its arguments to bench/main.mjs, whose suites do the measuring.
 */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import type { CliContext } from "./context.js";
import { EXIT_FAILURE, OperationalError } from "./errors.js";

export function register(program: Command, context: CliContext): void {
  program.command("bench").argument("[arguments...]", "suite and its options")
    .description("run the benchmarks")
    .allowUnknownOption()
    .addHelpText("after", `
Examples:
  $ supernet bench                 list the suites
  $ supernet bench pow --quick
  $ supernet bench kernels --json`)
    .action((args: string[]) => bench(context, args));
}

async function bench(context: CliContext, args: readonly string[]): Promise<void> {
  const script = fileURLToPath(new URL("../../bench/main.mjs", import.meta.url));
  if (!existsSync(script)) {
    throw new OperationalError(`the benchmarks are not in this install (${script} does not exist); `
      + "they come with the source repository");
  }
  const child = spawn(process.execPath, [script, ...args], { stdio: "inherit" });
  const code = await new Promise<number>((done, fail) => {
    child.once("error", fail);
    child.once("exit", (status) => done(status ?? EXIT_FAILURE));
  });
  context.setExitCode(code);
}
