// exact-int: its bits by the definition in native/kernels/exact.h, alike on every instruction set, thread count and
// layout; its error against double precision; infinities, NaN and denormals by their rules.
import { afterAll, describe, expect, test } from "vitest";
import { openDevice, type Device } from "../../src/device/device.js";
import { bits, f32, gemmReference, randomFloats, runOp, seeded } from "./reference.js";

const devices: { name: string; device: Device }[] = [];
for (const isa of ["scalar", "avx2", "avx512", "amx"] as const)
  for (const threads of isa === "scalar" ? [1] : [1, 3]) {
    try { devices.push({ name: `${isa} x ${threads}`, device: openDevice({ backend: "cpu", isa, threads }) }); }
    catch { /* this processor lacks the instruction set */ }
  }
afterAll(() => { for (const d of devices) d.device.close(); });
const random = seeded(411);
const below = (n: number) => Math.floor(random() * n);

/** Ties to even, as rint. */
const rint = (x: number) => { const r = Math.round(x); return Math.abs(x - Math.trunc(x)) === 0.5 && r % 2 !== 0 ? r - 1 : r; };

/** The slices of one row or column and its scale 2^(e - 6), from the definition. */
function cut(x: number[], slices: number): { parts: number[][]; scale: number } {
  const largest = Math.max(0, ...x.map(Math.abs));
  if (!x.every(Number.isFinite)) return { parts: Array.from({ length: slices }, () => x.map(() => 0)), scale: NaN };
  const exponent = Math.max(-125, largest === 0 ? -125 : Math.floor(Math.log2(largest)) + 1);
  const parts: number[][] = [];
  // Doubles hold every step exactly.
  let t = x.map((v) => v * 2 ** (6 - exponent));
  for (let s = 0; s < slices; s++) {
    const part = t.map(rint);
    parts.push(part);
    t = t.map((v, i) => (v - part[i]!) * 128);
  }
  return { parts, scale: 2 ** (exponent - 6) };
}

function definition(rows: number[][], columns: number[][], slices: number): Float32Array {
  const a = rows.map((r) => cut(r, slices)), b = columns.map((c) => cut(c, slices));
  const out = f32(rows.length * columns.length);
  a.forEach((x, i) => b.forEach((y, j) => {
    let q = 0;
    for (let order = 0; order < slices; order++) {
      q *= 128;
      for (let s = 0; s <= order; s++) x.parts[s]!.forEach((v, l) => { q += v * y.parts[order - s]![l]!; });
    }
    out[i * columns.length + j] = q * x.scale * y.scale * 2 ** (-7 * (slices - 1));
  }));
  return out;
}

const rowsOf = (a: Float32Array, m: number, k: number, transposed: boolean) =>
  Array.from({ length: m }, (_, i) => Array.from({ length: k }, (_, l) => (transposed ? a[l * m + i]! : a[i * k + l]!)));

function run(device: Device, a: Float32Array, b: Float32Array, dims: [number, number, number], attrs: Record<string, number>, bias?: Float32Array) {
  const [m, n, k] = dims;
  const inputs = [{ data: a, shape: attrs.transA ? [k, m] : [m, k] }, { data: b, shape: attrs.transB ? [n, k] : [k, n] }];
  if (bias) inputs.push({ data: bias, shape: [n] });
  return runOp(device, "gemm", inputs, [{ data: f32(m * n), shape: [m, n] }], attrs)[0] as Float32Array;
}

describe("exact-int product", () => {
  const shapes: [number, number, number][] = [[1, 1, 1], [0, 3, 4], [3, 0, 4], [3, 4, 0], [8, 32, 64], [7, 31, 63], [33, 65, 129], [40, 3, 515], [2, 20, 1030]];
  for (let i = 0; i < 8; i++) shapes.push([1 + below(40), 1 + below(70), 1 + below(120)]);
  test.each(shapes)("%d x %d x %d: bits of the definition in all layouts", (m, n, k) => {
    for (const [transA, transB] of [[0, 0], [0, 1], [1, 0], [1, 1]] as const)
      for (const slices of [2, 3]) {
        // Rows of very different size: each has its own scale.
        const a = randomFloats(m * k, random).map((v, i) => v * 2 ** ((i % 7) * 5 - 15)), b = randomFloats(k * n, random);
        const want = definition(rowsOf(a, m, k, transA === 1), rowsOf(b, n, k, transB === 0), slices);
        for (const { name, device } of devices)
          expect(bits(run(device, a, b, [m, n, k], { transA, transB, slices })).equals(bits(want)), `${name}, ${slices} slices, ${transA}${transB}`).toBe(true);
      }
  });

  test("bias and relu follow the one rounding", () => {
    const [m, n, k] = [19, 45, 100];
    const a = randomFloats(m * k, random), b = randomFloats(k * n, random), bias = randomFloats(n, random);
    const plain = definition(rowsOf(a, m, k, false), rowsOf(b, n, k, true), 3);
    const want = plain.map((v, i) => { const s = Math.fround(v + bias[i % n]!); return s < 0 ? 0 : s; });
    for (const { name, device } of devices) expect(bits(run(device, a, b, [m, n, k], { slices: 3, relu: 1 }, bias)).equals(bits(want)), name).toBe(true);
  });

  test("two slices are as good as bf16, three a hundred times better", () => {
    const [m, n, k] = [48, 64, 768];
    const a = randomFloats(m * k, random), b = randomFloats(k * n, random);
    const { want } = gemmReference(a, b, m, n, k, false, false);
    const error = (slices: number) => {
      const got = run(devices.at(-1)!.device, a, b, [m, n, k], { slices });
      return Math.sqrt(got.reduce((sum, v, i) => sum + (v - want[i]!) ** 2, 0) / want.reduce((sum, v) => sum + v * v, 0));
    };
    expect(error(2)).toBeLessThan(2e-4); // bf16 operands: 1.7e-3
    expect(error(3)).toBeLessThan(2e-6);
  });

  test("a row with NaN or infinity is all NaN, its neighbours are not; denormals keep their bits", () => {
    const [m, n, k] = [4, 5, 70];
    const a = randomFloats(m * k, random), b = randomFloats(k * n, random);
    a[3] = NaN;
    a[k + 5] = -Infinity;
    for (let l = 0; l < k; l++) a[2 * k + l] = (below(200) - 100) * 2 ** -149;
    const want = definition(rowsOf(a, m, k, false), rowsOf(b, n, k, true), 3);
    for (const { name, device } of devices) {
      const got = run(device, a, b, [m, n, k], { slices: 3 });
      expect(got.subarray(0, 2 * n).every(Number.isNaN), name).toBe(true);
      expect(bits(got.subarray(2 * n)).equals(bits(want.subarray(2 * n))), name).toBe(true);
    }
  });

  test("the largest k of one chunk does not overflow, and longer k is cut", () => {
    const k = 65536 + 40;
    const a = new Float32Array(k).fill(-1.999), b = new Float32Array(k).fill(1.999);
    const first = definition([[...a.subarray(0, 65536)]], [[...b.subarray(0, 65536)]], 3)[0]!;
    const second = definition([[...a.subarray(65536)]], [[...b.subarray(65536)]], 3)[0]!;
    for (const { name, device } of devices) expect(run(device, a, b, [1, 1, k], { slices: 3 })[0], name).toBe(Math.fround(first + second));
  });

  test("one slice is refused", () => {
    expect(() => run(devices[0]!.device, f32(1), f32(1), [1, 1, 1], { slices: 1 })).toThrow(/slices must be 2 or 3/);
  });
});
