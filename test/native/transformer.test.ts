// The transformer's operations: the same bits from scalar, AVX2 and AVX-512 kernels and any thread count, values
// that agree with plain double-precision references, gradients with finite differences, over fuzzed shapes.
import { afterAll, describe, expect, test } from "vitest";
import { openDevice, type Device, type PlanOp, type TensorArray } from "../../src/device/device.js";
import { PhiloxStream } from "../../src/training/graph/philox.js";
import { bits, f32, randomFloats, runOp, seeded, type Operand } from "./reference.js";

const devices: { name: string; device: Device }[] = [];
for (const isa of ["scalar", "avx2", "avx512"] as const)
  for (const threads of isa === "scalar" ? [1] : [1, 3]) {
    try { devices.push({ name: `${isa} x ${threads}`, device: openDevice({ backend: "cpu", isa, threads }) }); }
    catch { /* this processor lacks the instruction set */ }
  }
afterAll(() => { for (const d of devices) d.device.close(); });

const random = seeded(7_654_321);
const below = (n: number) => Math.floor(random() * n);
const operand = (data: TensorArray, ...shape: number[]): Operand => ({ data, shape });
const product = (shape: number[]) => shape.reduce((p, d) => p * d, 1);

/** Bits with every NaN the same: payloads and signs of NaN are outside the contract. */
function canonical(a: TensorArray): Buffer {
  return bits(a instanceof Float32Array ? a.map((x) => (Number.isNaN(x) ? NaN : x)) : a);
}

/** Runs one operation on every device and compares all outputs, given by their shapes. */
function everywhere(op: PlanOp["op"], inputs: Operand[], outputs: number[][], attrs: Record<string, number> = {}, inPlace: Record<number, number> = {}): Float32Array[] {
  let first: Float32Array[] | undefined;
  for (const { name, device } of devices) {
    const out = runOp(device, op, inputs, outputs.map((shape) => operand(f32(product(shape)), ...shape)), attrs, inPlace) as Float32Array[];
    if (first === undefined) first = out;
    else out.forEach((o, i) => { if (!canonical(o).equals(canonical(first![i]!))) throw new Error(`${op}: output ${i} differs on ${name}`); });
  }
  return first!;
}

function close(got: ArrayLike<number>, want: ArrayLike<number>, tolerance: number): void {
  let worst = 0, at = -1;
  for (let i = 0; i < want.length; i++) {
    const d = Math.abs(got[i]! - want[i]!) / (1 + Math.abs(want[i]!));
    if (!(d <= worst)) { worst = d; at = i; }
  }
  if (!(worst <= tolerance)) throw new Error(`element ${at}: ${got[at]} for ${want[at]}, off by ${worst}`);
}

/** The normal integral in double: a series near 0, a continued fraction in the tail. */
function phi(x: number): number {
  if (Math.abs(x) < 3) {
    let term = x, sum = x;
    for (let n = 1; n < 200 && Math.abs(term) > 1e-18 * Math.abs(sum); n++) { term *= x * x / (2 * n + 1); sum += term; }
    return 0.5 + sum * Math.exp(-x * x / 2) / Math.sqrt(2 * Math.PI);
  }
  let f = Math.abs(x);
  for (let n = 200; n >= 1; n--) f = Math.abs(x) + n / f;
  const tail = Math.exp(-x * x / 2) / Math.sqrt(2 * Math.PI) / f;
  return x < 0 ? tail : 1 - tail;
}
const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
const ACTIVATIONS: Record<string, (x: number) => number> = {
  gelu: (x) => x * phi(x),
  gelu_tanh: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  silu: (x) => x * sigmoid(x),
};

