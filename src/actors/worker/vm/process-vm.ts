// Owns the task's VM in child processes: one child a job, a spare one ready for the next.
// Invariants: a stranger's text is parsed in a child alone; a step that a dying child left undone is done again by a
// fresh one, on the same parameters and rows, before anybody hears of it; a job's child serves no other job.
import { limitData, TASK_PAGE_BYTES } from "../../../device/sandbox.js";
import { DEFAULT_JOB_LIMITS, type JobLimits } from "../../../training/index.js";
import { dataBytesOf } from "./confinement.js";
import { gatherRows } from "./gather-rows.js";
import { checkLayout, checkOpened, SLOTS, type Opened, type StepLayout } from "./messages.js";
import { VmError, type JobSummary, type StepGradient, type StepRows, type StepRunner, type TaskVm } from "./step-runner.js";
import { TaskChild, type ChildOptions } from "./task-child.js";

/** A job of 4096 nodes compiles within 3 s of one core. */
const OPEN_MS = 30_000;
/** GPT-2 124M takes 5 s a batch of 8 x 1024 on two cores; ten minutes are for the slowest that is of use. */
const STEP_MS = 600_000;
/** Deaths in a row that a fresh child mends; more mean the job. */
const RESTARTS_MAX = 3;
/** An offer that was taken is assigned within a block or two; until then its child waits with the job open. */
const PREPARED_MS = 60_000;

export interface ProcessVmOptions extends Pick<ChildOptions, "compute"> {
  limits?: Partial<JobLimits>;
  openMs?: number;
  stepMs?: number;
}

export interface ProcessVmModules {
  /** Told once when the kernel lacks a part of the confinement. */
  warn: (text: string) => void;
}

/** A child whose job is open. */
interface OpenChild { child: TaskChild; opened: Opened; memory: ArrayBuffer }

export function createProcessVm(options: ProcessVmOptions, modules: ProcessVmModules): ProcessVm {
  return new ProcessVm(options, modules);
}

export class ProcessVm implements TaskVm {
  private readonly limits: JobLimits;
  private readonly openMs: number;
  readonly stepMs: number;
  private readonly runners = new Set<ProcessRunner>();
  private spare: Promise<TaskChild> | undefined;
  private prepared: { job: string; open: OpenChild; timer: NodeJS.Timeout } | undefined;
  private hasWarned = false;
  private isClosed = false;

  constructor(private readonly options: ProcessVmOptions, private readonly modules: ProcessVmModules) {
    this.limits = { ...DEFAULT_JOB_LIMITS, ...options.limits };
    this.openMs = options.openMs ?? OPEN_MS;
    this.stepMs = options.stepMs ?? STEP_MS;
    this.warmUp();
  }

  async inspect(job: string): Promise<JobSummary> {
    const open = await this.openChild(job);
    this.dropPrepared();
    const timer = setTimeout(() => this.dropPrepared(), PREPARED_MS).unref();
    this.prepared = { job, open, timer };
    return open.opened.summary;
  }

  async open(job: string): Promise<StepRunner> {
    const { prepared } = this;
    let open: OpenChild | undefined;
    if (prepared?.job === job && prepared.open.child.isAlive) {
      clearTimeout(prepared.timer);
      this.prepared = undefined;
      open = prepared.open;
    }
    const runner = new ProcessRunner(job, open ?? await this.openChild(job), this, () => {
      this.runners.delete(runner);
      this.warmUp();
    });
    if (this.isClosed) await runner.close();
    this.runners.add(runner);
    return runner;
  }

  async close(): Promise<void> {
    this.isClosed = true;
    this.dropPrepared();
    for (const runner of this.runners) await runner.close();
    const spare = await this.spare?.catch(() => undefined);
    spare?.kill();
    await spare?.ended;
  }

  /** A child with the job open and its memory sized. Throws JobError or VmError; a child that refused is ended. */
  async openChild(job: string): Promise<OpenChild> {
    const child = await this.take();
    try {
      const opened = checkOpened(await child.ask({ type: "open", job, limits: this.limits }, this.openMs), this.limits);
      if (opened.slotBytes % TASK_PAGE_BYTES !== 0) throw new VmError("protocol", "a slot that does not end with a page");
      const { backend, dataBytes } = child.ready;
      limitData(child.pid, dataBytesOf(dataBytes, opened.summary.cost.memoryBytes, backend));
      return { child, opened, memory: child.memory.resize(SLOTS * opened.slotBytes) };
    } catch (error) {
      child.kill();
      this.warmUp();
      throw error;
    }
  }

