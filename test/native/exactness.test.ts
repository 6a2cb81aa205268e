// The same bits from scalar, AVX2 and AVX-512 kernels and any thread count, and values that agree
// with plain double-precision references, over fuzzed shapes.
import { afterAll, describe, expect, test } from "vitest";
import { openDevice, type Device, type TensorArray } from "../../src/device/device.js";
import { bits, convVisit, f32, gemmReference, outputSize, randomFloats, runOp, seeded, worst, type Conv } from "./reference.js";

const devices: { name: string; device: Device }[] = [];
for (const isa of ["scalar", "avx2", "avx512", "amx"] as const)
  for (const threads of isa === "scalar" ? [1] : [1, 3]) {
    try { devices.push({ name: `${isa} x ${threads}`, device: openDevice({ backend: "cpu", isa, threads }) }); }
    catch { /* this processor lacks the instruction set */ }
  }
afterAll(() => { for (const d of devices) d.device.close(); });

function everywhere(run: (device: Device) => TensorArray[]): TensorArray[] {
  const first = run(devices[0]!.device).map((a) => a.slice());
  for (const { name, device } of devices.slice(1))
    run(device).forEach((out, i) => { if (!bits(out).equals(bits(first[i]!))) throw new Error(`output ${i} differs on ${name}`); });
  return first;
}

const random = seeded(20240613);
const below = (n: number) => Math.floor(random() * n);

test("there is more than one implementation to compare", () => {
  expect(devices.length).toBeGreaterThanOrEqual(process.arch === "x64" ? 2 : 1);
});

describe("matrix product", () => {
  const shapes: [number, number, number][] = [[1, 1, 1], [0, 5, 3], [5, 0, 3], [4, 5, 0], [1, 10, 784], [13, 47, 511], [13, 47, 512], [13, 49, 513], [7, 33, 1024], [97, 97, 97], [3, 1, 2049], [29, 100, 5]];
  for (let i = 0; i < 14; i++) shapes.push([1 + below(60), 1 + below(110), 1 + below(i % 4 === 0 ? 1300 : 90)]);
  test.each(shapes)("%d x %d x %d in all four layouts, bias, relu and accumulation", (m, n, k) => {
    for (const [ta, tb] of [[0, 0], [0, 1], [1, 0], [1, 1]] as const) {
      const a = randomFloats(m * k, random), b = randomFloats(k * n, random), bias = randomFloats(n, random);
      const relu = below(2);
      const inputs = [
        { data: a, shape: ta ? [k, m] : [m, k] },
        { data: b, shape: tb ? [n, k] : [k, n] },
        { data: bias, shape: [n] },
      ];
      const [c] = everywhere((d) => runOp(d, "gemm", inputs, [{ data: f32(m * n), shape: [m, n] }], { transA: ta, transB: tb, relu }));
      const { want, scale } = gemmReference(a, b, m, n, k, ta === 1, tb === 1, bias, relu === 1);
      expect(worst(c as Float32Array, want, scale)).toBeLessThan(4e-6);
    }
  });

  test("accumulate adds to what the output held", () => {
    const [m, n, k] = [9, 20, 700];
    const a = randomFloats(m * k, random), b = randomFloats(k * n, random), c0 = randomFloats(m * n, random);
    for (const { device } of devices) {
      const plan = device.createPlan({
        tensors: [
          { name: "a", dtype: "f32", shape: [m, k], offsetBytes: 0 },
          { name: "b", dtype: "f32", shape: [k, n], offsetBytes: 32768 },
          { name: "c", dtype: "f32", shape: [m, n], offsetBytes: 131072 },
        ],
        arenaBytes: 262144,
        ops: [{ op: "gemm", in: [0, 1], out: [2], attrs: { accumulate: 1 } }],
      });
      plan.write(0, a); plan.write(1, b); plan.write(2, c0);
      plan.runSync();
      const c = f32(m * n);
      plan.read(2, c);
      const { want, scale } = gemmReference(a, b, m, n, k, false, false);
      want.forEach((x, i) => { want[i] = x + c0[i]!; });
      expect(worst(c, want, scale)).toBeLessThan(1e-6);
      plan.close();
    }
  });

  test("follows the documented chunk rule bit by bit", () => {
    // One output, K over three chunks: FMA emulated exactly with doubles on short mantissas.
    const k = 1100, chunk = 512;
    const a = Float32Array.from({ length: k }, () => below(4096) - 2048), b = Float32Array.from({ length: k }, () => (below(4096) - 2048) / 16);
    let s = 0;
    for (let k0 = 0; k0 < k; k0 += chunk) {
      let acc = 0;
      // 24-bit products and a 24-bit accumulator on a common grid fit a double exactly.
      for (let i = k0; i < Math.min(k, k0 + chunk); i++) acc = Math.fround(a[i]! * b[i]! + acc);
      s = k0 === 0 ? acc : Math.fround(s + acc);
    }
    const [c] = everywhere((d) => [d.sgemm(a, b, { m: 1, n: 1, k })]);
    expect((c as Float32Array)[0]).toBe(s);
  });

  test("NaN and infinity pass through, also through relu", () => {
    const a = Float32Array.of(1, NaN, 2, Infinity), b = Float32Array.of(1, 1);
    const [c] = everywhere((d) => [d.sgemm(a, b, { m: 2, n: 1, k: 2 }, { relu: true })]);
    expect(Number.isNaN((c as Float32Array)[0])).toBe(true);
    expect((c as Float32Array)[1]).toBe(Infinity);
  });
});

