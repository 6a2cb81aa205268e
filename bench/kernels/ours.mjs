// Owns our side of the kernel lines: each case is one operation run as users run it, through a plan or a device call,
// on the calling thread. One device a thread count, one prepared case at a time.
import { createInterface } from "node:readline";
import { openDevice } from "../../dist/device/device.js";

const devices = new Map();
function deviceOf(threads) {
  if (!devices.has(threads)) devices.set(threads, openDevice({ backend: process.env.TESRA_BENCH_BACKEND ?? "cpu", threads }));
  return devices.get(threads);
}

let state = 1;
const random = () => (state = (Math.imul(state, 1664525) + 1013904223) | 0) / 2 ** 31;
const size = (shape) => shape.reduce((product, each) => product * each, 1);

/** Not below zero: second moments have roots. One block over and over: 25 M calls of random() would take seconds. */
const block = Float32Array.from({ length: 65521 }, () => Math.abs(random()));
function values(count) {
  const out = new Float32Array(count);
  for (let at = 0; at < count; at += block.length) out.set(block.subarray(0, Math.min(block.length, count - at)), at);
  return out;
}

/**
 * A plan of one operation over fresh random tensors; an input as { ids, shape } holds integers below `ids`.
 * @returns its body and its end.
 */
function planOf({ threads }, op, inputs, outputs, attrs = {}, inPlace = {}) {
  const tensors = [];
  let arenaBytes = 0;
  const add = (operand, index) => {
    const shape = operand.shape ?? operand;
    tensors.push({ name: `t${index}`, dtype: operand.ids ? "i32" : "f32", shape, offsetBytes: arenaBytes });
    arenaBytes += Math.ceil((size(shape) * 4) / 64) * 64;
    return tensors.length - 1;
  };
  const ins = inputs.map(add);
  const outs = outputs.map((shape, i) => (inPlace[i] === undefined ? add(shape, inputs.length + i) : ins[inPlace[i]]));
  const plan = deviceOf(threads).createPlan({ tensors, arenaBytes, ops: [{ op, in: ins, out: outs, attrs }] });
  inputs.forEach(({ ids }, id) => {
    const count = size(tensors[id].shape);
    plan.write(id, ids ? Int32Array.from({ length: count }, () => Math.floor(Math.abs(random()) * ids)) : values(count));
  });
  return { run: () => plan.runSync(), close: () => plan.close() };
}

const bytes = (count) => Int8Array.from({ length: count }, () => Math.floor(random() * 127));

function gemm(request, attrs = {}) {
  const { m, n, k, transA = 0, transB = 0 } = request;
  return planOf(request, "gemm", [transA ? [k, m] : [m, k], transB ? [n, k] : [k, n]], [[m, n]], { transA, transB, ...attrs });
}

function convolution(request) {
  const { op, n, h, c, oc, kernel, pad, stride = 1 } = request;
  const o = Math.floor((h + 2 * pad - kernel) / stride) + 1;
  const [x, w, y] = [[n, h, h, c], [kernel, kernel, c, oc], [n, o, o, oc]];
  const attrs = { strideH: stride, strideW: stride, padH: pad, padW: pad };
  if (op === "conv") return planOf(request, "conv2d", [x, w], [y], attrs);
  return op === "conv-dx" ? planOf(request, "conv2d_dx", [y, w], [x], attrs) : planOf(request, "conv2d_dw", [x, y], [w], attrs);
}

