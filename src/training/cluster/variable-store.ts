/**
 * Owns: the variables of one server, shared by every client of the cluster: values, optimizer slots, and
 * updates as they arrive (white paper 2.8).
 * Invariants: a published vector never changes, so a read is consistent at any moment and costs nothing;
 * changes of one variable follow one another; `version` counts them and never falls.
 */
import type { Shape } from "../errors.js";
import { TrainingError } from "../errors.js";
import { elementsOf } from "../graph/ops.js";
import { learningRateAt, momentsOf, type OptimizerDescriptor } from "../optimizer/descriptor.js";
import type { AsyncRules } from "../optimizer/rules.js";
import { GRADIENT_MAGNITUDE_MAX } from "../parameter-server/parameter-store.js";
import type { UpdateKernels } from "../parameter-server/update-kernels.js";

/** A variable as it was when it was read. */
export interface VariableRead {
  version: number;
  values: Float32Array;
}

export type UpdateResult = { status: "applied"; staleness: number } | { status: "stale" };

interface Variable {
  shape: Shape;
  values: Float32Array;
  version: number;
  /** Moments by optimizer rule: two clients with two rules do not share them. */
  slots: Map<string, { moments: Float32Array[]; steps: number }>;
  tail: Promise<unknown>;
}

export class VariableStore {
  private readonly variables = new Map<string, Variable>();
  private elements = 0;

  /** `elementsMax`: of all variables together, slots included. */
  constructor(private readonly options: { elementsMax: number }, private readonly modules: { kernels: UpdateKernels }) {}

  /** Makes a variable unless it exists; `values` is called for a new one. @returns whether it was made. */
  create(name: string, shape: Shape, values: () => Float32Array): boolean {
    const known = this.variables.get(name);
    if (known !== undefined) {
      this.checkShape(name, shape, known);
      return false;
    }
    this.take(elementsOf(shape));
    this.variables.set(name, { shape: [...shape], values: values(), version: 0, slots: new Map(), tail: Promise.resolve() });
    return true;
  }

  isInitialized(name: string, shape: Shape): boolean {
    const known = this.variables.get(name);
    if (known !== undefined) this.checkShape(name, shape, known);
    return known !== undefined;
  }

  /** Throws TrainingError "uninitialized", and "variable" where another graph made it with another shape. */
  read(name: string, shape: Shape): VariableRead {
    const { values, version } = this.known(name, shape);
    return { values, version };
  }

  /**
   * `work` alone has these variables: it is given their values and gives back those that take their place
   * (they are taken over). It waits for nothing but the device, so no two can wait for each other.
   */
  exchange(variables: readonly { name: string; shape: Shape }[],
    work: (values: readonly Float32Array[]) => Promise<readonly Float32Array[]>): Promise<void> {
    const known = variables.map(({ name, shape }) => this.known(name, shape));
    const done = Promise.all(known.map(({ tail }) => tail)).then(async () => {
      const values = await work(known.map((variable) => variable.values));
      known.forEach((variable, i) => {
        variable.values = values[i]!;
        variable.version++;
      });
    });
    for (const variable of known) variable.tail = done.catch(() => undefined);
    return done;
  }

  /** Applies a gradient that was computed at `base`, after those that came before it. */
  update(name: string, shape: Shape, base: VariableRead, gradient: Float32Array,
    optimizer: OptimizerDescriptor, rules: AsyncRules): Promise<UpdateResult> {
    const variable = this.known(name, shape);
    const work = variable.tail.then(() => this.applyInTurn(name, variable, base, gradient, optimizer, rules));
    variable.tail = work.catch(() => undefined);
    return work;
  }

  private async applyInTurn(name: string, variable: Variable, base: VariableRead, gradient: Float32Array,
    optimizer: OptimizerDescriptor, rules: AsyncRules): Promise<UpdateResult> {
    const { kernels } = this.modules;
    const staleness = variable.version - base.version;
    if (staleness > rules.maxStaleness) return { status: "stale" };
    const key = slotKey(optimizer), { length } = variable.values;
    let slot = variable.slots.get(key);
    if (slot === undefined) {
      this.take(momentsOf(optimizer).length * length);
      slot = { moments: momentsOf(optimizer).map(() => new Float32Array(length)), steps: 0 };
      variable.slots.set(key, slot);
    }
    const from = { parameters: variable.values, moments: slot.moments };
    const to = { parameters: new Float32Array(length), moments: slot.moments.map(() => new Float32Array(length)) };
    if (rules.delayCompensation && staleness > 0) await kernels.delayCompensate(gradient, from.parameters, base.values, rules.delayCompensation.lambda);
    const magnitude = await kernels.update(optimizer, from, gradient, to,
      learningRateAt(optimizer, slot.steps) / (1 + rules.alpha * staleness), slot.steps + 1);
    if (!(magnitude <= GRADIENT_MAGNITUDE_MAX)) {
      throw new TrainingError("not-finite", `the gradient of "${name}" reaches ${magnitude}, allowed is ${GRADIENT_MAGNITUDE_MAX}`, { variable: name });
    }
    slot.moments = to.moments;
    slot.steps++;
    variable.values = to.parameters;
    variable.version++;
    return { status: "applied", staleness };
  }

  private known(name: string, shape: Shape): Variable {
    const variable = this.variables.get(name);
    if (variable === undefined) {
      throw new TrainingError("uninitialized", `variable "${name}" has no value yet: one client calls session.initialize()`, { variable: name });
    }
    this.checkShape(name, shape, variable);
    return variable;
  }

  private checkShape(name: string, shape: Shape, known: Variable): void {
    if (shape.length === known.shape.length && shape.every((size, i) => size === known.shape[i])) return;
    throw new TrainingError("variable", `variable "${name}" is (${known.shape.join(", ")}) in this cluster, ` +
      `this graph has it as (${shape.join(", ")})`, { variable: name });
  }

  private take(elements: number): void {
    const { elementsMax } = this.options;
    if (this.elements + elements > elementsMax) {
      throw new TrainingError("variable", `this server holds at most ${elementsMax} elements of variables and slots`, { elementsMax });
    }
    this.elements += elements;
  }
}

/** Everything of the rule but its rate. */
function slotKey({ learningRate: _, decay: __, weightDecay: ___, ...rule }: OptimizerDescriptor): string {
  return JSON.stringify(rule);
}
