/**
 * Owns: the graph under construction: its nodes in creation order, names, device scopes.
 * Invariant: a node's inputs have smaller ids than the node, so the node list is a topological
 * order and a cycle cannot be expressed.
 */
import { GraphError, type Shape } from "../errors.js";
import { placeNode, type DeviceChooser } from "./device-spec.js";
import { formatShape, OPS, BATCH, DTYPES, type Attributes, type DType, type Fail } from "./ops.js";
import { captureTrace, userPosition, type Trace } from "./position.js";
import { fanOf, heUniform, type Initializer } from "./initializer.js";

export interface GraphNode {
  readonly id: number;
  readonly op: string;
  readonly name: string;
  readonly inputs: readonly number[];
  readonly attributes: Attributes;
  readonly shape: Shape;
  readonly dtype: DType;
  /** "" or a device like "/job:ps/task:0". */
  readonly device: string;
  /** Nodes that run before this one though it reads nothing of them. */
  readonly controls: readonly number[];
}

const NO_CONTROLS: readonly number[] = Object.freeze([]);
const NAME = /^[A-Za-z0-9_][A-Za-z0-9_./-]{0,119}$/;

export interface GraphOptions {
  /** Remember where in the user's code each node was made, for errors that are found later (default true). */
  positions?: boolean;
}

export class Graph {
  readonly nodes: GraphNode[] = [];
  private readonly names = new Map<string, number>();
  private readonly traces: (Trace | undefined)[] = [];
  private readonly deviceScopes: (string | DeviceChooser | null)[] = [];
  private readonly nameScopes: string[] = [];
  private readonly controlScopes: (readonly number[] | null)[] = [];
  private readonly unnamed = new Map<string, number>();

  constructor(private readonly options: GraphOptions = {}) {}

  /**
   * Every node made inside `body` is placed by `device`: a device string, any part of which may be left
   * out, or a function of the node. Scopes nest: what the inner leaves open the outer fills in; null
   * leaves the scopes outside without effect (TensorFlow's tf.device).
   */
  device<T>(device: string | DeviceChooser | null, body: () => T): T {
    this.deviceScopes.push(device);
    try {
      return body();
    } finally {
      this.deviceScopes.pop();
    }
  }

  /** Every node made inside `body` is placed exactly where `tensor` is, whatever the scopes say. */
  colocateWith<T>(tensor: Tensor, body: () => T): T {
    return this.device(null, () => this.device(tensor.deviceName, body));
  }

  /** Names made inside `body` get the prefix `scope/`. */
  scope<T>(scope: string, body: () => T): T {
    this.nameScopes.push(scope);
    try {
      return body();
    } finally {
      this.nameScopes.pop();
    }
  }

  /**
   * Nodes made inside `body` run after all of `before`, and make them run. Scopes nest; null leaves the
   * scopes outside without effect (TensorFlow's control_dependencies).
   */
  controlDependencies<T>(before: readonly Tensor[] | null, body: () => T): T {
    const foreign = before?.find((tensor) => tensor.graph !== this);
    if (foreign !== undefined) throw new GraphError("name", `${foreign.toString()} belongs to another graph`);
    this.controlScopes.push(before && before.map(({ id }) => id));
    try {
      return body();
    } finally {
      this.controlScopes.pop();
    }
  }

  placeholder(name: string, shape: readonly (number | null)[], dtype: DType = "f32"): Tensor {
    return this.add("placeholder", [], {
      shape: shape.map((size) => size ?? BATCH), dtype: DTYPES.indexOf(dtype),
    }, name);
  }

  /** A trained tensor; without an initializer, He-uniform for matrices and kernels, else zeros. */
  variable(name: string, shape: Shape, initializer?: Initializer): Tensor {
    const chosen = initializer ?? (shape.length >= 2 && !shape.includes(BATCH)
      ? heUniform(fanOf(shape).fanIn) : { kind: "zeros" as const });
    return this.add("variable", [], { shape: [...shape], initializer: chosen }, name);
  }

