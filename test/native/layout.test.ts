// Rotary embedding, copies between layouts and the plain maps: the same bits from every instruction set and any
// thread count, values of double-precision references, refusal of strides that reach outside or meet.
import { afterAll, describe, expect, test } from "vitest";
import { openDevice, type Device, type PlanOp } from "../../src/device/device.js";
import { bits, f32, randomFloats, runOp, seeded, type Operand } from "./reference.js";

const devices: { name: string; device: Device }[] = [];
for (const isa of ["scalar", "avx2", "avx512"] as const)
  for (const threads of isa === "scalar" ? [1] : [1, 3]) {
    try { devices.push({ name: `${isa} x ${threads}`, device: openDevice({ backend: "cpu", isa, threads }) }); }
    catch { /* this processor lacks the instruction set */ }
  }
afterAll(() => { for (const d of devices) d.device.close(); });

const random = seeded(24_681_357);
const below = (n: number) => Math.floor(random() * n);
const product = (shape: readonly number[]) => shape.reduce((p, d) => p * d, 1);
const canonical = (a: Float32Array) => bits(a.map((x) => (Number.isNaN(x) ? NaN : x)));

function everywhere(op: PlanOp["op"], inputs: Operand[], output: Float32Array, shape: number[], attrs: Record<string, number> = {}, inPlace: Record<number, number> = {}): Float32Array {
  const all = devices.map(({ device }) => runOp(device, op, inputs, [{ data: output.slice(), shape }], attrs, inPlace)[0] as Float32Array);
  all.forEach((out, i) => { if (!canonical(out).equals(canonical(all[0]!))) throw new Error(`${op} differs on ${devices[i]!.name}`); });
  return all[0]!;
}

describe("rope", () => {
  const turn = (x: Float32Array, length: number, columns: number, heads: number, size: number, base: number, inverse: boolean) => {
    const out = Float64Array.from(x), half = size / 2;
    for (let r = 0; r < x.length / columns; r++) for (let h = 0; h < heads; h++) for (let i = 0; i < half; i++) {
      const angle = (r % length) * base ** (-2 * i / size) * (inverse ? -1 : 1), at = r * columns + h * size + i;
      out[at] = x[at]! * Math.cos(angle) - x[at + half]! * Math.sin(angle);
      out[at + half] = x[at + half]! * Math.cos(angle) + x[at]! * Math.sin(angle);
    }
    return out;
  };
  test.each([[1, 1, 2, 1, 2, 10_000], [2, 7, 20, 2, 8, 10_000], [3, 33, 48, 1, 48, 500_000], [1, 2000, 130, 2, 64, 10_000], [2, 5, 34, 1, 34, 1], [0, 4, 8, 1, 8, 10]])(
    "batch %d, length %d, %d columns, %d heads of %d, base %d", (batch, length, columns, heads, size, base) => {
      const shape = [batch, length, columns], x = randomFloats(product(shape), random, 2), attrs = { heads, headSize: size, base };
      const y = everywhere("rope", [{ data: x, shape }], f32(x.length), shape, attrs);
      turn(x, length, columns, heads, size, base, false).forEach((v, i) => { if (!(Math.abs(v - y[i]!) <= 1e-6)) throw new Error(`${i}: ${y[i]} for ${v}`); });
      const back = everywhere("rope", [{ data: y, shape }], f32(x.length), shape, { ...attrs, inverse: 1 }, { 0: 0 });
      back.forEach((v, i) => { if (!(Math.abs(v - x[i]!) <= 2e-6)) throw new Error(`${i}: ${v} back for ${x[i]}`); });
    });
  test("angles stay right at positions of a million", () => {
    const length = 1_000_001, x = f32(2 * length).fill(1), shape = [1, length, 2];
    const y = everywhere("rope", [{ data: x, shape }], f32(x.length), shape, { heads: 1, headSize: 2, base: 10_000 });
    for (const t of [1, 355, 103_993, 999_999, 1_000_000]) {
      expect(Math.abs(y[2 * t]! - (Math.cos(t) - Math.sin(t)))).toBeLessThan(3e-7);
      expect(Math.abs(y[2 * t + 1]! - (Math.cos(t) + Math.sin(t)))).toBeLessThan(3e-7);
    }
  });
  test.each([[{ heads: 1, headSize: 3, base: 10 }, /even size/], [{ heads: 3, headSize: 4, base: 10 }, /at least heads x headSize wide/],
    [{ heads: 1, headSize: 4, base: 0.5 }, /base must be from 1/], [{ heads: 1, headSize: 4, base: NaN }, /base must be a finite number/], [{ heads: 1, base: 10 }, /headSize/]])("refuses %j", (attrs, message) => {
    expect(() => runOp(devices[0]!.device, "rope", [{ data: f32(16), shape: [1, 2, 8] }], [{ data: f32(16), shape: [1, 2, 8] }], attrs as Record<string, number>)).toThrow(message);
  });
});

