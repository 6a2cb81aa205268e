/**
 * Owns: the table of graph operations: arity, attributes, shape and type rules, cost.
 * Invariant: a node exists only if its op's rule accepted its inputs, so no later stage re-checks
 * shapes. Image tensors are NHWC, convolution weights (KH, KW, C, OC).
 * Ops marked `derived` are made by autodiff alone and are refused in a graph that came as data; those
 * marked `writes` change a variable, which a training job leaves to its optimizer.
 */
import { GraphError, type Shape } from "../errors.js";
import { checkInitializer, type Initializer } from "./initializer.js";

export type DType = "f32" | "u8" | "i32";

/** The batch: allowed as the first dimension only, fixed when a plan is compiled. */
export const BATCH = -1;

/** Above this no single dimension makes sense, and products of four stay exact below 2^53 checks. */
export const DIMENSION_MAX = 0x7fffffff;
export const RANK_MAX = 6;

export type AttributeValue = number | boolean | readonly number[] | Initializer;
export type Attributes = Readonly<Record<string, AttributeValue>>;
export interface TensorType {
  readonly shape: Shape;
  readonly dtype: DType;
}

export interface OpDefinition {
  /** How many, or at least and at most. */
  inputs: number | readonly [number, number];
  derived?: true;
  /** Changes the variable that is its first input. */
  writes?: true;
  /** The one input whose shape alone is read: it is not kept alive and does not hinder fusion. */
  shapeOnly?: number;
  attributes: Record<string, (value: unknown, op: string, key: string) => AttributeValue>;
  infer(inputs: readonly TensorType[], attributes: Attributes, fail: Fail): TensorType;
  /** Multiply-adds of one evaluation, by the types of inputs and output (batch already fixed). */
  multiplyAdds?(inputs: readonly TensorType[], output: TensorType, attributes: Attributes): number;
}

export type Fail = (message: string, code?: "shape" | "type" | "attribute") => never;

const attributeError = (op: string, message: string): never => {
  throw new GraphError("attribute", message, { op });
};
const integer = (min: number, max: number) => (value: unknown, op: string, key: string): number =>
  Number.isInteger(value) && (value as number) >= min && (value as number) <= max
    ? (value as number)
    : attributeError(op, `"${key}" must be an integer from ${min} to ${max}, got ${JSON.stringify(value)}`);
const finite = (value: unknown, op: string, key: string): number =>
  typeof value === "number" && Number.isFinite(value)
    ? value
    : attributeError(op, `"${key}" must be a finite number, got ${JSON.stringify(value)}`);
const flag = (value: unknown, op: string, key: string): boolean =>
  typeof value === "boolean" ? value : attributeError(op, `"${key}" must be true or false`);
const shapeOf = (value: unknown, op: string, key: string): readonly number[] => {
  const valid = Array.isArray(value) && value.length <= RANK_MAX && value.every((size, position) =>
    Number.isInteger(size) && ((size >= 1 && size <= DIMENSION_MAX) || (size === BATCH && position === 0)));
  if (!valid) {
    attributeError(op, `"${key}" must be at most ${RANK_MAX} sizes from 1 to ${DIMENSION_MAX} ` +
      `(only the first may be ${BATCH}, the batch), got ${JSON.stringify(value)}`);
  }
  return [...(value as number[])];
};

export const formatShape = (shape: Shape): string =>
  `(${shape.map((size) => (size === BATCH ? "batch" : String(size))).join(", ")})`;
export const elementsOf = (shape: Shape): number => shape.reduce((product, size) => product * size, 1);
const same = (a: Shape, b: Shape): boolean => a.length === b.length && a.every((size, i) => size === b[i]);

function requireType(input: TensorType, dtype: DType, what: string, fail: Fail): void {
  if (input.dtype !== dtype) fail(`${what} must be ${dtype}, got ${input.dtype}`, "type");
}
function requireRank(input: TensorType, rank: number, what: string, fail: Fail): void {
  if (input.shape.length !== rank) fail(`${what} must have rank ${rank}, got ${formatShape(input.shape)}`);
}

