// Gradient compression against compression.h's rules in plain loops: the chosen entries, scales and signs to the
// bit on every instruction set; nothing is lost between message and residual; messages from outside cannot harm.
import { afterAll, describe, expect, test } from "vitest";
import { openDevice, type CompressionKind, type CompressionOptions, type Device } from "../../src/device/device.js";
import { runOp, seeded } from "./reference.js";

const devices: Device[] = [];
for (const isa of ["scalar", "avx2", "avx512"] as const)
  try { devices.push(openDevice({ backend: "cpu", isa, threads: isa === "avx2" ? 3 : 1 })); } catch { /* absent here */ }
afterAll(() => { for (const d of devices) d.close(); });
const best = devices.at(-1)!;
const random = seeded(77);
const below = (n: number) => Math.floor(random() * n);
const f = Math.fround;
const bitsOf = (x: Float32Array) => new Uint32Array(x.buffer, x.byteOffset, x.length);
const SIZES = [0, 1, 2, 63, 64, 65, 127, 1000, 1024, 1025, 4097, 70_001];

function gradient(n: number, kind: "normal" | "ties" | "hostile"): Float32Array {
  const hard = [NaN, Infinity, -Infinity, -0, 1e-45, -1e-40, 3.4e38, 1e-37];
  return Float32Array.from({ length: n }, () =>
    kind === "ties" ? below(5) - 2
      : kind === "hostile" && below(50) === 0 ? hard[below(hard.length)]!
        : (random() - 0.5) * 10 ** (below(6) - 3));
}
const hex = (b: Uint8Array | Float32Array) => Buffer.from(b.buffer, b.byteOffset, b.byteLength).toString("hex");

/** Compresses on every device, expects the same bytes and residual, and returns them. */
function onAll(kind: CompressionKind, x: Float32Array, residual: Float32Array | undefined, options: CompressionOptions) {
  const results = devices.map((d) => {
    const own = residual?.slice();
    return { packed: d.compress(kind, x, own ? { ...options, residual: own } : options), residual: own };
  });
  for (const [i, { packed, residual: own }] of results.entries()) {
    expect(Buffer.compare(packed, results[0]!.packed), `${kind} ${x.length}, ${devices[i]!.isa}`).toBe(0);
    if (own) expect(hex(own) === hex(results[0]!.residual!), `residual of ${kind} ${x.length}, ${devices[i]!.isa}`).toBe(true);
  }
  const out = new Float32Array(x.length).fill(7);
  for (const d of devices) {
    const own = new Float32Array(x.length).fill(7);
    d.decompress(results[0]!.packed, own);
    if (d === devices[0]) out.set(own);
    else expect(hex(own) === hex(out), `decoded ${kind} ${x.length}, ${d.isa}`).toBe(true);
  }
  return { ...results[0]!, out };
}

describe("top-k", () => {
  test.each(["normal", "ties", "hostile"] as const)("takes the largest, lower index first; message and residual make up the input: %s", (kind) => {
    for (const n of SIZES)
      for (const entries of new Set(n > 5000 ? [Math.ceil(n / 100)] : [0, 1, Math.ceil(n / 100), n >> 1, n, n + 5])) {
        const x = gradient(n, kind), old = gradient(n, kind === "hostile" ? "normal" : kind);
        const { packed, residual, out } = onAll("topk", x, old, { entries });
        const t = x.map((v, i) => f(v + old[i]!)), key = bitsOf(t).map((b) => b & 0x7fffffff);
        const k = Math.min(n, entries);
        const want = Array.from(key.keys()).sort((a, b) => key[b]! - key[a]! || a - b).slice(0, k).sort((a, b) => a - b);
        expect(packed.length).toBe(16 + 8 * k);
        expect(Array.from(new Uint32Array(packed.buffer, 16, k))).toEqual(want);
        const chosen = new Set(want);
        const sent = Float32Array.from(t, (v, i) => (chosen.has(i) ? v : 0)), kept = Float32Array.from(t, (v, i) => (chosen.has(i) ? 0 : v));
        expect(out).toEqual(sent);
        expect(residual).toEqual(kept);
      }
  });

  test("adds only at its entries, scaled in one rounding", () => {
    const packed = best.compress("topk", Float32Array.of(3, -0, 0.1, 9), { entries: 2 });
    const out = Float32Array.of(1, 1, NaN, 0.3);
    for (const d of devices) {
      const own = out.slice();
      d.decompress(packed, own, { add: true, scale: -0.1 });
      expect(own).toEqual(Float32Array.of(1 + f(-0.1) * 3, 1, NaN, f(f(0.3) + f(-0.1) * 9)));
    }
  });
});

