// Owns the operating-system processes of one host: starts them, restarts those that die (one-for-one,
// with a budget and backoff), and ends all of them.
// Invariant: after stop() returns no process started here is alive; a process whose parent vanishes
// ends by itself, because its IPC channel closes.
import { spawn, type ChildProcess } from "node:child_process";
import { closeSync, openSync } from "node:fs";

/** More deaths than this within the window mean a fault that restarting does not mend. */
const RESTARTS_MAX = 5;
const RESTART_WINDOW_MS = 60_000;
const BACKOFF_FIRST_MS = 200;
const BACKOFF_MS_MAX = 5_000;
/** Nodes drain and close their stores within this; then they are killed (the whole stop stays under 5 s). */
const STOP_GRACE_MS = 3_000;

export interface ProcessSpec {
  name: string;
  /** Node script and its arguments. */
  script: string;
  args: string[];
  /** File that stdout and stderr are appended to. */
  logFile: string;
  /** Restart after a death that stop() did not ask for. */
  restart: boolean;
  env?: Record<string, string>;
}

export type ProcessEvent =
  | { type: "started"; name: string; pid: number; restarts: number }
  | { type: "ready"; name: string; info: unknown }
  | { type: "exited"; name: string; pid: number; code: number | null; signal: string | null }
  | { type: "gave-up"; name: string; restarts: number };

interface Entry {
  spec: ProcessSpec;
  child: ChildProcess;
  deathsAtMs: number[];
  restarts: number;
  timer?: NodeJS.Timeout;
  ready: boolean;
}

export class ProcessSupervisor {
  private readonly entries = new Map<string, Entry>();
  private stopping = false;

  constructor(private readonly onEvent: (event: ProcessEvent) => void) {}

  start(spec: ProcessSpec): void {
    if (this.stopping) throw new Error("the process supervisor is stopping");
    if (this.entries.has(spec.name)) throw new Error(`process ${spec.name} is already started`);
    const entry: Entry = { spec, child: undefined as unknown as ChildProcess, deathsAtMs: [], restarts: 0, ready: false };
    this.entries.set(spec.name, entry);
    this.launch(entry);
  }

  pidOf(name: string): number | undefined {
    return this.entries.get(name)?.child.pid;
  }

  /** Sends a signal to one process (fault injection, `kill -9` drills). */
  kill(name: string, signal: NodeJS.Signals): boolean {
    return this.entries.get(name)?.child.kill(signal) ?? false;
  }

  /** Kills everything at once, without waiting: for the exit of the parent itself. */
  killAll(): void {
    this.stopping = true;
    for (const entry of this.entries.values()) {
      if (entry.timer) clearTimeout(entry.timer);
      entry.child.kill("SIGKILL");
    }
  }

  /** Asks every process to end, kills what is left after the grace time. */
  async stop(): Promise<void> {
    this.stopping = true;
    const ends = [...this.entries.values()].map((entry) => {
      if (entry.timer) clearTimeout(entry.timer);
      return endProcess(entry.child);
    });
    await Promise.all(ends);
    this.entries.clear();
  }

  private launch(entry: Entry): void {
    const { spec } = entry;
    const logFd = openSync(spec.logFile, "a");
    const child = spawn(process.execPath, [spec.script, ...spec.args], {
      stdio: ["ignore", logFd, logFd, "ipc"],
      env: { ...process.env, ...spec.env },
    });
    closeSync(logFd);
    entry.child = child;
    entry.ready = false;
    child.on("message", (message: { type?: string; info?: unknown }) => {
      if (message?.type === "ready") {
        entry.ready = true;
        this.onEvent({ type: "ready", name: spec.name, info: message.info });
      }
    });
    child.on("error", () => undefined); // spawn failures arrive as an exit without a pid below
    child.once("exit", (code, signal) => this.onExit(entry, child, code, signal));
    if (child.pid) this.onEvent({ type: "started", name: spec.name, pid: child.pid, restarts: entry.restarts });
  }

  private onExit(entry: Entry, child: ChildProcess, code: number | null, signal: string | null): void {
    this.onEvent({ type: "exited", name: entry.spec.name, pid: child.pid ?? 0, code, signal });
    if (this.stopping || !entry.spec.restart) return;
    const nowMs = Date.now();
    entry.deathsAtMs = entry.deathsAtMs.filter((atMs) => nowMs - atMs < RESTART_WINDOW_MS).concat(nowMs);
    // exit 2 is a refused configuration: the same input would be refused again
    if (code === 2 || entry.deathsAtMs.length > RESTARTS_MAX) {
      this.onEvent({ type: "gave-up", name: entry.spec.name, restarts: entry.restarts });
      return;
    }
    const backoffMs = Math.min(BACKOFF_MS_MAX, BACKOFF_FIRST_MS * 2 ** (entry.deathsAtMs.length - 1));
    entry.timer = setTimeout(() => {
      entry.restarts += 1;
      this.launch(entry);
    }, backoffMs);
  }
}

function endProcess(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || !child.pid) return Promise.resolve();
  return new Promise((resolve) => {
    const timer = setTimeout(() => child.kill("SIGKILL"), STOP_GRACE_MS);
    child.once("exit", () => {
      clearTimeout(timer);
      resolve();
    });
    if (child.connected) child.send({ type: "shutdown" }, () => undefined);
    else child.kill("SIGTERM");
  });
}
