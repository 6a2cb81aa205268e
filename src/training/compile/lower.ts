/**
 * Owns: lowering of graph nodes to plan ops: fusion of bias and ReLU into products and
 * convolutions, one emission rule per op. Invariant: a plan tensor is written before it is read,
 * and a fused node has no other reader.
 */
import { GraphError } from "../errors.js";
import type { Graph, GraphNode } from "../graph/graph.js";
import { BATCH, elementsOf, OPS } from "../graph/ops.js";
import type { PlanBuilder, PlanTensor } from "./plan-builder.js";

export interface LowerOptions {
  graph: Graph;
  batchSize: number;
  /** Nodes whose values are wanted. */
  roots: readonly number[];
  /** Tensors that exist already: placeholders, variables. */
  given: ReadonlyMap<number, PlanTensor>;
  /** Nodes whose value must be written to a given place (gradients, loss). */
  targets: ReadonlyMap<number, readonly PlanTensor[]>;
}

/** A producer with what follows it fused: the node that gives the value its name, and the parts. */
interface Fusion { producer: GraphNode; bias?: number; relu: boolean }

export class Lowering {
  private readonly values = new Map<number, PlanTensor>();
  /** Second results: the pool's index, the loss's gradient. */
  private readonly sideValues = new Map<number, PlanTensor>();
  private readonly fusions = new Map<number, Fusion>();
  private readonly absorbed = new Set<number>();
  private readonly live: boolean[];
  multiplyAdds = 0;

  constructor(private readonly builder: PlanBuilder, private readonly options: LowerOptions) {
    const { nodes } = options.graph;
    this.live = new Array<boolean>(nodes.length).fill(false);
    for (const root of options.roots) this.live[root] = true;
    const readers = new Array<number>(nodes.length).fill(0);
    for (const root of options.roots) readers[root]!++;
    for (let id = nodes.length - 1; id >= 0; id--) {
      if (!this.live[id]) continue;
      const { op, inputs } = nodes[id]!;
      inputs.forEach((input, position) => {
        if (OPS[op]!.shapeOnly === position) return;
        this.live[input] = true;
        readers[input]!++;
      });
    }
    this.findFusions(readers);
  }

  run(): void {
    for (const node of this.options.graph.nodes) {
      if (!this.live[node.id] || this.absorbed.has(node.id)) continue;
      const given = this.options.given.get(node.id);
      if (given !== undefined) this.values.set(node.id, given);
      else this.lower(node);
      this.copyToTargets(node);
    }
  }

  value(id: number): PlanTensor {
    const value = this.values.get(id);
    if (value === undefined) throw new Error(`node ${id} was read before it was written`);
    return value;
  }

  shape(id: number): number[] {
    return this.options.graph.nodes[id]!.shape.map((size) => (size === BATCH ? this.options.batchSize : size));
  }

  private findFusions(readers: number[]): void {
    const { nodes } = this.options.graph;
    for (const node of nodes) {
      if (!this.live[node.id]) continue;
      const previous = nodes[node.inputs[0] ?? -1];
      if (previous === undefined || readers[previous.id] !== 1) continue;
      const fusable = previous.op === "matmul" || previous.op === "conv2d";
      if (node.op === "biasAdd" && fusable && previous.id !== node.inputs[1]) {
        this.fusions.set(node.id, { producer: previous, bias: node.inputs[1]!, relu: false });
        this.absorbed.add(previous.id);
      } else if (node.op === "relu" && (fusable || this.fusions.has(previous.id))) {
        const before = this.fusions.get(previous.id) ?? { producer: previous };
        this.fusions.set(node.id, { ...before, relu: true });
        this.fusions.delete(previous.id);
        this.absorbed.add(previous.id);
      }
    }
  }

  /** Where the value of `node` goes: its first target, or a temporary. */
  private output(node: GraphNode): PlanTensor {
    const target = this.options.targets.get(node.id)?.[0];
    const tensor = target ?? this.builder.temporary(node.name, this.shape(node.id), node.dtype);
    this.values.set(node.id, tensor);
    return tensor;
  }

  /** A value wanted in more than one place, or in place of a view, is copied there. */
  private copyToTargets(node: GraphNode): void {
    for (const target of this.options.targets.get(node.id) ?? []) {
      const value = this.value(node.id);
      if (value.index === target.index) continue;
      this.builder.emit("scale", [value], [target], { alpha: 1, beta: 0 });
    }
  }

