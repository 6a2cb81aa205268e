/**
 * Owns: the ONNX operators that compute, lowered to ops of the graph: broadcasting made explicit, image
 * operators on (N, H, W, C), scalars folded into scales.
 */
import type { Tensor } from "../../graph/graph.js";
import { BATCH } from "../../graph/ops.js";
import { broadcastShape, mapped, transposed } from "./fold.js";
import { Flow, isFlow, type NodeReader, type Value } from "./flow.js";
import { padded, type Operator } from "./shape-operators.js";
import type { Constant } from "./tensor.js";

const nullable = (shape: readonly number[]): (number | null)[] => shape.map((size) => (size === BATCH ? null : size));
const same = (a: readonly number[], b: readonly number[]): boolean => a.length === b.length && a.every((size, i) => size === b[i]);

/** Element by element; known values are computed at import. */
const unary = (onTensor: (x: Tensor, node: NodeReader) => Tensor, onNumber?: (x: number) => number): Operator => (node) => {
  const value = node.value(0);
  if (isFlow(value)) return [value.map((tensor) => onTensor(tensor, node))];
  return onNumber === undefined ? [node.flow(0).map((tensor) => onTensor(tensor, node))]
    : [mapped(value, { ...value, shape: [], data: value.data.subarray(0, 1) }, (x) => onNumber(x), node.fail)];
};

/** Both inputs under their common shape. */
function broadcast(a: Flow, b: Flow, node: NodeReader): [Tensor, Tensor] {
  const shape = broadcastShape(a.shape, b.shape) ?? node.fail(`shapes ${JSON.stringify(a.shape)} and ${JSON.stringify(b.shape)} do not broadcast`);
  const wide = (flow: Flow): Tensor => (same(flow.shape, shape) ? flow.plain() : flow.plain().expand(nullable(shape)));
  return [wide(a), wide(b)];
}

interface Binary {
  tensors(a: Tensor, b: Tensor): Tensor;
  numbers(a: number, b: number): number;
  /** x op number, and number op x. */
  right?(x: Tensor, by: number): Tensor;
  left?(by: number, x: Tensor): Tensor;
  /** Where b is the last dimensions of a. */
  suffix?(a: Tensor, b: Tensor): Tensor;
  /** The right side is negated before all that, so that a subtraction is a sum. */
  negated?: true;
}

/** The channels that a known (C, 1, 1) stands for beside an image. */
function channelsOf(value: Value, of: Flow): Constant | undefined {
  const sizes = isFlow(value) ? [] : value.shape.slice(-3), channels = of.shape[1]!;
  const fits = !isFlow(value) && sizes.length === 3 && same(sizes, [channels, 1, 1]) && value.data.length === channels;
  return fits ? { ...value, shape: [channels] } : undefined;
}

function binary({ tensors, numbers, right, left, suffix, negated }: Binary): Operator {
  return (node) => {
    const [a, b] = [node.value(0), node.value(1)];
    if (!isFlow(a) && !isFlow(b)) {
      const whole = !a.float && !b.float && (node.proto.opType === "Div");
      return [{ ...mapped(a, b, (x, y) => (whole ? Math.trunc(x / y) : numbers(x, y)), node.fail), ...((a.fixed || b.fixed) && { fixed: true }) }];
    }
    const [by, of] = [node.scalar(1), node.scalar(0)];
    const alone = (constant: Value, flow: Value): boolean => constant.shape.length <= flow.shape.length;
    if (isFlow(a) && by !== undefined && right !== undefined && alone(b, a)) return [a.map((x) => right(x, by))];
    if (isFlow(b) && of !== undefined && left !== undefined && alone(a, b)) return [b.map((x) => left(of, x))];
    for (const [image, other] of [[a, b], [b, a]] as const) {
      if (!isFlow(image) || !image.isChannelsLast || image.shape.length !== 4) continue;
      const channels = channelsOf(other, image);
      if (channels === undefined) continue;
      const at = image.channelsLast(), vector = node.weights.tensor(channels, "channels"), by = negated && other === b ? vector.scale(-1) : vector;
      const from = negated && image === b ? at.scale(-1) : at, wide = (): Tensor => by.expand(nullable(at.shape));
      return [Flow.channelsLast(suffix !== undefined ? suffix(from, by) : image === a ? tensors(from, wide()) : tensors(wide(), from))];
    }
    const x = node.flow(0), y = negated ? node.flow(1).map((tensor) => tensor.scale(-1)) : node.flow(1);
    if (same(x.shape, y.shape)) {
      return x.isChannelsLast && y.isChannelsLast ? [Flow.channelsLast(tensors(x.channelsLast(), y.channelsLast()))] : [Flow.of(tensors(x.plain(), y.plain()))];
    }
    if (suffix !== undefined) {
      for (const [long, short] of [[x, y], [y, x]] as const) {
        const fits = short.shape.length >= 1 && short.shape.length < long.shape.length && same(short.shape, long.shape.slice(-short.shape.length));
        if (fits) return [Flow.of(suffix(long.plain(), short.plain()))];
      }
    }
    return [Flow.of(tensors(...broadcast(x, y, node)))];
  };
}

