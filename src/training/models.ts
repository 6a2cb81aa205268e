/**
 * Owns: the reference models: an MLP and a CNN on 28 x 28 grey images with 10 classes (Fashion-MNIST),
 * and GPT-2 and Llama on tokens.
 */
import { Graph, type Tensor } from "./graph/graph.js";
import * as nn from "./nn.js";

/** Mean and deviation of Fashion-MNIST's training pixels (0.2860, 0.3530), folded into the cast. */
export const FASHION_MNIST_NORMALIZATION = { scale: 1 / (255 * 0.353), shift: -0.286 / 0.353 };

export interface ModelOptions {
  height?: number;
  width?: number;
  channels?: number;
  classes?: number;
}

/** 784-512-256-10 with ReLU. */
export function mlp(options: ModelOptions & { hidden?: readonly number[] } = {}): nn.Classifier {
  const { height = 28, width = 28, channels = 1, classes = 10, hidden = [512, 256] } = options;
  const layers = hidden.map((units, i) => nn.dense(`dense${i + 1}`, units, { activation: "relu" }));
  return nn.classifier(new Graph(), [height, width, channels],
    nn.sequential(nn.flatten(), ...layers, nn.dense("logits", classes)), FASHION_MNIST_NORMALIZATION);
}

/**
 * LeNet-like (LeCun et al. 1998, with ReLU and max pooling): conv 5x5 to `filters[0]` with
 * padding 2, pool 2, conv 5x5 to `filters[1]` without padding, pool 2 (800 features), dense
 * `units`, dense `classes`.
 */
export function cnn(options: ModelOptions & { filters?: readonly [number, number]; units?: number } = {}): nn.Classifier {
  const { height = 28, width = 28, channels = 1, classes = 10, filters = [16, 32], units = 128 } = options;
  return nn.classifier(new Graph(), [height, width, channels], nn.sequential(
    nn.conv2d("conv1", filters[0], 5, { padding: 2, activation: "relu" }),
    nn.maxPool2d(2),
    nn.conv2d("conv2", filters[1], 5, { activation: "relu" }),
    nn.maxPool2d(2),
    nn.flatten(),
    nn.dense("dense1", units, { activation: "relu" }),
    nn.dense("logits", classes),
  ), FASHION_MNIST_NORMALIZATION);
}

/**
 * Two convolutions of 3x3 with padding, each with max pooling, dropout before both dense layers: 421,648 parameters,
 * 12.5 M multiply-adds an image and step. Eight epochs of AdamW: docs/training-metrics.md.
 */
export function wideCnn(options: ModelOptions & { filters?: readonly [number, number]; units?: number; dropout?: number } = {}): nn.Classifier {
  const { height = 28, width = 28, channels = 1, classes = 10, filters = [32, 64], units = 128, dropout = 0.25 } = options;
  return nn.classifier(new Graph(), [height, width, channels], nn.sequential(
    nn.conv2d("conv1", filters[0], 3, { padding: 1, activation: "relu" }),
    nn.maxPool2d(2),
    nn.conv2d("conv2", filters[1], 3, { padding: 1, activation: "relu" }),
    nn.maxPool2d(2),
    nn.flatten(),
    (x) => x.dropout(dropout, { stream: 1 }),
    nn.dense("dense1", units, { activation: "relu" }),
    (x) => x.dropout(dropout, { stream: 2 }),
    nn.dense("logits", classes),
  ), FASHION_MNIST_NORMALIZATION);
}

export interface GptOptions {
  vocabulary: number;
  /** Positions of one sequence. */
  length: number;
  /** Positions that the model knows, where sequences are shorter than that. Default length. */
  context?: number;
  layers: number;
  heads: number;
  width: number;
}

/** GPT-2 124M (Radford et al. 2019): 12 layers of 12 heads, width 768. */
export const GPT2_SMALL: GptOptions = { vocabulary: 50_257, length: 1024, layers: 12, heads: 12, width: 768 };

