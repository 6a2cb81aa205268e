/**
 * Owns what a command gets from the program: settings, output, the world and the interrupt signal.
 * Invariant: nothing here costs time until a command asks for it.
 */
import type { Command } from "commander";
import type { Settings } from "./config.js";
import type { Output } from "./output.js";

/** The world of a run: the process's own, or a test's. */
export interface CliWorld {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  readonly home: string;
  readonly stdin: NodeJS.ReadStream;
  readonly stdout: NodeJS.WritableStream & { isTTY?: boolean };
  readonly stderr: NodeJS.WritableStream & { isTTY?: boolean };
}

export interface CliContext {
  readonly world: CliWorld;
  /** Merged and checked settings, with the global flags; read once. */
  settings(): Promise<Settings>;
  /** Output in the chosen format. */
  output(): Promise<Output>;
  /** Aborted by the first Ctrl-C or TERM; the second Ctrl-C ends the process. */
  readonly signal: AbortSignal;
  /** For a command that finished its report but has to say no: the exit code of the process. */
  setExitCode(code: number): void;
}

/** What the module of a command exports. */
export interface CommandModule {
  register(program: Command, context: CliContext): void;
}