/** The logistic forms that graphs are made of. */
const relu6 = (x: Tensor, low: number, high: number): Tensor => {
  const above = low === -Infinity ? undefined : x.scale(1, -low).relu().scale(1, low);
  if (high === Infinity) return above ?? x;
  return (above ?? x).scale(-1, high).relu().scale(-1, high); // min(x, high) = high - relu(high - x)
};

function clip(node: NodeReader): Value[] {
  const bound = (position: number, attribute: string, fallback: number): number => {
    if (node.has(position)) return node.scalar(position) ?? node.fail(`the bound ${attribute} must be one known number`);
    return node.float(attribute, fallback);
  };
  const low = bound(1, "min", -3.4028235e38), high = bound(2, "max", 3.4028235e38);
  if (!(low <= high)) node.fail(`the bounds ${low} and ${high} are no range`);
  const open = 3.4028234e38;
  return [node.flow(0).map((x) => relu6(x, low <= -open ? -Infinity : low, high >= open ? Infinity : high))];
}

function pow(node: NodeReader): Value[] {
  const [base, by] = [node.value(0), node.scalar(1)];
  if (!isFlow(base) && !isFlow(node.value(1))) return [mapped(base, node.constant(1, "the exponent"), Math.pow, node.fail)];
  const powers: Record<string, (x: Tensor) => Tensor> = {
    1: (x) => x, 2: (x) => x.mul(x), 3: (x) => x.mul(x).mul(x), 4: (x) => x.mul(x).mul(x.mul(x)),
    0.5: (x) => x.sqrt(), [-1]: (x) => x.scale(0, 1).div(x), [-0.5]: (x) => x.scale(0, 1).div(x.sqrt()),
  };
  const power = powers[String(by)] ?? node.fail(`the exponent must be known and one of ${Object.keys(powers).join(", ")}, got ${by ?? "a computed one"}`);
  return [node.flow(0).map(power)];
}

function matMul(node: NodeReader): Value[] {
  const a = node.flow(0), b = node.value(1);
  if (a.shape.length < 2 || b.shape.length !== 2) {
    node.fail(`a product of shapes ${JSON.stringify(a.shape)} and ${JSON.stringify(b.shape)} is not supported: the right one must be a matrix`);
  }
  return [Flow.of(product(node, a.plain(), 1, false))];
}

/** x times input `position`; a matrix that the file transposed stays as it was, so that tied weights are one. */
function product(node: NodeReader, x: Tensor, position: number, transposeB: boolean): Tensor {
  const b = node.value(position);
  if (isFlow(b)) return x.matmul(b.plain(), { transposeB });
  return b.transposeOf === undefined ? x.matmul(node.weights.tensor(b, "weight"), { transposeB })
    : x.matmul(node.weights.tensor(b.transposeOf, "weight"), { transposeB: !transposeB });
}

function gemm(node: NodeReader): Value[] {
  const alpha = node.float("alpha", 1), beta = node.float("beta", 1);
  let x = node.flow(0).plain();
  if (x.shape.length !== 2 || node.value(1).shape.length !== 2) node.fail("the operands must be matrices");
  if (node.int("transA", 0) !== 0) {
    if (x.shape[0] === BATCH) node.fail("the batch must stay the first dimension");
    x = x.transpose([1, 0]);
  }
  let y = product(node, x, 1, node.int("transB", 0) !== 0);
  if (alpha !== 1) y = y.scale(alpha);
  if (!node.has(2) || beta === 0) return [Flow.of(y)];
  const c = node.flow(2), bias = beta === 1 ? c.plain() : c.plain().scale(beta);
  if (same(c.shape, y.shape.slice(1))) return [Flow.of(y.biasAdd(bias))];
  return [Flow.of(y.add(same(c.shape, y.shape) ? bias : bias.expand(nullable(y.shape))))];
}