describe("int8", () => {
  test.each(["normal", "ties", "hostile"] as const)("scales, rounds and keeps the rest: %s", (kind) => {
    for (const n of SIZES)
      for (const block of [64, 1024]) {
        const x = gradient(n, kind), old = gradient(n, "normal");
        const { packed, residual, out } = onAll("int8", x, old, { block });
        const blocks = Math.ceil(n / block), t = x.map((v, i) => f(v + old[i]!));
        expect(packed.length).toBe(16 + 4 * blocks + n);
        const scales = new Float32Array(packed.buffer, 16, blocks), q = new Int8Array(packed.buffer, 16 + 4 * blocks, n);
        for (let b = 0; b < blocks; b++) {
          const part = t.subarray(b * block, (b + 1) * block);
          const a = part.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
          if (!Number.isFinite(a)) {
            expect(scales[b]).toBeNaN();
            for (let i = b * block; i < b * block + part.length; i++) if (!(Number.isNaN(out[i]) && residual![i] === 0)) expect.fail(`${i}`);
            continue;
          }
          expect(scales[b]).toBe(f(a) < 2 ** -120 ? 0 : f(a / 127));
          for (let i = b * block; i < b * block + part.length; i++) {
            // Nearest but for the last bits of two roundings; the decoded and the rest are the input.
            const exact = scales[b] ? (t[i]! * 127) / a : 0;
            if (Math.abs(q[i]! - exact) > 0.50001 || out[i] !== f(q[i]! * scales[b]!) || residual![i] !== f(t[i]! - out[i]!)) expect.fail(`${n} ${block} ${i}`);
            if (Math.abs(residual![i]! + out[i]! - t[i]!) > Math.abs(t[i]!) * 2 ** -24) expect.fail(`lost at ${i}`);
          }
        }
      }
  });

  test("random rounding is unbiased, has its seed's bits, and needs one", () => {
    const n = 40_000, x = new Float32Array(n).fill(0.3);
    x[0] = 1.27;
    const { packed, out } = onAll("int8", x, undefined, { block: 65_536, seed: 12n, stream: 3 });
    expect(new Int8Array(packed.buffer, 20, 1)[0]).toBe(127);
    const mean = out.subarray(1).reduce((sum, v) => sum + v, 0) / (n - 1);
    expect(Math.abs(mean - 0.3)).toBeLessThan(1e-6);
    // 0.304 is 30.4 steps: 30 three times in five.
    const between = new Float32Array(n).fill(0.304);
    between[0] = 1.27;
    const drawn = new Int8Array(best.compress("int8", between, { block: 65_536, seed: 12n }).buffer, 20, n).subarray(1);
    expect(new Set(drawn)).toEqual(new Set([30, 31]));
    expect(Math.abs(drawn.reduce((sum, v) => sum + v, 0) / (n - 1) - 30.4)).toBeLessThan(0.015); // 6 deviations
    const other = new Int8Array(best.compress("int8", between, { block: 65_536, seed: 12n, stream: 1 }).buffer, 20, n).subarray(1);
    expect(Array.from(other)).not.toEqual(Array.from(drawn));
    for (const kind of ["normal", "hostile"] as const) onAll("int8", gradient(5000, kind), gradient(5000, "normal"), { seed: 2n ** 64n - 1n, block: 128 });
  });
});

