/**
 * Owns: an ONNX model made into a graph whose weights are variables, so that it can be trained, fetched
 * and exported again. Invariant: everything the file says is checked before it is used: a node may read
 * inputs, initializers and earlier nodes alone, so a cycle or a missing weight is an unknown name; an
 * operator or attribute whose meaning would be lost is refused by name.
 */
import { parameterLayout } from "../../compile/layout.js";
import { GraphError, TrainingError } from "../../errors.js";
import { Graph, type Tensor } from "../../graph/graph.js";
import { RANK_MAX, type DType } from "../../graph/ops.js";
import { Flow, isFlow, NodeReader, type Value, type Weights } from "./flow.js";
import { MATH_OPERATORS } from "./math-operators.js";
import { decodeModel, type OnnxGraphProto, type OnnxValueProto } from "./schema.js";
import { SHAPE_OPERATORS, type Operator } from "./shape-operators.js";
import { DIMENSION_MAX, readTensor, TYPE_NAMES, type Constant, type ExternalData } from "./tensor.js";

export interface OnnxImportOptions {
  /** Sizes for named dimensions such as "sequence"; the first dimension of an input may stay the batch. */
  dimensions?: Readonly<Record<string, number>>;
  /** Shapes of inputs by name in place of the file's; null first is the batch. */
  shapes?: Readonly<Record<string, readonly (number | null)[]>>;
  /** Reads weights that lie beside the model; without it they are refused. */
  externalData?: ExternalData;
}

export interface OnnxModel {
  graph: Graph;
  /** By the file's names; a placeholder of our name for each. */
  inputs: { name: string; tensor: Tensor }[];
  outputs: { name: string; tensor: Tensor }[];
  /** The weights as the flat vector of the graph's layout, as it is now: variables added later come behind. */
  parameters: Float32Array<ArrayBuffer>;
  producer: string;
}

const OPERATORS: Readonly<Record<string, Operator>> = { ...SHAPE_OPERATORS, ...MATH_OPERATORS };
/** What importOnnx() reads. */
export const ONNX_OPERATORS: readonly string[] = Object.keys(OPERATORS).sort();

/** Operator sets whose meaning the operators here have: older ones differ, newer ones are not known. */
const OPSET_MIN = 9, OPSET_MAX = 25;
/** PyTorch writes some thousands for the largest of models. */
const NODES_MAX = 100_000;
const INPUT_TYPES: Readonly<Record<number, DType>> = { 1: "f32", 2: "u8", 6: "i32", 7: "i32" };

const fail = (message: string): never => {
  throw new TrainingError("format", `onnx: ${message}`);
};

/** Throws TrainingError with the code "format" for anything that is not a model of supported operators. */
export function importOnnx(bytes: Uint8Array, options: OnnxImportOptions = {}): OnnxModel {
  const model = decodeModel(bytes), proto = model.graph ?? fail("the model has no graph");
  const opset = Number(model.opsetImport.find(({ domain }) => isCore(domain))?.version ?? 0);
  if (!(opset >= OPSET_MIN && opset <= OPSET_MAX)) fail(`operator set ${opset} is not read; expected ${OPSET_MIN} to ${OPSET_MAX}`);
  if (proto.node.length > NODES_MAX) fail(`${proto.node.length} nodes are more than ${NODES_MAX}`);
  const weights = new GraphWeights(opset, options.externalData), values = new Map<string, Value>();
  const define = (name: string, value: Value): void => {
    if (values.has(name)) fail(`"${name}" is defined twice`);
    values.set(name, value);
  };
  for (const tensor of proto.initializer) define(tensor.name, readTensor(tensor, options.externalData));
  const inputs = proto.input.filter(({ name }) => !values.has(name)).map((input) => {
    const tensor = weights.placeholder(input, options);
    define(input.name, Flow.of(tensor));
    return { name: input.name, tensor };
  });
  runNodes(proto, values, define, weights);
  const outputs = proto.output.map(({ name }) => {
    const value = values.get(name) ?? fail(`the output "${name}" is given by no node`);
    return { name, tensor: isFlow(value) ? value.plain() : weights.tensor(value, name) };
  });
  if (outputs.length === 0) fail("the model has no outputs");
  return { graph: weights.graph, inputs, outputs, parameters: weights.flat(), producer: `${model.producerName} ${model.producerVersion}`.trim() };
}

const isCore = (domain: string): boolean => domain === "" || domain === "ai.onnx";

