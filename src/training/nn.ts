/**
 * Owns: layer helpers over the graph, and the first models. A layer is a function of a tensor;
 * `sequential` chains them. Variables are named scope/weight and scope/bias.
 */
import { GraphError } from "./errors.js";
import type { Graph, Tensor } from "./graph/graph.js";
import { fanOf, glorotUniform, heUniform, type Initializer } from "./graph/initializer.js";

export type Layer = (x: Tensor) => Tensor;

interface LayerOptions {
  activation?: "relu" | "none";
  initializer?: Initializer;
}
interface DenseOptions extends LayerOptions {
  /** Default true. */
  bias?: boolean;
}

function activate(x: Tensor, activation: "relu" | "none"): Tensor {
  return activation === "relu" ? x.relu() : x;
}

/** x (..., in) -> (..., units). */
export function dense(name: string, units: number, options: DenseOptions = {}): Layer {
  const { activation = "none", bias = true } = options;
  return (x) => x.graph.scope(name, () => {
    const shape = [x.shape[x.shape.length - 1]!, units];
    const { fanIn, fanOut } = fanOf(shape);
    const weight = x.graph.variable("weight", shape, options.initializer ??
      (activation === "relu" ? heUniform(fanIn) : glorotUniform(fanIn, fanOut)));
    const product = x.matmul(weight);
    return activate(bias ? product.biasAdd(x.graph.variable("bias", [units])) : product, activation);
  });
}

/** x (N, H, W, C) -> (N, H', W', channels); `padding` zeros on each side. */
export function conv2d(name: string, channels: number, kernel: number,
  options: LayerOptions & { stride?: number; padding?: number } = {}): Layer {
  const { activation = "none", stride = 1, padding = 0 } = options;
  return (x) => x.graph.scope(name, () => {
    const shape = [kernel, kernel, x.shape[x.shape.length - 1]!, channels];
    const weight = x.graph.variable("weight", shape, options.initializer ?? heUniform(fanOf(shape).fanIn));
    const bias = x.graph.variable("bias", [channels]);
    return activate(x.conv2d(weight, { stride, padding }).biasAdd(bias), activation);
  });
}

/** (..., width): mean beta and deviation gamma over the last dimension. */
export function layerNorm(name: string, epsilon = 1e-5): Layer {
  return (x) => x.graph.scope(name, () => {
    const width = x.shape[x.shape.length - 1]!;
    const gamma = x.graph.variable("weight", [width], { kind: "constant", value: 1 });
    return x.layerNorm(gamma, x.graph.variable("bias", [width]), epsilon);
  });
}

/** (..., width), scaled to a root mean square of gamma. */
export function rmsNorm(name: string, epsilon = 1e-5): Layer {
  return (x) => x.graph.scope(name, () => x.rmsNorm(
    x.graph.variable("weight", [x.shape[x.shape.length - 1]!], { kind: "constant", value: 1 }), epsilon));
}

/** A table (vocabulary, width) whose rows stand for ids: `table.embed(ids)`. */
export function embeddingTable(graph: Graph, name: string, vocabulary: number, width: number,
  deviation = 0.02): Tensor {
  return graph.scope(name, () => graph.variable("weight", [vocabulary, width], { kind: "normal", deviation }));
}

/** GPT-2's deviation of first weights (Radford et al. 2019). */
const TRANSFORMER_DEVIATION = 0.02;

interface TransformerLayerOptions {
  /** Of the projection back onto the residual stream: GPT-2 divides it by sqrt(2 layers). */
  residualDeviation?: number;
}
const near = (deviation = TRANSFORMER_DEVIATION): { initializer: Initializer } =>
  ({ initializer: { kind: "normal", deviation } });

/** x (batch, length, width): each position attends to itself and those before it, in `heads` heads. */
export function causalSelfAttention(name: string, heads: number, options: TransformerLayerOptions = {}): Layer {
  return (x) => x.graph.scope(name, () => {
    const width = x.shape[x.shape.length - 1]!;
    const mixed = dense("qkv", 3 * width, near())(x).attention(heads);
    return dense("projection", width, near(options.residualDeviation))(mixed);
  });
}

/** x (..., width) -> 4 width, GELU (tanh form), width. */
export function feedForward(name: string, options: TransformerLayerOptions = {}): Layer {
  return (x) => x.graph.scope(name, () => {
    const width = x.shape[x.shape.length - 1]!;
    const hidden = dense("expansion", 4 * width, near())(x).gelu("tanh");
    return dense("projection", width, near(options.residualDeviation))(hidden);
  });
}

/** The pre-norm block of GPT-2: x + attention(norm(x)), then x + feedForward(norm(x)). */
export function transformerBlock(name: string, heads: number, options: TransformerLayerOptions = {}): Layer {
  return (x) => x.graph.scope(name, () => {
    const attended = x.add(causalSelfAttention("attention", heads, options)(layerNorm("norm1")(x)));
    return attended.add(feedForward("mlp", options)(layerNorm("norm2")(attended)));
  });
}