/** By the name of the operation; each file of lines adds its own here. `isAsync`: `run` gives a promise. */
const cases = {
  null({ threads }) {
    const tensors = [{ name: "t0", dtype: "f32", shape: [1], offsetBytes: 0 }];
    const plan = deviceOf(threads).createPlan({ tensors, arenaBytes: 64, ops: [] });
    return { run: () => plan.run(), close: () => plan.close(), isAsync: true };
  },
  sgemm: (request) => gemm(request),
  exact: (request) => gemm(request, { slices: request.slices }),
  conv: convolution,
  "conv-dx": convolution,
  "conv-dw": convolution,
  int8({ m, n, k, threads }) {
    const device = deviceOf(threads);
    const [a, bT, out] = [bytes(m * k), bytes(n * k), new Int32Array(m * n)];
    return { run: () => device.int8Gemm(a, bT, { m, n, k }, out), close() {} };
  },
  crm({ m, n, k, threads }) {
    const device = deviceOf(threads);
    const [a, bT] = [bytes(m * k), bytes(n * k)];
    const [key, target] = [new Uint8Array(32), new Uint8Array(32)];
    return { run: () => device.crmScan(a, bT, { m, n, k }, key, target), close() {} };
  },
  "linear-gelu": (request) => {
    const { m, n, k } = request;
    return planOf(request, "gemm", [[m, k], [k, n], [n]], [[m, n]], { geluTanh: 1 });
  },
  attention(request) {
    const { batch, heads, length, size: d, causal } = request;
    return planOf(request, "attention", [[batch, length, 3 * heads * d]], [[batch, length, heads * d], [batch, heads, length]], { heads, causal });
  },
  "attention-grad"(request) {
    const { batch, heads, length, size: d, causal } = request;
    const [qkv, out] = [[batch, length, 3 * heads * d], [batch, length, heads * d]];
    return planOf(request, "attention_grad", [out, qkv, out, [batch, heads, length]], [qkv], { heads, causal });
  },
  layernorm: (request) => {
    const { rows, columns } = request;
    return planOf(request, "layer_norm", [[rows, columns], [columns], [columns]], [[rows, columns], [rows], [rows]], { epsilon: 1e-5 });
  },
  "layernorm-grad"(request) {
    const { rows, columns } = request;
    const x = [rows, columns];
    return planOf(request, "layer_norm_grad", [x, x, [columns], [rows], [rows]], [x, [columns], [columns]]);
  },
  rmsnorm: (request) => {
    const { rows, columns } = request;
    return planOf(request, "rms_norm", [[rows, columns], [columns]], [[rows, columns], [rows]], { epsilon: 1e-5 });
  },
  softmax: (request) => planOf(request, "softmax", [[request.rows, request.columns]], [[request.rows, request.columns]]),
  gelu: (request) => planOf(request, request.tanh ? "gelu_tanh" : "gelu", [[request.n]], [[request.n]]),
  embedding(request) {
    const { rows, columns, vocabulary } = request;
    return planOf(request, "embedding", [[vocabulary, columns], { ids: vocabulary, shape: [rows] }], [[rows, columns]]);
  },
  "softmax-ce"(request) {
    const { rows, columns } = request;
    return planOf(request, "softmax_xent", [[rows, columns], { ids: columns, shape: [rows] }], [[1], [rows, columns]]);
  },
  blake3({ size: length, threads }) {
    const device = deviceOf(threads), data = new Uint8Array(length).fill(7);
    return { run: () => device.blake3(data), close() {} };
  },
  cn2({ hashes, threads }) {
    const device = deviceOf(threads), data = new Uint8Array(76), target = new Uint8Array(32);
    const options = { nonceOffset: 39, nonceBytes: 4, nonceStart: 0n, count: BigInt(hashes), target };
    return { run: () => device.cn2Scan(data, options), close() {}, isAsync: true };
  },
  adamw: (request) => {
    const { n } = request;
    const attrs = { learningRate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.01 };
    // Parameters, gradient, two moments and the step's number; all but the gradient are updated in place.
    return planOf(request, "adam", [[n], [n], [n], [n], [1]], [[n], [n], [n], [1]], attrs, { 0: 0, 1: 2, 2: 3, 3: 4 });
  },
};

const now = () => performance.now() / 1000;

/** Median seconds a run, of batches of at least a millisecond: as side.h does it. */
function measure(run, seconds) {
  run();
  let start = now();
  run();
  const batch = Math.max(1, Math.floor(1e-3 / Math.max(1e-9, now() - start)));
  const times = [];
  const begin = now();
  do {
    start = now();
    for (let i = 0; i < batch; i++) run();
    times.push((now() - start) / batch);
  } while (now() - begin < seconds);
  return times.sort((a, b) => a - b)[times.length >> 1];
}

/** The median of single runs, each awaited. */
async function measureAsync(run, seconds) {
  const times = [];
  const begin = now();
  do {
    const start = now();
    await run();
    times.push(now() - start);
  } while (now() - begin < seconds);
  return times.sort((a, b) => a - b)[times.length >> 1];
}

console.log(JSON.stringify({ version: deviceOf(1).isa }));
let prepared;
let text;
for await (const line of createInterface({ input: process.stdin })) {
  try {
    const request = JSON.parse(line);
    if (line !== text) {
      prepared?.close();
      [prepared, text] = [cases[request.op](request), line];
    }
    const { run, isAsync } = prepared;
    const seconds = isAsync ? await measureAsync(run, request.seconds) : measure(run, request.seconds);
    console.log(JSON.stringify({ seconds }));
  } catch (error) {
    text = undefined;
    console.log(JSON.stringify({ reason: error.message }));
  }
}