describe("copy", () => {
  /** Onto what `out` holds, on every device. */
  const copies = (x: Float32Array, out: Float32Array, attrs: Record<string, number>): Float32Array => {
    const outBytes = Math.ceil(x.length / 16) * 64;
    const all = devices.map(({ device }) => {
      const plan = device.createPlan({
        tensors: [{ name: "x", dtype: "f32", shape: [x.length], offsetBytes: 0 }, { name: "out", dtype: "f32", shape: [out.length], offsetBytes: outBytes }],
        arenaBytes: outBytes + Math.ceil(out.length / 16) * 64, ops: [{ op: "copy", in: [0], out: [1], attrs }],
      });
      const got = f32(out.length);
      plan.write(0, x); plan.write(1, out); plan.runSync(); plan.read(1, got); plan.close();
      return got;
    });
    all.forEach((got, i) => { if (!canonical(got).equals(canonical(all[0]!))) throw new Error(`copy differs on ${devices[i]!.name}`); });
    return all[0]!;
  };
  const reference = (x: Float32Array, out: Float32Array, a: Record<string, number>) => {
    const want = a.clear ? f32(out.length) : out.slice();
    const walk = (d: number, from: number, to: number): void => {
      if (d === 6) { want[to] = a.accumulate ? want[to]! + x[from]! : x[from]!; return; }
      for (let i = 0; i < (a[`size${d}`] ?? 1); i++) walk(d + 1, from + i * (a[`from${d}`] ?? 0), to + i * (a[`to${d}`] ?? 0));
    };
    walk(0, a.fromOffset ?? 0, a.toOffset ?? 0);
    return want;
  };
  test("fuzzed: permutations, windows, repeats, with and without adding and clearing", () => {
    for (let round = 0; round < 150; round++) {
      const rank = 1 + below(6), sizes = Array.from({ length: rank }, () => 1 + below(rank > 3 ? 4 : round % 10 === 0 ? 70 : 12));
      if (round === 7) sizes[0] = 0;
      const order = sizes.map((_, i) => i).sort(() => random() - 0.5), attrs: Record<string, number> = {};
      let to = 1, from = 1;
      for (const d of order) { attrs[`to${d}`] = to; to *= sizes[d]! + below(2); } // gaps of one now and then
      for (let d = rank - 1; d >= 0; d--) {
        const repeated = below(4) === 0;
        attrs[`size${d}`] = sizes[d]!; attrs[`from${d}`] = repeated ? 0 : from; if (!repeated) from *= sizes[d]!;
      }
      attrs.fromOffset = below(4); attrs.toOffset = below(4); attrs.accumulate = below(2); attrs.clear = below(2);
      const x = randomFloats(Math.max(1, from) + 4, random), out = randomFloats(Math.max(1, to) + 4, random);
      const got = copies(x, out, attrs);
      expect(canonical(got).equals(canonical(reference(x, out, attrs))), JSON.stringify(attrs)).toBe(true);
    }
  });
  test("a large transposition over threads", () => {
    const [rows, columns] = [301, 257], x = randomFloats(rows * columns, random);
    const got = copies(x, f32(x.length), { size0: columns, from0: 1, to0: rows, size1: rows, from1: columns, to1: 1 });
    expect(got.every((v, i) => v === x[(i % rows) * columns + Math.floor(i / rows)])).toBe(true);
  });
  const attempt = (attrs: Record<string, number>) => () => runOp(devices[0]!.device, "copy", [{ data: f32(12), shape: [12] }], [{ data: f32(12), shape: [12] }], attrs);
  test.each<[string, Record<string, number>, RegExp]>([
    ["reads beyond", { size5: 13, from5: 1, to5: 0 }, /reach beyond/],
    ["writes beyond", { size5: 12, from5: 0, to5: 1, toOffset: 1 }, /reach beyond/],
    ["an offset beyond", { fromOffset: 12 }, /reach beyond/],
    ["strides that overflow", { size4: 2 ** 31 - 1, from4: 2 ** 53 - 1, size5: 2 ** 31 - 1, from5: 2 ** 53 - 1 }, /reach beyond/],
    ["one place twice", { size5: 3, from5: 1, to5: 0 }, /two indices name one place/],
    ["places that meet", { size4: 2, to4: 2, size5: 3, to5: 1 }, /two indices name one place/],
    ["a negative stride", { size5: 2, to5: 1, from5: -1 }, /whole number/],
    ["half a size", { size5: 1.5 }, /whole number/],
    ["an unknown attribute", { size6: 1 }, /unknown/],
  ])("refuses %s", (_, attrs, message) => expect(attempt(attrs)).toThrow(message));
});

