// Owns a job inside the child: parses, compiles, and runs the steps over memory that the worker fills and reads.
// Invariant: one job a child; a plan's head (parameters, gradient, one batch) is the shared memory itself on the CPU,
// and copied to and from it on a GPU; the arithmetic is TrainStep's, as in the worker's own process.
import type { Device } from "../../../device/device.js";
import { mapTaskMemory, TASK_PAGE_BYTES } from "../../../device/sandbox.js";
import { compileStep, type Compiled } from "../../../training/compile/compile.js";
import { parseJob, type ParsedJob } from "../../../training/graph/parse.js";
import { elementsOf } from "../../../training/graph/ops.js";
import { TrainStep, type Inputs } from "../../../training/train-step.js";
import { summaryOf } from "./local-vm.js";
import { SLOTS, type Opened, type Request, type StepLayout } from "./messages.js";
import { VmError } from "./step-runner.js";

interface Slot { rows: number; step: TrainStep; layout: StepLayout }

export class TaskEngine {
  private job: ParsedJob | undefined;
  private slotBytes = 0;
  private memory: ArrayBuffer | undefined;
  private readonly slots: (Slot | undefined)[] = [];

  /** @param fd the shared memory, which the worker sizes once a job is open. */
  constructor(private readonly device: Device, private readonly fd: number) {}

  answer(request: Request): unknown {
    switch (request.type) {
      case "open": return this.open(request.job, request.limits);
      case "prepare": return this.prepare(request.rows, request.slot);
      case "run": return this.run(request.slot);
    }
  }

  private open(text: string, limits: Parameters<typeof parseJob>[1]): Opened {
    if (this.job !== undefined) throw new VmError("failed", "a job is open already");
    const job = parseJob(text, limits);
    this.job = job;
    this.slotBytes = roundUp(headOf(this.compile(job.run.batchSize)).bytes);
    return { summary: summaryOf(job), slotBytes: this.slotBytes };
  }

  private prepare(rows: number, slot: number): StepLayout {
    const batchSize = this.job?.run.batchSize ?? 0;
    if (rows < 1 || rows > batchSize) throw new VmError("failed", `a batch has 1 to ${batchSize} rows, not ${rows}`);
    this.slots[slot]?.step.close();
    this.slots[slot] = undefined;
    globalThis.gc?.(); // an arena lives as long as the ArrayBuffer over it
    const compiled = this.compile(rows);
    const { bytes, layout } = headOf(compiled);
    const isHost = this.device.backend === "cpu";
    const head = isHost ? { fd: this.fd, offsetBytes: slot * this.slotBytes, sizeBytes: bytes } : undefined;
    if (!isHost) this.memory ??= mapTaskMemory(this.fd, SLOTS * this.slotBytes);
    this.slots[slot] = { rows, layout, step: new TrainStep(this.device, compiled, head) };
    return layout;
  }

  private run(index: number): null {
    const slot = this.slots[index];
    if (slot === undefined) throw new VmError("failed", `slot ${index} has no plan`);
    const { step, layout } = slot;
    const { tensors } = step.compiled;
    if (this.memory === undefined) {
      step.runSync(step.view(tensors.x) as Inputs, step.view(tensors.labels) as Int32Array);
      return null;
    }
    const { memory } = this, start = index * this.slotBytes;
    const floats = (offset: number, length: number) => new Float32Array(memory, start + offset, length);
    const { inputs, labels, parameters, gradient, loss, correct } = layout;
    const Type = inputs.type === "u8" ? Uint8Array : Int32Array;
    step.setParameters(floats(parameters.offset, parameters.length));
    const result = step.runSync(new Type(memory, start + inputs.offset, inputs.length), new Int32Array(memory, start + labels.offset, labels.length));
    floats(gradient.offset, gradient.length).set(result.gradient);
    floats(loss, 1)[0] = result.loss;
    if (correct !== undefined) floats(correct, 1)[0] = result.correct;
    return null;
  }

  private compile(rows: number): Compiled {
    const { graph, operation: { loss, logits, correct } } = this.job!;
    return compileStep(graph, { loss, logits, correct, batchSize: rows });
  }
}

const roundUp = (bytes: number): number => Math.ceil(bytes / TASK_PAGE_BYTES) * TASK_PAGE_BYTES;

/** The start of a plan's arena that the worker fills and reads; all before it ends is laid out first by the compiler. */
function headOf({ spec, tensors }: Compiled): { bytes: number; layout: StepLayout } {
  let bytes = 0;
  const region = (tensor: number): { offset: number; length: number } => {
    const { offsetBytes, shape, dtype } = spec.tensors[tensor]!;
    const length = elementsOf(shape);
    bytes = Math.max(bytes, offsetBytes + length * (dtype === "u8" ? 1 : 4));
    return { offset: offsetBytes, length };
  };
  const layout: StepLayout = {
    parameters: region(tensors.parametersFlat), gradient: region(tensors.gradientsFlat!),
    inputs: { ...region(tensors.x), type: spec.tensors[tensors.x]!.dtype }, labels: region(tensors.labels),
    loss: region(tensors.loss).offset, ...(tensors.correct === undefined ? {} : { correct: region(tensors.correct).offset }),
  };
  return { bytes, layout };
}