describe("convolution", () => {
  const cases: Conv[] = [
    { n: 3, h: 12, w: 12, c: 1, kh: 5, kw: 5, oc: 16, sh: 1, sw: 1, ph: 2, pw: 2 },
    { n: 13, h: 7, w: 7, c: 16, kh: 5, kw: 5, oc: 32, sh: 1, sw: 1, ph: 0, pw: 0 },
    { n: 2, h: 9, w: 6, c: 40, kh: 3, kw: 3, oc: 50, sh: 2, sw: 1, ph: 1, pw: 1 },
    { n: 1, h: 4, w: 4, c: 3, kh: 1, kw: 1, oc: 7, sh: 1, sw: 1, ph: 0, pw: 0 },
    { n: 0, h: 4, w: 4, c: 3, kh: 3, kw: 3, oc: 7, sh: 1, sw: 1, ph: 0, pw: 0 },
    { n: 30, h: 8, w: 8, c: 2, kh: 3, kw: 2, oc: 5, sh: 3, sw: 2, ph: 2, pw: 1 },
    { n: 2, h: 5, w: 5, c: 2, kh: 3, kw: 3, oc: 2, sh: 4, sw: 4, ph: 0, pw: 0 },
  ];
  for (let i = 0; i < 6; i++) {
    const kh = 1 + below(4), kw = 1 + below(4);
    cases.push({ n: 1 + below(15), h: kh + below(7), w: kw + below(7), c: 1 + below(20), kh, kw, oc: 1 + below(40), sh: 1 + below(2), sw: 1 + below(3), ph: below(kh), pw: below(kw) });
  }
  test.each(cases.map((g) => [JSON.stringify(g), g] as const))("%s", (_, g) => {
    const { oh, ow } = outputSize(g);
    const xs = [g.n, g.h, g.w, g.c], ws = [g.kh, g.kw, g.c, g.oc], ys = [g.n, oh, ow, g.oc];
    const size = (s: number[]) => s.reduce((p, d) => p * d, 1);
    const x = randomFloats(size(xs), random), w = randomFloats(size(ws), random), dy = randomFloats(size(ys), random), bias = randomFloats(g.oc, random);
    const attrs = { strideH: g.sh, strideW: g.sw, padH: g.ph, padW: g.pw };
    const [y] = everywhere((d) => runOp(d, "conv2d", [{ data: x, shape: xs }, { data: w, shape: ws }, { data: bias, shape: [g.oc] }], [{ data: f32(size(ys)), shape: ys }], { ...attrs, relu: 1 }));
    const [dx] = everywhere((d) => runOp(d, "conv2d_dx", [{ data: dy, shape: ys }, { data: w, shape: ws }], [{ data: f32(size(xs)), shape: xs }], attrs));
    const [dw] = everywhere((d) => runOp(d, "conv2d_dw", [{ data: x, shape: xs }, { data: dy, shape: ys }], [{ data: f32(size(ws)), shape: ws }], attrs));
    const sums = { y: new Float64Array(size(ys)), dx: new Float64Array(size(xs)), dw: new Float64Array(size(ws)) };
    const scales = { y: new Float64Array(size(ys)).fill(1), dx: new Float64Array(size(xs)).fill(1), dw: new Float64Array(size(ws)).fill(1) };
    convVisit(g, (i, j, o) => {
      sums.y[o]! += x[i]! * w[j]!; sums.dx[i]! += dy[o]! * w[j]!; sums.dw[j]! += x[i]! * dy[o]!;
      scales.y[o]! += 1; scales.dx[i]! += 1; scales.dw[j]! += 1;
    });
    sums.y.forEach((s, i) => { sums.y[i] = Math.max(0, s + bias[i % g.oc]!); });
    expect(worst(y as Float32Array, sums.y, scales.y)).toBeLessThan(1e-6);
    expect(worst(dx as Float32Array, sums.dx, scales.dx)).toBeLessThan(1e-6);
    expect(worst(dw as Float32Array, sums.dw, scales.dw)).toBeLessThan(1e-6);
  });

  test("a weight gradient over many chunks", () => {
    const g: Conv = { n: 40, h: 14, w: 14, c: 1, kh: 5, kw: 5, oc: 16, sh: 1, sw: 1, ph: 2, pw: 2 };
    const x = randomFloats(40 * 196, random), dy = randomFloats(40 * 196 * 16, random);
    const [dw] = everywhere((d) => runOp(d, "conv2d_dw", [{ data: x, shape: [40, 14, 14, 1] }, { data: dy, shape: [40, 14, 14, 16] }], [{ data: f32(400), shape: [5, 5, 1, 16] }], { padH: 2, padW: 2 }));
    const want = new Float64Array(400), scale = new Float64Array(400);
    convVisit(g, (i, j, o) => { want[j]! += x[i]! * dy[o]!; scale[j]! += Math.abs(x[i]! * dy[o]!); });
    expect(worst(dw as Float32Array, want, scale)).toBeLessThan(2e-6);
  });
});