interface Window { kernel: [number, number]; strides: [number, number]; pads: [number, number, number, number] }

/** kernel_shape, strides, and pads (top, left, bottom, right) with auto_pad resolved. */
function windowOf(node: NodeReader, height: number, width: number, kernel: readonly number[]): Window {
  const pair = (name: string, list: readonly number[]): [number, number] => {
    const valid = list.length === 2 && list.every((size) => size >= 1 && size <= 1024);
    return valid ? [list[0]!, list[1]!] : node.fail(`"${name}" must be two sizes from 1 to 1024, got ${JSON.stringify(list)}`);
  };
  const size = pair("kernel_shape", kernel), strides = pair("strides", node.ints("strides") ?? [1, 1]);
  if (pair("dilations", node.ints("dilations") ?? [1, 1]).some((step) => step !== 1)) node.fail("dilations above 1 are not supported");
  const mode = node.text("auto_pad", "NOTSET");
  let pads = node.ints("pads") ?? [0, 0, 0, 0];
  if (mode === "SAME_UPPER" || mode === "SAME_LOWER") {
    const sides = [height, width].map((extent, i) => {
      const total = Math.max(0, (Math.ceil(extent / strides[i]!) - 1) * strides[i]! + size[i]! - extent), less = Math.floor(total / 2);
      return mode === "SAME_UPPER" ? [less, total - less] : [total - less, less];
    });
    pads = [sides[0]![0]!, sides[1]![0]!, sides[0]![1]!, sides[1]![1]!];
  } else if (mode !== "NOTSET" && mode !== "VALID") node.fail(`auto_pad "${mode}" is unknown`);
  if (pads.length !== 4 || pads.some((side) => !(side >= 0 && side <= 4096))) node.fail(`"pads" must be four sizes from 0, got ${JSON.stringify(pads)}`);
  return { kernel: size, strides, pads: pads as Window["pads"] };
}

function image(node: NodeReader): { x: Tensor; height: number; width: number } {
  const flow = node.flow(0);
  if (flow.shape.length !== 4) node.fail(`only images (N, C, H, W) are supported, got ${JSON.stringify(flow.shape)}`);
  return { x: flow.channelsLast(), height: flow.shape[2]!, width: flow.shape[3]! };
}

function conv(node: NodeReader): Value[] {
  const { x, height, width } = image(node), weight = node.constant(1, "the weight");
  if (weight.shape.length !== 4) node.fail("the weight must be (M, C, H, W)");
  if (node.int("group", 1) !== 1) node.fail("groups are not supported");
  const { strides, pads, kernel } = windowOf(node, height, width, node.ints("kernel_shape") ?? weight.shape.slice(2));
  if (!same(kernel, weight.shape.slice(2))) node.fail(`"kernel_shape" is not the weight's ${JSON.stringify(weight.shape)}`);
  const [top, left, bottom, right] = pads;
  // What the kernels cannot pad themselves: uneven sides, and as much as the kernel is wide.
  const own = top === bottom && left === right && top < kernel[0] && left < kernel[1];
  const wide = own ? x : padded(padded(x, 1, top, bottom), 2, left, right);
  const named = { ...transposed(weight, [2, 3, 1, 0]), name: weight.name, ...(weight.fixed && { fixed: true }) };
  const y = node.graph.add("conv2d", [wide, node.weights.tensor(named, "weight")],
    { strideH: strides[0], strideW: strides[1], padH: own ? top : 0, padW: own ? left : 0 });
  return [Flow.channelsLast(node.has(2) ? y.biasAdd(node.flow(2).plain()) : y)];
}

/** Whether the values come from a ReLU, in whichever layout. */
function isRelu({ graph, id }: Tensor): boolean {
  let node = graph.nodes[id]!;
  while (node.op === "transpose") node = graph.nodes[node.inputs[0]!]!;
  return node.op === "relu";
}

