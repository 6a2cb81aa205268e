/**
 * Owns: the reference models on 28 x 28 grey images with 10 classes (Fashion-MNIST).
 */
import { Graph } from "./graph/graph.js";
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

export const MODELS = { mlp, cnn } as const;
export type ModelName = keyof typeof MODELS;