function runNodes(proto: OnnxGraphProto, values: Map<string, Value>, define: (name: string, value: Value) => void, weights: GraphWeights): void {
  proto.node.forEach((node, position) => {
    const label = node.name === "" ? `#${position}` : node.name;
    const operator = isCore(node.domain) && Object.hasOwn(OPERATORS, node.opType) ? OPERATORS[node.opType]! : undefined;
    if (operator === undefined) {
      throw new TrainingError("format", `onnx: ${node.domain === "" ? "" : `${node.domain}.`}${node.opType} "${label}" is not supported; supported are ` +
        ONNX_OPERATORS.join(", "), { node: label, op: node.opType });
    }
    const given = node.input.map((name) => {
      if (name === "") return undefined;
      return values.get(name) ?? fail(`${node.opType} "${label}" reads "${name}", which no input, weight or earlier node gives`);
    });
    const reader = new NodeReader(node, label, given, weights);
    let results: Value[];
    try {
      results = operator(reader);
      reader.finish();
      if (node.output.length === 0 || results.length < node.output.filter((name) => name !== "").length) {
        reader.fail(`gives ${results.length} results, not ${node.output.length}`);
      }
    } catch (error) {
      if (error instanceof GraphError) reader.fail(error.message);
      throw error;
    }
    node.output.forEach((name, i) => {
      if (name !== "") define(name, results[i]!);
    });
  });
}

/** Variables of the graph by the constants they hold. */
class GraphWeights implements Weights {
  readonly graph = new Graph();
  private readonly tensors = new Map<ArrayLike<number>, Tensor>();
  private readonly data = new Map<string, Float32Array>();
  private readonly names = new Set<string>();

  constructor(readonly opset: number, readonly external?: ExternalData) {}

  tensor(constant: Constant, role: string): Tensor {
    const known = this.tensors.get(constant.data);
    if (known !== undefined) {
      const same = known.shape.length === constant.shape.length && known.shape.every((size, i) => size === constant.shape[i]);
      return same ? known : known.reshape(constant.shape);
    }
    if (!constant.float) fail(`"${constant.name || role}" is of whole numbers, which are no weights`);
    if (constant.shape.length > RANK_MAX || constant.shape.includes(0)) fail(`"${constant.name || role}" (${constant.shape.join(" x ")}) is no weight that a graph can have`);
    const variable = this.graph.variable(this.unique(constant.name || role), constant.shape, { kind: "zeros" });
    this.data.set(variable.name, constant.data as Float32Array);
    const tensor = constant.fixed ? variable.stopGradient() : variable;
    this.tensors.set(constant.data, tensor);
    return tensor;
  }

  placeholder({ name, type }: OnnxValueProto, options: OnnxImportOptions): Tensor {
    const { elemType = 0, shape } = type?.tensorType ?? {};
    const dtype = INPUT_TYPES[elemType] ?? fail(`the input "${name}" is of ${TYPE_NAMES[elemType] ?? `type ${elemType}`}; expected float, uint8, int32 or int64`);
    const given = options.shapes?.[name];
    const sizes = given ?? (shape ?? fail(`the input "${name}" has no shape; give it by \`shapes\``)).dim.map(({ dimValue, dimParam }, i) => {
      const size = Number(dimValue ?? options.dimensions?.[dimParam ?? ""] ?? 0);
      if (size === 0 && i === 0) return null;
      return size !== 0 ? size : fail(`dimension ${i} ("${dimParam ?? ""}") of the input "${name}" has no size; give it by \`dimensions\``);
    });
    const odd = sizes.find((size, i) => (size === null ? i > 0 : !Number.isInteger(size) || size < 1 || size > DIMENSION_MAX));
    if (odd !== undefined || sizes.length > RANK_MAX) fail(`the input "${name}" has the shape ${JSON.stringify(sizes)}`);
    return this.graph.placeholder(this.unique(name), sizes, dtype);
  }

  flat(): Float32Array<ArrayBuffer> {
    const { parameters, parameterCount } = parameterLayout(this.graph), out = new Float32Array(parameterCount);
    for (const { name, offset } of parameters) out.set(this.data.get(name)!, offset);
    return out;
  }

  /** A name that the graph takes, near to the file's. */
  private unique(wanted: string): string {
    const base = wanted.replace(/[^A-Za-z0-9_./-]/g, "_").replace(/^[./-]+/, "").slice(0, 100) || "value";
    let name = base;
    for (let i = 1; this.names.has(name); i++) name = `${base}_${i}`;
    this.names.add(name);
    return name;
  }
}