  /** Makes one node; the op's rule throws a GraphError that names op, node, inputs and the caller's line. */
  add(op: string, inputs: readonly Tensor[], attributes: Record<string, unknown> = {}, name?: string): Tensor {
    const trace = this.options.positions === false ? undefined : captureTrace(this.add);
    try {
      const node = this.makeNode(op, inputs, attributes, name);
      this.traces[node.id] = trace;
      return new Tensor(this, node);
    } catch (error) {
      if (error instanceof GraphError) throw error.located(userPosition(trace));
      throw error;
    }
  }

  /** "file:line:column" of the user's code that made a node, where that is known. */
  positionOf(id: number): string | undefined { return userPosition(this.traces[id]); }

  private makeNode(op: string, inputs: readonly Tensor[], attributes: Record<string, unknown>, name?: string): GraphNode {
    const definition = Object.hasOwn(OPS, op) ? OPS[op]! : undefined;
    if (definition === undefined) throw new GraphError("unsupported", `no such operation`, { op });
    const fullName = this.uniqueName(op, name);
    const fail: Fail = (message, code = "shape") => {
      const named = inputs.map((input) => `"${input.name}" ${formatShape(input.shape)}`).join(", ");
      throw new GraphError(code, message + (named && `; its inputs are ${named}`),
        { op, node: fullName, shapes: inputs.map((input) => input.shape) });
    };
    const [least, most] = typeof definition.inputs === "number" ? [definition.inputs, definition.inputs] : definition.inputs;
    if (inputs.length < least || inputs.length > most) {
      fail(`takes ${least === most ? least : `${least} to ${most}`} inputs, got ${inputs.length}`, "attribute");
    }
    for (const input of inputs) {
      if (input.graph !== this) fail(`input "${input.name}" belongs to another graph`, "attribute");
    }
    const checked: Record<string, Attributes[string]> = {};
    for (const [key, check] of Object.entries(definition.attributes)) checked[key] = check(attributes[key], op, key);
    const unknown = Object.keys(attributes).find((key) => !Object.hasOwn(definition.attributes, key));
    if (unknown !== undefined) fail(`has no attribute "${unknown}"`, "attribute");
    if (definition.writes && inputs[0]!.op !== "variable") fail(`writes to a variable, and its first input is a ${inputs[0]!.op}`, "type");
    const type = definition.infer(inputs, checked, fail);
    const place = (): string => placeNode(this.deviceScopes, { op, name: fullName, shape: type.shape });
    const node: GraphNode = {
      id: this.nodes.length, op, name: fullName, inputs: inputs.map((input) => input.id),
      attributes: checked, shape: type.shape, dtype: type.dtype,
      // A write happens where its variable is.
      device: definition.writes ? inputs[0]!.deviceName : place(), controls: this.presentControls(),
    };
    this.nodes.push(node);
    this.names.set(fullName, node.id);
    return node;
  }

  tensor(id: number): Tensor {
    const node = this.nodes[id];
    if (node === undefined) throw new GraphError("name", `the graph has no node ${id}`);
    return new Tensor(this, node);
  }

  /** A node has one output, so TensorFlow's "name:0" is the same as "name". */
  getTensorByName(name: string): Tensor { return this.tensor(this.getOperationByName(name.replace(/:0$/, "")).id); }

  getOperationByName(name: string): GraphNode {
    const id = this.names.get(name);
    if (id === undefined) throw new GraphError("name", `the graph has no node named "${name}"`);
    return this.nodes[id]!;
  }

  /** In the order in which they were made. */
  getOperations(): readonly GraphNode[] { return this.nodes; }

  variables(): Tensor[] {
    return this.nodes.filter((node) => node.op === "variable").map((node) => new Tensor(this, node));
  }