/** erf in double by its series and, from 3 on, by 1. */
const erf = (x: number) => {
  if (Math.abs(x) > 5) return Math.sign(x);
  let term = x, sum = x;
  for (let n = 1; n < 200; n++) { term *= -x * x / n; sum += term / (2 * n + 1); }
  return sum * 2 / Math.sqrt(Math.PI);
};
describe("maps", () => {
  const hostile = [0, -0, NaN, Infinity, -Infinity, 1e-41, -1e-41, 3e38, -3e38, 88.7, -88.7, 1, -1];
  const one: Record<string, [(x: number) => number, number]> = {
    exp: [Math.exp, 4e-7], log: [Math.log, 1e-6], sqrt: [Math.sqrt, 1e-7], erf: [erf, 8e-7], sigmoid: [(x) => 1 / (1 + Math.exp(-x)), 2e-7],
  };
  test.each(Object.keys(one))("%s: its values, every remainder of a vector, hostile ones", (name) => {
    const [f, tolerance] = one[name]!;
    for (const n of [0, 1, 15, 16, 17, 33, 40_001]) {
      const x = randomFloats(n, random, 8);
      hostile.forEach((v, i) => { if (n > 100) x[i] = v; });
      const y = everywhere(name as PlanOp["op"], [{ data: x, shape: [n] }], f32(n), [n], {}, n % 2 ? { 0: 0 } : {});
      y.forEach((got, i) => {
        const v = x[i]!, want = f(v);
        const denormal = name === "exp" ? v < -87.3 : false; // exp has no denormal results
        const fine = Object.is(got, want) || (Number.isNaN(want) && Number.isNaN(got)) || denormal ||
          Math.abs(got - want) <= tolerance * (1 + Math.abs(want)) || (Math.fround(want) === got);
        if (!fine) throw new Error(`${name}(${v}) is ${got}, not ${want}`);
      });
    }
  });
  test("mul and div are IEEE's", () => {
    const x = randomFloats(3001, random, 5), y = randomFloats(3001, random, 5);
    hostile.forEach((v, i) => { x[i] = v; y[hostile.length - 1 - i] = v; });
    for (const [op, f] of [["mul", (a: number, b: number) => a * b], ["div", (a: number, b: number) => a / b]] as const) {
      const z = everywhere(op, [{ data: x, shape: [3001] }, { data: y, shape: [3001] }], f32(3001), [3001], {}, { 0: 1 });
      expect(canonical(z).equals(canonical(x.map((v, i) => f(v, y[i]!))))).toBe(true);
    }
  });
});
