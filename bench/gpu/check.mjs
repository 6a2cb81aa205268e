// Compares the CUDA back end with the CPU back end through the addon, bit for bit: every operation over random
// shapes and hostile values, the proof of work's tickets, CN2, BLAKE3; bf16 products within their bound. Prints one JSON line; exit 0, or 1 at a difference.
// Options: --addon=PATH --seed=N --rounds=N --short (small shapes only, for compute-sanitizer)
// --dry (the CPU against itself)
import { EXIT_DIFFERENT, openBoth, parseOptions } from "./addon.mjs";
import { GENERATORS, bf16Case, contentsOf, createRandom, fillFloats } from "./cases.mjs";

const options = parseOptions({ seed: 1, rounds: 20, short: false, dry: false });
const { cpu, cuda, probe } = openBoth(options);
const random = createRandom(options.seed);
const counts = {};

function differ(label, detail) {
  console.error(`different: ${label}: ${detail} (seed ${options.seed})`);
  process.exit(EXIT_DIFFERENT);
}

/** Index of the first element whose bits differ (NaN equals NaN), or -1. */
function firstDifference(x, y) {
  if (x.length !== y.length) return 0;
  if (!(x instanceof Float32Array)) return x.findIndex((value, i) => value !== y[i]);
  const a = new Uint32Array(x.buffer, x.byteOffset, x.length), b = new Uint32Array(y.buffer, y.byteOffset, y.length);
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i] && !(Number.isNaN(x[i]) && Number.isNaN(y[i]))) return i;
  return -1;
}
function same(name, label, x, y) {
  const at = firstDifference(x, y);
  if (at >= 0) differ(label, `element ${at} is ${y[at]} on the GPU and ${x[at]} on the CPU`);
  counts[name] = (counts[name] ?? 0) + 1;
}

/** All tensors after two runs of the plan, so that what a run leaves behind counts too. */
function results(device, { spec }, contents) {
  const plan = device.createPlan(spec);
  contents.forEach((data, id) => data.length && plan.write(id, data));
  plan.runSync();
  plan.runSync();
  const out = contents.map((data, id) => {
    const copy = new data.constructor(data.length);
    if (copy.length) plan.read(id, copy);
    return copy;
  });
  plan.close();
  return out;
}

function checkPlan(name, large) {
  const test = GENERATORS[name](random, large);
  const contents = test.spec.tensors.map((tensor, id) => contentsOf(random, tensor, test.fills[id]));
  const expected = results(cpu, test, contents), got = results(cuda, test, contents);
  expected.forEach((tensor, id) => same(name, `${test.label}, tensor ${id}`, tensor, got[id]));
}

const bytes = (length) => Uint8Array.from({ length }, () => random.next());
const signal = (length, extreme) =>
  Int8Array.from({ length }, () => (extreme ? (random.coin() ? -128 : 127) : random.next()));

function checkBlake3() {
  const edges = [0, 1, 63, 64, 65, 1023, 1024, 1025, 2048, 2049, 3072, 5000, 7168, 40001];
  const length = random.coin() ? edges[random.pick(0, edges.length - 1)] : random.pick(0, options.short ? 20000 : 3000000);
  const data = bytes(length), key = random.coin() ? bytes(32) : undefined;
  same("blake3", `blake3 of ${length} bytes`, cpu.blake3(data, key), cuda.blake3(data, key));
}

function checkInt8() {
  const dims = { m: random.pick(1, 400), n: random.pick(1, 400), k: random.pick(0, 700) };
  const extreme = random.coin(4);
  const a = signal(dims.m * dims.k, extreme), bT = signal(dims.n * dims.k, extreme);
  same("int8_gemm", `int8Gemm ${JSON.stringify(dims)}`, cpu.int8Gemm(a, bT, dims), cuda.int8Gemm(a, bT, dims));
}

function checkScan(dims) {
  const label = `crmScan ${JSON.stringify(dims)}`;
  const a = signal(dims.m * dims.k, false), bT = signal(dims.n * dims.k, false), key = bytes(32);
  // First every tile, then a target that about one tile in eight meets.
  for (const top of [0xff, 0x1f]) {
    const target = new Uint8Array(32).fill(0xff);
    target[31] = top;
    const [x, y] = [cpu, cuda].map((device) => device.crmScan(a, bT, dims, key, target).tickets);
    same("crm_scan", `${label} tiles`, Uint32Array.from(x, ({ tile }) => tile), Uint32Array.from(y, ({ tile }) => tile));
    x.forEach(({ ticket, tile }, i) => same("crm_scan", `${label} ticket of tile ${tile}`, ticket, y[i].ticket));
  }
  const rows = signal(8 * dims.k, true), columns = signal(16 * dims.k, false);
  same("crm_tile", `crmTile ${dims.k}`, cpu.crmTile(rows, columns, dims.k), cuda.crmTile(rows, columns, dims.k));
}

/** Operands lie in [-1, 1], so that a bound of gemm.h is k 2^-23 sum |a b| <= k^2 2^-23, on both devices. */
function checkBf16() {
  const test = bf16Case(random);
  const contents = test.spec.tensors.map((tensor, id) => contentsOf(random, tensor, test.fills[id]));
  const [x, y] = [cpu, cuda].map((device) => results(device, test, contents).at(-1));
  const bound = 2 * (test.k + 2) ** 2 * 2 ** -23;
  x.forEach((value, i) => {
    if (!(Math.abs(value - y[i]) <= bound)) differ(test.label, `element ${i} is ${y[i]} on the GPU and ${value} on the CPU, more than ${bound} apart`);
  });
  counts.bf16_gemm = (counts.bf16_gemm ?? 0) + 1;
}

function checkCn2() {
  const data = bytes(random.pick(9, 200));
  same("cn2", `cn2Hash of ${data.length} bytes`, cpu.cn2Hash(data), cuda.cn2Hash(data));
}

function checkUpdates() {
  const length = random.pick(1, 4000);
  const vector = () => fillFloats(random, new Float32Array(length), false);
  const start = [vector(), vector(), vector(), vector().map(Math.abs)];
  const [x, y] = [cpu, cuda].map((device) => {
    const [p, g, m, v] = start.map((data) => data.slice());
    device.apply("adam", [p, g, m, v], { learningRate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, step: 3 });
    device.delayCompensate(g, p, m, 0.04);
    return [p, g, m, v];
  });
  x.forEach((data, i) => same("apply", `apply adam, vector ${i}`, data, y[i]));
}

for (let round = 0; round < options.rounds; round++) {
  for (const name of Object.keys(GENERATORS)) checkPlan(name, false);
  checkBlake3();
  checkInt8();
  checkBf16();
  checkUpdates();
  checkScan({ m: 64 * random.pick(1, 4), n: 64 * random.pick(1, 6), k: 128 * random.pick(1, 20) });
  if (!options.short && round % 5 === 0) {
    for (const name of ["gemm", "conv", "loss", "norms", "embedding", "attention", "compression"]) checkPlan(name, true);
    checkCn2();
  }
}
if (!options.short) checkScan({ m: 2048, n: 2048, k: 4096 });
const total = Object.values(counts).reduce((x, y) => x + y, 0);
console.log(JSON.stringify({ ok: true, seed: options.seed, rounds: options.rounds, comparisons: total, counts,
  cpu: cpu.describe(), cuda: cuda.describe(), driver: probe.cuda.driverVersion, runtime: probe.cuda.runtimeVersion }));
cpu.close();
cuda.close();
