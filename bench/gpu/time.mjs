// Times whole calls through the addon on the GPU and on the CPU: what a worker, a miner and a parameter server see,
// transfers included. kernel-time.cu times the kernels alone. Prints one JSON object a line; medians.
// Options: --addon=PATH --repeats=N --short --dry (the CPU against itself)
import { performance } from "node:perf_hooks";
import { openBoth, parseOptions } from "./addon.mjs";
import { createRandom, fillFloats } from "./cases.mjs";

const options = parseOptions({ repeats: 9, short: false, dry: false });
const { cpu, cuda } = openBoth(options);
const random = createRandom(7);

function medianMs(run) {
  run();
  run();
  const found = Array.from({ length: options.repeats }, () => {
    const begin = performance.now();
    run();
    return performance.now() - begin;
  }).sort((x, y) => x - y);
  return found[found.length >> 1];
}

function report(name, unit, amount, run) {
  const row = { name, unit };
  for (const [key, device] of [["cpu", cpu], ["cuda", cuda]]) {
    const ms = medianMs(run(device));
    row[key] = { ms: Number(ms.toFixed(4)), rate: Number((amount / (ms / 1000)).toPrecision(6)) };
  }
  console.log(JSON.stringify(row));
}

const floats = (length) => fillFloats(random, new Float32Array(length), false);

/** A dense network's training step: forward, loss, backward, Adam; one plan. */
function networkStep(batch, sizes) {
  const tensors = [], ops = [];
  let arenaBytes = 0;
  const tensor = (shape, dtype = "f32") => {
    const size = shape.reduce((x, y) => x * y, 1) * 4;
    tensors.push({ name: `t${tensors.length}`, dtype, shape, offsetBytes: arenaBytes });
    arenaBytes += Math.ceil(size / 64) * 64;
    return tensors.length - 1;
  };
  const op = (name, inputs, outputs, attrs = {}) => ops.push({ op: name, in: inputs, out: outputs, attrs });
  const layers = sizes.slice(1).map((out, i) => ({ w: tensor([sizes[i], out]), b: tensor([out]), dw: tensor([sizes[i], out]), db: tensor([out]), out }));
  const activations = [tensor([batch, sizes[0]])];
  layers.forEach(({ w, b, out }, i) => {
    const y = tensor([batch, out]);
    op("gemm", [activations[i], w, b], [y], { relu: i + 1 < layers.length ? 1 : 0 });
    activations.push(y);
  });
  const labels = tensor([batch], "i32"), loss = tensor([1]);
  let gradient = tensor([batch, sizes.at(-1)]);
  op("softmax_xent", [activations.at(-1), labels], [loss, gradient]);
  for (let i = layers.length - 1; i >= 0; i--) {
    const { w, dw, db } = layers[i];
    op("gemm", [activations[i], gradient], [dw], { transA: 1 });
    op("bias_grad", [gradient], [db]);
    if (i === 0) break;
    const dx = tensor([batch, sizes[i]]);
    op("gemm", [gradient, w], [dx], { transB: 1 });
    op("relu_grad", [dx, activations[i]], [dx]);
    gradient = dx;
  }
  for (const { w, b, dw, db } of layers) {
    for (const [p, g] of [[w, dw], [b, db]]) {
      const shape = tensors[p].shape;
      const state = [tensor(shape), tensor(shape), tensor([1])];
      op("adam", [p, g, ...state], [p, ...state], { learningRate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 });
    }
  }
  return { spec: { tensors, ops, arenaBytes }, inputs: [activations[0]], parameters: layers.map(({ w }) => w) };
}

function timeNetwork(batch, sizes) {
  const step = networkStep(batch, sizes);
  report(`mlp step ${sizes.join("-")} b${batch}`, "images/s", batch, (device) => {
    const plan = device.createPlan(step.spec);
    for (const id of [...step.inputs, ...step.parameters]) {
      const { shape } = step.spec.tensors[id];
      const data = floats(shape.reduce((x, y) => x * y, 1));
      plan.write(id, step.parameters.includes(id) ? data.map((x) => x * 0.05) : data);
    }
    return () => plan.runSync();
  });
}

function timeGemm(size) {
  const a = floats(size * size), b = floats(size * size);
  report(`sgemm ${size}, transfers included`, "FLOP/s", 2 * size ** 3, (device) => () => device.sgemm(a, b, { m: size, n: size, k: size }, {}));
}

function timeScan(m, n, k) {
  const matrix = (rows) => Int8Array.from({ length: rows * k }, () => random.next());
  const a = matrix(m), bT = matrix(n), key = new Uint8Array(32).fill(1), target = new Uint8Array(32).fill(0xff, 0, 29);
  report(`crmScan ${m}x${n}x${k}, transfers included`, "MAC/s", m * n * k, (device) => () => device.crmScan(a, bT, { m, n, k }, key, target));
}

function timeAdam(length) {
  const [p, g, m, v] = [floats(length), floats(length), floats(length), floats(length).map(Math.abs)];
  report(`apply adam ${length}, transfers included`, "elements/s", length, (device) => () =>
    device.apply("adam", [p, g, m, v], { learningRate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, step: 3 }));
}

function timeBlake3(size) {
  const data = Uint8Array.from({ length: size }, () => random.next());
  report(`blake3 ${size >> 20} MiB, transfers included`, "bytes/s", size, (device) => () => device.blake3(data));
}

console.log(JSON.stringify({ repeats: options.repeats, statistic: "median", cpu: cpu.describe(), cuda: cuda.describe() }));
timeNetwork(128, options.short ? [64, 32, 10] : [784, 512, 256, 10]);
timeGemm(options.short ? 64 : 2048);
timeScan(...(options.short ? [64, 64, 256] : [2048, 2048, 4096]));
timeAdam(options.short ? 1000 : 1 << 22);
timeBlake3(options.short ? 1 << 14 : 64 << 20);
cpu.close();
cuda.close();
