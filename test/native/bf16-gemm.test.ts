// The bf16 product: operands rounded by the definition of native/kernels/bf16.h, fp32 sums within the bound of gemm.h,
// in all layouts and on every instruction set; NaN, infinity, ties and denormals by their rules.
import { afterAll, describe, expect, test } from "vitest";
import { openDevice, type Device } from "../../src/device/device.js";
import { compileStep } from "../../src/training/compile/compile.js";
import { mlp } from "../../src/training/models.js";
import { bits, f32, gemmReference, randomFloats, runOp, seeded } from "./reference.js";

const devices: { name: string; device: Device }[] = [];
for (const isa of ["scalar", "avx2", "avx512", "amx"] as const) {
  try { devices.push({ name: isa, device: openDevice({ backend: "cpu", isa, threads: 2 }) }); }
  catch { /* this processor lacks the instruction set */ }
}
afterAll(() => { for (const d of devices) d.device.close(); });
const random = seeded(16);
const below = (n: number) => Math.floor(random() * n);

/** The nearest bf16, ties to even, in integers. */
function rounded(x: Float32Array): Float32Array {
  const words = new Uint32Array(x.buffer.slice(x.byteOffset, x.byteOffset + x.byteLength));
  words.forEach((w, i) => {
    if (Number.isNaN(x[i]!)) return;
    const rest = w & 0xffff, odd = w >>> 16 & 1;
    const up = rest > 0x8000 || (rest === 0x8000 && odd === 1);
    words[i] = ((w >>> 16) + Number(up)) * 65536;
  });
  return new Float32Array(words.buffer);
}

function run(device: Device, a: Float32Array, b: Float32Array, [m, n, k]: number[], attrs: Record<string, number>, bias?: Float32Array) {
  const inputs = [{ data: a, shape: attrs.transA ? [k!, m!] : [m!, k!] }, { data: b, shape: attrs.transB ? [n!, k!] : [k!, n!] }];
  if (bias) inputs.push({ data: bias, shape: [n!] });
  return runOp(device, "gemm", inputs, [{ data: f32(m! * n!), shape: [m!, n!] }], { ...attrs, bf16: 1 })[0] as Float32Array;
}

describe("bf16 product", () => {
  const shapes = [[1, 1, 1], [0, 3, 4], [3, 0, 4], [3, 4, 0], [7, 31, 63], [64, 96, 1030], [400, 17, 33]];
  for (let i = 0; i < 6; i++) shapes.push([1 + below(60), 1 + below(90), 1 + below(700)]);
  test.each(shapes)("%d x %d x %d: within fp32's bound of the exact product of rounded operands", (m, n, k) => {
    for (const [transA, transB] of [[0, 0], [0, 1], [1, 0], [1, 1]] as const) {
      const a = randomFloats(m! * k!, random), b = randomFloats(k! * n!, random), bias = randomFloats(n!, random);
      const { want, scale } = gemmReference(rounded(a), rounded(b), m!, n!, k!, transA === 1, transB === 1, bias, true);
      const all = devices.map(({ device }) => run(device, a, b, [m!, n!, k!], { transA, transB, relu: 1 }, k === 0 ? undefined : bias));
      if (k !== 0) all[0]!.forEach((v, i) => expect(Math.abs(v - want[i]!)).toBeLessThanOrEqual((k! + 2) * 2 ** -23 * scale[i]!));
      else expect(all[0]!.every((v) => v === 0)).toBe(true);
      // Among CPUs the bits are the same: the sums are gemm's own chain.
      all.forEach((got, i) => expect(bits(got).equals(bits(all[0]!)), devices[i]!.name).toBe(true));
    }
  });

  test("ties go to even, the largest number to infinity, denormals and zeros keep their sign, NaN stays", () => {
    const word = new Uint32Array([0x3f808000, 0x3f818000, 0xbf808001, 0x7f7fffff, 0x00018000, 0x80000001, 0x80000000, 0x7f800001, 0xff800000]);
    const a = new Float32Array(word.buffer), one = Float32Array.of(1);
    const want = rounded(a);
    expect([...new Uint32Array(want.buffer)].slice(0, 4)).toEqual([0x3f800000, 0x3f820000, 0xbf810000, 0x7f800000]);
    for (const { name, device } of devices) {
      const got = run(device, a, one, [a.length, 1, 1], {});
      for (let i = 0; i < a.length; i++) {
        // fma(x, 1, +0) turns -0 into +0.
        expect(Object.is(got[i], want[i]! + 0) || (Number.isNaN(got[i]) && i === 7), `${name} ${i}: ${got[i]}`).toBe(true);
      }
    }
  });

  test("sgemm takes it as an option; slices and bf16 exclude each other", () => {
    const { device } = devices.at(-1)!;
    const a = randomFloats(6 * 40, random), b = randomFloats(40 * 5, random);
    const want = run(device, a, b, [6, 5, 40], {});
    expect(bits(device.sgemm(a, b, { m: 6, n: 5, k: 40 }, { bf16: true })).equals(bits(want))).toBe(true);
    expect(bits(device.sgemm(a, b, { m: 6, n: 5, k: 40 })).equals(bits(want))).toBe(false);
    expect(() => run(device, f32(1), f32(1), [1, 1, 1], { slices: 2 })).toThrow(/exclude each other/);
  });

  test("a plan of this precision takes its products in bf16, forward and backward", () => {
    const net = mlp();
    const products = (precision?: "f32" | "bf16") =>
      compileStep(net.graph, { loss: net.loss, batchSize: 4, ...(precision && { precision }) }).spec.ops.filter(({ op }) => op === "gemm");
    expect(products().some(({ attrs }) => attrs?.bf16)).toBe(false);
    expect(products("bf16")).toHaveLength(products().length);
    expect(products("bf16").every(({ attrs }) => attrs?.bf16 === 1)).toBe(true);
    expect(() => products("fp8" as "bf16")).toThrow(/f32 or bf16/);
  });
});
