/**
 * Owns: one server's part of a program on its device: one arena, and for each stage a native plan over it.
 * Invariant: what one stage leaves in the arena the next one finds there; a value is copied out before
 * anything may change it.
 */
import type { Device, Plan, PlanSpec, TensorArray } from "../../device/device.js";
import { bytesOf, PlanBuilder, type PlanTensor } from "../compile/plan-builder.js";
import { boundsOf, type PlanEnd } from "../compile/fetch.js";
import { Lowering } from "../compile/lower.js";
import { alignBytes } from "../compile/memory.js";
import { arrayOf, checkFeed } from "../fetch-plan.js";
import { BATCH, elementsOf, OPS } from "../graph/ops.js";
import type { Part } from "./parts.js";

export interface CompiledPart {
  part: Part;
  /** The whole list; stages are ranges of its ops. */
  spec: PlanSpec;
  /** For each stage where its ops begin; one more for the end. */
  starts: readonly number[];
  /** By node of the whole graph. */
  ends: ReadonlyMap<number, PlanEnd>;
  run: number | undefined;
  /** For each stage the variables that it writes to. */
  writes: readonly (readonly number[])[];
}

export function compilePart(part: Part, batchSize: number | undefined): CompiledPart {
  const { graph, local } = part;
  const sized = (shape: readonly number[]): number[] => shape.map((size) => (size === BATCH ? batchSize ?? 1 : size));
  let cursor = 0;
  const reserve = (bytes: number): number => {
    const offset = cursor;
    cursor = alignBytes(cursor + bytes);
    return offset;
  };
  const computed = new Set(part.stages.flatMap(({ nodes }) => nodes));
  const arriving = part.stages.flatMap(({ receives }) => receives.filter(({ empty }) => !empty).map(({ node }) => node));
  const wholeId = new Map([...local].map(([id, own]) => [own, id]));
  const writes = part.stages.map(({ nodes }) => [...new Set(nodes.map((id) => graph.nodes[local.get(id)!]!)
    .filter(({ op }) => OPS[op]!.writes).map(({ inputs }) => wholeId.get(inputs[0]!)!))]);
  const given = [...new Set([...part.used, ...writes.flat(), ...part.feeds, ...arriving])]
    .map((id) => ({ id, node: graph.nodes[local.get(id)!]! }));
  const drops = graph.nodes.some(({ op }) => op === "dropout");
  const runOffset = drops ? reserve(4) : 0;
  const offsets = given.map(({ node }) => reserve(bytesOf(sized(node.shape), node.dtype)));
  const builder = new PlanBuilder(cursor);
  const run = drops ? builder.fixed("run", [1], "f32", runOffset) : undefined;
  const tensors = new Map<number, PlanTensor>(given.map(({ node }, i) =>
    [node.id, builder.fixed(node.name, sized(node.shape), node.dtype, offsets[i]!)]));

  // What leaves the part: for other servers, for the client, into updates; and what has an effect.
  const leaving = new Set([...part.sends.filter(({ empty }) => !empty).map(({ node }) => node), ...part.fetches,
    ...part.updates.map(({ gradient }) => gradient)].filter((id) => computed.has(id)));
  const roots = [...computed].map((id) => local.get(id)!);
  const starts: number[] = [];
  const stageOf = new Map(part.stages.flatMap(({ nodes }, i) => nodes.map((id) => [local.get(id)!, i] as const)));
  const lowering = new Lowering(builder, {
    graph, batchSize: batchSize ?? 1, roots: wanted(part, leaving, roots), given: tensors, targets: new Map(), ...(run && { run }),
    onNode: (id) => {
      const stage = stageOf.get(id);
      while (stage !== undefined && starts.length <= stage) starts.push(builder.opCount);
    },
  });
  lowering.run();
  while (starts.length <= part.stages.length) starts.push(builder.opCount);
  const bounds = boundsOf(graph, graph.nodes, new Set());
  const ends = new Map<number, PlanEnd>();
  for (const id of [...given.map((each) => each.id), ...leaving]) {
    const node = graph.nodes[local.get(id)!]!;
    const tensor = lowering.has(node.id) ? lowering.value(node.id) : tensors.get(node.id)!;
    builder.pin(tensor);
    ends.set(id, { name: node.name, tensor: tensor.index, shape: sized(node.shape), dtype: node.dtype, ...(bounds.has(node.id) && { bound: bounds.get(node.id)! }) });
  }
  return { part, spec: builder.build(), starts, ends, run: run?.index, writes };
}

/** Every node with an effect or a reader outside; nodes that only these need follow by themselves. */
function wanted(part: Part, leaving: ReadonlySet<number>, computed: readonly number[]): number[] {
  const { graph, local } = part;
  const out = new Set([...leaving].map((id) => local.get(id)!));
  for (const id of computed) if (OPS[graph.nodes[id]!.op]!.writes) out.add(id);
  // Needed for order alone: nothing here reads them.
  const read = new Set(graph.nodes.flatMap(({ inputs }) => inputs));
  for (const id of computed) if (!read.has(id)) out.add(id);
  return [...out];
}

export class PartPlan {
  /** One for each stage that has ops. */
  private readonly plans: (Plan | undefined)[] = [];
  private readonly first: Plan | undefined;

  constructor(device: Device, readonly compiled: CompiledPart) {
    const { spec, starts } = compiled;
    const open: Plan[] = [];
    try {
      for (let i = 0; i + 1 < starts.length; i++) {
        const ops = spec.ops.slice(starts[i], starts[i + 1]);
        if (ops.length === 0) {
          this.plans.push(undefined);
          continue;
        }
        const plan: Plan = open.length === 0 ? device.createPlan({ ...spec, ops }) : open[0]!.sibling({ ...spec, ops });
        open.push(plan);
        this.plans.push(plan);
      }
      if (open.length === 0 && compiled.ends.size > 0) open.push(device.createPlan({ ...spec, ops: [] }));
    } catch (error) {
      for (const plan of open) plan.close();
      throw error;
    }
    this.first = open[0];
  }

  /** Throws TrainingError where the value does not fit the node. */
  write(node: number, value: TensorArray): void {
    const end = this.end(node);
    checkFeed(end, value);
    this.first!.write(end.tensor!, value);
  }

  /** The number of the run: it chooses what drops out. */
  setRun(number: number): void {
    if (this.compiled.run !== undefined) this.first!.write(this.compiled.run, Float32Array.of(number));
  }

  async runStage(index: number): Promise<void> { await this.plans[index]?.run(); }

  /** An array of its own. */
  read(node: number): TensorArray {
    const { tensor, shape, dtype } = this.end(node);
    const out = arrayOf(dtype, elementsOf(shape));
    this.first!.read(tensor!, out);
    return out;
  }

  close(): void { for (const plan of new Set([...this.plans, this.first])) plan?.close(); }

  private end(node: number): PlanEnd {
    const end = this.compiled.ends.get(node);
    if (end === undefined) throw new Error(`node ${node} neither enters nor leaves the part`);
    return end;
  }
}