interface RotaryAttentionOptions extends TransformerLayerOptions {
  /** Heads of keys and values, each shared by heads / keyHeads heads of queries (Ainslie et al. 2023). Default heads. */
  keyHeads?: number;
  /** Of the rotary angles. Default 10,000. */
  base?: number;
}

/**
 * Llama's attention (Touvron et al. 2023): x (batch, length, width), no biases, queries and keys turned by their
 * positions. Fewer keyHeads make the weights and their gradient smaller; keys and values are repeated for the kernel.
 */
export function rotarySelfAttention(name: string, heads: number, options: RotaryAttentionOptions = {}): Layer {
  return (x) => x.graph.scope(name, () => {
    const [batch, length, width] = x.shape as [number, number, number];
    const { keyHeads = heads, base } = options, size = width / heads, groups = heads / keyHeads;
    if (!Number.isInteger(size) || !Number.isInteger(groups)) {
      throw new GraphError("attribute", `a width of ${width} must be a multiple of ${heads} heads, and those of ${keyHeads} heads of keys`, { op: "rotarySelfAttention", node: name });
    }
    const keys = keyHeads * size, turned = dense("qkv", width + 2 * keys, { ...near(), bias: false })(x).rope(heads + keyHeads, size, base);
    const repeated = (from: number): Tensor => turned.slice(-1, from, from + keys).reshape([batch, length, keyHeads, 1, size])
      .expand([batch, length, keyHeads, groups, size]).reshape([batch, length, width]);
    const qkv = groups === 1 ? turned : turned.slice(-1, 0, width).concat([repeated(width), repeated(width + keys)], -1);
    return dense("projection", width, { ...near(options.residualDeviation), bias: false })(qkv.attention(heads));
  });
}

/** SwiGLU (Shazeer 2020): x (..., width) -> (silu(x gate) * (x expansion)) projection, `hidden` wide, no biases. */
export function gatedFeedForward(name: string, hidden: number, options: TransformerLayerOptions = {}): Layer {
  return (x) => x.graph.scope(name, () => {
    const gate = dense("gate", hidden, { ...near(), bias: false })(x).silu();
    const product = gate.mul(dense("expansion", hidden, { ...near(), bias: false })(x));
    return dense("projection", x.shape.at(-1)!, { ...near(options.residualDeviation), bias: false })(product);
  });
}

/** The pre-norm block of Llama: RMS norms, rotary attention, SwiGLU. */
export function llamaBlock(name: string, heads: number, hidden: number, options: RotaryAttentionOptions & { epsilon?: number } = {}): Layer {
  return (x) => x.graph.scope(name, () => {
    const attended = x.add(rotarySelfAttention("attention", heads, options)(rmsNorm("norm1", options.epsilon)(x)));
    return attended.add(gatedFeedForward("mlp", hidden, options)(rmsNorm("norm2", options.epsilon)(attended)));
  });
}

export const maxPool2d = (kernel: number, stride = kernel): Layer => (x) => x.maxPool(kernel, stride);
export const avgPool2d = (kernel: number, stride = kernel): Layer => (x) => x.avgPool(kernel, stride);
export const flatten = (): Layer => (x) => x.flatten();
export const relu = (): Layer => (x) => x.relu();

export const sequential = (...layers: Layer[]): Layer => (x) => layers.reduce((value, layer) => layer(value), x);

/** Mean over the batch of -log softmax(logits)[label]. */
export function softmaxCrossEntropy(logits: Tensor, labels: Tensor): Tensor {
  return logits.graph.add("softmaxCrossEntropy", [logits, labels]);
}

/** How many rows have their largest logit at the label. */
export function countCorrect(logits: Tensor, labels: Tensor): Tensor {
  return logits.graph.add("countCorrect", [logits, labels]);
}

/** The ends of a classifier that training and evaluation need. */
export interface Classifier {
  graph: Graph;
  images: Tensor;
  labels: Tensor;
  logits: Tensor;
  loss: Tensor;
  correct: Tensor;
}

/** uint8 images (batch, ...shape) and labels (batch) -> loss and count over `network`'s logits. */
export function classifier(graph: Graph, imageShape: readonly number[], network: Layer,
  normalize: { scale: number; shift: number } = { scale: 1 / 255, shift: 0 }): Classifier {
  const images = graph.placeholder("images", [null, ...imageShape], "u8");
  const labels = graph.placeholder("labels", [null], "i32");
  const logits = network(images.toFloat(normalize.scale, normalize.shift));
  return {
    graph, images, labels, logits,
    loss: softmaxCrossEntropy(logits, labels),
    correct: countCorrect(logits, labels),
  };
}
