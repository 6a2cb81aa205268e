// Owns the random plans that check.mjs runs on both back ends: one generator for each operation.
// Invariant: everything follows from the seed, so that a failing case can be run again.

/** xoshiro128** (Blackman and Vigna 2018), seeded by splitmix32. */
export function createRandom(seed) {
  const state = new Uint32Array(4);
  for (let i = 0; i < 4; i++) {
    seed = (seed + 0x9e3779b9) >>> 0;
    let z = seed;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    state[i] = z ^ (z >>> 15);
  }
  const rotate = (x, by) => (x << by) | (x >>> (32 - by));
  const next = () => {
    const result = Math.imul(rotate(Math.imul(state[1], 5), 7), 9) >>> 0;
    const t = state[1] << 9;
    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= t;
    state[3] = rotate(state[3], 11);
    return result;
  };
  const pick = (low, high) => low + (next() % (high - low + 1));
  return { next, pick, coin: (chance = 2) => next() % chance === 0 };
}

/** Ordinary values with zeros of both signs and tiny ones; NaN and infinity where `special`. */
export function fillFloats(random, out, special) {
  for (let i = 0; i < out.length; i++) {
    const r = random.next();
    const kind = r % 64;
    if (kind === 0) out[i] = r & 64 ? 0 : -0;
    else if (kind < 3) out[i] = (r & 64 ? 1 : -1) * 2 ** -random.pick(70, 140);
    else if (special && r % 512 === 3) out[i] = [NaN, Infinity, -Infinity][r % 3];
    else out[i] = (r >>> 8) / 2 ** 23 - 1;
  }
  return out;
}

const ALIGNMENT = 64;

/** Collects tensors and operations into a plan specification; `fills` says what each tensor starts with. */
function createBuilder() {
  const tensors = [];
  const fills = [];
  const ops = [];
  let arenaBytes = 0;
  return {
    tensor(shape, fill = "finite", dtype = "f32") {
      const size = shape.reduce((x, y) => x * y, 1) * (dtype === "u8" ? 1 : 4);
      tensors.push({ name: `t${tensors.length}`, dtype, shape, offsetBytes: arenaBytes });
      fills.push(fill);
      arenaBytes += Math.ceil(size / ALIGNMENT) * ALIGNMENT;
      return tensors.length - 1;
    },
    op(name, inputs, outputs, attrs = {}) {
      ops.push({ op: name, in: inputs, out: outputs, attrs });
    },
    done: (label) => ({ label: `${label} ${tensors.map(({ shape }) => shape.join("x")).join(" ")}`, fills,
      spec: { tensors, ops, arenaBytes } }),
  };
}

const DEPTHS = [1, 2, 15, 16, 17, 100, 511, 512, 513, 784, 1030, 2500];
const bit = (random) => (random.coin() ? 1 : 0);