describe("pooling", () => {
  test.each([[3, 8, 8, 16, 2, 2], [2, 7, 9, 5, 3, 2], [1, 5, 5, 33, 3, 1], [4, 4, 4, 1, 4, 4]])("n %d, %d x %d x %d, window %d by %d", (n, h, w, c, kernel, stride) => {
    const oh = Math.floor((h - kernel) / stride) + 1, ow = Math.floor((w - kernel) / stride) + 1;
    const x = randomFloats(n * h * w * c, random), dy = randomFloats(n * oh * ow * c, random);
    x[3] = NaN;
    const xs = [n, h, w, c], ys = [n, oh, ow, c], attrs = { kernel, stride };
    const [y, index] = everywhere((d) => runOp(d, "maxpool", [{ data: x, shape: xs }], [{ data: f32(dy.length), shape: ys }, { data: new Int32Array(dy.length), shape: ys }], attrs));
    const [dx] = everywhere((d) => runOp(d, "maxpool_grad", [{ data: dy, shape: ys }, { data: index!, shape: ys }], [{ data: f32(x.length), shape: xs }], attrs));
    const [mean] = everywhere((d) => runOp(d, "avgpool", [{ data: x, shape: xs }], [{ data: f32(dy.length), shape: ys }], attrs));
    const [dmean] = everywhere((d) => runOp(d, "avgpool_grad", [{ data: dy, shape: ys }], [{ data: f32(x.length), shape: xs }], attrs));
    const wantDx = f32(x.length), wantMean = f32(x.length);
    for (let b = 0; b < n; b++) for (let i = 0; i < oh; i++) for (let j = 0; j < ow; j++) for (let q = 0; q < c; q++) {
      const o = ((b * oh + i) * ow + j) * c + q;
      let best = -Infinity, at = -1, sum = 0;
      for (let p = 0; p < kernel; p++) for (let r = 0; r < kernel; r++) {
        const k = ((b * h + i * stride + p) * w + j * stride + r) * c + q;
        sum = Math.fround(sum + x[k]!);
        if (at < 0 || x[k]! > best || Number.isNaN(x[k]!)) { best = x[k]!; at = k; }
        wantMean[k] = Math.fround(wantMean[k]! + Math.fround(dy[o]! / (kernel * kernel)));
      }
      expect(y![o]).toBe(best);
      expect(index![o]).toBe(at);
      expect(mean![o]).toBe(Math.fround(sum / (kernel * kernel)));
      wantDx[at] = Math.fround(wantDx[at]! + dy[o]!);
    }
    expect(dx).toEqual(wantDx);
    expect(dmean).toEqual(wantMean);
  });
});