describe.each(Object.keys(ACTIVATIONS))("%s", (name) => {
  const op = name as "gelu", grad = `${name}_grad` as "gelu_grad", f = ACTIVATIONS[name]!;
  test("agrees with its formula from -12 to 12, relative to the value in the tail too", () => {
    const x = Float32Array.from({ length: 4001 }, (_, i) => (i - 2000) * 0.006);
    const [y] = everywhere(op, [operand(x, x.length)], [[x.length]]);
    x.forEach((v, i) => {
      const want = f(v), bound = name === "gelu_tanh" ? 1e-6 * Math.abs(v) : 3e-6 * Math.abs(want) + 1e-30;
      if (!(Math.abs(y![i]! - want) <= bound)) throw new Error(`${name}(${v}) is ${y![i]}, not ${want}`);
    });
  });
  test("its gradient is the difference quotient times dY", () => {
    const x = Float32Array.from({ length: 2001 }, (_, i) => (i - 1000) * 0.01), dy = randomFloats(x.length, random, 2);
    const [dx] = everywhere(grad, [operand(dy, x.length), operand(x, x.length)], [[x.length]]);
    close(dx!, x.map((v, i) => dy[i]! * (f(v + 1e-4) - f(v - 1e-4)) / 2e-4), 3e-6);
  });
  test("hostile values and every remainder of a vector", () => {
    const hostile = [0, -0, NaN, Infinity, -Infinity, 1e-41, -1e-41, 3e38, -3e38, 88.7, -88.7, 1e13, -1e13, 1e-20, -1e20];
    for (const n of [0, 1, 7, 15, 16, 17, 33, 70_001]) {
      const x = randomFloats(n, random, 6), dy = randomFloats(n, random);
      hostile.forEach((v, i) => { if (i < n) x[i] = v; });
      const [y] = everywhere(op, [operand(x, n)], [[n]]);
      const [dx] = everywhere(grad, [operand(dy, n), operand(x, n)], [[n]], {}, { 0: 0 });
      if (n < 15) continue;
      expect([y![0], y![1], y![2], y![3]]).toEqual([0, -0, NaN, Infinity]);
      expect(Math.abs(y![4]!)).toBeLessThan(1e-32);
      expect(Math.abs(y![5]! - 5e-42)).toBeLessThan(2e-42); // denormals are numbers like others
      expect(dx![2]).toBeNaN();
      hostile.forEach((v, i) => { if (!Number.isNaN(v)) expect(Number.isFinite(dx![i]!), String(v)).toBe(true); });
      expect(dx![7]).toBe(dy[7]);
      expect(Math.abs(dx![8]!)).toBeLessThan(1e-30);
    }
  });
});

const NORM_SHAPES: [number, number][] = [[0, 5], [1, 1], [3, 1], [1, 16], [5, 15], [4, 17], [33, 48], [70, 100], [131, 7], [37, 768], [9, 1601]];

