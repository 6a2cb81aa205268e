/**
 * Owns: compiled fetches on a device: takes feeds by name, runs the plan in one native call, hands out
 * copies of what was fetched. Invariant: every feed is checked (name, type, length, bounds of ids)
 * before the plan is touched; a refused run leaves the plan as it was.
 */
import type { Device, Plan, TensorArray } from "../device/device.js";
import type { CompiledFetches, PlanEnd } from "./compile/fetch.js";
import { TrainingError } from "./errors.js";
import type { Feed, Tensor } from "./graph/graph.js";
import { elementsOf, type DType } from "./graph/ops.js";

/** `[x.feed(images)]`, or values by the tensors' names or tensors: Float32Array for f32, Uint8Array for u8, Int32Array for i32. */
export type Feeds = readonly Feed[] | Readonly<Record<string, TensorArray>> | ReadonlyMap<Tensor, TensorArray>;

export interface FetchRun {
  feeds?: Feeds;
  /** The flat vector of the graph's layout; absent: as in the run before, zeros at first. */
  parameters?: Float32Array;
  /** Chooses what drops out; absent: counts from 1. */
  run?: number;
}

const ARRAYS = { f32: Float32Array, u8: Uint8Array, i32: Int32Array } as const;

export function arrayOf(dtype: DType, length: number): TensorArray {
  return new ARRAYS[dtype](length);
}

/** Throws TrainingError where the array does not fit the tensor. */
export function checkFeed({ name, shape, dtype, bound }: PlanEnd, array: TensorArray): void {
  if (!(array instanceof ARRAYS[dtype])) {
    throw new TrainingError("length", `"${name}" is ${dtype}: feed a ${ARRAYS[dtype].name}`, { name });
  }
  const expected = elementsOf(shape);
  if (array.length !== expected) {
    throw new TrainingError("length", `"${name}" has ${expected} elements (${shape.join(" x ") || "a scalar"}), got ${array.length}`, { name });
  }
  if (bound === undefined) return;
  for (let i = 0; i < array.length; i++) {
    if (array[i]! >= 0 && array[i]! < bound) continue;
    throw new TrainingError("label", `"${name}" holds ${array[i]!} at ${i}, which is not in 0..${bound - 1}`, { name, at: i, value: array[i]! });
  }
}

export class FetchPlan {
  private readonly plan: Plan;
  private runs = 0;

  constructor(device: Device, readonly compiled: CompiledFetches) {
    this.plan = device.createPlan(compiled.spec);
  }

  /** The graph's parameters for this run and those that follow. */
  setParameters(parameters: Float32Array): void {
    const { parameterCount, parametersFlat } = this.compiled;
    if (parameters.length !== parameterCount) {
      throw new TrainingError("length", `the graph has ${parameterCount} parameters, got ${parameters.length}`);
    }
    if (parametersFlat !== undefined) this.plan.write(parametersFlat, parameters);
  }

  /** One run; the fetched values in the order they were asked for, as arrays of their own. */
  async run(options: FetchRun = {}): Promise<TensorArray[]> {
    this.write(options);
    await this.plan.run();
    return this.read();
  }

  /** run() on this thread: for plans of microseconds. */
  runSync(options: FetchRun = {}): TensorArray[] {
    this.write(options);
    this.plan.runSync();
    return this.read();
  }

  close(): void { this.plan.close(); }

  private write({ feeds = {}, parameters, run = this.runs + 1 }: FetchRun): void {
    const named = feedsByName(feeds);
    const unknown = [...named.keys()].find((name) => !this.compiled.feeds.some((feed) => feed.name === name));
    if (unknown !== undefined) {
      throw new TrainingError("option", `"${unknown}" is not fed here; the feeds are ` +
        (this.compiled.feeds.map(({ name }) => name).join(", ") || "none"), { name: unknown });
    }
    const arrays = this.compiled.feeds.map((feed) => {
      if (feed.tensor === undefined) return undefined;
      const array = named.get(feed.name);
      if (array === undefined) throw new TrainingError("option", `"${feed.name}" must be fed`, { name: feed.name });
      checkFeed(feed, array);
      return array;
    });
    if (parameters !== undefined) this.setParameters(parameters);
    this.compiled.feeds.forEach(({ tensor }, i) => {
      if (tensor !== undefined) this.plan.write(tensor, arrays[i]!);
    });
    this.runs = run;
    if (this.compiled.run !== undefined) this.plan.write(this.compiled.run, Float32Array.of(run));
  }

  private read(): TensorArray[] {
    return this.compiled.fetches.map(({ tensor, shape, dtype }) => {
      const out = arrayOf(dtype, elementsOf(shape));
      this.plan.read(tensor!, out);
      return out;
    });
  }
}

export function feedsByName(feeds: Feeds): Map<string, TensorArray> {
  if (Array.isArray(feeds)) return new Map((feeds as readonly Feed[]).map(({ tensor, value }) => [tensor.name, value]));
  if (feeds instanceof Map) return new Map([...(feeds as ReadonlyMap<Tensor, TensorArray>)].map(([tensor, array]) => [tensor.name, array]));
  return new Map(Object.entries(feeds as Record<string, TensorArray>));
}