  private async take(): Promise<TaskChild> {
    if (this.isClosed) throw new VmError("closed", "the worker is ending");
    const spare = this.spare;
    this.spare = undefined;
    const waiting = await spare?.catch(() => undefined);
    const child = waiting?.isAlive ? waiting : await TaskChild.start(this.childOptions());
    const { limits, capabilities, seccomp, reason } = child.ready;
    if (!this.hasWarned && !(limits && capabilities && seccomp)) {
      this.hasWarned = true;
      this.modules.warn(`tasks run in a process that is not wholly confined: limits ${limits ? "hold" : "are missing"}, capabilities ` +
        `are ${capabilities ? "dropped" : "kept"}, system calls are ${seccomp ? "filtered" : `not filtered (${reason})`}`);
    }
    return child;
  }

  /** One child at a time waits or works: a worker has one task. */
  private warmUp(): void {
    if (this.isClosed || this.spare !== undefined) return;
    this.spare = TaskChild.start(this.childOptions());
    this.spare.catch(() => undefined); // told to whoever takes it
  }

  private childOptions(): ChildOptions {
    return { compute: this.options.compute, memoryBytes: this.limits.memoryBytes };
  }

  private dropPrepared(): void {
    if (this.prepared === undefined) return;
    clearTimeout(this.prepared.timer);
    this.prepared.open.child.kill();
    this.prepared = undefined;
    this.warmUp();
  }
}

interface Slot { rows: number; layout: StepLayout; inputs: Uint8Array | Int32Array; labels: Int32Array; parameters: Float32Array; gradient: Float32Array }

class ProcessRunner implements StepRunner {
  readonly job: JobSummary;
  private readonly slots: (Slot | undefined)[] = [];
  private isClosed = false;

  constructor(
    private readonly text: string, private open: OpenChild, private readonly vm: ProcessVm, private readonly onClose: () => void,
  ) {
    this.job = open.opened.summary;
  }

  get pid(): number {
    return this.open.child.pid;
  }

  async run(parameters: Float32Array, rows: StepRows, picked: Uint32Array): Promise<StepGradient> {
    for (let deaths = 0; ; deaths += 1) {
      try {
        return await this.runOnce(parameters, rows, picked);
      } catch (error) {
        const isMendable = error instanceof VmError && error.code === "died" && deaths < RESTARTS_MAX;
        if (this.isClosed || !isMendable) throw error;
        this.slots.length = 0;
        this.open = await this.vm.openChild(this.text);
      }
    }
  }

  async close(): Promise<void> {
    if (this.isClosed) return;
    this.isClosed = true;
    this.slots.length = 0;
    this.open.child.kill();
    await this.open.child.ended;
    this.onClose();
  }

  private async runOnce(parameters: Float32Array, rows: StepRows, picked: Uint32Array): Promise<StepGradient> {
    const { child, memory, opened } = this.open;
    const index = picked.length === this.job.run.batchSize ? 0 : 1;
    const slot = await this.prepare(index, picked.length);
    gatherRows(rows, picked, slot.inputs, slot.labels);
    slot.parameters.set(parameters);
    await child.ask({ type: "run", slot: index }, this.vm.stepMs);
    const scalar = (offset: number | undefined): number =>
      offset === undefined ? NaN : new Float32Array(memory, index * opened.slotBytes + offset, 1)[0]!;
    // copied before anything is done with it: the child can write there at any time
    return { loss: scalar(slot.layout.loss), correct: scalar(slot.layout.correct), gradient: slot.gradient.slice() as Float32Array<ArrayBuffer> };
  }

  private async prepare(index: number, rows: number): Promise<Slot> {
    const known = this.slots[index];
    if (known?.rows === rows) return known;
    const { child, memory, opened: { summary, slotBytes } } = this.open;
    const layout = checkLayout(await child.ask({ type: "prepare", rows, slot: index }, this.vm.stepMs), rows, summary, slotBytes);
    const start = index * slotBytes;
    const floats = ({ offset, length }: { offset: number; length: number }) => new Float32Array(memory, start + offset, length);
    const { inputs, labels } = layout;
    const Type = inputs.type === "u8" ? Uint8Array : Int32Array;
    const slot: Slot = {
      rows, layout, inputs: new Type(memory, start + inputs.offset, inputs.length),
      labels: new Int32Array(memory, start + labels.offset, labels.length),
      parameters: floats(layout.parameters), gradient: floats(layout.gradient),
    };
    this.slots[index] = slot;
    return slot;
  }
}
