/**
 * Owns: a graph and its parameters written as an ONNX model of operator set 20, for inference by other
 * runtimes. Invariant: every fetched value means what it means here; what has no form in ONNX (losses,
 * gradients) is refused by name.
 * Image ops are NCHW in ONNX: a value is known in either layout, and a Transpose is written only where
 * the other one is read, so that an imported model does not grow by going out again.
 */
import { neededNodes } from "../../compile/fetch.js";
import { parameterLayout } from "../../compile/layout.js";
import { GraphError, TrainingError } from "../../errors.js";
import type { Graph, GraphNode, Tensor } from "../../graph/graph.js";
import { BATCH } from "../../graph/ops.js";
import { encodeModel } from "./schema.js";
import { FLOAT, floatTensor, intTensor } from "./tensor.js";

export interface OnnxExportOptions {
  outputs: readonly Tensor[];
  /** The flat vector of the graph's layout. */
  parameters: Float32Array;
  /** Names of the outputs in the file; by default their tensors' names. */
  outputNames?: readonly string[];
  /** Names of placeholders in the file, by ours. */
  inputNames?: Readonly<Record<string, string>>;
}

/** Gelu is an operator from set 20 on; IR version 9 is the one that came with it. */
const OPSET = 20, IR_VERSION = 9;
const UINT8 = 2, INT32 = 6;
const TO_LAST = [0, 2, 3, 1], TO_FIRST = [0, 3, 1, 2];
/** Added to scores that a position may not see: far below any score, and no infinity, which some runtimes turn into NaN. */
const MASKED = -1e30;

type AttributeValue = number | { float: number } | string | readonly number[];
const equal = (a: readonly number[], b: readonly number[]): boolean => a.length === b.length && a.every((x, i) => x === b[i]);

/** Throws GraphError for an op that has no form in ONNX, TrainingError for parameters of another length. */
export function exportOnnx(graph: Graph, options: OnnxExportOptions): Uint8Array {
  const { outputs, parameters, outputNames = outputs.map(({ name }) => name), inputNames = {} } = options;
  const layout = parameterLayout(graph);
  if (parameters.length !== layout.parameterCount) {
    throw new TrainingError("length", `the graph has ${layout.parameterCount} parameters, got ${parameters.length}`);
  }
  const needed = neededNodes(graph, outputs, []), writer = new OnnxWriter(graph);
  const slots = new Map(layout.parameters.map((slot) => [slot.name, slot]));
  const inputs = needed.filter(({ op }) => op === "placeholder").map((node) => {
    const name = inputNames[node.name] ?? node.name;
    writer.set(node.id, name);
    return valueInfo(name, node);
  });
  for (const node of needed) {
    if (node.op === "placeholder") continue;
    if (node.op === "variable") {
      const { offset, size, shape } = slots.get(node.name)!;
      writer.variable(node, shape, parameters.slice(offset, offset + size));
    } else writer.write(node);
  }
  outputs.forEach(({ id }, i) => writer.rename(id, outputNames[i]!));
  return encodeModel({
    irVersion: IR_VERSION, producerName: "tesra-supernet", opsetImport: [{ domain: "", version: OPSET }],
    graph: {
      name: "graph", node: writer.nodes, initializer: writer.initializers, input: inputs,
      output: outputs.map((tensor, i) => valueInfo(outputNames[i]!, tensor)),
    },
  });
}

function valueInfo(name: string, { shape, dtype }: Pick<GraphNode, "shape" | "dtype">): object {
  const dim = shape.map((size) => (size === BATCH ? { dimParam: "batch" } : { dimValue: size }));
  return { name, type: { tensorType: { elemType: { f32: FLOAT, u8: UINT8, i32: INT32 }[dtype], shape: { dim } } } };
}

class OnnxWriter {
  readonly nodes: object[] = [];
  readonly initializers: object[] = [];
  private readonly plain = new Map<number, string>();
  private readonly channelsFirst = new Map<number, string>();
  private readonly weights = new Map<number, { shape: readonly number[]; data: Float32Array; name: string }>();
  /** Nodes that repeat another: sums and products in ONNX repeat by themselves, so they are written for other readers alone. */
  private readonly repeated = new Map<number, number>();
  private readonly written = new Set<string>();
  private readonly aliases = new Map<string, string>();
  private fresh = 0;

  constructor(private readonly graph: Graph) {}

  set(id: number, name: string): void { this.plain.set(id, name); }
  variable(node: GraphNode, shape: readonly number[], data: Float32Array): void {
    this.weights.set(node.id, { shape, data, name: node.name });
  }