describe.each(["layer_norm", "rms_norm"] as const)("%s", (op) => {
  const centred = op === "layer_norm", epsilon = 1e-5;
  const forward = (x: ArrayLike<number>, gamma: ArrayLike<number>, beta: ArrayLike<number>, columns: number): Float64Array => {
    const y = new Float64Array(x.length);
    for (let r = 0; r < x.length; r += columns) {
      let mean = 0, square = 0;
      for (let c = 0; c < columns; c++) mean += x[r + c]! / columns;
      if (!centred) mean = 0;
      for (let c = 0; c < columns; c++) square += (x[r + c]! - mean) ** 2 / columns;
      for (let c = 0; c < columns; c++) y[r + c] = (x[r + c]! - mean) / Math.sqrt(square + epsilon) * gamma[c]! + (centred ? beta[c]! : 0);
    }
    return y;
  };
  test.each(NORM_SHAPES)("%d rows of %d: values and gradients", (rows, columns) => {
    const n = rows * columns;
    const x = randomFloats(n, random, 3).map((v) => v + 1), dy = randomFloats(n, random);
    const gamma = randomFloats(columns, random, 2), beta = randomFloats(columns, random);
    const vectors = centred ? [operand(gamma, columns), operand(beta, columns)] : [operand(gamma, columns)];
    const stats = centred ? [[rows], [rows]] : [[rows]];
    const [y, ...saved] = everywhere(op, [operand(x, rows, columns), ...vectors], [[rows, columns], ...stats], { epsilon });
    close(y!, forward(x, gamma, beta, columns), 4e-6 * Math.sqrt(columns));
    const sums = centred ? [[columns], [columns]] : [[columns]];
    const [dx, dgamma, dbeta] = everywhere(`${op}_grad`, [operand(dy, rows, columns), operand(x, rows, columns), operand(gamma, columns), ...saved.map((s) => operand(s, rows))], [[rows, columns], ...sums], {}, { 0: 0 });
    const loss = (xs: ArrayLike<number>, g: ArrayLike<number>, b: ArrayLike<number>) => forward(xs, g, b, columns).reduce((s, v, i) => s + v * dy[i]!, 0);
    const slope = (which: 0 | 1 | 2, i: number) => {
      const at = (h: number) => { const v = [x, gamma, beta].map((a) => Float64Array.from(a)); v[which]![i]! += h; return loss(v[0]!, v[1]!, v[2]!); };
      return (at(1e-4) - at(-1e-4)) / 2e-4;
    };
    for (let sample = 0; sample < 6 && n > 0; sample++) {
      const i = below(n), c = below(columns);
      if (columns > 1) close([dx![i]!], [slope(0, i)], 2e-4);
      close([dgamma![c]!], [slope(1, c)], 2e-4);
      if (centred) close([dbeta![c]!], [slope(2, c)], 2e-4);
    }
    if (rows === 0) expect(dgamma).toEqual(f32(columns));
  });
  test("NaN stays in its row; a constant row gives beta; denormals count", () => {
    const x = f32(96).fill(2.5);
    x[40] = NaN;
    x.fill(1e-40, 64);
    const gamma = f32(32).fill(1), beta = randomFloats(32, random);
    const vectors = centred ? [operand(gamma, 32), operand(beta, 32)] : [operand(gamma, 32)];
    const [y] = everywhere(op, [operand(x, 3, 32), ...vectors], [[3, 32], ...(centred ? [[3], [3]] : [[3]])], { epsilon: 1e-5 });
    expect(y!.subarray(32, 64).every(Number.isNaN)).toBe(true);
    if (centred) expect(y!.subarray(0, 32)).toEqual(beta);
    else expect(y![64]).toBeGreaterThan(0);
  });
});

describe("softmax", () => {
  test.each([[0, 3], [1, 1], [5, 15], [3, 16], [40, 33], [2, 5000]])("%d rows of %d", (rows, columns) => {
    const x = randomFloats(rows * columns, random, 9), dy = randomFloats(rows * columns, random), shape = [rows, columns];
    const [y] = everywhere("softmax", [operand(x, ...shape)], [shape], {}, rows % 2 ? { 0: 0 } : {});
    const [dx] = everywhere("softmax_grad", [operand(dy, ...shape), operand(y!, ...shape)], [shape]);
    for (let r = 0; r < rows; r++) {
      const row = Array.from(x.subarray(r * columns, (r + 1) * columns)), top = Math.max(...row);
      const e = row.map((v) => Math.exp(v - top)), s = e.reduce((p, v) => p + v, 0), want = e.map((v) => v / s);
      close(y!.subarray(r * columns, (r + 1) * columns), want, 1e-6);
      const d = want.reduce((p, v, c) => p + v * dy[r * columns + c]!, 0);
      close(dx!.subarray(r * columns, (r + 1) * columns), want.map((v, c) => v * (dy[r * columns + c]! - d)), 1e-6);
    }
  });
  test("NaN takes its row and no other", () => {
    const x = randomFloats(60, random);
    x[25] = NaN;
    const [y] = everywhere("softmax", [operand(x, 3, 20)], [[3, 20]]);
    expect(y!.map((v) => (Number.isNaN(v) ? 1 : 0)).reduce((s, v) => s + v)).toBe(20);
  });
  test("the loss may write its gradient over the logits", () => {
    for (const classes of [3, 100, 4097]) {
      const x = randomFloats(9 * classes, random, 5), labels = Int32Array.from({ length: 9 }, () => below(classes));
      x[classes + 1] = NaN; x[2 * classes] = NaN; // a NaN in first place and one elsewhere
      labels[5] = -3;
      const inputs = [operand(x, 9, classes), operand(labels, 9)];
      const apart = everywhere("softmax_xent", inputs, [[1], [9, classes]]);
      const over = everywhere("softmax_xent", inputs, [[1], [9, classes]], {}, { 1: 0 });
      expect(over.map(canonical)).toEqual(apart.map(canonical));
    }
  });
});

