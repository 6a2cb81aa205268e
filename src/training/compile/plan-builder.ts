/**
 * Owns: a plan under construction: storages, tensors that view them, ops in order, lifetimes.
 */
import type { PlanOpName, PlanSpec } from "../../device/device.js";
import type { Shape } from "../errors.js";
import { elementsOf, type DType } from "../graph/ops.js";
import { planMemory, type Storage } from "./memory.js";

const BYTES: Record<DType, number> = { f32: 4, i32: 4, u8: 1 };
export const bytesOf = (shape: Shape, dtype: DType): number => elementsOf(shape) * BYTES[dtype];

export interface PlanTensor {
  index: number;
  storage: number;
  shape: number[];
  dtype: DType;
}

export class PlanBuilder {
  private readonly storages: Storage[] = [];
  private readonly tensors: (PlanTensor & { name: string })[] = [];
  private readonly ops: PlanSpec["ops"] = [];

  /** `fixedBytes` is what the caller has laid out itself at the start of the arena. */
  constructor(private readonly fixedBytes: number) {}

  /** A tensor in the fixed part of the arena. */
  fixed(name: string, shape: Shape, dtype: DType, offsetBytes: number): PlanTensor {
    this.storages.push({ bytes: bytesOf(shape, dtype), first: 0, last: Infinity, fixed: offsetBytes });
    return this.tensorOn(this.storages.length - 1, name, shape, dtype);
  }

  temporary(name: string, shape: Shape, dtype: DType = "f32"): PlanTensor {
    this.storages.push({ bytes: bytesOf(shape, dtype), first: Infinity, last: -1 });
    return this.tensorOn(this.storages.length - 1, name, shape, dtype);
  }

  /** A tensor that keeps its value from run to run; zero at first. */
  kept(name: string, shape: Shape): PlanTensor {
    this.storages.push({ bytes: bytesOf(shape, "f32"), first: 0, last: Infinity });
    return this.tensorOn(this.storages.length - 1, name, shape, "f32");
  }

  /** Another shape over the same bytes. */
  view(tensor: PlanTensor, shape: Shape): PlanTensor {
    const name = this.tensors[tensor.index]!.name;
    return this.tensorOn(tensor.storage, `${name}:view`, shape, tensor.dtype);
  }

  emit(op: PlanOpName, inputs: PlanTensor[], outputs: PlanTensor[], attrs?: Record<string, number>): void {
    const position = this.ops.length;
    this.ops.push({
      op, in: inputs.map((tensor) => tensor.index), out: outputs.map((tensor) => tensor.index),
      ...(attrs && { attrs }),
    });
    for (const tensor of [...inputs, ...outputs]) {
      const storage = this.storages[tensor.storage]!;
      storage.first = Math.min(storage.first, position);
      storage.last = Math.max(storage.last, position);
    }
  }

  /** Ops so far. */
  get opCount(): number { return this.ops.length; }

  /** Keeps a temporary alive to the end of the plan, so that it can be read after a run. */
  pin(tensor: PlanTensor): void {
    const storage = this.storages[tensor.storage]!;
    if (storage.fixed === undefined) storage.last = Infinity;
  }

  build(): PlanSpec {
    const { offsets, arenaBytes } = planMemory(this.storages, this.fixedBytes);
    return {
      tensors: this.tensors.map(({ name, dtype, shape, storage }) =>
        ({ name, dtype, shape, offsetBytes: offsets[storage]! })),
      arenaBytes,
      ops: this.ops,
    };
  }

  private tensorOn(storage: number, name: string, shape: Shape, dtype: DType): PlanTensor {
    const tensor = { index: this.tensors.length, storage, shape: shape.length === 0 ? [1] : [...shape], dtype, name };
    this.tensors.push(tensor);
    return tensor;
  }
}
