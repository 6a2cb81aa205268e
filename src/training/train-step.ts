/**
 * Owns: a compiled step on a device: feeds a batch, runs the plan in one native call, hands out
 * loss and gradient. Invariant: the shapes and the labels are checked before the plan is touched,
 * and one run goes on at a time.
 */
import type { Device, Plan } from "../device/device.js";
import type { Graph, Tensor } from "./graph/graph.js";
import { compileEvaluation, type Compiled } from "./compile/compile.js";
import { TrainingError } from "./errors.js";

export interface StepResult {
  /** Mean over the batch. */
  loss: number;
  /** Rows classified correctly; NaN where the graph does not count them. */
  correct: number;
  /** The flat gradient: a view that the next run overwrites (a copy on devices without views). */
  gradient: Float32Array;
  multiplyAdds: number;
}

export interface EvaluationResult {
  loss: number;
  accuracy: number;
  correct: number;
  rows: number;
}

/** Pixels, the ids of tokens, or floats: the type of the graph's input. */
export type Inputs = Uint8Array | Int32Array | Float32Array;

/** What a plan is fed with; copies one batch in and checks it. */
class Feed {
  private readonly labels: Int32Array;

  constructor(private readonly compiled: Compiled, private readonly plan: Plan) {
    this.labels = new Int32Array(compiled.batchSize * compiled.rowLabels);
  }

  write(inputs: Inputs, labels: Uint8Array | Int32Array): void {
    const { batchSize, rowElements, rowLabels, classes, vocabulary, tensors } = this.compiled;
    if (inputs.length !== batchSize * rowElements || labels.length !== batchSize * rowLabels) {
      throw new TrainingError("batch-size", `a batch has ${batchSize} rows of ${rowElements} elements and ` +
        `${batchSize * rowLabels} labels; got ${inputs.length} elements and ${labels.length} labels`);
    }
    for (let i = 0; i < labels.length; i++) {
      const label = labels[i]!;
      if (label < 0 || label >= classes) {
        const row = Math.floor(i / rowLabels);
        throw new TrainingError("label", `label ${label} of row ${row} is not in 0..${classes - 1}`, { row, label });
      }
      this.labels[i] = label;
    }
    const unknown = vocabulary === undefined ? -1 : inputs.findIndex((id) => id < 0 || id >= vocabulary);
    if (unknown >= 0) {
      const row = Math.floor(unknown / rowElements), token = inputs[unknown]!;
      throw new TrainingError("label", `token ${token} of row ${row} is not in 0..${vocabulary! - 1}`, { row, token });
    }
    this.plan.write(tensors.x, inputs);
    this.plan.write(tensors.labels, this.labels);
  }
}

export function readFloat(plan: Plan, tensor: number | undefined): number {
  if (tensor === undefined) return NaN;
  const out = new Float32Array(1);
  plan.read(tensor, out);
  return out[0]!;
}

export class TrainStep {
  private readonly plan: Plan;
  private readonly feed: Feed;
  private readonly gradient: Float32Array;
  private readonly gradientIsView: boolean;

  constructor(device: Device, readonly compiled: Compiled) {
    const { gradientsFlat } = compiled.tensors;
    if (gradientsFlat === undefined) throw new TrainingError("option", "a train step needs a plan with gradients");
    this.plan = device.createPlan(compiled.spec);
    this.feed = new Feed(compiled, this.plan);
    const view = this.plan.view(gradientsFlat);
    this.gradientIsView = view !== undefined;
    this.gradient = (view as Float32Array | undefined) ?? new Float32Array(compiled.parameterCount);
  }

  setParameters(parameters: Float32Array): void {
    if (parameters.length !== this.compiled.parameterCount) {
      throw new TrainingError("length", `the job has ${this.compiled.parameterCount} parameters, got ${parameters.length}`);
    }
    this.plan.write(this.compiled.tensors.parametersFlat, parameters);
  }