  /** The value as it is here. */
  private name(id: number): string {
    const weight = this.weights.get(id);
    if (weight !== undefined) return this.initializer(weight.name, weight.shape, weight.data);
    const known = this.plain.get(id);
    if (known !== undefined) return known;
    const name = this.repeated.has(id) ? this.expanded(this.graph.nodes[id]!) : this.emit("Transpose", [this.channelsFirst.get(id)!], { perm: TO_LAST });
    this.plain.set(id, name);
    return name;
  }
  /** An image as (N, C, H, W). */
  private imageName(id: number): string {
    const known = this.channelsFirst.get(id);
    if (known !== undefined) return known;
    const name = this.emit("Transpose", [this.name(id)], { perm: TO_FIRST });
    this.channelsFirst.set(id, name);
    return name;
  }
  private initializer(name: string, shape: readonly number[], data: Float32Array): string {
    if (!this.written.has(name)) this.initializers.push(floatTensor(name, shape, data));
    this.written.add(name);
    return name;
  }
  private ints(values: readonly number[]): string {
    const name = `ints_${values.join("_").replaceAll("-", "m")}`;
    if (!this.written.has(name)) this.initializers.push(intTensor(name, [values.length], values));
    this.written.add(name);
    return name;
  }
  private float(value: number): string { return this.initializer(`float_${value}`, [], Float32Array.of(value)); }

  private emit(opType: string, input: readonly string[], attributes: Record<string, AttributeValue> = {}, outputs = 1): string {
    const output = Array.from({ length: outputs }, () => `v${this.fresh++}`);
    this.nodes.push({ opType, input, output, name: output[0], attribute: Object.entries(attributes).map(([name, value]) => attributeOf(name, value)) });
    return output[0]!;
  }
  private outputs(first: string, count: number): string[] {
    return Array.from({ length: count }, (_, i) => `v${Number(first.slice(1)) + i}`);
  }

  /** An output is given its name by an Identity: a value may be an input, or fetched twice. */
  rename(id: number, name: string): void {
    if (this.aliases.has(name)) throw new TrainingError("option", `two outputs are named "${name}"`);
    const input = this.name(id);
    this.aliases.set(name, input);
    this.nodes.push({ opType: "Identity", input: [input], output: [name], name: `output:${name}`, attribute: [] });
  }