describe("loss", () => {
  test.each([[1, 1], [5, 10], [128, 10], [33, 17], [7, 1000], [4100, 3]])("softmax cross-entropy of %d rows, %d classes", (rows, classes) => {
    const logits = randomFloats(rows * classes, random, 12), labels = Int32Array.from({ length: rows }, () => below(classes));
    const shape = [rows, classes];
    const [loss, grad] = everywhere((d) => runOp(d, "softmax_xent", [{ data: logits, shape }, { data: labels, shape: [rows] }], [{ data: f32(1), shape: [1] }, { data: f32(logits.length), shape }]));
    const [count] = everywhere((d) => runOp(d, "count_correct", [{ data: logits, shape }, { data: labels, shape: [rows] }], [{ data: f32(1), shape: [1] }]));
    let want = 0, right = 0;
    for (let r = 0; r < rows; r++) {
      const x = logits.subarray(r * classes, (r + 1) * classes), mx = Math.max(...x);
      const e = Array.from(x, (v) => Math.exp(v - mx)), s = e.reduce((p, v) => p + v, 0);
      want += Math.log(s) + mx - x[labels[r]!]!;
      right += x.indexOf(mx) === labels[r] ? 1 : 0;
      e.forEach((v, c) => expect(Math.abs((grad as Float32Array)[r * classes + c]! * rows - (v / s - (c === labels[r] ? 1 : 0)))).toBeLessThan(1e-6));
    }
    expect(Math.abs(loss![0]! - want / rows)).toBeLessThan(1e-5 * (1 + want / rows));
    expect(count![0]).toBe(right);
  });

  test("a label outside the classes is visible and harmless", () => {
    const [loss, grad] = everywhere((d) => runOp(d, "softmax_xent", [{ data: f32(6), shape: [2, 3] }, { data: Int32Array.of(1, -2147483648), shape: [2] }], [{ data: f32(1), shape: [1] }, { data: f32(6), shape: [2, 3] }]));
    expect(loss![0]).toBeNaN();
    expect([...grad!.slice(3)]).toEqual([0, 0, 0]);
  });
});

