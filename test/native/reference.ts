// Owns: plain references in double precision, and helpers that run one operation through a plan.
import type { Device, PlanOp, PlanTensor, TensorArray } from "../../src/device/device.js";

export function seeded(seed: number): () => number {
  let s = seed >>> 0 || 1;
  return () => {
    s ^= s << 13; s >>>= 0;
    s ^= s >>> 17;
    s ^= s << 5; s >>>= 0;
    return s / 4294967296;
  };
}

export function randomFloats(n: number, random: () => number, span = 1): Float32Array {
  return Float32Array.from({ length: n }, () => (random() * 2 - 1) * span);
}

export type Operand = { data: TensorArray; shape: number[] };
const dtypeOf = (a: TensorArray): PlanTensor["dtype"] => a instanceof Float32Array ? "f32" : a instanceof Int32Array ? "i32" : "u8";

/** Runs one operation; `inPlace` maps an output to the input whose memory it shares. */
export function runOp(device: Device, op: PlanOp["op"], inputs: Operand[], outputs: Operand[], attrs: Record<string, number> = {}, inPlace: Record<number, number> = {}): TensorArray[] {
  const tensors: PlanTensor[] = [];
  let offset = 0;
  const add = (name: string, o: Operand) => {
    tensors.push({ name, dtype: dtypeOf(o.data), shape: o.shape, offsetBytes: offset });
    offset += Math.ceil(o.data.byteLength / 64) * 64;
    return tensors.length - 1;
  };
  const ins = inputs.map((o, i) => add(`in${i}`, o));
  const outs = outputs.map((o, i) => {
    const shared = inPlace[i];
    return shared === undefined ? add(`out${i}`, o) : ins[shared]!;
  });
  const plan = device.createPlan({ tensors, arenaBytes: offset, ops: [{ op, in: ins, out: outs, attrs }] });
  // Garbage first: an operation must not count on zeroed outputs.
  outs.forEach((id, i) => { if (!ins.includes(id)) { outputs[i]!.data.fill(77); plan.write(id, outputs[i]!.data); } });
  ins.forEach((id, i) => plan.write(id, inputs[i]!.data));
  plan.runSync();
  outs.forEach((id, i) => plan.read(id, outputs[i]!.data));
  plan.close();
  return outputs.map((o) => o.data);
}

export const f32 = (n: number): Float32Array => new Float32Array(n);
export const bits = (a: TensorArray): Buffer => Buffer.from(a.buffer, a.byteOffset, a.byteLength);

/** Largest difference relative to the magnitudes that were summed. */
export function worst(got: Float32Array, want: Float64Array, scale: Float64Array): number {
  let w = 0;
  for (let i = 0; i < got.length; i++) {
    const d = Math.abs(got[i]! - want[i]!) / Math.max(scale[i]!, 1e-6);
    if (!(d <= w)) w = d;
  }
  return w;
}

export function gemmReference(a: Float32Array, b: Float32Array, m: number, n: number, k: number, ta: boolean, tb: boolean, bias?: Float32Array, relu = false) {
  const want = new Float64Array(m * n), scale = new Float64Array(m * n);
  for (let i = 0; i < m; i++) for (let j = 0; j < n; j++) {
    let s = 0, t = 0;
    for (let l = 0; l < k; l++) {
      const p = (ta ? a[l * m + i]! : a[i * k + l]!) * (tb ? b[j * k + l]! : b[l * n + j]!);
      s += p; t += Math.abs(p);
    }
    if (bias) { s += bias[j]!; t += Math.abs(bias[j]!); }
    want[i * n + j] = relu ? Math.max(0, s) : s;
    scale[i * n + j] = t;
  }
  return { want, scale };
}

export interface Conv { n: number; h: number; w: number; c: number; kh: number; kw: number; oc: number; sh: number; sw: number; ph: number; pw: number }
export const outputSize = (g: Conv) => ({ oh: Math.floor((g.h + 2 * g.ph - g.kh) / g.sh) + 1, ow: Math.floor((g.w + 2 * g.pw - g.kw) / g.sw) + 1 });

/** Visits every multiply-add of a convolution: indices into x, w and y. */
export function convVisit(g: Conv, visit: (x: number, w: number, y: number) => void): void {
  const { oh, ow } = outputSize(g);
  for (let n = 0; n < g.n; n++) for (let i = 0; i < oh; i++) for (let j = 0; j < ow; j++)
    for (let p = 0; p < g.kh; p++) for (let q = 0; q < g.kw; q++) {
      const y = i * g.sh + p - g.ph, z = j * g.sw + q - g.pw;
      if (y < 0 || z < 0 || y >= g.h || z >= g.w) continue;
      for (let c = 0; c < g.c; c++) for (let o = 0; o < g.oc; o++)
        visit(((n * g.h + y) * g.w + z) * g.c + c, ((p * g.kw + q) * g.c + c) * g.oc + o, ((n * oh + i) * ow + j) * g.oc + o);
    }
}