  /** One batch: exactly `compiled.batchSize` rows. */
  async run(inputs: Inputs, labels: Uint8Array | Int32Array): Promise<StepResult> {
    this.feed.write(inputs, labels);
    await this.plan.run();
    const { tensors } = this.compiled;
    if (!this.gradientIsView) this.plan.read(tensors.gradientsFlat!, this.gradient);
    return {
      loss: readFloat(this.plan, tensors.loss), correct: readFloat(this.plan, tensors.correct),
      gradient: this.gradient, multiplyAdds: this.plan.multiplyAdds,
    };
  }

  close(): void { this.plan.close(); }
}

/** A step whose plan also applies the update: training in one process, one native call a batch. */
export class LocalTrainStep {
  private readonly plan: Plan;
  private readonly feed: Feed;

  constructor(device: Device, readonly compiled: Compiled, parameters: Float32Array) {
    this.plan = device.createPlan(compiled.spec);
    this.feed = new Feed(compiled, this.plan);
    this.plan.write(compiled.tensors.parametersFlat, parameters);
  }

  async run(inputs: Inputs, labels: Uint8Array | Int32Array): Promise<{ loss: number; correct: number }> {
    this.feed.write(inputs, labels);
    await this.plan.run();
    const { loss, correct } = this.compiled.tensors;
    return { loss: readFloat(this.plan, loss), correct: readFloat(this.plan, correct) };
  }

  parameters(): Float32Array {
    const out = new Float32Array(this.compiled.parameterCount);
    this.plan.read(this.compiled.tensors.parametersFlat, out);
    return out;
  }

  close(): void { this.plan.close(); }
}

/** Rows of one evaluation plan: large enough to feed the kernels, small enough for a cache. */
const EVALUATION_BATCH = 250;

/** Loss and accuracy over any number of rows, with plans for whole batches and for the rest. */
export class Evaluator {
  private readonly plans = new Map<number, { plan: Plan; feed: Feed; compiled: Compiled }>();

  constructor(private readonly device: Device, private readonly graph: Graph,
    private readonly ends: { loss: Tensor; correct?: Tensor }, private readonly batchSize = EVALUATION_BATCH) {}

  async evaluate(parameters: Float32Array, images: Uint8Array, labels: Uint8Array | Int32Array): Promise<EvaluationResult> {
    const rows = labels.length;
    if (rows === 0) throw new TrainingError("batch-size", "nothing to evaluate: there are no rows");
    const written = new Set<Plan>();
    let loss = 0, correct = 0;
    for (let start = 0; start < rows; start += this.batchSize) {
      const count = Math.min(this.batchSize, rows - start);
      const { plan, feed, compiled } = this.planFor(count);
      if (!written.has(plan)) {
        if (parameters.length !== compiled.parameterCount) {
          throw new TrainingError("length", `the job has ${compiled.parameterCount} parameters, got ${parameters.length}`);
        }
        plan.write(compiled.tensors.parametersFlat, parameters);
        written.add(plan);
      }
      const { rowElements } = compiled;
      feed.write(images.subarray(start * rowElements, (start + count) * rowElements), labels.subarray(start, start + count));
      await plan.run();
      loss += readFloat(plan, compiled.tensors.loss) * count;
      correct += readFloat(plan, compiled.tensors.correct);
    }
    return { loss: loss / rows, accuracy: correct / rows, correct, rows };
  }

  close(): void {
    for (const { plan } of this.plans.values()) plan.close();
    this.plans.clear();
  }

  private planFor(rows: number): { plan: Plan; feed: Feed; compiled: Compiled } {
    const known = this.plans.get(rows);
    if (known !== undefined) return known;
    // Whole batches and one remainder; another remainder replaces the last one.
    for (const [size, { plan }] of this.plans) {
      if (size === this.batchSize || rows === this.batchSize) continue;
      plan.close();
      this.plans.delete(size);
    }
    const compiled = compileEvaluation(this.graph, { ...this.ends, batchSize: rows });
    const plan = this.device.createPlan(compiled.spec);
    const made = { plan, feed: new Feed(compiled, plan), compiled };
    this.plans.set(rows, made);
    return made;
  }
}
