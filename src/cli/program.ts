/**
 * Owns the program: global options, loading of the called command, and the exit code.
 * Invariant: every end of a run goes through runCli: exit 0 done, 1 could not be done, 2 wrong use
 * (with one sentence on stderr).
 */
import { readFileSync } from "node:fs";
import { Command, CommanderError, Option } from "commander";
import { COMMANDS, type CommandEntry } from "./commands.js";
import type { CliContext, CliWorld, CommandModule } from "./context.js";
import {
  describeFailure, EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, oneLine, OperationalError,
} from "./errors.js";
import type { Flags, Settings } from "./config.js";

/** Global options that take a value: skipped when the command's name is looked for. */
const VALUE_OPTIONS = ["-o", "--output", "--settings", "--rpc", "--data-dir"];

/** Runs one command line (without node and script) and returns the exit code. */
export async function runCli(argv: readonly string[], world: CliWorld): Promise<number> {
  const state = { exitCode: EXIT_OK };
  const program = createProgram(world);
  const context = createContext(program, world, state);
  try {
    await populate(program, context, commandName(argv));
    await program.parseAsync([...argv], { from: "user" });
    return state.exitCode;
  } catch (error) {
    if (error instanceof CommanderError) return usageExit(error, world);
    const { message, exitCode } = describeFailure(error);
    world.stderr.write(`supernet: ${message}\n`);
    if (argv.includes("--debug") && error instanceof Error) {
      world.stderr.write(`${error.stack}\n`);
      if (error.cause instanceof Error) world.stderr.write(`caused by ${error.cause.stack}\n`);
    }
    return exitCode;
  }
}

/** The program with its global options and no commands yet. */
export function createProgram(world: Pick<CliWorld, "stdout" | "stderr">): Command {
  const program = new Command("supernet");
  return program
    .description("Train models on anyone's machines; everybody is paid or refunded by rule.")
    .version(packageVersion(), "-V, --version", "print the version")
    .addOption(new Option("-o, --output <format>", "table, json or ndjson"))
    .addOption(new Option("--rpc <url>", "JSON-RPC address of a chain node"))
    .addOption(new Option("--data-dir <folder>", "folder for keys, stores and runs"))
    .addOption(new Option("--settings <file>", "settings file (TOML) instead of ./tesra.toml"))
    .addOption(new Option("--debug", "print the stack of a failure"))
    .helpOption("-h, --help", "print help")
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({
      writeOut: (text) => world.stdout.write(text),
      writeErr: (text) => world.stderr.write(text),
      outputError: () => {}, // usageExit prints it as one sentence
    })
    .exitOverride()
    .addHelpText("after", `
Examples:
  $ supernet doctor                     is this machine ready?
  $ supernet demo                       a whole network, one training run, settled on chain
  $ supernet wallet create --name me    a new key, encrypted
  $ supernet chain status -o json       the head of the chain for scripts`);
}

/** Adds all commands: the called one from its module, the others as a name and a summary. */
export async function populate(
  program: Command, context: CliContext, called: string | undefined,
): Promise<void> {
  for (const entry of COMMANDS) {
    if (entry.name === called) (await loadModule(entry)).register(program, context);
    else program.command(entry.name).description(entry.summary);
  }
}

/** Imports the module of a command. Throws OperationalError if it does not load. */
export async function loadModule(entry: CommandEntry): Promise<CommandModule> {
  const url = new URL(`./${entry.module}.js`, import.meta.url).href;
  try {
    return await import(url) as CommandModule;
  } catch (error) {
    throw new OperationalError(
      `the command "${entry.name}" does not load: ${oneLine((error as Error).message)}; `
      + "run `npm run setup`, then `supernet doctor`", { cause: error });
  }
}

/** The first word that is neither an option nor an option's value; for `help X`, X. */
function commandName(argv: readonly string[]): string | undefined {
  const words: string[] = [];
  for (let i = 0; i < argv.length && words.length < 2; i += 1) {
    const word = argv[i]!;
    if (VALUE_OPTIONS.includes(word)) i += 1;
    else if (!word.startsWith("-")) words.push(word);
  }
  return words[0] === "help" ? words[1] : words[0];
}

function createContext(
  program: Command, world: CliWorld, state: { exitCode: number },
): CliContext {
  let settings: Promise<Settings> | undefined;
  let interrupt: AbortController | undefined;
  const context: CliContext = {
    world,
    settings: () => settings ??= import("./config.js")
      .then(({ loadSettings }) => loadSettings(world, program.opts<Flags>())),
    async output() {
      const { Output } = await import("./output.js");
      return new Output((await context.settings()).output, world);
    },
    get signal() {
      if (interrupt) return interrupt.signal;
      const controller = interrupt = new AbortController();
      let interrupts = 0;
      process.on("SIGINT", () => {
        interrupts += 1;
        if (interrupts > 1) process.exit(EXIT_INTERRUPTED);
        controller.abort();
      });
      process.once("SIGTERM", () => controller.abort());
      return controller.signal;
    },
    setExitCode: (code) => { state.exitCode = code; },
  };
  return context;
}

function usageExit(error: CommanderError, world: CliWorld): number {
  if (error.exitCode === 0) return EXIT_OK; // help and version
  if (error.code !== "commander.help") { // help on a missing subcommand has been printed already
    const message = oneLine(error.message.replace(/^error: /, ""));
    world.stderr.write(`supernet: ${message}; see \`supernet --help\`\n`);
  }
  return error.code === "commander.executeSubCommandAsync" ? EXIT_FAILURE : EXIT_USAGE;
}

function packageVersion(): string {
  const path = new URL("../../package.json", import.meta.url);
  return (JSON.parse(readFileSync(path, "utf8")) as { version: string }).version;
}
