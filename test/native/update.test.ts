// A parameter server's kernels against the in-place ones and plain loops: the same bits on every instruction set, with
// outputs through the caches or around them; half precision for every value; arguments from outside cannot harm.
import { afterAll, describe, expect, test } from "vitest";
import { openDevice, type Device, type UpdateOptions } from "../../src/device/device.js";
import { seeded } from "./reference.js";

const devices: Device[] = [];
for (const isa of ["scalar", "avx2", "avx512"] as const)
  try { devices.push(openDevice({ backend: "cpu", isa, threads: isa === "avx2" ? 3 : 2 })); } catch { /* absent here */ }
afterAll(() => { for (const d of devices) d.close(); });
const best = devices.at(-1)!;
const random = seeded(5);
const bytesOf = (x: Float32Array) => Buffer.from(x.buffer, x.byteOffset, x.byteLength);
const same = (a: Float32Array, b: Float32Array) => Buffer.compare(bytesOf(a), bytesOf(b)) === 0;
/** `skip` elements into its buffer: vectors are rarely aligned. */
const some = Array.from({ length: 4999 }, () => (random() - 0.5) * 10 ** Math.floor(random() * 6 - 3));
const vector = (n: number, skip: number) => {
  const from = Math.floor(random() * some.length);
  const out = new Float32Array(n + skip).subarray(skip);
  for (let i = 0; i < n; i++) out[i] = some[(from + i) % some.length]!;
  return out;
};
const fresh = (n: number, skip: number) => new Float32Array(n + skip).subarray(skip).fill(7);

const RULES: ["sgd" | "momentum" | "adam", number, UpdateOptions][] = [
  ["sgd", 0, { learningRate: 0.1, weightDecay: 0.01 }],
  ["momentum", 1, { learningRate: 0.1, momentum: 0.9, nesterov: true }],
  ["adam", 2, { learningRate: 0.01, weightDecay: 0.1, beta1: 0.5, beta2: 0.99, epsilon: 1e-8, step: 3 }],
];

describe("an update out of place", () => {
  test.each(RULES)("%s has the bits of the one in place and leaves its inputs alone", async (kind, moments, options) => {
    // the last goes around the caches: 2^20 elements and more
    for (const [n, skip] of [[0, 0], [1, 0], [17, 1], [4097, 3], [70_001, 2], [(1 << 20) + 77, 1]] as const) {
      const from = Array.from({ length: 2 + moments }, () => vector(n, skip));
      from[3]?.forEach((x, i, v) => { v[i] = Math.abs(x); }); // second moments are squares
      const before = from.map((x) => x.slice());
      const inPlace = from.map((x) => x.slice());
      best[kind === "sgd" ? "sgd" : kind](...(inPlace as [Float32Array, Float32Array, Float32Array, Float32Array]), options as never);
      inPlace.splice(1, 1);
      for (const device of n > 1 << 20 ? [best] : devices) {
        const to = Array.from({ length: 1 + moments }, () => fresh(n, skip));
        const largest = await device.updateAsync(kind, from, to, options);
        expect(largest).toBe(from[1]!.reduce((most, x) => Math.max(most, Math.abs(x)), 0));
        to.forEach((x, i) => expect(same(x, inPlace[i]!), `${kind} ${n} ${device.isa} ${i}`).toBe(true));
      }
      from.forEach((x, i) => expect(same(x, before[i]!)).toBe(true));
    }
  });

  test("tells NaN and infinity wherever they stand", async () => {
    for (const device of devices) for (const bad of [NaN, Infinity, -Infinity]) for (const at of [0, 4096, 9999]) {
      const g = new Float32Array(10_000);
      g[at] = bad;
      const largest = await device.updateAsync("sgd", [new Float32Array(10_000), g], [new Float32Array(10_000)], { learningRate: 1 });
      expect(Number.isNaN(bad) ? Number.isNaN(largest) : largest === Infinity).toBe(true);
      expect(await device.largestAsync(g)).toEqual(largest);
    }
  });

  test("refuses overlaps, other lengths and other counts", async () => {
    const v = (n = 4) => new Float32Array(n), p = v(), options = { learningRate: 1 };
    const attempts: [Float32Array[], Float32Array[]][] = [
      [[p, p], [v()]], [[p, v()], [p]], [[p, v(3)], [v()]], [[p, v()], [v(5)]], [[p], [v()]], [[p, v(), v()], [v()]], [[p, v()], []],
    ];
    for (const [from, to] of attempts) await expect(best.updateAsync("sgd", from, to, options)).rejects.toMatchObject({ name: "DeviceError" });
    await expect(best.updateAsync("sgd", "no" as never, [v()], options)).rejects.toMatchObject({ code: "argument" });
    const detached = v();
    const list = [v(), detached];
    Object.defineProperty(list, 0, { get() { structuredClone(detached.buffer, { transfer: [detached.buffer] }); return v(); } });
    await expect(best.updateAsync("sgd", list, [v()], options)).rejects.toMatchObject({ name: "DeviceError" });
  });
});