  write(node: GraphNode): void {
    const [a, b, c] = node.inputs as [number, number, number];
    const numbers = node.attributes as Record<string, number>, put = (name: string): void => void this.plain.set(node.id, name);
    /** Ops that treat every element alike stay in the layout they find. */
    const either = (f: (x: string) => string): void => {
      if (!this.plain.has(a) && this.channelsFirst.has(a)) this.channelsFirst.set(node.id, f(this.channelsFirst.get(a)!));
      else put(f(this.name(a)));
    };
    const pointwise = (opType: string, attributes: Record<string, AttributeValue> = {}): void => either((x) => this.emit(opType, [x], attributes));
    switch (node.op) {
      case "stopGradient":
      case "dropout":
        either((x) => x);
        break;
      case "relu": pointwise("Relu"); break;
      case "exp": pointwise("Exp"); break;
      case "log": pointwise("Log"); break;
      case "sqrt": pointwise("Sqrt"); break;
      case "erf": pointwise("Erf"); break;
      case "sigmoid": pointwise("Sigmoid"); break;
      case "gelu": pointwise("Gelu", { approximate: numbers.tanh ? "tanh" : "none" }); break;
      case "silu": either((x) => this.emit("Mul", [x, this.emit("Sigmoid", [x])])); break;
      case "scale":
        either((x) => {
          const scaled = numbers.alpha === 1 ? x : this.emit("Mul", [x, this.float(numbers.alpha!)]);
          return numbers.beta === 0 ? scaled : this.emit("Add", [scaled, this.float(numbers.beta!)]);
        });
        break;
      case "toFloat": put(this.emit("Add", [this.emit("Mul", [this.emit("Cast", [this.name(a)], { to: FLOAT }), this.float(numbers.scale!)]), this.float(numbers.shift!)])); break;
      case "add": case "mul": case "div": {
        const opType = { add: "Add", mul: "Mul", div: "Div" }[node.op];
        const images = [a, b].every((id) => !this.plain.has(id) && this.channelsFirst.has(id));
        const [wide, narrow] = this.repeated.has(b) ? [a, b] : [b, a];
        if (this.repeated.has(narrow) && !this.repeated.has(wide)) this.withRepeated(node, opType, wide, this.repeated.get(narrow)!, narrow === b);
        else if (images) this.channelsFirst.set(node.id, this.emit(opType, [this.channelsFirst.get(a)!, this.channelsFirst.get(b)!]));
        else put(this.emit(opType, [this.name(a), this.name(b)]));
        break;
      }
      case "biasAdd": {
        const weight = this.weights.get(b), image = !this.plain.has(a) && this.channelsFirst.has(a);
        if (image && weight?.shape.length === 1) {
          const bias = this.initializer(`${weight.name}:image`, [weight.shape[0]!, 1, 1], weight.data);
          this.channelsFirst.set(node.id, this.emit("Add", [this.channelsFirst.get(a)!, bias]));
        } else put(this.emit("Add", [this.name(a), this.name(b)]));
        break;
      }
      case "matmul": put(this.product(node)); break;
      case "layerNorm": put(this.emit("LayerNormalization", [this.name(a), this.name(b), this.name(c)], { axis: -1, epsilon: { float: numbers.epsilon! } })); break;
      case "rmsNorm": {
        const x = this.name(a), square = this.emit("ReduceMean", [this.emit("Mul", [x, x]), this.ints([-1])]);
        const root = this.emit("Sqrt", [this.emit("Add", [square, this.float(numbers.epsilon!)])]);
        put(this.emit("Mul", [this.emit("Div", [x, root]), this.name(b)]));
        break;
      }
      case "softmax": put(this.emit("Softmax", [this.name(a)], { axis: -1 })); break;
      case "embedding": put(this.emit("Gather", [this.name(a), this.name(b)], { axis: 0 })); break;
      case "attention": put(this.attention(this.name(a), node.shape, numbers.heads!, Boolean(numbers.causal))); break;
      case "rope": put(this.rope(this.name(a), node)); break;
      case "conv2d": {
        const weight = this.weights.get(b);
        const kernel = weight === undefined ? this.emit("Transpose", [this.name(b)], { perm: [3, 2, 0, 1] })
          : this.initializer(`${weight.name}:oihw`, [3, 2, 0, 1].map((axis) => weight.shape[axis]!), channelsFirst(weight.data, weight.shape));
        const { strideH, strideW, padH, padW } = numbers as { strideH: number; strideW: number; padH: number; padW: number };
        this.channelsFirst.set(node.id, this.emit("Conv", [this.imageName(a), kernel], { strides: [strideH, strideW], pads: [padH, padW, padH, padW] }));
        break;
      }
      case "maxPool": case "avgPool": {
        const window = { kernel_shape: [numbers.kernel!, numbers.kernel!], strides: [numbers.stride!, numbers.stride!] };
        this.channelsFirst.set(node.id, this.emit(node.op === "maxPool" ? "MaxPool" : "AveragePool", [this.imageName(a)], window));
        break;
      }
      case "reshape": put(this.emit("Reshape", [this.name(a), this.ints(node.shape.map((size) => (size === BATCH ? -1 : size)))])); break;
      case "transpose": {
        const permutation = node.attributes.permutation as readonly number[];
        if (equal(permutation, TO_LAST) && this.plain.has(a)) this.channelsFirst.set(node.id, this.plain.get(a)!);
        else if (equal(permutation, TO_FIRST)) put(this.imageName(a));
        else put(this.emit("Transpose", [this.name(a)], { perm: permutation }));
        break;
      }
      case "slice": put(this.emit("Slice", [this.name(a), this.ints([numbers.start!]), this.ints([numbers.start! + numbers.size!]), this.ints([numbers.axis!])])); break;
      case "pad": {
        const pads = new Array<number>(2 * node.shape.length).fill(0);
        pads[numbers.axis!] = numbers.before!;
        pads[node.shape.length + numbers.axis!] = numbers.after!;
        put(this.emit("Pad", [this.name(a), this.ints(pads)]));
        break;
      }
      case "concat": put(this.emit("Concat", node.inputs.map((id) => this.name(id)), { axis: numbers.axis! })); break;
      case "expand": this.repeated.set(node.id, a); break;
      case "sum": {
        const axes = node.attributes.axes as readonly number[];
        put(this.emit("ReduceSum", axes.length === 0 ? [this.name(a)] : [this.name(a), this.ints(axes)], { keepdims: 0 }));
        break;
      }
      default: this.refuse(node, "has no form in ONNX; export what comes before the loss");
    }
  }

  private expanded(node: GraphNode): string {
    const [from] = node.inputs as [number];
    if (node.shape[0] === BATCH && this.graph.nodes[from]!.shape.length < node.shape.length) {
      this.refuse(node, "makes the batch out of nothing, for which a file has no size");
    }
    return this.emit("Expand", [this.name(from), this.ints(node.shape.map((size) => (size === BATCH ? 1 : size)))]);
  }

  /** A sum, product or quotient with what `narrow` holds, on the right or on the left. */
  private withRepeated(node: GraphNode, opType: string, wide: number, narrow: number, right: boolean): void {
    const weight = this.weights.get(narrow), image = !this.plain.has(wide) && this.channelsFirst.has(wide) && weight?.shape.length === 1;
    const names = image ? [this.channelsFirst.get(wide)!, this.initializer(`${weight.name}:image`, [weight.shape[0]!, 1, 1], weight.data)]
      : [this.name(wide), this.name(narrow)];
    (image ? this.channelsFirst : this.plain).set(node.id, this.emit(opType, right ? names : names.toReversed()));
  }