export const GENERATORS = {
  gemm(random, large) {
    const b = createBuilder();
    const m = large ? random.pick(1500, 2200) : random.pick(1, 200);
    const n = large ? random.pick(1200, 1900) : random.pick(1, 200);
    const k = large ? random.pick(500, 700) : DEPTHS[random.pick(0, DEPTHS.length - 1)];
    const attrs = { transA: bit(random), transB: bit(random), accumulate: bit(random), residual: bit(random) };
    const activation = ["relu", "gelu", "geluTanh", "silu", undefined][random.pick(0, 4)];
    if (activation !== undefined) Object.assign(attrs, { [activation]: 1, gradient: bit(random) });
    const fill = random.coin(4) ? "special" : "finite";
    const inputs = [b.tensor(attrs.transA ? [k, m] : [m, k], fill), b.tensor(attrs.transB ? [n, k] : [k, n], fill)];
    if (random.coin()) inputs.push(b.tensor([n]));
    for (const flag of ["gradient", "residual"]) if (attrs[flag]) inputs.push(b.tensor([m, n], fill));
    const outputs = !attrs.gradient && random.coin() ? [b.tensor([m, n]), b.tensor([m, n])] : [b.tensor([m, n])];
    b.op("gemm", inputs, outputs, attrs);
    return b.done(`gemm ${JSON.stringify(attrs)}`);
  },
  exact(random) {
    const b = createBuilder();
    const [m, n] = [random.pick(1, 200), random.pick(1, 300)], k = DEPTHS[random.pick(0, DEPTHS.length - 1)];
    const attrs = { transA: bit(random), transB: bit(random), relu: bit(random), accumulate: bit(random), slices: random.pick(2, 3) };
    const fill = random.coin(4) ? "special" : "finite";
    b.op("gemm", [b.tensor(attrs.transA ? [k, m] : [m, k], fill), b.tensor(attrs.transB ? [n, k] : [k, n], fill), b.tensor([n])],
      [b.tensor([m, n])], attrs);
    return b.done(`exact gemm ${JSON.stringify(attrs)}`);
  },
  compression(random, large) {
    const b = createBuilder();
    const n = random.pick(1, large ? 2_000_000 : 20_000), block = 64 * random.pick(1, 20);
    const x = b.tensor([n], random.coin(4) ? "special" : "finite");
    for (const kind of [1, 2, 3]) {
      const parameter = kind === 1 ? random.pick(0, n) : block, blocks = Math.ceil(n / block);
      const bytes = 16 + (kind === 1 ? 8 * parameter : 4 * blocks + (kind === 2 ? n : Math.ceil(n / 8)));
      const message = b.tensor([bytes], "bytes", "u8");
      const stochastic = kind === 2 ? bit(random) : 0;
      b.op("compress", [x, b.tensor([n])], [message], { kind, parameter, stochastic, seedLow: random.next(), stream: random.next() });
      b.op("decompress", [message], [b.tensor([n])], { kind, parameter, scale: 0.3, add: bit(random) });
    }
    return b.done("compression");
  },
  bias_grad(random) {
    const b = createBuilder();
    const n = random.pick(1, 300);
    b.op("bias_grad", [b.tensor([random.pick(1, 1500), n])], [b.tensor([n])]);
    return b.done("bias_grad");
  },
  maps(random) {
    const b = createBuilder();
    const n = random.pick(1, 5000);
    const x = b.tensor([n], "special"), y = b.tensor([n], "special");
    b.op("relu", [x], [b.tensor([n])]);
    b.op("relu_grad", [x, y], [b.tensor([n])]);
    b.op("add", [x, y], [b.tensor([n])]);
    b.op("scale", [x], [b.tensor([n])], { alpha: 1.7, beta: -0.3 });
    b.op("u8_to_f32", [b.tensor([n], "bytes", "u8")], [b.tensor([n])], { scale: 1 / 255, shift: -0.5 });
    b.op("add", [x, y], [x]);
    return b.done("maps");
  },
  functions(random) {
    const b = createBuilder();
    const n = random.pick(1, 3000), fill = random.coin() ? "special" : "finite";
    const x = b.tensor([n], fill), y = b.tensor([n], fill);
    for (const op of ["mul", "div"]) b.op(op, [x, y], [b.tensor([n])]);
    for (const op of ["exp", "log", "sqrt", "erf", "sigmoid"]) b.op(op, [x], [b.tensor([n])]);
    return b.done("functions");
  },
  layout(random) {
    const b = createBuilder();
    const [rows, columns] = [random.pick(1, 90), random.pick(1, 90)];
    const x = b.tensor([rows, columns], "special");
    const size = { size0: rows, size1: columns };
    b.op("copy", [x], [b.tensor([columns, rows])], { ...size, from0: columns, from1: 1, to0: 1, to1: rows, accumulate: bit(random) }); // transposed
    const width = columns + random.pick(0, 9), at = random.pick(0, width - columns); // into a wider one, the rest zeros or as it was
    b.op("copy", [x], [b.tensor([rows, width])], { ...size, from0: columns, from1: 1, to0: width, to1: 1, toOffset: at, clear: bit(random) });
    b.op("copy", [x], [b.tensor([rows, columns])], { ...size, from0: columns, to0: columns, to1: 1 }); // the first column repeated
    const heads = random.pick(1, 4), headSize = 2 * random.pick(1, 12), length = random.pick(1, 20), wide = heads * headSize + random.pick(0, 5);
    const turned = { heads, headSize, base: 10_000, inverse: bit(random) };
    const shape = [random.pick(1, 3), length, wide];
    b.op("rope", [b.tensor(shape)], [b.tensor(shape)], turned);
    return b.done(`layout ${JSON.stringify(turned)}`);
  },
  conv(random, large) {
    const b = createBuilder();
    const [kh, kw] = [random.pick(1, 5), random.pick(1, 5)];
    const attrs = { strideH: random.pick(1, 3), strideW: random.pick(1, 3), padH: random.pick(0, kh - 1), padW: random.pick(0, kw - 1) };
    const n = large ? 64 : random.pick(1, 5);
    const [h, w] = [random.pick(kh, large ? 30 : 16), random.pick(kw, large ? 30 : 16)];
    const c = random.coin() ? 1 : random.pick(1, 20), oc = random.pick(1, large ? 64 : 20);
    const oh = Math.floor((h + 2 * attrs.padH - kh) / attrs.strideH) + 1;
    const ow = Math.floor((w + 2 * attrs.padW - kw) / attrs.strideW) + 1;
    const fill = random.coin(4) ? "special" : "finite";
    const x = b.tensor([n, h, w, c], fill), weights = b.tensor([kh, kw, c, oc], fill), dy = b.tensor([n, oh, ow, oc], fill);
    const inputs = random.coin() ? [x, weights, b.tensor([oc])] : [x, weights];
    b.op("conv2d", inputs, [b.tensor([n, oh, ow, oc])], { ...attrs, relu: bit(random) });
    b.op("conv2d_dx", [dy, weights], [b.tensor([n, h, w, c])], attrs);
    b.op("conv2d_dw", [x, dy], [b.tensor([kh, kw, c, oc])], attrs);
    return b.done(`conv ${JSON.stringify(attrs)}`);
  },
  pool(random) {
    const b = createBuilder();
    const attrs = { kernel: random.pick(1, 3), stride: random.pick(1, 3) };
    const [n, c] = [random.pick(1, 6), random.pick(1, 9)];
    const [h, w] = [attrs.kernel + random.pick(0, 12), attrs.kernel + random.pick(0, 12)];
    const oh = Math.floor((h - attrs.kernel) / attrs.stride) + 1, ow = Math.floor((w - attrs.kernel) / attrs.stride) + 1;
    const x = b.tensor([n, h, w, c], "special"), dy = b.tensor([n, oh, ow, c]);
    const index = b.tensor([n, oh, ow, c], "zero", "i32");
    b.op("maxpool", [x], [b.tensor([n, oh, ow, c]), index], attrs);
    b.op("maxpool_grad", [dy, index], [b.tensor([n, h, w, c])], attrs);
    b.op("maxpool_grad", [dy, b.tensor([n, oh, ow, c], `index ${n * h * w * c}`, "i32")], [b.tensor([n, h, w, c])], attrs);
    b.op("avgpool", [x], [b.tensor([n, oh, ow, c])], attrs);
    b.op("avgpool_grad", [dy], [b.tensor([n, h, w, c])], attrs);
    return b.done(`pool ${JSON.stringify(attrs)}`);
  },
  activations(random) {
    const b = createBuilder();
    const n = random.pick(1, 5000);
    const x = b.tensor([n], "special"), y = b.tensor([n], "special");
    for (const op of ["gelu", "gelu_tanh", "silu"]) {
      b.op(op, [x], [b.tensor([n])]);
      b.op(`${op}_grad`, [x, y], [b.tensor([n])]);
    }
    return b.done("activations");
  },
  norms(random, large) {
    const b = createBuilder();
    const rows = random.pick(1, large ? 3000 : 100), n = random.pick(1, large ? 1600 : 200);
    const fill = random.coin(4) ? "special" : "finite", shape = [rows, n];
    const x = b.tensor(shape, fill), dy = b.tensor(shape), gamma = b.tensor([n]), beta = b.tensor([n]);
    const mean = b.tensor([rows]), rstd = b.tensor([rows]), y = b.tensor(shape);
    b.op("layer_norm", [x, gamma, beta], [b.tensor(shape), mean, rstd], { epsilon: 1e-5 });
    b.op("layer_norm_grad", [dy, x, gamma, mean, rstd], [b.tensor(shape), b.tensor([n]), b.tensor([n])]);
    b.op("rms_norm", [x, gamma], [b.tensor(shape), rstd], { epsilon: 1e-5 });
    b.op("rms_norm_grad", [dy, x, gamma, rstd], [b.tensor(shape), b.tensor([n])]);
    b.op("softmax", [x], [y]);
    b.op("softmax_grad", [dy, y], [b.tensor(shape)]);
    return b.done("norms");
  },
  embedding(random, large) {
    const b = createBuilder();
    const rows = random.pick(1, large ? 6000 : 300), vocabulary = random.pick(1, large ? 5000 : 50), n = random.pick(1, 130);
    const ids = b.tensor([rows], `index ${vocabulary}`, "i32"), table = b.tensor([vocabulary, n]), x = b.tensor([rows, n]);
    b.op("embedding", [table, ids], [b.tensor([rows, n])]);
    b.op("bias_add", [x, b.tensor([n])], [x]);
    b.op("embedding_grad", [x, ids], [table], { accumulate: bit(random) });
    return b.done("embedding");
  },
  attention(random, large) {
    const b = createBuilder();
    const heads = random.pick(1, 3), size = random.coin() ? 64 : random.pick(1, 128), width = heads * size;
    const batch = random.pick(1, 2), length = random.pick(1, large ? 600 : 150);
    const attrs = { heads, causal: bit(random) }, fill = random.coin(6) ? "special" : "finite";
    const qkv = b.tensor([batch, length, 3 * width], fill), dout = b.tensor([batch, length, width]);
    const out = b.tensor([batch, length, width]), lse = b.tensor([batch, heads, length]);
    b.op("attention", [qkv], [out, lse], attrs);
    b.op("attention_grad", [dout, qkv, out, lse], [b.tensor([batch, length, 3 * width])], attrs);
    return b.done(`attention ${JSON.stringify(attrs)}`);
  },
  random(random) {
    const b = createBuilder();
    const n = random.pick(1, 20000), x = b.tensor([n]), norm = b.tensor([1]);
    const words = () => ({ seedLow: random.next(), seedHigh: random.next(), stream: random.next() });
    b.op("fill", [], [b.tensor([n])], { ...words(), scale: 0.02, normal: bit(random) });
    b.op("dropout", [x, b.tensor([1], "positive")], [b.tensor([n])], { ...words(), rate: 0.3 });
    b.op("global_norm", [x], [norm]);
    b.op("clip", [x, norm], [x], { limit: 0.5, normalize: bit(random) });
    return b.done("random");
  },
  loss(random, large) {
    const b = createBuilder();
    const rows = large ? random.pick(4000, 9000) : random.pick(1, 300), classes = random.pick(1, 40);
    const logits = b.tensor([rows, classes], random.coin(4) ? "special" : "finite");
    const labels = b.tensor([rows], `index ${classes}`, "i32");
    b.op("softmax_xent", [logits, labels], [b.tensor([1]), b.tensor([rows, classes])]);
    b.op("count_correct", [logits, labels], [b.tensor([1])]);
    b.op("softmax_xent", [logits, labels], [b.tensor([1]), logits]);
    return b.done("loss");
  },
  optimizers(random) {
    const b = createBuilder();
    const n = random.pick(1, 5000), fill = random.coin(4) ? "special" : "finite";
    const [p, g, m, v, step] = [b.tensor([n]), b.tensor([n], fill), b.tensor([n]), b.tensor([n], "positive"), b.tensor([1], "zero")];
    const weightDecay = random.coin() ? 0.01 : 0;
    b.op("sgd", [p, g], [p], { learningRate: 0.05, weightDecay });
    b.op("momentum", [p, g, m], [p, m], { learningRate: 0.05, momentum: 0.9, weightDecay, nesterov: bit(random) });
    for (let i = 0; i < 3; i++) {
      b.op("adam", [p, g, m, v, step], [p, m, v, step], { learningRate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay });
    }
    b.op("delay_compensate", [g, p, m], [g], { lambda: 0.04 });
    b.op("finite", [p], [b.tensor([1], "zero", "i32")]);
    return b.done("optimizers");
  },
};