  /** A copy that can grow (gradients, fused forms) while this graph and its hash stay as they are. */
  clone(): Graph {
    const copy = new Graph({ positions: false });
    copy.traces.push(...this.traces);
    for (const node of this.nodes) {
      copy.nodes.push(node);
      copy.names.set(node.name, node.id);
    }
    return copy;
  }

  private presentControls(): readonly number[] {
    if (this.controlScopes.length === 0) return NO_CONTROLS;
    const scopes = this.controlScopes.slice(this.controlScopes.lastIndexOf(null) + 1) as (readonly number[])[];
    return [...new Set(scopes.flat())].sort((a, b) => a - b);
  }

  private uniqueName(op: string, name: string | undefined): string {
    const prefix = this.nameScopes.map((scope) => `${scope}/`).join("");
    if (name === undefined) {
      const base = prefix + op;
      for (;;) {
        const count = this.unnamed.get(base) ?? 0;
        this.unnamed.set(base, count + 1);
        const candidate = count === 0 ? base : `${base}_${count}`;
        if (!this.names.has(candidate)) return candidate;
      }
    }
    const full = prefix + name;
    if (!NAME.test(full)) {
      throw new GraphError("name", `"${full}" is no valid name (letters, digits, _ . / -, at most 120)`, { op });
    }
    if (this.names.has(full)) throw new GraphError("name", `the name "${full}" is taken`, { op, node: full });
    return full;
  }
}

/** A handle on one node, with the ops that read naturally as methods. */
export class Tensor {
  constructor(readonly graph: Graph, private readonly node: GraphNode) {}

  get id(): number { return this.node.id; }
  get op(): string { return this.node.op; }
  get name(): string { return this.node.name; }
  get shape(): Shape { return this.node.shape; }
  get dtype(): DType { return this.node.dtype; }
  get deviceName(): string { return this.node.device; }