const STRIDES = {
  strideH: integer(1, 64), strideW: integer(1, 64), padH: integer(0, 64), padW: integer(0, 64),
};
const WINDOW = { kernel: integer(1, 64), stride: integer(1, 64) };

interface Strides { strideH: number; strideW: number; padH: number; padW: number }
const strides = (attributes: Attributes): Strides => attributes as unknown as Strides;

function windows(size: number, kernel: number, stride: number, pad: number, what: string, fail: Fail): number {
  const count = Math.floor((size + 2 * pad - kernel) / stride) + 1;
  if (size + 2 * pad < kernel) fail(`a kernel of ${kernel} does not fit ${what} ${size} with padding ${pad}`);
  return count;
}

const leading = (shape: Shape): Shape => shape.slice(0, -1);
const lastOf = (shape: Shape): number => shape[shape.length - 1]!;

/** From the front, 0 to rank - 1. */
const axisOf = (x: TensorType, attributes: Attributes, fail: Fail): number => {
  const axis = attributes.axis as number;
  if (axis >= x.shape.length) fail(`there is no axis ${axis} in ${formatShape(x.shape)}`, "attribute");
  return axis;
};
const AXIS = integer(0, RANK_MAX - 1);
const EXTENT = integer(0, DIMENSION_MAX);
const axesList = (value: unknown, op: string, key: string): readonly number[] => {
  const valid = Array.isArray(value) && value.length <= RANK_MAX && new Set(value).size === value.length &&
    value.every((axis) => Number.isInteger(axis) && axis >= 0 && axis < RANK_MAX);
  if (!valid) attributeError(op, `"${key}" must be different axes from 0 to ${RANK_MAX - 1}, got ${JSON.stringify(value)}`);
  return [...(value as number[])];
};
/** A size that a slice or a join may change: anything but the batch. */
const resized = (x: TensorType, axis: number, size: number, fail: Fail): Shape => {
  if (x.shape[axis] === BATCH) fail("the batch cannot be cut, joined or padded");
  if (size < 1 || size > DIMENSION_MAX) fail(`axis ${axis} would have size ${size}`);
  return x.shape.with(axis, size);
};

const rate = (value: unknown, op: string, key: string): number => {
  const number = finite(value, op, key);
  return number >= 0 && number < 1 ? number : attributeError(op, `"${key}" must be from 0 to below 1, got ${number}`);
};

/** Where an epsilon keeps a division finite. */
const positive = (value: unknown, op: string, key: string): number => {
  const number = finite(value, op, key);
  return number > 0 && number <= 1 ? number : attributeError(op, `"${key}" must be above 0 and at most 1, got ${number}`);
};

/** x (..., columns) with one vector of `columns` for each name. */
const normalized = (...vectors: string[]) => (inputs: readonly TensorType[], _: Attributes, fail: Fail): TensorType => {
  const x = inputs[0]!;
  requireType(x, "f32", "x", fail);
  if (x.shape.length < 2) fail(`x must have rows, got ${formatShape(x.shape)}`);
  vectors.forEach((what, i) => {
    const vector = inputs[i + 1]!;
    requireType(vector, "f32", what, fail);
    if (!same(vector.shape, [lastOf(x.shape)])) {
      fail(`${what} must be ${formatShape([lastOf(x.shape)])} for x ${formatShape(x.shape)}, got ${formatShape(vector.shape)}`);
    }
  });
  return { shape: x.shape, dtype: "f32" };
};

const elementwise = (inputs: readonly TensorType[], _: Attributes, fail: Fail): TensorType => {
  inputs.forEach((input, i) => requireType(input, "f32", `input ${i}`, fail));
  for (const input of inputs) {
    if (!same(input.shape, inputs[0]!.shape)) {
      fail(`inputs must have one shape, got ${inputs.map((x) => formatShape(x.shape)).join(" and ")}`);
    }
  }
  return { shape: inputs[0]!.shape, dtype: "f32" };
};