describe("embedding", () => {
  test.each([[0, 4, 3], [1, 1, 1], [50, 7, 17], [300, 40, 768], [33, 500, 130]])("%d ids of %d, width %d", (rows, vocabulary, columns) => {
    const table = randomFloats(vocabulary * columns, random), ids = Int32Array.from({ length: rows }, () => below(vocabulary)), dy = randomFloats(rows * columns, random);
    if (rows > 2) { ids[1] = -1; ids[2] = vocabulary; }
    const [out] = everywhere("embedding", [operand(table, vocabulary, columns), operand(ids, rows)], [[rows, columns]]);
    const [grad] = everywhere("embedding_grad", [operand(dy, rows, columns), operand(ids, rows)], [[vocabulary, columns]]);
    const want = f32(vocabulary * columns);
    ids.forEach((id, r) => {
      const known = id >= 0 && id < vocabulary;
      for (let c = 0; c < columns; c++) {
        const v = out![r * columns + c];
        if (known ? v !== table[id * columns + c] : !Number.isNaN(v)) throw new Error(`row ${r}`);
        if (known) want[id * columns + c]! += dy[r * columns + c]!;
      }
    });
    expect(grad!.every((v, i) => v === want[i])).toBe(true);
  });
  test("a gradient accumulates on what the table holds, in the order of the rows", () => {
    const plan = { tensors: [{ name: "dy", dtype: "f32" as const, shape: [3, 2], offsetBytes: 0 }, { name: "ids", dtype: "i32" as const, shape: [3], offsetBytes: 64 }, { name: "table", dtype: "f32" as const, shape: [2, 2], offsetBytes: 128 }], arenaBytes: 192, ops: [{ op: "embedding_grad" as const, in: [0, 1], out: [2], attrs: { accumulate: 1 } }] };
    for (const { device } of devices) {
      const p = device.createPlan(plan), table = Float32Array.of(1, 2, 3, 4);
      p.write(0, Float32Array.of(1e8, 1, 1, 1, -1e8, 1)); p.write(1, Int32Array.of(1, 1, 1)); p.write(2, table);
      p.runSync(); p.read(2, table); p.close();
      expect([...table]).toEqual([1, 2, 0, 7]); // ((3 + 1e8) + 1) - 1e8 in float
    }
  });
  test.each([[4, 5], [1, 70_000], [700, 33], [3, 0]])("a bias over %d rows of %d", (m, n) => {
    const x = randomFloats(m * n, random), bias = randomFloats(n, random);
    const [y] = everywhere("bias_add", [operand(x, m, n), operand(bias, n)], [[m, n]], {}, m === 4 ? { 0: 0 } : {});
    expect(y!.every((v, i) => v === Math.fround(x[i]! + bias[i % n]!))).toBe(true);
  });
});