describe("signs", () => {
  test.each(["normal", "ties", "hostile"] as const)("one bit each, the block's mean magnitude, the rest kept: %s", (kind) => {
    for (const n of SIZES)
      for (const block of [64, 1024]) {
        const x = gradient(n, kind), old = gradient(n, "normal");
        const { packed, residual, out } = onAll("sign", x, old, { block });
        const blocks = Math.ceil(n / block), t = x.map((v, i) => f(v + old[i]!));
        expect(packed.length).toBe(16 + 4 * blocks + Math.ceil(n / 8));
        const magnitudes = new Float32Array(packed.buffer, 16, blocks), bits = packed.subarray(16 + 4 * blocks);
        if (n % 8) expect(bits.at(-1)! >> (n % 8)).toBe(0);
        for (let b = 0; b < blocks; b++) {
          const part = t.subarray(b * block, (b + 1) * block);
          const lanes = new Float32Array(16);
          part.forEach((v, i) => { lanes[i % 16] = f(lanes[i % 16]! + Math.abs(v)); });
          for (let step = 8; step >= 1; step /= 2) for (let l = 0; l < step; l++) lanes[l] = f(lanes[l]! + lanes[l + step]!);
          const m = Number.isFinite(lanes[0]!) ? f(lanes[0]! / part.length) : NaN;
          expect(magnitudes[b]).toBe(m);
          for (let i = b * block; i < b * block + part.length; i++) {
            const negative = bitsOf(t)[i]! >>> 31;
            const want = negative ? -m : m;
            if ((bits[i >> 3]! >> (i & 7) & 1) !== negative || !Object.is(out[i], want) || !Object.is(residual![i], Number.isNaN(m) ? 0 : f(t[i]! - want))) expect.fail(`${n} ${block} ${i}`);
          }
        }
      }
  });

  test("error feedback sends everything in the end", () => {
    const x = gradient(3000, "normal"), residual = new Float32Array(3000), sum = new Float64Array(3000), out = new Float32Array(3000);
    for (let step = 0; step < 200; step++) {
      best.decompress(best.compress("sign", x, { residual, block: 64 }), out);
      out.forEach((v, i) => { sum[i]! += v; });
    }
    x.forEach((v, i) => { if (Math.abs(sum[i]! + residual[i]! - 200 * v) > 0.01) expect.fail(`${i}`); });
  });
});