const pool = (kind: "maxPool" | "avgPool"): Operator => (node) => {
  const { x, height, width } = image(node);
  const { kernel, strides, pads } = windowOf(node, height, width, node.ints("kernel_shape") ?? node.fail("kernel_shape is missing"));
  if (kernel[0] !== kernel[1] || strides[0] !== strides[1]) node.fail("windows and strides must be square");
  if (kind === "maxPool") node.int("storage_order", 0);
  const counted = kind === "avgPool" && node.int("count_include_pad", 0) === 1;
  const [top, left, bottom, right] = pads, some = pads.some((side) => side > 0);
  if (some && !(kind === "avgPool" ? counted : isRelu(x))) {
    node.fail(kind === "avgPool" ? "padding that is not counted is not supported" : "padding is supported behind Relu alone, where zeros change no maximum");
  }
  const uneven = [height + top + bottom, width + left + right].some((extent) => (extent - kernel[0]) % strides[0] !== 0);
  if (node.int("ceil_mode", 0) !== 0 && uneven) node.fail("windows that reach past the end (ceil_mode) are not supported");
  const wide = some ? padded(padded(x, 1, top, bottom), 2, left, right) : x;
  return [Flow.channelsLast(node.graph.add(kind, [wide], { kernel: kernel[0], stride: strides[0] }))];
};

/** The sum over some axes, kept as sizes of 1 or gone. */
function reduced(node: NodeReader, mean: boolean): Value[] {
  const flow = node.flow(0), rank = flow.shape.length, given = node.list(1, "axes") ?? [];
  if (given.length === 0 && node.int("noop_with_empty_axes", 0) !== 0) return [flow];
  node.int("noop_with_empty_axes", 0);
  const axes = given.length === 0 ? flow.shape.map((_, i) => i) : given.map((axis) => node.axis(axis, rank));
  const over = axes.reduce((count, axis) => count * flow.shape[axis]!, 1);
  if (mean && axes.some((axis) => flow.shape[axis] === BATCH)) node.fail("a mean over the batch needs its size; give it as a dimension");
  const sum = flow.plain().sum(axes), kept = flow.shape.map((size, i) => (axes.includes(i) ? 1 : size));
  const y = mean ? sum.scale(1 / over) : sum;
  return [Flow.of(node.int("keepdims", 1) !== 0 && axes.length < rank ? y.reshape(nullable(kept)) : y)];
}

/** Over the last axis, by way of a transposition where it is another. */
function alongLast(node: NodeReader, fallback: number, f: (rows: Tensor) => Tensor): Value[] {
  const flow = node.flow(0), rank = flow.shape.length, axis = node.axis(node.int("axis", fallback), rank), x = flow.plain();
  if (x.shape.length < 2) node.fail("a vector alone has no rows");
  if (axis === rank - 1) return [Flow.of(f(x))];
  if (flow.shape[axis] === BATCH) node.fail("the batch is no axis to normalise over");
  const swap = flow.shape.map((_, i) => (i === axis ? rank - 1 : i === rank - 1 ? axis : i));
  return [Flow.of(f(x.transpose(swap)).transpose(swap))];
}

function normalization(node: NodeReader, centred: boolean): Value[] {
  const flow = node.flow(0), x = flow.plain(), epsilon = node.float("epsilon", 1e-5);
  if (node.axis(node.int("axis", -1), x.shape.length) !== x.shape.length - 1) node.fail("only the last axis is supported");
  node.int("stash_type", 1);
  if (node.proto.output.slice(1).some((name) => name !== "")) node.fail("its statistics are not given");
  const gamma = node.flow(1).plain();
  if (!centred) return [Flow.of(x.rmsNorm(gamma, epsilon))];
  const zeros: Constant = { name: "", shape: [...gamma.shape], float: true, fixed: true, data: new Float32Array(gamma.shape.reduce((n, size) => n * size, 1)) };
  return [Flow.of(x.layerNorm(gamma, node.has(2) ? node.flow(2).plain() : node.weights.tensor(zeros, "bias"), epsilon))];
}

/** At inference: one factor and one shift a channel, both trained on. */
function batchNormalization(node: NodeReader): Value[] {
  const { x } = node.value(0).shape.length === 4 ? image(node) : { x: node.flow(0).plain() };
  const [scale, shift, mean, variance] = [1, 2, 3, 4].map((i) => node.constant(i, "a statistic")), epsilon = node.float("epsilon", 1e-5);
  node.float("momentum", 0.9);
  if (node.int("training_mode", 0) !== 0) node.fail("training mode is not imported");
  if (x.shape.length !== 2 && x.shape.length !== 4) node.fail("only (N, C) and (N, C, H, W) are supported");
  const channels = [x.shape.at(-1)!];
  if ([scale, shift, mean, variance].some((each) => !same(each!.shape, channels))) node.fail(`the statistics must be of ${channels[0]} channels`);
  const factor = Float32Array.from(scale!.data, (s, i) => s / Math.sqrt(variance!.data[i]! + epsilon));
  const offset = Float32Array.from(shift!.data, (s, i) => s - mean!.data[i]! * factor[i]!);
  const weight = (name: string, data: Float32Array): Tensor => node.weights.tensor({ name, shape: channels, float: true, data }, "norm");
  const y = x.mul(weight(scale!.name, factor).expand(nullable(x.shape))).biasAdd(weight(shift!.name, offset));
  return [x.shape.length === 4 ? Flow.channelsLast(y) : Flow.of(y)];
}