  /** uint8 pixels to floats: value * scale + shift. */
  toFloat(scale = 1 / 255, shift = 0): Tensor {
    return this.graph.add("toFloat", [this], { scale: Math.fround(scale), shift: Math.fround(shift) });
  }
  /** (..., k) x (k, n). */
  matmul(other: Tensor, options: { transposeA?: boolean; transposeB?: boolean } = {}): Tensor {
    const { transposeA = false, transposeB = false } = options;
    return this.graph.add("matmul", [this, other], { transposeA, transposeB });
  }
  /** Adds a vector over the last dimension, or a tensor over the last dimensions. */
  biasAdd(bias: Tensor): Tensor { return this.graph.add("biasAdd", [this, bias]); }
  add(other: Tensor): Tensor { return this.graph.add("add", [this, other]); }
  /** alpha * x + beta. */
  scale(alpha: number, beta = 0): Tensor {
    return this.graph.add("scale", [this], { alpha: Math.fround(alpha), beta: Math.fround(beta) });
  }
  /** Of a variable: gives it `value`, and is that value. Nodes run in the order in which they were made. */
  assign(value: Tensor): Tensor { return this.graph.add("assign", [this, value]); }
  /** Of a variable: adds `value` to it, and is the sum. */
  assignAdd(value: Tensor): Tensor { return this.graph.add("assignAdd", [this, value]); }
  relu(): Tensor { return this.graph.add("relu", [this]); }
  /** The tanh form is GPT-2's. */
  gelu(form: "erf" | "tanh" = "erf"): Tensor { return this.graph.add("gelu", [this], { tanh: form === "tanh" }); }
  silu(): Tensor { return this.graph.add("silu", [this]); }
  /** Element by element, of equal shapes. */
  mul(other: Tensor): Tensor { return this.graph.add("mul", [this, other]); }
  div(other: Tensor): Tensor { return this.graph.add("div", [this, other]); }
  sub(other: Tensor): Tensor { return this.add(other.scale(-1)); }
  exp(): Tensor { return this.graph.add("exp", [this]); }
  log(): Tensor { return this.graph.add("log", [this]); }
  sqrt(): Tensor { return this.graph.add("sqrt", [this]); }
  erf(): Tensor { return this.graph.add("erf", [this]); }
  sigmoid(): Tensor { return this.graph.add("sigmoid", [this]); }
  tanh(): Tensor { return this.scale(2).sigmoid().scale(2, -1); }
  /** The value; no gradient flows back. */
  stopGradient(): Tensor { return this.graph.add("stopGradient", [this]); }
  /** This (batch, length, columns): the first `heads` heads of `headSize` columns turn by their position. */
  rope(heads: number, headSize: number, base = 10_000): Tensor {
    return this.graph.add("rope", [this], { heads, headSize, base, inverse: false });
  }
  /** Axis i of the result is axis permutation[i] of this. */
  transpose(permutation: readonly number[]): Tensor { return this.graph.add("transpose", [this], { permutation }); }
  /** [start, end) of an axis; negative axes count from the back. */
  slice(axis: number, start: number, end: number): Tensor {
    return this.graph.add("slice", [this], { axis: this.axis(axis), start, size: end - start });
  }
  concat(others: readonly Tensor[], axis: number): Tensor {
    return this.graph.add("concat", [this, ...others], { axis: this.axis(axis) });
  }
  /** Repeats sizes of 1, and adds dimensions in front, up to `shape`. */
  expand(shape: readonly (number | null)[]): Tensor {
    return this.graph.add("expand", [this], { shape: shape.map((size) => size ?? BATCH) });
  }
  /** Over some axes, which the result lacks, or over all. */
  sum(axes: readonly number[] = []): Tensor { return this.graph.add("sum", [this], { axes: axes.map((axis) => this.axis(axis)) }); }
  private axis(axis: number): number { return axis < 0 ? axis + this.shape.length : axis; }
  softmax(): Tensor { return this.graph.add("softmax", [this]); }
  /** Give each use of dropout its own stream. */
  dropout(rate: number, options: { stream: number; seed?: number }): Tensor {
    return this.graph.add("dropout", [this], { rate, seed: options.seed ?? 0, stream: options.stream });
  }
  /** Over the last dimension, to mean beta and deviation gamma. */
  layerNorm(gamma: Tensor, beta: Tensor, epsilon = 1e-5): Tensor {
    return this.graph.add("layerNorm", [this, gamma, beta], { epsilon });
  }
  rmsNorm(gamma: Tensor, epsilon = 1e-5): Tensor { return this.graph.add("rmsNorm", [this, gamma], { epsilon }); }
  /** This (vocabulary, width) table's rows by id. */
  embed(ids: Tensor): Tensor { return this.graph.add("embedding", [this, ids]); }
  /** This is (batch, length, 3 width): queries, keys, values, each head by head. */
  attention(heads: number, options: { causal?: boolean } = {}): Tensor {
    return this.graph.add("attention", [this], { heads, causal: options.causal ?? true });
  }
  /** x (N, H, W, C) with a kernel (KH, KW, C, OC). */
  conv2d(weight: Tensor, options: { stride?: number; padding?: number } = {}): Tensor {
    const { stride = 1, padding = 0 } = options;
    return this.graph.add("conv2d", [this, weight],
      { strideH: stride, strideW: stride, padH: padding, padW: padding });
  }
  maxPool(kernel: number, stride = kernel): Tensor { return this.graph.add("maxPool", [this], { kernel, stride }); }
  avgPool(kernel: number, stride = kernel): Tensor { return this.graph.add("avgPool", [this], { kernel, stride }); }
  reshape(shape: readonly (number | null)[]): Tensor {
    return this.graph.add("reshape", [this], { shape: shape.map((size) => size ?? BATCH) });
  }
  /** Keeps the first dimension, joins the rest. */
  flatten(): Tensor {
    const [first = 1, ...rest] = this.shape;
    if (rest.length === 1) return this;
    return this.reshape([first, rest.reduce((product, size) => product * size, 1)]);
  }
  toString(): string { return `${this.op} "${this.name}" ${formatShape(this.shape)}`; }
}