describe("hostile input", () => {
  const codeOf = (action: () => unknown) => { try { action(); } catch (error) { return (error as { code?: string }).code; } return "nothing thrown"; };
  const x = gradient(100, "normal");

  test("messages with wrong heads, lengths, orders and indices write nothing", () => {
    for (const kind of ["topk", "int8", "sign"] as const) {
      const good = best.compress(kind, x, kind === "topk" ? { entries: 10 } : { block: 64 });
      const out = new Float32Array(100).fill(5);
      const change = (edit: (view: DataView, bytes: Uint8Array) => Uint8Array | void) => {
        const copy = good.slice();
        return codeOf(() => best.decompress(edit(new DataView(copy.buffer), copy) ?? copy, out));
      };
      for (let length = 0; length < good.length; length++) expect(change((_, b) => b.subarray(0, length)), `${kind} ${length}`).toBe("shape");
      expect(change((_, b) => Uint8Array.from([...b, 0]))).toBe("shape");
      expect(change((v) => v.setUint32(0, 0x47535404, true))).toBe("argument");
      expect(change((v) => v.setUint32(8, 99, true))).toBe("shape");
      expect(change((v) => v.setUint32(12, 1, true))).toBe("shape");
      for (const parameter of [0, 1, 63, 65, 9, 11, 101, 0x7fffffff, 0xffffffff]) expect(["shape", "argument"], `${kind} ${parameter}`).toContain(change((v) => v.setUint32(4, parameter, true)));
      if (kind === "topk")
        for (const [at, index] of [[0, 100], [9, 100], [9, 0xffffffff], [5, 0], [0, 99]] as const) expect(change((v) => v.setUint32(16 + 4 * at, index, true))).toBe("argument");
      expect(codeOf(() => best.decompress(good, new Float32Array(101)))).toBe("shape");
      expect(out.every((v) => v === 5)).toBe(true);
      // Bytes that only mean other numbers are taken: any values, and at any address.
      const unaligned = new Uint8Array(good.length + 1);
      unaligned.set(good, 1);
      const again = new Float32Array(100);
      best.decompress(good, out);
      best.decompress(unaligned.subarray(1), again);
      expect(again).toEqual(out);
    }
  });

  test("arguments", () => {
    const bad = (kind: unknown, vector: unknown, options: unknown) => codeOf(() => best.compress(kind as "topk", vector as Float32Array, options as CompressionOptions));
    expect(bad("lz4", x, {})).toBe("argument");
    expect(bad("topk", x, {})).toBe("argument");
    for (const entries of [-1, 1.5, 2 ** 31, NaN, "1"]) expect(bad("topk", x, { entries })).toBe("argument");
    for (const block of [0, 63, 65, 65_600, 2 ** 32, -64]) expect(bad("int8", x, { block })).toBe("argument");
    expect(bad("sign", x, { residual: new Float32Array(99) })).toBe("shape");
    expect(bad("sign", x, { residual: x })).toBe("argument");
    expect(bad("sign", x, { seed: 1n })).toBe("argument");
    for (const seed of [-1n, 1n << 64n, 1.5, "1"]) expect(bad("int8", x, { seed })).toBe("argument");
    expect(bad("int8", x, { seed: 1n, stream: -1 })).toBe("argument");
    expect(bad("int8", new Float64Array(4), {})).toBe("argument");
    const moved = gradient(64, "normal");
    expect(codeOf(() => best.compress("int8", moved, { get residual() { structuredClone(moved.buffer, { transfer: [moved.buffer] }); return new Float32Array(64); } }))).toBe("shape");
    const shared = new Float32Array(30);
    expect(codeOf(() => best.decompress(new Uint8Array(shared.buffer, 0, 20), shared))).toBe("argument");
  });

  test("operations of a plan give the same bytes and take any bytes", () => {
    const n = 5000, x = gradient(n, "hostile"), residual = gradient(n, "normal");
    for (const [number, kind, parameter, options] of [[1, "topk", 50, { entries: 50 }], [2, "int8", 128, { block: 128 }], [3, "sign", 256, { block: 256 }]] as const) {
      const want = best.compress(kind, x, { ...options, residual: residual.slice() });
      for (const device of devices) {
        const [packed] = runOp(device, "compress", [{ data: x, shape: [n] }, { data: residual, shape: [n] }],
          [{ data: new Uint8Array(want.length), shape: [want.length] }], { kind: number, parameter });
        expect(Buffer.compare(packed as Uint8Array, want), `${kind} ${device.isa}`).toBe(0);
        const bytes = Uint8Array.from({ length: want.length }, () => below(256)); // indices far beyond n
        for (const message of [want, bytes]) runOp(device, "decompress", [{ data: message, shape: [message.length] }], [{ data: new Float32Array(n), shape: [n] }], { kind: number, parameter });
        const [out] = runOp(device, "decompress", [{ data: want, shape: [want.length] }], [{ data: new Float32Array(n), shape: [n] }], { kind: number, parameter, scale: 0.5 });
        const same = new Float32Array(n);
        device.decompress(want, same, { scale: 0.5 });
        expect(hex(out as Float32Array)).toBe(hex(same));
      }
    }
    const make = (attrs: Record<string, number>, size: number) => () =>
      runOp(best, "compress", [{ data: x, shape: [n] }], [{ data: new Uint8Array(size), shape: [size] }], attrs);
    expect(make({ kind: 2, parameter: 100 }, 16 + 4 * 50 + n)).toThrow(/multiple of 64/);
    expect(make({ kind: 1, parameter: n + 1 }, 16 + 8 * (n + 1))).toThrow(/parameter must be an integer/);
    expect(make({ kind: 4, parameter: 64 }, 16)).toThrow(/kind must be an integer/);
    expect(make({ kind: 3, parameter: 64 }, 15)).toThrow(/elements/);
    expect(make({ kind: 3, parameter: 64, stochastic: 1 }, 16 + 4 * 79 + 625)).toThrow(/only int8/);
  });
});
