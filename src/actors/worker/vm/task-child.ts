// Owns one child process as its worker sees it: start, one request at a time with a deadline, end.
// Invariant: a child that is late, talks out of turn or ends is ended for good, and whoever waits for it is told why;
// it holds nothing of the worker's but a channel, its own memory and a pipe whose end is kept for messages.
import { spawn, type ChildProcess } from "node:child_process";
import type { Socket } from "node:net";
import type { DeviceOptions } from "../../../device/device.js";
import { createTaskMemory, type NativeTaskMemory } from "../../../device/sandbox.js";
import { distFileOf } from "../../node/dist-file.js";
import { CHANNEL_FD, CHILD_FLAGS, childEnvironment } from "./confinement.js";
import { encodeFrame, FrameReader } from "./frame.js";
import { checkReady, checkReply, REPLY_BYTES_MAX, thrownFrom, type Ready, type Request } from "./messages.js";
import { VmError } from "./step-runner.js";

/** Node, the addon and a device take 0.2 s, a GPU's context seconds; a machine may be ten times as busy. */
const START_MS_MAX = 30_000;
/** Last words, of which V8's and the C library's first lines name the cause. */
const WORDS_LENGTH_MAX = 4_096;
const OUT_OF_MEMORY = /out of memory|bad_alloc|allocation failed/i;

export interface ChildOptions {
  compute: Pick<DeviceOptions, "backend" | "threads" | "gpu" | "isa">;
  /** The most that a job may cost. */
  memoryBytes: number;
}

interface Waiting {
  resolve: (message: unknown) => void;
  reject: (error: Error) => void;
  timer: NodeJS.Timeout;
}

export class TaskChild {
  ready!: Ready;
  readonly pid: number;
  /** Settles when the process is gone. */
  readonly ended: Promise<void>;
  readonly memory: NativeTaskMemory;
  private readonly process: ChildProcess;
  private readonly channel: Socket;
  private readonly reader = new FrameReader(REPLY_BYTES_MAX);
  private words = "";
  private waiting: Waiting | undefined;
  /** Why it is of no use any more. */
  private end: VmError | undefined;

  private constructor(options: ChildOptions) {
    this.memory = createTaskMemory();
    const argument = JSON.stringify({ ...options, parent: process.pid });
    this.process = spawn(process.execPath, [...CHILD_FLAGS, distFileOf("actors/worker/vm/child-main.js"), argument], {
      stdio: ["ignore", "ignore", "pipe", "pipe", this.memory.fd], env: childEnvironment(), cwd: "/",
    });
    this.pid = this.process.pid ?? 0;
    this.channel = this.process.stdio[CHANNEL_FD] as Socket;
    const errors = this.process.stderr as Socket;
    this.ended = new Promise((resolve) => {
      this.process.once("error", (error) => {
        this.fail(new VmError("start", `the task's process could not be started: ${error.message}`));
        resolve();
      });
      this.process.once("exit", (code, signal) => {
        this.fail(this.causeOf(code, signal));
        resolve();
      });
    });
    this.channel.on("data", (bytes: Buffer) => this.onBytes(bytes));
    this.channel.on("error", () => undefined); // it ends, which "exit" tells
    errors.on("data", (bytes: Buffer) => {
      this.words = (this.words + bytes.toString()).slice(0, WORDS_LENGTH_MAX);
    });
    // an idle child keeps no worker from ending
    for (const handle of [this.process, this.channel, errors]) handle.unref();
  }

  /** Starts a child and waits until it is confined. Throws VmError. */
  static async start(options: ChildOptions): Promise<TaskChild> {
    const child = new TaskChild(options);
    try {
      child.ready = checkReady(await child.next(START_MS_MAX));
      return child;
    } catch (error) {
      child.kill();
      throw error instanceof VmError && error.code === "died" ? new VmError("start", error.message) : error;
    }
  }

  get isAlive(): boolean {
    return this.end === undefined;
  }

  /** Throws what the child threw, or VmError. */
  async ask(request: Request, deadlineMs: number): Promise<unknown> {
    const reply = this.next(deadlineMs);
    if (this.isAlive) this.channel.write(encodeFrame(request));
    try {
      const checked = checkReply(await reply);
      if (checked.ok) return checked.value;
      throw thrownFrom(checked.error);
    } catch (error) {
      if (error instanceof VmError && error.code === "protocol") this.fail(error);
      throw error;
    }
  }

  /** At once; `ended` tells when. */
  kill(): void {
    this.fail(new VmError("closed", "the task's process was ended"));
  }

  private next(deadlineMs: number): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.end !== undefined) return reject(this.end);
      if (this.waiting !== undefined) throw new Error("a request is under way");
      const timer = setTimeout(
        () => this.fail(new VmError("deadline", `the task's process did not answer within ${deadlineMs} ms`)), deadlineMs);
      this.waiting = { resolve, reject, timer };
    });
  }

  private onBytes(bytes: Buffer): void {
    if (!this.isAlive) return;
    try {
      for (const message of this.reader.push(bytes)) {
        const { waiting } = this;
        if (waiting === undefined) throw new VmError("protocol", "the task's process spoke without being asked");
        this.waiting = undefined;
        clearTimeout(waiting.timer);
        waiting.resolve(message);
      }
    } catch (error) {
      this.fail(error as VmError);
    }
  }

  private fail(error: VmError): void {
    if (this.end !== undefined) return;
    this.end = error;
    this.process.kill("SIGKILL");
    this.process.ref(); // its end is waited for
    this.channel.destroy();
    this.memory.close();
    const { waiting } = this;
    this.waiting = undefined;
    if (waiting === undefined) return;
    clearTimeout(waiting.timer);
    waiting.reject(error);
  }

  private causeOf(code: number | null, signal: NodeJS.Signals | null): VmError {
    const [line = ""] = this.words.split("\n").filter((each) => /error|fatal|memory|alloc/i.test(each));
    const how = signal === null ? `with code ${String(code)}` : `by ${signal}`;
    if (signal === "SIGXCPU") return new VmError("deadline", "the task's process used up its processor time");
    const isMemory = OUT_OF_MEMORY.test(this.words);
    return new VmError(isMemory ? "memory" : "died", `the task's process ended ${how}${line === "" ? "" : `: ${line.trim().slice(0, 300)}`}`);
  }
}