/** A product in bf16: its bits are each device's own, so it is compared within a bound. */
export function bf16Case(random) {
  const b = createBuilder();
  const [m, n] = [random.pick(1, 300), random.pick(1, 300)], k = DEPTHS[random.pick(0, DEPTHS.length - 1)];
  const attrs = { transA: bit(random), transB: bit(random), relu: bit(random), bf16: 1 };
  b.op("gemm", [b.tensor(attrs.transA ? [k, m] : [m, k]), b.tensor(attrs.transB ? [n, k] : [k, n])], [b.tensor([m, n])], attrs);
  return { ...b.done(`bf16 gemm ${JSON.stringify(attrs)}`), k };
}

/** Starting contents of one tensor of a case. */
export function contentsOf(random, tensor, fill) {
  const length = tensor.shape.reduce((x, y) => x * y, 1);
  if (tensor.dtype === "u8") return Uint8Array.from({ length }, () => random.next());
  if (tensor.dtype === "i32") {
    if (fill === "zero") return new Int32Array(length);
    const limit = Number(fill.split(" ")[1]); // now and then out of range: hostile data must give the same bits too
    return Int32Array.from({ length }, () => (random.coin(100) ? random.next() | 0 : random.next() % limit));
  }
  const out = new Float32Array(length);
  if (fill === "zero") return out;
  fillFloats(random, out, fill === "special");
  return fill === "positive" ? out.map(Math.abs) : out;
}