/** Attention in double: out and, for dout, dqkv. */
function attentionReference(qkv: ArrayLike<number>, dout: ArrayLike<number>, batch: number, length: number, heads: number, size: number, causal: boolean) {
  const width = heads * size, out = new Float64Array(batch * length * width), dqkv = new Float64Array(3 * out.length);
  for (let b = 0; b < batch; b++) for (let h = 0; h < heads; h++) {
    const at = (t: number, part: number) => ((b * length + t) * 3 + part) * width + h * size;
    const to = (t: number) => (b * length + t) * width + h * size;
    for (let i = 0; i < length; i++) {
      const seen = causal ? i + 1 : length;
      const dot = (x: ArrayLike<number>, o: number, y: ArrayLike<number>, p: number) => { let s = 0; for (let d = 0; d < size; d++) s += x[o + d]! * y[p + d]!; return s; };
      const s = Array.from({ length: seen }, (_, j) => dot(qkv, at(i, 0), qkv, at(j, 1)) / Math.sqrt(size));
      const top = s.reduce((m, v) => Math.max(m, v), -Infinity), e = s.map((v) => Math.exp(v - top)), sum = e.reduce((p, v) => p + v, 0);
      const p = e.map((v) => v / sum);
      for (let j = 0; j < seen; j++) for (let d = 0; d < size; d++) out[to(i) + d]! += p[j]! * qkv[at(j, 2) + d]!;
      const e0 = dot(dout, to(i), out, to(i));
      for (let j = 0; j < seen; j++) {
        const ds = p[j]! * (dot(dout, to(i), qkv, at(j, 2)) - e0) / Math.sqrt(size);
        for (let d = 0; d < size; d++) {
          dqkv[at(j, 2) + d]! += p[j]! * dout[to(i) + d]!;
          dqkv[at(j, 1) + d]! += ds * qkv[at(i, 0) + d]!;
          dqkv[at(i, 0) + d]! += ds * qkv[at(j, 1) + d]!;
        }
      }
    }
  }
  return { out, dqkv };
}

describe("attention", () => {
  const cases: [number, number, number, number, number][] = [[1, 1, 1, 16, 1], [2, 5, 3, 16, 1], [1, 64, 2, 64, 1], [1, 65, 2, 32, 1], [2, 130, 1, 128, 1], [1, 200, 2, 48, 1], [1, 90, 2, 20, 0], [3, 63, 1, 1, 1], [1, 192, 1, 77, 0], [1, 450, 1, 16, 1], [1, 330, 3, 8, 0], [0, 7, 2, 16, 1], [2, 0, 2, 16, 1]];
  test.each(cases)("batch %d, length %d, %d heads of %d, causal %d", (batch, length, heads, size, causal) => {
    const width = heads * size, qs = [batch, length, 3 * width], os = [batch, length, width], ls = [batch, heads, length];
    const qkv = randomFloats(product(qs), random, 2), dout = randomFloats(product(os), random);
    const attrs = { heads, causal };
    const [out, lse] = everywhere("attention", [operand(qkv, ...qs)], [os, ls], attrs);
    const [dqkv] = everywhere("attention_grad", [operand(dout, ...os), operand(qkv, ...qs), operand(out!, ...os), operand(lse!, ...ls)], [qs], attrs);
    const want = attentionReference(qkv, dout, batch, length, heads, size, causal === 1);
    close(out!, want.out, 3e-6);
    close(dqkv!, want.dqkv, 1e-5);
  });
  test("a NaN reaches the queries that see it, from its own block on, and no earlier block", () => {
    const qs = [1, 150, 48], os = [1, 150, 16];
    for (const part of [0, 1, 2]) {
      const qkv = randomFloats(product(qs), random);
      qkv[100 * 48 + part * 16 + 3] = NaN;
      const [out] = everywhere("attention", [operand(qkv, ...qs)], [os, [1, 1, 150]], { heads: 1, causal: 1 });
      const bad = Array.from({ length: 150 }, (_, i) => out!.subarray(i * 16, (i + 1) * 16).some(Number.isNaN));
      expect(bad.slice(0, 64)).not.toContain(true);
      expect(bad[100]).toBe(true);
      if (part > 0) expect(bad.slice(100)).not.toContain(false);
    }
  });
  test("scores beyond every exponent do not overflow", () => {
    const qs = [1, 70, 48], qkv = randomFloats(product(qs), random, 60);
    const [out] = everywhere("attention", [operand(qkv, ...qs)], [[1, 70, 16], [1, 1, 70]], { heads: 1, causal: 1 });
    close(out!, attentionReference(qkv, f32(70 * 16), 1, 70, 1, 16, true).out, 2e-4);
  });
  test("shapes that do not fit are refused", () => {
    const device = devices[0]!.device;
    const attempt = (qs: number[], os: number[], ls: number[], attrs: Record<string, number>) => () =>
      runOp(device, "attention", [operand(f32(product(qs)), ...qs)], [operand(f32(product(os)), ...os), operand(f32(product(ls)), ...ls)], attrs);
    expect(attempt([1, 4, 48], [1, 4, 16], [1, 2, 4], { heads: 3 })).toThrow(/a head must be/);
    expect(attempt([1, 4, 3 * 129], [1, 4, 129], [1, 1, 4], { heads: 1 })).toThrow(/from 1 to 128/);
    expect(attempt([1, 4, 32], [1, 4, 16], [1, 1, 4], { heads: 1 })).toThrow(/must be 1 x 4 x 48/);
    expect(attempt([1, 4, 48], [1, 4, 16], [1, 4], { heads: 2 })).toThrow(/8 elements/);
    expect(attempt([1, 4, 48], [1, 4, 16], [1, 1, 4], {})).toThrow(/heads is missing/);
  });
});