const variadic = (f: (a: Tensor, b: Tensor) => Tensor): Operator => (node) => {
  let [result] = [node.flow(0)];
  for (let i = 1; i < node.inputs; i++) result = Flow.of(f(...broadcast(result!, node.flow(i), node)));
  return [result!];
};

export const MATH_OPERATORS: Readonly<Record<string, Operator>> = {
  Add: binary({ tensors: (a, b) => a.add(b), numbers: (a, b) => a + b, right: (x, by) => x.scale(1, by), left: (by, x) => x.scale(1, by), suffix: (a, b) => a.biasAdd(b) }),
  Sub: binary({ tensors: (a, b) => a.add(b), numbers: (a, b) => a - b, right: (x, by) => x.scale(1, -by), left: (by, x) => x.scale(-1, by), suffix: (a, b) => a.biasAdd(b), negated: true }),
  Mul: binary({ tensors: (a, b) => a.mul(b), numbers: (a, b) => a * b, right: (x, by) => x.scale(by), left: (by, x) => x.scale(by) }),
  Div: binary({ tensors: (a, b) => a.div(b), numbers: (a, b) => a / b, right: (x, by) => x.scale(1 / by) }),
  Max: variadic((a, b) => b.add(a.scale(-1)).scale(-1).relu().add(b)),
  Min: variadic((a, b) => b.add(a.scale(-1)).relu().scale(-1).add(b)),
  Sum: variadic((a, b) => a.add(b)),
  Neg: unary((x) => x.scale(-1), (x) => -x),
  Abs: unary((x) => x.relu().add(x.scale(-1).relu()), Math.abs),
  Reciprocal: unary((x) => x.scale(0, 1).div(x), (x) => 1 / x),
  Exp: unary((x) => x.exp(), Math.exp),
  Log: unary((x) => x.log(), Math.log),
  Sqrt: unary((x) => x.sqrt(), Math.sqrt),
  Erf: unary((x) => x.erf()),
  Pow: pow,
  Relu: unary((x) => x.relu(), (x) => Math.max(0, x)),
  LeakyRelu: unary((x, node) => x.relu().sub(x.scale(-1).relu().scale(node.float("alpha", 0.01)))),
  Sigmoid: unary((x) => x.sigmoid()),
  Tanh: unary((x) => x.tanh()),
  Gelu: unary((x, node) => x.gelu(node.text("approximate", "none") === "tanh" ? "tanh" : "erf")),
  Swish: unary((x, node) => (node.float("alpha", 1) === 1 ? x.silu() : x.mul(x.scale(node.float("alpha", 1)).sigmoid()))),
  HardSigmoid: unary((x, node) => relu6(x.scale(node.float("alpha", 0.2), node.float("beta", 0.5)), 0, 1)),
  HardSwish: unary((x) => x.mul(relu6(x.scale(1 / 6, 0.5), 0, 1))),
  Clip: clip,
  MatMul: matMul,
  Gemm: gemm,
  Conv: conv,
  MaxPool: pool("maxPool"),
  AveragePool: pool("avgPool"),
  GlobalAveragePool(node) {
    const { x, height, width } = image(node);
    const mean = x.sum([1, 2]).scale(1 / (height * width));
    return [Flow.of(mean.reshape(nullable([x.shape[0]!, x.shape[3]!, 1, 1])))];
  },
  ReduceMean: (node) => reduced(node, true),
  ReduceSum: (node) => reduced(node, false),
  Softmax: (node) => alongLast(node, node.opset >= 13 ? -1 : 1, (x) => x.softmax()),
  LogSoftmax: (node) => alongLast(node, node.opset >= 13 ? -1 : 1, (x) => x.softmax().log()),
  LayerNormalization: (node) => normalization(node, true),
  RMSNormalization: (node) => normalization(node, false),
  BatchNormalization: batchNormalization,
};