  private lower(node: GraphNode): void {
    const fusion = this.fusions.get(node.id);
    if (fusion !== undefined) {
      this.lowerProduct(fusion.producer, node, fusion.bias, fusion.relu);
      return;
    }
    const input = (position: number): PlanTensor => this.value(node.inputs[position]!);
    const numbers = node.attributes as Record<string, number>;
    this.count(node);
    switch (node.op) {
      case "matmul":
      case "conv2d":
        this.lowerProduct(node, node, undefined, false, true);
        break;
      case "biasAdd":
        this.lowerLooseBias(node);
        break;
      case "toFloat":
        this.builder.emit("u8_to_f32", [input(0)], [this.output(node)], { scale: numbers.scale!, shift: numbers.shift! });
        break;
      case "add":
        this.builder.emit("add", [input(0), input(1)], [this.output(node)]);
        break;
      case "scale":
        this.builder.emit("scale", [input(0)], [this.output(node)], { alpha: numbers.alpha!, beta: numbers.beta! });
        break;
      case "relu":
        this.builder.emit("relu", [input(0)], [this.output(node)]);
        break;
      case "reluGrad":
        this.builder.emit("relu_grad", [input(0), input(1)], [this.output(node)]);
        break;
      case "maxPool": {
        const index = this.builder.temporary(`${node.name}:index`, this.shape(node.id), "i32");
        this.sideValues.set(node.id, index);
        this.builder.emit("maxpool", [input(0)], [this.output(node), index], { ...numbers });
        break;
      }
      case "maxPoolGrad":
        this.builder.emit("maxpool_grad", [input(0), this.side(node.inputs[1]!)], [this.output(node)], { ...numbers });
        break;
      case "avgPool":
        this.builder.emit("avgpool", [input(0)], [this.output(node)], { ...numbers });
        break;
      case "avgPoolGrad":
        this.builder.emit("avgpool_grad", [input(0)], [this.output(node)], { ...numbers });
        break;
      case "reshape":
        this.values.set(node.id, this.builder.view(input(0), this.shape(node.id)));
        break;
      case "biasGrad": {
        const dy = input(0);
        const columns = dy.shape[dy.shape.length - 1]!;
        const rows = this.builder.view(dy, [elementsOf(dy.shape) / columns, columns]);
        this.builder.emit("bias_grad", [dy.shape.length === 2 ? dy : rows], [this.output(node)]);
        break;
      }
      case "conv2dInputGrad":
        this.builder.emit("conv2d_dx", [input(0), input(1)], [this.output(node)], { ...numbers });
        break;
      case "conv2dWeightGrad":
        this.builder.emit("conv2d_dw", [input(0), input(1)], [this.output(node)], { ...numbers });
        break;
      case "softmaxCrossEntropy": {
        const gradient = this.builder.temporary(`${node.name}:gradient`, input(0).shape);
        this.sideValues.set(node.id, gradient);
        this.builder.emit("softmax_xent", [input(0), input(1)], [this.output(node), gradient]);
        break;
      }
      case "softmaxCrossEntropyGrad":
        this.values.set(node.id, this.side(node.inputs[0]!));
        break;
      case "countCorrect":
        this.builder.emit("count_correct", [input(0), input(1)], [this.output(node)]);
        break;
      default:
        throw new GraphError("unsupported", "cannot be compiled here (no value was fed)", { op: node.op, node: node.name });
    }
  }

  private lowerProduct(producer: GraphNode, node: GraphNode, bias: number | undefined, relu: boolean, counted = false): void {
    if (!counted) this.count(producer);
    const inputs = producer.inputs.map((input) => this.value(input));
    if (bias !== undefined) inputs.push(this.value(bias));
    const attributes: Record<string, number> = producer.op === "matmul"
      ? { transA: Number(producer.attributes.transposeA), transB: Number(producer.attributes.transposeB) }
      : { ...(producer.attributes as Record<string, number>) };
    this.builder.emit(producer.op === "matmul" ? "gemm" : "conv2d", inputs, [this.output(node)],
      { ...attributes, relu: Number(relu) });
  }

  /** A bias on something else than a product: y = x, then y += ones (rows, 1) x bias (1, columns). */
  private lowerLooseBias(node: GraphNode): void {
    const x = this.value(node.inputs[0]!), bias = this.value(node.inputs[1]!), y = this.output(node);
    const columns = bias.shape[0]!;
    const rows = elementsOf(y.shape) / columns;
    this.multiplyAdds += elementsOf(y.shape);
    const zeros = this.builder.zeros(`${node.name}:zeros`, [rows, 1]);
    const ones = this.builder.temporary(`${node.name}:ones`, [rows, 1]);
    this.builder.emit("scale", [zeros], [ones], { alpha: 0, beta: 1 });
    this.builder.emit("scale", [x], [y], { alpha: 1, beta: 0 });
    this.builder.emit("gemm", [ones, this.builder.view(bias, [1, columns])],
      [y.shape.length === 2 ? y : this.builder.view(y, [rows, columns])], { transA: 0, transB: 0, accumulate: 1 });
  }

  private side(id: number): PlanTensor {
    const tensor = this.sideValues.get(id);
    if (tensor === undefined) throw new Error(`node ${id} has no second result`);
    return tensor;
  }

  private count(node: GraphNode): void {
    const cost = OPS[node.op]!.multiplyAdds;
    if (cost === undefined) return;
    const type = (id: number): { shape: number[]; dtype: "f32" } => ({ shape: this.shape(id), dtype: "f32" });
    this.multiplyAdds += cost(node.inputs.map(type), type(node.id), node.attributes);
  }
}