test("the mean is summed in float64, in order, and rounded once", async () => {
  for (const n of [1, 2047, 5000]) for (const count of [1, 2, 7]) {
    const xs = Array.from({ length: count }, () => vector(n, 1));
    const want = Float32Array.from({ length: n }, (_, i) => xs.reduce((sum, x) => sum + x[i]!, 0) / count);
    for (const device of devices) {
      const out = new Float32Array(n);
      await device.meanAsync(xs, out);
      expect(same(out, want), `${n} ${count} ${device.isa}`).toBe(true);
    }
  }
  const x = new Float32Array(4);
  await expect(best.meanAsync([x], x)).rejects.toMatchObject({ code: "argument" });
  await expect(best.meanAsync([], x)).rejects.toMatchObject({ code: "argument" });
});

describe("half precision", () => {
  const valueOf = (half: number): number => {
    const sign = half & 0x8000 ? -1 : 1, exponent = (half >> 10) & 31, fraction = half & 1023;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25));
  };
  const halves = Array.from({ length: 65_536 }, (_, half) => valueOf(half));
  const sent = (packed: Uint8Array) => new Uint16Array(packed.slice(16).buffer);

  test("every value comes back, and the nearest is sent, ties to even", () => {
    const exact = Float32Array.from(halves.filter(Number.isFinite));
    // between two neighbours: below, at, and above the middle
    const between = halves.slice(0, 0x7bff).flatMap((low, i) => {
      const middle = (low + halves[i + 1]!) / 2, step = (halves[i + 1]! - low) / 64;
      return [{ x: middle - step, want: i }, { x: middle, want: i + (i & 1) }, { x: middle + step, want: i + 1 }];
    });
    const x = Float32Array.from(between, (each) => each.x);
    for (const device of devices) {
      const out = new Float32Array(exact.length);
      device.decompress(device.compress("fp16", exact), out);
      expect(same(out, exact), device.isa).toBe(true);
      const got = sent(device.compress("fp16", x)), negative = sent(device.compress("fp16", x.map((value) => -value)));
      const wrong = between.findIndex(({ want }, i) => got[i] !== want || negative[i] !== (want | 0x8000));
      expect(wrong, device.isa).toBe(-1);
    }
  });

  test("large values are bounded, faults stay faults, and the residual makes up for the rounding", async () => {
    const x = Float32Array.of(1e30, -7e4, 65_519, Infinity, -Infinity, NaN, 1e-30, -2, 0.1);
    for (const device of devices) {
      const residual = new Float32Array(x.length);
      const packed = await device.compressAsync("fp16", x, { residual });
      expect(packed).toEqual(device.compress("fp16", x));
      const out = new Float32Array(x.length);
      await device.decompressAsync(packed, out);
      expect(out).toEqual(Float32Array.of(65_504, -65_504, 65_504, Infinity, -Infinity, NaN, 0, -2, valueOf(0x2e66)));
      expect(residual).toEqual(Float32Array.from(x, (value, i) => (Number.isFinite(value) ? value - out[i]! : 0)));
    }
  });

  test("a damaged message is refused and nothing is written", async () => {
    const packed = best.compress("fp16", vector(33, 0));
    const damage = (change: (bytes: Uint8Array) => void): Uint8Array => { const bytes = packed.slice(); change(bytes); return bytes; };
    for (const bad of [packed.subarray(0, 15), packed.subarray(0, packed.length - 1), damage((b) => { b[4] = 1; }), damage((b) => { b[0] = 5; }), damage((b) => { b[8] = 34; })]) {
      const out = new Float32Array(33).fill(3);
      await expect(best.decompressAsync(bad, out)).rejects.toMatchObject({ name: "DeviceError" });
      expect(out).toEqual(new Float32Array(33).fill(3));
    }
    const odd = new Uint8Array(packed.length + 1).subarray(1); // a frame's bytes begin anywhere
    odd.set(packed);
    const [a, b] = [new Float32Array(33), new Float32Array(33)];
    best.decompress(packed, a);
    best.decompress(odd, b);
    expect(same(a, b)).toBe(true);
  });
});