export interface LanguageModel {
  graph: Graph;
  /** (batch, length) ids. */
  tokens: Tensor;
  /** (batch, length): the token that follows each position. */
  labels: Tensor;
  logits: Tensor;
  loss: Tensor;
  /** (batch, length, width): what the logits are projected from. */
  hidden: Tensor;
  /** Rows (..., width) like those of `hidden` to their logits. */
  project(rows: Tensor): Tensor;
}

function languageModel(graph: Graph, length: number, hiddenOf: (tokens: Tensor) => Tensor, project: (rows: Tensor) => Tensor): LanguageModel {
  const tokens = graph.placeholder("tokens", [null, length], "i32");
  const labels = graph.placeholder("labels", [null, length], "i32");
  const hidden = hiddenOf(tokens), logits = project(hidden);
  return { graph, tokens, labels, logits, loss: nn.softmaxCrossEntropy(logits, labels), hidden, project };
}

/**
 * GPT-2: tokens and positions embedded, `layers` pre-norm blocks, a last norm, and logits by the
 * token table itself. Weights start at deviation 0.02, those that write to the residual stream at
 * 0.02 / sqrt(2 layers).
 */
export function gpt2(options: GptOptions): LanguageModel {
  const { vocabulary, length, context = length, layers, heads, width } = options;
  const graph = new Graph();
  let table: Tensor;
  return languageModel(graph, length, (tokens) => {
    table = nn.embeddingTable(graph, "tokens", vocabulary, width);
    const positions = nn.embeddingTable(graph, "positions", context, width);
    const residualDeviation = 0.02 / Math.sqrt(2 * layers);
    const blocks = Array.from({ length: layers }, (_, i) => nn.transformerBlock(`block${i}`, heads, { residualDeviation }));
    const placed = table.embed(tokens).biasAdd(context === length ? positions : positions.slice(0, 0, length));
    return nn.sequential(...blocks, nn.layerNorm("norm"))(placed);
  }, (rows) => rows.matmul(table, { transposeB: true }));
}

export interface LlamaOptions {
  vocabulary: number;
  /** Positions of one sequence. */
  length: number;
  layers: number;
  heads: number;
  /** Heads of keys and values. Default heads. */
  keyHeads?: number;
  width: number;
  /** Of the feed-forward layers. */
  hidden: number;
  /** Of the rotary angles. Default 10,000; Llama 3 has 500,000. */
  base?: number;
  /** Of the RMS norms. Default 1e-5. */
  epsilon?: number;
  /** Logits by the token table itself. Default false. */
  tied?: boolean;
}

/** A Llama (Touvron et al. 2023) of 134 M weights, the size of SmolLM's smallest: 30 layers, 9 heads on 3 of keys. */
export const LLAMA_SMALL: LlamaOptions = {
  vocabulary: 49_152, length: 2048, layers: 30, heads: 9, keyHeads: 3, width: 576, hidden: 1536, tied: true,
};

/** Tokens embedded, `layers` blocks (RMS norm, rotary attention, SwiGLU), a last norm, logits by `head` or the table. */
export function llama(options: LlamaOptions): LanguageModel {
  const { vocabulary, length, layers, heads, width, hidden, epsilon, tied = false } = options;
  const graph = new Graph();
  const residualDeviation = 0.02 / Math.sqrt(2 * layers);
  let table: Tensor, head: Tensor | undefined;
  return languageModel(graph, length, (tokens) => {
    table = nn.embeddingTable(graph, "tokens", vocabulary, width);
    const blocks = Array.from({ length: layers }, (_, i) => nn.llamaBlock(`block${i}`, heads, hidden, { ...options, residualDeviation }));
    return nn.sequential(...blocks, nn.rmsNorm("norm", epsilon))(table.embed(tokens));
  }, (rows) => {
    if (tied) return rows.matmul(table, { transposeB: true });
    head ??= graph.scope("head", () => graph.variable("weight", [width, vocabulary], { kind: "normal", deviation: 0.02 }));
    return rows.matmul(head);
  });
}

export const MODELS = { mlp, cnn, "cnn-wide": wideCnn } as const;
export type ModelName = keyof typeof MODELS;
