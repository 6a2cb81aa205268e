/**
 * Owns: lowering of graph nodes to plan ops: fusion of bias and ReLU into products and
 * convolutions, one emission rule per op. Invariant: a plan tensor is written before it is read,
 * and a fused node has no other reader.
 */
import { GraphError } from "../errors.js";
import type { Graph, GraphNode } from "../graph/graph.js";
import { BATCH, elementsOf, OPS } from "../graph/ops.js";
import { philoxKey } from "../graph/philox.js";
import { copied, expanded, placed, summed, transposed } from "./layout-copies.js";
import type { PlanBuilder, PlanTensor } from "./plan-builder.js";

export interface LowerOptions {
  graph: Graph;
  batchSize: number;
  /** Nodes whose values are wanted. */
  roots: readonly number[];
  /** Tensors that exist already: variables, and whatever is fed; what they were made from is not computed. */
  given: ReadonlyMap<number, PlanTensor>;
  /** The number of this run of the plan; without it (evaluation) dropout passes its input on. */
  run?: PlanTensor;
  /** Nodes whose value must be written to a given place (gradients, loss). */
  targets: ReadonlyMap<number, readonly PlanTensor[]>;
  /** Of matrix products; "f32" by default. */
  precision?: "f32" | "bf16";
}

/** A producer with what follows it fused: the node that gives the value its name, and the parts. */
interface Fusion { producer: GraphNode; bias?: number; relu: boolean }

export class Lowering {
  private readonly values = new Map<number, PlanTensor>();
  /** Further results: the pool's index, the loss's gradient, a norm's statistics. */
  private readonly sideValues = new Map<number, readonly PlanTensor[]>();
  private readonly fusions = new Map<number, Fusion>();
  private readonly absorbed = new Set<number>();
  /** A sum of a product and an embedding's gradient -> that gradient, which is added into the product. */
  private readonly accumulations = new Map<number, GraphNode>();
  /** A node whose value becomes another's in place -> that other one, whose target it takes. */
  private readonly inPlaceOf = new Map<number, number>();
  private readonly live: boolean[];
  private readonly readers: number[];
  multiplyAdds = 0;

  constructor(private readonly builder: PlanBuilder, private readonly options: LowerOptions) {
    const { nodes } = options.graph;
    this.live = new Array<boolean>(nodes.length).fill(false);
    for (const root of options.roots) this.live[root] = true;
    const readers = this.readers = new Array<number>(nodes.length).fill(0);
    for (const root of options.roots) readers[root]!++;
    for (let id = nodes.length - 1; id >= 0; id--) {
      if (!this.live[id] || options.given.has(id)) continue;
      const { op, inputs, controls } = nodes[id]!;
      for (const control of controls) this.live[control] = true;
      inputs.forEach((input, position) => {
        if (OPS[op]!.shapeOnly === position) return;
        this.live[input] = true;
        readers[input]!++;
      });
    }
    this.findFusions(readers);
    this.findAccumulations(readers);
  }

  /** Nodes that the roots need, fed ones included, in creation order. */
  liveNodes(): GraphNode[] { return this.options.graph.nodes.filter(({ id }) => this.live[id]); }

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

