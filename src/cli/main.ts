#!/usr/bin/env node
/**
 * Owns the process: the `supernet` command's entry. Everything else is in program.ts.
 * Invariant: the exit code is set and the process ends by itself, so that piped output is complete.
 */
import { homedir } from "node:os";
import { runCli } from "./program.js";

process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(0); // the reader (head, less) has seen enough
  throw error;
});

process.exitCode = await runCli(process.argv.slice(2), {
  env: process.env,
  cwd: process.cwd(),
  home: homedir(),
  get stdin() { return process.stdin; }, // opened only by a command that reads it
  stdout: process.stdout,
  stderr: process.stderr,
});