  private refuse(node: GraphNode, message: string): never {
    throw new GraphError("unsupported", message, { op: node.op, node: node.name });
  }

  private product(node: GraphNode): string {
    const [a, b] = node.inputs as [number, number], { transposeA, transposeB } = node.attributes as { transposeA: boolean; transposeB: boolean };
    if (transposeA) this.refuse(node, "with a transposed left side is only written for gradients");
    return this.emit("MatMul", [this.name(a), transposeB ? this.emit("Transpose", [this.name(b)], { perm: [1, 0] }) : this.name(b)]);
  }

  /** softmax(q k' / sqrt(size) + mask) v, head by head. */
  private attention(qkv: string, [, length, width]: readonly number[], heads: number, causal: boolean): string {
    const size = width! / heads, split = this.emit("Split", [qkv], { axis: 2, num_outputs: 3 }, 3);
    const [q, k, v] = this.outputs(split, 3).map((part) => this.emit("Reshape", [part, this.ints([0, length!, heads, size])]));
    const scores = this.emit("MatMul", [this.emit("Transpose", [q!], { perm: [0, 2, 1, 3] }), this.emit("Transpose", [k!], { perm: [0, 2, 3, 1] })]);
    let scaled = this.emit("Mul", [scores, this.float(Math.fround(1 / Math.sqrt(size)))]);
    if (causal) {
      const mask = Float32Array.from({ length: length! ** 2 }, (_, i) => (i % length! > Math.floor(i / length!) ? MASKED : 0));
      scaled = this.emit("Add", [scaled, this.initializer(`mask_${length}`, [length!, length!], mask)]);
    }
    const mixed = this.emit("MatMul", [this.emit("Softmax", [scaled], { axis: -1 }), this.emit("Transpose", [v!], { perm: [0, 2, 1, 3] })]);
    return this.emit("Reshape", [this.emit("Transpose", [mixed], { perm: [0, 2, 1, 3] }), this.ints([0, length!, width!])]);
  }

  private rope(x: string, node: GraphNode): string {
    const { heads, headSize, base, inverse } = node.attributes as { heads: number; headSize: number; base: number; inverse: boolean };
    const [, length, columns] = node.shape as [number, number, number], half = headSize / 2, turning = heads * headSize;
    const table = (f: (angle: number) => number, name: string): string => this.initializer(`${name}_${length}_${headSize}_${base}_${inverse}`, [length, 1, 1, half],
      Float32Array.from({ length: length * half }, (_, i) => f((inverse ? -1 : 1) * Math.floor(i / half) * base ** (-2 * (i % half) / headSize))));
    const [cosine, sine] = [table(Math.cos, "cos"), table(Math.sin, "sin")];
    const turned = turning === columns ? x : this.emit("Slice", [x, this.ints([0]), this.ints([turning]), this.ints([2])]);
    const pairs = this.emit("Split", [this.emit("Reshape", [turned, this.ints([0, length, heads, 2, half])])], { axis: 3, num_outputs: 2 }, 2);
    const [low, high] = this.outputs(pairs, 2) as [string, string];
    const times = (part: string, by: string): string => this.emit("Mul", [part, by]);
    const out = this.emit("Concat", [this.emit("Sub", [times(low, cosine), times(high, sine)]), this.emit("Add", [times(high, cosine), times(low, sine)])], { axis: 3 });
    const flat = this.emit("Reshape", [out, this.ints([0, length, turning])]);
    return turning === columns ? flat : this.emit("Concat", [flat, this.emit("Slice", [x, this.ints([turning]), this.ints([columns]), this.ints([2])])], { axis: 2 });
  }
}

/** (KH, KW, C, OC) to (OC, C, KH, KW). */
function channelsFirst(data: Float32Array, [kh, kw, c, oc]: readonly number[]): Float32Array {
  const out = new Float32Array(data.length), window = kh! * kw!;
  for (let at = 0; at < window; at++) {
    for (let p = 0; p < c!; p++) for (let o = 0; o < oc!; o++) out[(o * c! + p) * window + at] = data[(at * c! + p) * oc! + o]!;
  }
  return out;
}

/** AttributeProto.AttributeType: 1 float, 2 int, 3 string, 4 tensor, 7 ints. */
function attributeOf(name: string, value: AttributeValue): object {
  if (typeof value === "number") return { name, type: 2, i: value };
  if (typeof value === "string") return { name, type: 3, s: new TextEncoder().encode(value) };
  if (Array.isArray(value)) return { name, type: 7, ints: value };
  return { name, type: 1, f: (value as { float: number }).float };
}