describe("dropout", () => {
  const attrs = { rate: 0.3, stream: 7, seedLow: 0x89abcdef, seedHigh: 0x01234567 };
  const drop = (x: Float32Array, step: number, more = {}) =>
    everywhere("dropout", [operand(x, x.length), operand(Float32Array.of(step), 1)], [[x.length]], { ...attrs, ...more }, { 0: 0 })[0]!;
  test.each([0, 1, 3, 64, 8191, 40_001])("%d elements: the words of the TypeScript generator", (n) => {
    const x = randomFloats(n, random), stream = new PhiloxStream(0x0123456789abcdefn, 7, 5);
    const threshold = Math.floor(0.3 * 2 ** 24), scale = Math.fround(1 / (1 - threshold / 2 ** 24));
    const want = x.map((v) => (stream.next() >>> 8 >= threshold ? v * scale : 0));
    expect(drop(x, 5).findIndex((v, i) => !Object.is(v, want[i]))).toBe(-1);
  });
  test("another step, stream or seed is another choice, at the rate", () => {
    const ones = f32(20_000).fill(1), masks = [drop(ones, 1), drop(ones, 2), drop(ones, 1, { stream: 8 }), drop(ones, 1, { seedLow: 1 })];
    masks.forEach((mask, i) => {
      expect(Math.abs(mask.filter((v) => v === 0).length / mask.length - 0.3)).toBeLessThan(0.015);
      for (const other of masks.slice(i + 1)) expect(mask.filter((v, j) => v === other[j]).length / mask.length).toBeLessThan(0.62);
    });
    expect(drop(ones, 1, { rate: 0 })).toEqual(ones);
  });
});

describe("clipping", () => {
  test.each([0, 1, 17, 4096, 4097, 100_003])("%d elements", (n) => {
    const x = randomFloats(n, random);
    const [norm] = everywhere("global_norm", [operand(x, n)], [[1]]);
    const want = Math.sqrt(x.reduce((s, v) => s + v * v, 0));
    close(norm!, [want], 1e-6);
    for (const limit of [want / 3, want * 3]) {
      const [clipped] = everywhere("clip", [operand(x, n), operand(norm!, 1)], [[n]], { limit }, { 0: 0 });
      const factor = Math.fround(limit / Math.fround(norm![0]! + Math.fround(1e-6)));
      const expected = limit < want ? x.map((v) => v * factor) : x;
      close(clipped!, expected, 1e-7);
      if (limit > want) expect(clipped).toEqual(x);
    }
  });
  test("a NaN norm leaves the gradient as it is, for the check that follows to see", () => {
    const x = randomFloats(20, random);
    expect(everywhere("clip", [operand(x, 20), operand(Float32Array.of(NaN), 1)], [[20]], { limit: 1 }, { 0: 0 })[0]).toEqual(x);
  });
});