function pool(inputs: readonly TensorType[], attributes: Attributes, fail: Fail): TensorType {
  const x = inputs[0]!;
  requireType(x, "f32", "x", fail);
  requireRank(x, 4, "x", fail);
  const { kernel, stride } = attributes as unknown as { kernel: number; stride: number };
  const [n, h, w, c] = x.shape as [number, number, number, number];
  return {
    shape: [n, windows(h, kernel, stride, 0, "height", fail), windows(w, kernel, stride, 0, "width", fail), c],
    dtype: "f32",
  };
}

function logitsAndLabels(inputs: readonly TensorType[], _: Attributes, fail: Fail): TensorType {
  const [logits, labels] = inputs as readonly [TensorType, TensorType];
  requireType(logits, "f32", "logits", fail);
  if (logits.shape.length < 2) fail(`logits must have rows of classes, got ${formatShape(logits.shape)}`);
  requireType(labels, "i32", "labels", fail);
  if (!same(labels.shape, leading(logits.shape))) {
    fail(`labels must be ${formatShape(leading(logits.shape))} for logits ${formatShape(logits.shape)}, ` +
      `got ${formatShape(labels.shape)}`);
  }
  return { shape: [], dtype: "f32" };
}

const convolutionCost = (output: TensorType, w: Shape): number =>
  elementsOf(output.shape) * w[0]! * w[1]! * w[2]!;

/** What the native kernels hold in registers and shared memory: TESRA_HEAD_SIZE_MAX. */
export const HEAD_SIZE_MAX = 128;
/** Keys that a query meets, on average. */
const attended = (length: number, causal: boolean): number => (causal ? (length + 1) / 2 : length);

const gradientLike = (inputs: readonly TensorType[], position: number): TensorType =>
  ({ shape: inputs[position]!.shape, dtype: "f32" });