describe("element-wise and optimizers", () => {
  test.each([0, 1, 15, 16, 17, 100, 70001])("%d elements", (n) => {
    const x = randomFloats(n, random, 3), y = randomFloats(n, random, 3);
    if (n > 4) { x[0] = -0; x[1] = NaN; x[2] = Infinity; y[3] = 1e-42; x[3] = 1e-41; }
    const one = (op: "relu" | "relu_grad" | "add" | "scale", ins: Float32Array[], attrs = {}) =>
      everywhere((d) => runOp(d, op, ins.map((data) => ({ data, shape: [n] })), [{ data: f32(n), shape: [n] }], attrs))[0] as Float32Array;
    const same = (got: Float32Array, want: Float32Array) => expect(got.findIndex((v, i) => !Object.is(v, want[i]))).toBe(-1);
    same(one("relu", [x]), x.map((v) => (v < 0 ? 0 : v)));
    same(one("relu_grad", [x, y]), x.map((v, i) => (y[i]! > 0 ? v : 0)));
    same(one("add", [x, y]), x.map((v, i) => v + y[i]!));
    one("scale", [x], { alpha: 0.3, beta: -1 });
    const bytes = Uint8Array.from({ length: n }, () => below(256));
    const [u] = everywhere((d) => runOp(d, "u8_to_f32", [{ data: bytes, shape: [n] }], [{ data: f32(n), shape: [n] }], { scale: 0.5, shift: -1 }));
    same(u as Float32Array, Float32Array.from(bytes, (b) => b * 0.5 - 1));
    const [db] = everywhere((d) => runOp(d, "bias_grad", [{ data: y, shape: [n, 1] }], [{ data: f32(1), shape: [1] }]));
    expect(db![0]! - y.reduce((p, v) => p + v, 0)).toBeLessThan(1e-3 * Math.sqrt(n + 1));
  });

  test("bias gradients add rows in chunks of 256, columns of any number", () => {
    for (const [rows, columns] of [[1, 1], [700, 10], [513, 16], [256, 70], [257, 33]] as const) {
      const dy = randomFloats(rows * columns, random);
      const [db] = everywhere((d) => runOp(d, "bias_grad", [{ data: dy, shape: [rows, columns] }], [{ data: f32(columns), shape: [columns] }]));
      for (let j = 0; j < columns; j++) {
        let total = 0;
        for (let r0 = 0; r0 < rows; r0 += 256) {
          let s = 0;
          for (let r = r0; r < Math.min(rows, r0 + 256); r++) s = Math.fround(s + dy[r * columns + j]!);
          total = r0 === 0 ? s : Math.fround(total + s);
        }
        expect(db![j]).toBe(total);
      }
    }
  });

  test("updates agree with their formulas over several steps", () => {
    const n = 1003;
    const start = randomFloats(n, random), gradients = [0, 1, 2].map(() => randomFloats(n, random));
    const run = (kind: "sgd" | "momentum" | "adam", nesterov: boolean, weightDecay: number) => everywhere((d) => {
      const p = start.slice(), m = f32(n), v = f32(n);
      gradients.forEach((g, i) => {
        if (kind === "sgd") d.sgd(p, g, { learningRate: 0.1, weightDecay });
        else if (kind === "momentum") d.momentum(p, g, m, { learningRate: 0.1, momentum: 0.9, nesterov, weightDecay });
        else d.adam(p, g, m, v, { learningRate: 0.01, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, step: i + 1, weightDecay });
      });
      return [p, m, v];
    })[0] as Float32Array;
    for (const weightDecay of [0, 0.05]) {
      const expected = (kind: string, nesterov: boolean) => start.map((p0, i) => {
        let p = p0, m = 0, v = 0;
        gradients.forEach((gs, t) => {
          let g = gs[i]!;
          if (kind !== "adam") g += weightDecay * p;
          if (kind === "sgd") p -= 0.1 * g;
          else if (kind === "momentum") { m = 0.9 * m + g; p -= 0.1 * (nesterov ? 0.9 * m + g : m); }
          else {
            p *= 1 - 0.01 * weightDecay;
            m = 0.9 * m + 0.1 * g; v = 0.999 * v + 0.001 * g * g;
            p -= 0.01 * (m / (1 - 0.9 ** (t + 1))) / (Math.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8);
          }
        });
        return p;
      });
      for (const [kind, nesterov] of [["sgd", false], ["momentum", false], ["momentum", true], ["adam", false]] as const) {
        const got = run(kind, nesterov, weightDecay), want = expected(kind, nesterov);
        got.forEach((x, i) => expect(Math.abs(x - want[i]!)).toBeLessThan(2e-6));
      }
    }
  });

  test("moments flush to zero instead of lingering as denormals", () => {
    everywhere((d) => {
      const p = f32(40), g = f32(40), m = f32(40).fill(1.2e-38), v = f32(40).fill(1.2e-38);
      d.adam(p, g, m, v, { learningRate: 0.1, beta1: 0.9, beta2: 0.9, epsilon: 1e-8, step: 1 });
      expect(m.every((x) => x === 0) && v.every((x) => x === 0)).toBe(true);
      return [p, m, v];
    });
  });

  test("the adam operation of a plan counts its own steps as the flat call does", () => {
    const n = 50, g = randomFloats(n, random), start = randomFloats(n, random);
    for (const { device } of devices) {
      const tensors = ["p", "g", "m", "v"].map((name, i) => ({ name, dtype: "f32" as const, shape: [n], offsetBytes: i * 256 }));
      tensors.push({ name: "step", dtype: "f32", shape: [1], offsetBytes: 1024 });
      const plan = device.createPlan({ tensors, arenaBytes: 1088, ops: [{ op: "adam", in: [0, 1, 2, 3, 4], out: [0, 2, 3, 4], attrs: { learningRate: 0.01, beta1: 0.9, beta2: 0.99, epsilon: 1e-8 } }] });
      plan.write(0, start); plan.write(1, g);
      const p = start.slice(), m = f32(n), v = f32(n);
      for (let step = 1; step <= 3; step++) {
        plan.runSync();
        device.adam(p, g, m, v, { learningRate: 0.01, beta1: 0.9, beta2: 0.99, epsilon: 1e-8, step });
      }
      const out = f32(n), step = f32(1);
      plan.read(0, out); plan.read(4, step);
      expect(out).toEqual(p);
      expect(step[0]).toBe(3);
      plan.close();
    }
  });

  test("delay compensation and the finite check", () => {
    const n = 70001, g0 = randomFloats(n, random), now = randomFloats(n, random), base = randomFloats(n, random);
    const [g] = everywhere((d) => { const g = g0.slice(); d.delayCompensate(g, now, base, 0.3); return [g]; });
    g0.forEach((x, i) => { if (Math.abs((g as Float32Array)[i]! - (x + 0.3 * x * x * (now[i]! - base[i]!))) > 1e-6) throw new Error(`element ${i}`); });
    for (const { device } of devices) {
      expect(device.isFinite(g0)).toBe(true);
      for (const bad of [NaN, Infinity, -Infinity]) for (const at of [0, 17, n - 1]) {
        const x = g0.slice(); x[at] = bad;
        expect(device.isFinite(x)).toBe(false);
      }
      expect(device.isFinite(f32(0))).toBe(true);
      expect(device.isFinite(f32(5).fill(3.4e38))).toBe(true);
    }
  });
});
