/**
 * Owns the list of commands. To add one: write src/cli/<module>.ts that exports
 * `register(program, context)`, and add a line here.
 * Invariant: a module is imported only when its command is called, so help stays fast and a module
 * that does not load takes only its own command with it.
 */

export interface CommandEntry {
  readonly name: string;
  /** One line in the top-level help. */
  readonly summary: string;
  /** Module beside this file. */
  readonly module: string;
}

export const COMMANDS: readonly CommandEntry[] = [
  { name: "demo", summary: "start a network here, train Fashion-MNIST on it, settle and report", module: "demo" },
  { name: "up", summary: "start a whole network on this machine and keep it running", module: "up" },
  { name: "node", summary: "run one node: master, pos, pow, worker or ps", module: "node" },
  { name: "submit", summary: "submit a training task", module: "submit" },
  { name: "task", summary: "look at, wait for and fetch tasks", module: "task" },
  { name: "wallet", summary: "keys, balances and transfers", module: "wallet" },
  { name: "chain", summary: "read blocks, transactions, accounts and certificates", module: "chain" },
  { name: "pow", summary: "mine and verify proof-of-work challenges", module: "pow" },
  { name: "profile", summary: "time each operation of a training step", module: "profile" },
  { name: "doctor", summary: "check this machine and say how to mend what is missing", module: "doctor" },
  { name: "bench", summary: "run the benchmarks", module: "bench" },
  { name: "completion", summary: "print a completion script for bash, zsh or fish", module: "completion" },
];