  /** Fused, a node moves down to its reader: not past a write, which it must not see. */
  private findFusions(readers: number[]): void {
    const { nodes } = this.options.graph;
    const writes = nodes.filter(({ id, op }) => this.live[id] && OPS[op]!.writes).map(({ id }) => id);
    for (const node of nodes) {
      if (!this.live[node.id] || this.options.given.has(node.id)) continue;
      const previous = nodes[node.inputs[0] ?? -1];
      if (previous === undefined || readers[previous.id] !== 1 || this.options.given.has(previous.id)) continue;
      if (writes.some((id) => id > previous.id && id < node.id)) continue;
      const fusable = previous.op === "matmul" || previous.op === "conv2d";
      const vector = node.op === "biasAdd" && nodes[node.inputs[1]!]!.shape.length === 1;
      if (vector && fusable && previous.id !== node.inputs[1]) {
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

  /** A table that embeds and also projects (tied weights) gets its two gradients in one place. */
  private findAccumulations(readers: number[]): void {
    const { nodes } = this.options.graph;
    const ownedBy = (node: GraphNode | undefined, op: string): node is GraphNode => node?.op === op &&
      readers[node.id] === 1 && !this.absorbed.has(node.id) && !this.options.targets.has(node.id) &&
      !this.options.given.has(node.id);
    for (const node of nodes) {
      if (!this.live[node.id] || node.op !== "add" || this.options.given.has(node.id)) continue;
      const [product, gradient] = node.inputs.map((input) => nodes[input]);
      if (!ownedBy(product, "matmul") || !ownedBy(gradient, "embeddingGrad")) continue;
      this.accumulations.set(node.id, gradient);
      this.inPlaceOf.set(product.id, node.id);
      this.absorbed.add(gradient.id);
    }
  }

  /** Where the value of `node` goes: its first target, or a temporary. */
  private output(node: GraphNode): PlanTensor {
    const target = this.options.targets.get(this.inPlaceOf.get(node.id) ?? node.id)?.[0];
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
        this.builder.emit("bias_add", [input(0), input(1)], [this.output(node)]);
        break;
      case "toFloat":
        this.builder.emit("u8_to_f32", [input(0)], [this.output(node)], { scale: numbers.scale!, shift: numbers.shift! });
        break;
      case "add": {
        const gradient = this.accumulations.get(node.id);
        if (gradient === undefined) {
          this.builder.emit("add", [input(0), input(1)], [this.output(node)]);
          break;
        }
        const [dy, ids] = gradient.inputs.map((id) => this.value(id)) as [PlanTensor, PlanTensor];
        this.builder.emit("embedding_grad", [dy, ids], [input(0)], { accumulate: 1 });
        this.values.set(node.id, input(0));
        break;
      }
      case "scale":
        this.builder.emit("scale", [input(0)], [this.output(node)], { alpha: numbers.alpha!, beta: numbers.beta! });
        break;
      case "gelu":
        this.builder.emit(numbers.tanh ? "gelu_tanh" : "gelu", [input(0)], [this.output(node)]);
        break;
      case "geluGrad":
        this.builder.emit(numbers.tanh ? "gelu_tanh_grad" : "gelu_grad", [input(0), input(1)], [this.output(node)]);
        break;
      case "mul":
      case "div":
        this.builder.emit(node.op, [input(0), input(1)], [this.output(node)]);
        break;
      case "exp":
      case "log":
      case "sqrt":
      case "erf":
      case "sigmoid":
        this.builder.emit(node.op, [input(0)], [this.output(node)]);
        break;
      case "stopGradient":
        this.values.set(node.id, this.builder.view(input(0), this.shape(node.id)));
        break;
      case "rope":
        this.builder.emit("rope", [input(0)], [this.output(node)],
          { heads: numbers.heads!, headSize: numbers.headSize!, base: numbers.base!, inverse: Number(numbers.inverse) });
        break;
      case "transpose":
        copied(this.builder, input(0), this.output(node), transposed(this.shape(node.inputs[0]!), node.attributes.permutation as readonly number[]));
        break;
      case "slice":
        copied(this.builder, input(0), this.output(node), placed(this.shape(node.id), this.shape(node.inputs[0]!), numbers.axis!, numbers.start!, "from"));
        break;
      case "pad":
        copied(this.builder, input(0), this.output(node),
          { ...placed(this.shape(node.inputs[0]!), this.shape(node.id), numbers.axis!, numbers.before!, "to"), clear: true });
        break;
      case "concat": {
        const out = this.output(node);
        let start = 0;
        node.inputs.forEach((id, i) => {
          copied(this.builder, input(i), out, placed(this.shape(id), this.shape(node.id), numbers.axis!, start, "to"));
          start += this.shape(id)[numbers.axis!]!;
        });
        break;
      }
      case "expand":
        copied(this.builder, input(0), this.output(node), expanded(this.shape(node.inputs[0]!), this.shape(node.id)));
        break;
      case "sum":
        summed(this.builder, input(0), this.shape(node.inputs[0]!), node.attributes.axes as readonly number[], this.output(node));
        break;
      case "silu":
        this.builder.emit("silu", [input(0)], [this.output(node)]);
        break;
      case "siluGrad":
        this.builder.emit("silu_grad", [input(0), input(1)], [this.output(node)]);
        break;
      case "softmax":
        this.builder.emit("softmax", [input(0)], [this.output(node)]);
        break;
      case "softmaxGrad":
        this.builder.emit("softmax_grad", [input(0), input(1)], [this.output(node)]);
        break;
      case "layerNorm":
      case "rmsNorm": {
        const centred = node.op === "layerNorm";
        const rows = [elementsOf(input(0).shape) / input(1).shape[0]!];
        const saved = (centred ? ["mean", "rstd"] : ["rstd"]).map((name) => this.builder.temporary(`${node.name}:${name}`, rows));
        this.sideValues.set(node.id, saved);
        this.builder.emit(centred ? "layer_norm" : "rms_norm", node.inputs.map((id) => this.value(id)),
          [this.output(node), ...saved], { epsilon: numbers.epsilon! });
        break;
      }
      case "layerNormGrad":
      case "rmsNormGrad": {
        const centred = node.op === "layerNormGrad";
        const sums = (centred ? [0, 1] : [0]).map((which) => this.normVector(node, which, input(2).shape));
        this.sideValues.set(node.id, sums);
        this.builder.emit(centred ? "layer_norm_grad" : "rms_norm_grad",
          [input(0), input(1), input(2), ...this.sides(node.inputs[3]!)], [this.output(node), ...sums]);
        break;
      }
      case "normVectorGrad":
        this.values.set(node.id, this.sides(node.inputs[0]!)[numbers.which!]!);
        break;
      case "dropout": {
        const { run } = this.options;
        if (run === undefined || numbers.rate === 0) {
          this.values.set(node.id, this.builder.view(input(0), this.shape(node.id)));
          break;
        }
        const [seedLow, seedHigh] = philoxKey(BigInt(numbers.seed!)) as [number, number];
        this.builder.emit("dropout", [input(0), run], [this.output(node)],
          { rate: numbers.rate!, stream: numbers.stream!, seedLow, seedHigh });
        break;
      }
      case "embedding":
        this.builder.emit("embedding", [input(0), input(1)], [this.output(node)]);
        break;
      case "embeddingGrad":
        this.builder.emit("embedding_grad", [input(0), input(1)], [this.output(node)]);
        break;
      case "attention": {
        const [batch, length] = input(0).shape as [number, number];
        const lse = this.builder.temporary(`${node.name}:lse`, [batch, numbers.heads!, length]);
        this.sideValues.set(node.id, [lse]);
        this.builder.emit("attention", [input(0)], [this.output(node), lse],
          { heads: numbers.heads!, causal: Number(numbers.causal) });
        break;
      }
      case "attentionGrad":
        this.builder.emit("attention_grad", [input(0), input(1), input(2), this.side(node.inputs[2]!)],
          [this.output(node)], { heads: numbers.heads!, causal: Number(numbers.causal) });
        break;
      case "assign":
        this.values.set(node.id, input(1));
        this.builder.emit("scale", [input(1)], [input(0)], { alpha: 1, beta: 0 });
        break;
      case "assignAdd": {
        const sum = this.output(node);
        this.builder.emit("add", [input(0), input(1)], [sum]);
        this.builder.emit("scale", [sum], [input(0)], { alpha: 1, beta: 0 });
        break;
      }
      case "relu":
        this.builder.emit("relu", [input(0)], [this.output(node)]);
        break;
      case "reluGrad":
        this.builder.emit("relu_grad", [input(0), input(1)], [this.output(node)]);
        break;
      case "maxPool": {
        const index = this.builder.temporary(`${node.name}:index`, this.shape(node.id), "i32");
        this.sideValues.set(node.id, [index]);
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
        const columns = elementsOf(this.shape(node.id));
        const db = this.output(node);
        this.builder.emit("bias_grad", [this.rows(input(0), columns)],
          [db.shape.length === 1 ? db : this.builder.view(db, [columns])]);
        break;
      }
      case "conv2dInputGrad":
        this.builder.emit("conv2d_dx", [input(0), input(1)], [this.output(node)], { ...numbers });
        break;
      case "conv2dWeightGrad":
        this.builder.emit("conv2d_dw", [input(0), input(1)], [this.output(node)], { ...numbers });
        break;
      case "softmaxCrossEntropy": {
        const logits = this.rows(input(0), input(0).shape.at(-1)!);
        const gradient = this.ownsLogits(node.inputs[0]!)
          ? this.builder.view(logits, logits.shape)
          : this.builder.temporary(`${node.name}:gradient`, logits.shape);
        this.sideValues.set(node.id, [gradient]);
        this.builder.emit("softmax_xent", [logits, input(1)], [this.output(node), gradient]);
        break;
      }
      case "softmaxCrossEntropyGrad": {
        const gradient = this.side(node.inputs[0]!), shape = this.shape(node.id);
        this.values.set(node.id, shape.length === 2 ? gradient : this.builder.view(gradient, shape));
        break;
      }
      case "countCorrect":
        this.builder.emit("count_correct", [this.rows(input(0), input(0).shape.at(-1)!), input(1)], [this.output(node)]);
        break;
      default:
        throw new GraphError("unsupported", "cannot be compiled here (no value was fed)", { op: node.op, node: node.name })
          .located(this.options.graph.positionOf(node.id));
    }
  }

  private lowerProduct(producer: GraphNode, node: GraphNode, bias: number | undefined, relu: boolean, counted = false): void {
    if (!counted) this.count(producer);
    const product = producer.op === "matmul";
    // All dimensions but the last count a product's rows.
    const matrix = (tensor: PlanTensor): PlanTensor => (product ? this.rows(tensor, tensor.shape.at(-1)!) : tensor);
    const inputs = producer.inputs.map((input) => matrix(this.value(input)));
    if (bias !== undefined) inputs.push(this.value(bias));
    const attributes: Record<string, number> = product
      ? { transA: Number(producer.attributes.transposeA), transB: Number(producer.attributes.transposeB) }
      : { ...(producer.attributes as Record<string, number>) };
    this.builder.emit(product ? "gemm" : "conv2d", inputs, [matrix(this.output(node))],
      { ...attributes, relu: Number(relu), ...(product && this.options.precision === "bf16" && { bf16: 1 }) });
  }

  /** The tensor as a matrix of rows of `columns`. */
  private rows(tensor: PlanTensor, columns: number): PlanTensor {
    if (tensor.shape.length === 2 && tensor.shape[1] === columns) return tensor;
    return this.builder.view(tensor, [elementsOf(tensor.shape) / columns, columns]);
  }

  /** Whether only the loss reads these logits, so that their gradient may take their place. */
  private ownsLogits(id: number): boolean {
    const { op } = this.options.graph.nodes[id]!;
    return (op === "matmul" || op === "biasAdd") && this.readers[id] === 1 && !this.options.targets.has(id) &&
      !this.options.given.has(id);
  }

  /** Where a norm's gradient leaves the sums for gamma or beta: at their first target, else in a temporary. */
  private normVector(norm: GraphNode, which: number, shape: number[]): PlanTensor {
    const reader = this.options.graph.nodes.find((node) => node.op === "normVectorGrad" && this.live[node.id] &&
      node.inputs[0] === norm.id && node.attributes.which === which);
    const target = reader && this.options.targets.get(reader.id)?.[0];
    return target ?? this.builder.temporary(`${norm.name}:${which === 0 ? "gamma" : "beta"}`, shape);
  }

  private sides(id: number): readonly PlanTensor[] {
    const tensors = this.sideValues.get(id);
    if (tensors === undefined) {
      const { op, name } = this.options.graph.nodes[id]!;
      throw new GraphError("unsupported", "a gradient needs what this node computes beside its value: it cannot be fed", { op, node: name })
        .located(this.options.graph.positionOf(id));
    }
    return tensors;
  }
  private side(id: number): PlanTensor { return this.sides(id)[0]!; }

  private count(node: GraphNode): void {
    const cost = OPS[node.op]!.multiplyAdds;
    if (cost === undefined) return;
    const type = (id: number): { shape: number[]; dtype: "f32" } => ({ shape: this.shape(id), dtype: "f32" });
    this.multiplyAdds += cost(node.inputs.map(type), type(node.id), node.attributes);
  }
}