export const OPS: Readonly<Record<string, OpDefinition>> = {
  placeholder: {
    inputs: 0,
    attributes: { shape: shapeOf, dtype: (value, op) => integer(0, 2)(value, op, "dtype") },
    infer: (_, attributes) => ({
      shape: attributes.shape as Shape, dtype: DTYPES[attributes.dtype as number]!,
    }),
  },
  variable: {
    inputs: 0,
    attributes: { shape: shapeOf, initializer: (value, op) => checkInitializer(value, op) },
    infer: (_, attributes, fail) => {
      const shape = attributes.shape as Shape;
      if (shape.includes(BATCH)) fail("a variable cannot depend on the batch");
      return { shape, dtype: "f32" };
    },
  },
  toFloat: {
    inputs: 1,
    attributes: { scale: finite, shift: finite },
    infer: ([x], _, fail) => {
      requireType(x!, "u8", "x", fail);
      return { shape: x!.shape, dtype: "f32" };
    },
  },
  /**
   * All dimensions of `a` but the last count its rows: (..., k) x (k, n) is (..., n). Transposed, `a`
   * gives (..., m) x (..., n) = (m, n), the sum over all rows.
   */
  matmul: {
    inputs: 2,
    attributes: { transposeA: flag, transposeB: flag },
    infer: ([a, b], attributes, fail) => {
      const { transposeA, transposeB } = attributes as { transposeA: boolean; transposeB: boolean };
      requireType(a!, "f32", "a", fail);
      requireType(b!, "f32", "b", fail);
      if (a!.shape.length < 2) fail(`a must have rank 2 or more, got ${formatShape(a!.shape)}`);
      if (!transposeA || transposeB) requireRank(b!, 2, "b", fail);
      const rows = transposeA ? [lastOf(a!.shape)] : leading(a!.shape);
      const inner = transposeA ? leading(a!.shape) : [lastOf(a!.shape)];
      const inner2 = transposeB ? [b!.shape[1]!] : b!.shape.length < 2 ? [] : transposeA ? leading(b!.shape) : [b!.shape[0]!];
      const n = transposeB ? b!.shape[0]! : lastOf(b!.shape);
      if (!same(inner, inner2)) {
        fail(`inner sizes differ: ${formatShape(a!.shape)}${transposeA ? " transposed" : ""} x ` +
          `${formatShape(b!.shape)}${transposeB ? " transposed" : ""}`);
      }
      if (n === BATCH) fail("the batch must stay the first dimension of the product");
      return { shape: [...rows, n], dtype: "f32" };
    },
    multiplyAdds: ([a], output, { transposeA }) => elementsOf(output.shape) *
      (transposeA ? elementsOf(a!.shape) / lastOf(a!.shape) : lastOf(a!.shape)),
  },
  biasAdd: {
    inputs: 2,
    attributes: {},
    infer: ([x, b], _, fail) => {
      requireType(x!, "f32", "x", fail);
      requireType(b!, "f32", "bias", fail);
      const rank = b!.shape.length;
      if (rank < 1 || x!.shape.length <= rank || !same(b!.shape, x!.shape.slice(-rank))) {
        fail(`a bias of ${formatShape(b!.shape)} does not match the last sizes of ${formatShape(x!.shape)}`);
      }
      return { shape: x!.shape, dtype: "f32" };
    },
  },
  add: { inputs: 2, attributes: {}, infer: elementwise },
  /** (variable, value). */
  assign: { inputs: 2, writes: true, attributes: {}, infer: elementwise },
  assignAdd: { inputs: 2, writes: true, attributes: {}, infer: elementwise },
  scale: { inputs: 1, attributes: { alpha: finite, beta: finite }, infer: elementwise },
  relu: { inputs: 1, attributes: {}, infer: elementwise },
  mul: { inputs: 2, attributes: {}, infer: elementwise },
  div: { inputs: 2, attributes: {}, infer: elementwise },
  exp: { inputs: 1, attributes: {}, infer: elementwise },
  /** -infinity at 0, NaN below. */
  log: { inputs: 1, attributes: {}, infer: elementwise },
  sqrt: { inputs: 1, attributes: {}, infer: elementwise },
  erf: { inputs: 1, attributes: {}, infer: elementwise },
  sigmoid: { inputs: 1, attributes: {}, infer: elementwise },
  /** Hendrycks and Gimpel 2016; `tanh` chooses their approximation, which GPT-2 uses. */
  gelu: { inputs: 1, attributes: { tanh: flag }, infer: elementwise },
  silu: { inputs: 1, attributes: {}, infer: elementwise },
  /** (x, gamma, beta) over the last dimension; Ba et al. 2016. */
  layerNorm: { inputs: 3, attributes: { epsilon: positive }, infer: normalized("gamma", "beta") },
  /** (x, gamma) over the last dimension; Zhang and Sennrich 2019. */
  rmsNorm: { inputs: 2, attributes: { epsilon: positive }, infer: normalized("gamma") },
  softmax: { inputs: 1, attributes: {}, infer: normalized() },
  /**
   * Srivastava et al. 2014: zero at `rate`, else divided by 1 - rate; nothing in evaluation. Which elements
   * is a pure function of (seed, stream, run of the plan, position), so the gradient is the same op.
   */
  dropout: { inputs: 1, attributes: { rate, seed: integer(0, Number.MAX_SAFE_INTEGER), stream: integer(0, 0xffffffff) }, infer: elementwise },
  /** (table (vocabulary, width), ids of any shape): the rows of the table by id. */
  embedding: {
    inputs: 2,
    attributes: {},
    infer: ([table, ids], _, fail) => {
      requireType(table!, "f32", "the table", fail);
      requireRank(table!, 2, "the table", fail);
      requireType(ids!, "i32", "ids", fail);
      if (ids!.shape.length < 1 || ids!.shape.length >= RANK_MAX) fail(`ids have ${ids!.shape.length} dimensions`);
      return { shape: [...ids!.shape, table!.shape[1]!], dtype: "f32" };
    },
  },
  /** qkv (batch, length, 3 width), queries, keys and values one after another -> (batch, length, width). */
  attention: {
    inputs: 1,
    attributes: { heads: integer(1, 65_536), causal: flag },
    infer: ([qkv], attributes, fail) => {
      requireType(qkv!, "f32", "qkv", fail);
      requireRank(qkv!, 3, "qkv", fail);
      const [batch, length, columns] = qkv!.shape as [number, number, number];
      const size = columns / (3 * (attributes.heads as number));
      if (!Number.isInteger(size) || size > HEAD_SIZE_MAX) {
        fail(`${String(attributes.heads)} heads need qkv of 3 x heads x size columns, size at most ${HEAD_SIZE_MAX}, ` +
          `got ${formatShape(qkv!.shape)}`);
      }
      return { shape: [batch, length, columns / 3], dtype: "f32" };
    },
    multiplyAdds: ([qkv], output, { causal }) => elementsOf(output.shape) * attended(qkv!.shape[1]!, causal as boolean) * 2,
  },
  /** The value; no gradient flows back. */
  stopGradient: { inputs: 1, attributes: {}, infer: elementwise },
  /**
   * Rotary positions (Su et al. 2021) on x (batch, length, columns): the first `heads` heads of `headSize`
   * columns turn, each pair (i, i + headSize / 2) by position * base^(-2 i / headSize); the rest stay.
   */
  rope: {
    inputs: 1,
    attributes: { heads: integer(1, 65_536), headSize: integer(2, 65_536), base: finite, inverse: flag },
    infer: ([x], { heads, headSize, base }, fail) => {
      requireType(x!, "f32", "x", fail);
      requireRank(x!, 3, "x", fail);
      if ((headSize as number) % 2 !== 0) fail(`a head of ${String(headSize)} columns has no halves`, "attribute");
      if (!((base as number) >= 1 && (base as number) <= 1e12)) fail(`"base" must be from 1 to 1e12, got ${String(base)}`, "attribute");
      if ((heads as number) * (headSize as number) > lastOf(x!.shape)) {
        fail(`${String(heads)} heads of ${String(headSize)} columns do not fit ${formatShape(x!.shape)}`);
      }
      return { shape: x!.shape, dtype: "f32" };
    },
  },
  /** Axis i of the result is axis permutation[i] of x. */
  transpose: {
    inputs: 1,
    attributes: { permutation: axesList },
    infer: ([x], { permutation }, fail) => {
      const axes = permutation as readonly number[];
      requireType(x!, "f32", "x", fail);
      if (axes.length !== x!.shape.length || axes.some((axis) => axis >= axes.length)) {
        fail(`"permutation" must name each of the ${x!.shape.length} axes once, got ${JSON.stringify(axes)}`, "attribute");
      }
      if (x!.shape[0] === BATCH && axes[0] !== 0) fail("the batch must stay the first dimension");
      return { shape: axes.map((axis) => x!.shape[axis]!), dtype: "f32" };
    },
  },
  /** [start, start + size) of an axis. */
  slice: {
    inputs: 1,
    attributes: { axis: AXIS, start: EXTENT, size: EXTENT },
    infer: ([x], attributes, fail) => {
      requireType(x!, "f32", "x", fail);
      const axis = axisOf(x!, attributes, fail), start = attributes.start as number, size = attributes.size as number;
      const shape = resized(x!, axis, size, fail);
      if (start + size > x!.shape[axis]!) fail(`${start} to ${start + size} is not within axis ${axis} of ${formatShape(x!.shape)}`);
      return { shape, dtype: "f32" };
    },
  },
  /** `before` and `after` zeros along an axis. */
  pad: {
    inputs: 1,
    attributes: { axis: AXIS, before: EXTENT, after: EXTENT },
    infer: ([x], attributes, fail) => {
      requireType(x!, "f32", "x", fail);
      const axis = axisOf(x!, attributes, fail);
      const size = x!.shape[axis]! + (attributes.before as number) + (attributes.after as number);
      return { shape: resized(x!, axis, size, fail), dtype: "f32" };
    },
  },
  concat: {
    inputs: [1, 8],
    attributes: { axis: AXIS },
    infer: (inputs, attributes, fail) => {
      const axis = axisOf(inputs[0]!, attributes, fail), size = inputs.reduce((sum, x) => sum + (x.shape[axis] ?? 0), 0);
      inputs.forEach((x, i) => {
        requireType(x, "f32", `input ${i}`, fail);
        const fits = x.shape.length === inputs[0]!.shape.length && same(x.shape.with(axis, 0), inputs[0]!.shape.with(axis, 0));
        if (!fits) fail(`inputs must differ along axis ${axis} alone, got ${inputs.map((each) => formatShape(each.shape)).join(" and ")}`);
      });
      return { shape: resized(inputs[0]!, axis, size, fail), dtype: "f32" };
    },
  },
  /** Repeats sizes of 1, and adds dimensions in front, up to `shape`. */
  expand: {
    inputs: 1,
    attributes: { shape: shapeOf },
    infer: ([x], attributes, fail) => {
      const shape = attributes.shape as Shape, added = shape.length - x!.shape.length;
      requireType(x!, "f32", "x", fail);
      if (added < 0 || x!.shape.some((size, i) => size !== 1 && size !== shape[added + i])) {
        fail(`${formatShape(x!.shape)} does not repeat to ${formatShape(shape)}`);
      }
      return { shape, dtype: "f32" };
    },
  },
  /** The sum over `axes`, which are gone from the result; over all of them when the list is empty. */
  sum: {
    inputs: 1,
    attributes: { axes: axesList },
    infer: ([x], attributes, fail) => {
      const axes = attributes.axes as readonly number[];
      requireType(x!, "f32", "x", fail);
      const strange = axes.find((axis) => axis >= x!.shape.length);
      if (strange !== undefined) fail(`there is no axis ${strange} in ${formatShape(x!.shape)}`, "attribute");
      return { shape: axes.length === 0 ? [] : x!.shape.filter((_, i) => !axes.includes(i)), dtype: "f32" };
    },
  },
  conv2d: {
    inputs: 2,
    attributes: STRIDES,
    infer: ([x, w], attributes, fail) => {
      for (const [t, what] of [[x!, "x"], [w!, "weight"]] as const) {
        requireType(t, "f32", what, fail);
        requireRank(t, 4, what, fail);
      }
      const [n, height, width, channels] = x!.shape as [number, number, number, number];
      const [kh, kw, c, oc] = w!.shape as [number, number, number, number];
      if (c !== channels) {
        fail(`weight ${formatShape(w!.shape)} (KH, KW, C, OC) expects ${c} channels, ` +
          `x ${formatShape(x!.shape)} (N, H, W, C) has ${channels}`);
      }
      const { strideH, strideW, padH, padW } = strides(attributes);
      // Outputs that see padding alone are bias only: a mistake, and the kernels exclude them.
      if (padH >= kh || padW >= kw) fail(`a padding of ${padH} x ${padW} must be smaller than the kernel ${kh} x ${kw}`);
      return {
        shape: [n, windows(height, kh, strideH, padH, "height", fail),
          windows(width, kw, strideW, padW, "width", fail), oc],
        dtype: "f32",
      };
    },
    multiplyAdds: ([, w], output) => convolutionCost(output, w!.shape),
  },
  maxPool: { inputs: 1, attributes: WINDOW, infer: pool },
  avgPool: { inputs: 1, attributes: WINDOW, infer: pool },
  reshape: {
    inputs: 1,
    attributes: { shape: shapeOf },
    infer: ([x], attributes, fail) => {
      const shape = attributes.shape as Shape;
      // Equal counts with the batch (-1) on both sides or on neither, so the sign must match too.
      if (elementsOf(shape) !== elementsOf(x!.shape)) {
        fail(`cannot reshape ${formatShape(x!.shape)} to ${formatShape(shape)}: the counts differ`);
      }
      return { shape, dtype: x!.dtype };
    },
  },
  softmaxCrossEntropy: { inputs: 2, attributes: {}, infer: logitsAndLabels },
  countCorrect: { inputs: 2, attributes: {}, infer: logitsAndLabels },

  // Derived by autodiff.
  /** (dY, bias): the sum over all that the bias was added to. */
  biasGrad: { inputs: 2, derived: true, shapeOnly: 1, attributes: {}, infer: (inputs) => gradientLike(inputs, 1) },
  /** (dY, X). */
  geluGrad: { inputs: 2, derived: true, attributes: { tanh: flag }, infer: elementwise },
  siluGrad: { inputs: 2, derived: true, attributes: {}, infer: elementwise },
  /** (dY, X, gamma, the forward node): dX; the sums for gamma and beta are read from it by normVectorGrad. */
  layerNormGrad: { inputs: 4, derived: true, shapeOnly: 3, attributes: {}, infer: (inputs) => gradientLike(inputs, 1) },
  rmsNormGrad: { inputs: 4, derived: true, shapeOnly: 3, attributes: {}, infer: (inputs) => gradientLike(inputs, 1) },
  /** (a norm's gradient node, gamma or beta): the gradient of gamma (which = 0) or beta (1). */
  normVectorGrad: {
    inputs: 2, derived: true, shapeOnly: 1, attributes: { which: integer(0, 1) },
    infer: (inputs) => gradientLike(inputs, 1),
  },
  /** (dY, Y). */
  softmaxGrad: { inputs: 2, derived: true, attributes: {}, infer: elementwise },
  /** (dY, ids, the table): each row's gradient added to its id's. */
  embeddingGrad: { inputs: 3, derived: true, shapeOnly: 2, attributes: {}, infer: (inputs) => gradientLike(inputs, 2) },
  /** (dY, qkv, the forward node). */
  attentionGrad: {
    inputs: 3, derived: true, attributes: { heads: integer(1, 65_536), causal: flag },
    infer: (inputs) => gradientLike(inputs, 1),
    multiplyAdds: ([dy], _, { causal }) => elementsOf(dy!.shape) * attended(dy!.shape[1]!, causal as boolean) * 5,
  },
  /** (dY, Y): dY where Y > 0. */
  reluGrad: { inputs: 2, derived: true, attributes: {}, infer: elementwise },
  /** (dY, W, X): the gradient of x; X gives the shape alone. */
  conv2dInputGrad: {
    inputs: 3, derived: true, shapeOnly: 2, attributes: STRIDES,
    infer: (inputs) => gradientLike(inputs, 2),
    multiplyAdds: ([dy, w]) => convolutionCost(dy!, w!.shape),
  },
  /** (X, dY, W): the gradient of the weight; W gives the shape alone. */
  conv2dWeightGrad: {
    inputs: 3, derived: true, shapeOnly: 2, attributes: STRIDES,
    infer: (inputs) => gradientLike(inputs, 2),
    multiplyAdds: ([, dy, w]) => convolutionCost(dy!, w!.shape),
  },
  /** (dY, the maxPool node, its input): routes dY to the kept positions. */
  maxPoolGrad: { inputs: 3, derived: true, shapeOnly: 2, attributes: WINDOW, infer: (inputs) => gradientLike(inputs, 2) },
  avgPoolGrad: { inputs: 2, derived: true, shapeOnly: 1, attributes: WINDOW, infer: (inputs) => gradientLike(inputs, 1) },
  /** (the loss node, logits): (softmax - onehot) / N, which the forward kernel already wrote. */
  softmaxCrossEntropyGrad: {
    inputs: 2, derived: true, shapeOnly: 1, attributes: {}, infer: (inputs) => gradientLike(inputs, 1),
  },
};

export const DTYPES: readonly DType[] = ["f32", "u8", "i32"];
