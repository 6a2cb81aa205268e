/**
 * A plan interpreter in plain TypeScript: the independent oracle for the compiler and for the
 * native back ends. It computes in doubles and rounds stored values to float32.
 * Invariant: it shares no code with src/; shapes are checked op by op.
 */
import type { PlanSpec } from "../../src/device/device.js";

type Values = Float64Array;
interface View { shape: number[]; dtype: "f32" | "i32" | "u8"; data: Float32Array | Int32Array | Uint8Array }

const product = (shape: number[]): number => shape.reduce((a, b) => a * b, 1);
const equal = (a: number[], b: number[], what: string): void => {
  if (a.length !== b.length || a.some((size, i) => size !== b[i])) throw new Error(`${what}: ${a} is not ${b}`);
};

export class PlanInterpreter {
  private readonly arena: ArrayBuffer;
  private readonly views: View[];

  constructor(private readonly spec: PlanSpec) {
    this.arena = new ArrayBuffer(spec.arenaBytes);
    this.views = spec.tensors.map(({ shape, dtype, offsetBytes }) => {
      if (offsetBytes % 64 !== 0) throw new Error(`offset ${offsetBytes} is not aligned`);
      const Type = dtype === "f32" ? Float32Array : dtype === "i32" ? Int32Array : Uint8Array;
      return { shape, dtype, data: new Type(this.arena, offsetBytes, product(shape)) };
    });
  }

  get multiplyAdds(): number { return 0; }
  write(tensor: number, data: ArrayLike<number>): void { this.views[tensor]!.data.set(data); }
  read(tensor: number, out: { set(data: ArrayLike<number>): void }): void { out.set(this.views[tensor]!.data); }
  view(tensor: number): Float32Array | Int32Array | Uint8Array { return this.views[tensor]!.data; }
  async run(): Promise<void> { this.runSync(); }
  close(): void {}

  runSync(): void {
    for (const step of this.spec.ops) {
      const run = (this as unknown as Record<string, (i: View[], o: View[], a: Record<string, number>) => void>)[step.op];
      if (run === undefined) throw new Error(`no op ${step.op}`);
      run.call(this, step.in.map((i) => this.views[i]!), step.out.map((i) => this.views[i]!), step.attrs ?? {});
    }
  }

  gemm([a, b, ...more]: View[], [c, saved]: View[], attrs: Record<string, number>): void {
    const residual = attrs.residual ? more.pop() : undefined, before = attrs.gradient ? more.pop() : undefined, bias = more.pop();
    if (attrs.gelu || attrs.geluTanh || attrs.silu) throw new Error("gemm: only relu is interpreted");
    for (const each of [residual, before, saved]) if (each) equal(each.shape, c!.shape, "gemm");
    const [m, k] = attrs.transA ? [a!.shape[1]!, a!.shape[0]!] : [a!.shape[0]!, a!.shape[1]!];
    const [k2, n] = attrs.transB ? [b!.shape[1]!, b!.shape[0]!] : [b!.shape[0]!, b!.shape[1]!];
    if (k !== k2) throw new Error(`gemm: ${k} is not ${k2}`);
    equal(c!.shape, [m, n], "gemm");
    const out: Values = new Float64Array(m * n);
    for (let i = 0; i < m; i++) for (let j = 0; j < n; j++) {
      let sum = attrs.accumulate ? c!.data[i * n + j]! : 0;
      for (let p = 0; p < k; p++) {
        sum += a!.data[attrs.transA ? p * m + i : i * k + p]! * b!.data[attrs.transB ? j * k + p : p * n + j]!;
      }
      if (bias) sum += bias.data[j]!;
      const at = i * n + j;
      if (saved) saved.data[at] = sum;
      if (attrs.relu) sum = before ? (before.data[at]! > 0 ? sum : 0) : Math.max(0, sum);
      out[at] = residual ? sum + residual.data[at]! : sum;
    }
    c!.data.set(out);
  }

  bias_grad([dy]: View[], [db]: View[]): void {
    const [m, n] = dy!.shape as [number, number];
    equal(db!.shape, [n], "bias_grad");
    for (let j = 0; j < n; j++) {
      let sum = 0;
      for (let i = 0; i < m; i++) sum += dy!.data[i * n + j]!;
      db!.data[j] = sum;
    }
  }

  bias_add([x, bias]: View[], [y]: View[]): void {
    equal(y!.shape, x!.shape, "bias_add");
    equal(bias!.shape, x!.shape.slice(-bias!.shape.length), "bias_add");
    for (let i = 0; i < y!.data.length; i++) y!.data[i] = x!.data[i]! + bias!.data[i % bias!.data.length]!;
  }

  relu([x]: View[], [y]: View[]): void {
    equal(x!.shape, y!.shape, "relu");
    x!.data.forEach((value, i) => { y!.data[i] = Math.max(0, value); });
  }

  relu_grad([dy, y]: View[], [dx]: View[]): void {
    equal(dy!.shape, y!.shape, "relu_grad");
    equal(dy!.shape, dx!.shape, "relu_grad");
    for (let i = 0; i < dy!.data.length; i++) dx!.data[i] = y!.data[i]! > 0 ? dy!.data[i]! : 0;
  }

  /** Visits every (output, input, weight) triple that one convolution multiplies. */
  private convolve(x: number[], w: number[], y: number[], attrs: Record<string, number>,
    visit: (y: number, x: number, w: number) => void): void {
    const [n, h, wd, c] = x as [number, number, number, number];
    const [kh, kw, c2, oc] = w as [number, number, number, number];
    const oh = Math.floor((h + 2 * attrs.padH! - kh) / attrs.strideH!) + 1;
    const ow = Math.floor((wd + 2 * attrs.padW! - kw) / attrs.strideW!) + 1;
    if (c !== c2) throw new Error("conv2d: channels");
    equal(y, [n, oh, ow, oc], "conv2d");
    for (let b = 0; b < n; b++) for (let i = 0; i < oh; i++) for (let j = 0; j < ow; j++) {
      for (let di = 0; di < kh; di++) for (let dj = 0; dj < kw; dj++) {
        const r = i * attrs.strideH! + di - attrs.padH!, s = j * attrs.strideW! + dj - attrs.padW!;
        if (r < 0 || s < 0 || r >= h || s >= wd) continue;
        for (let p = 0; p < c; p++) for (let o = 0; o < oc; o++) {
          visit(((b * oh + i) * ow + j) * oc + o, ((b * h + r) * wd + s) * c + p, ((di * kw + dj) * c + p) * oc + o);
        }
      }
    }
  }

  conv2d([x, w, bias]: View[], [y]: View[], attrs: Record<string, number>): void {
    const out: Values = new Float64Array(y!.data.length);
    if (bias) out.forEach((_, i) => { out[i] = bias.data[i % bias.data.length]!; });
    this.convolve(x!.shape, w!.shape, y!.shape, attrs, (i, j, k) => { out[i]! += x!.data[j]! * w!.data[k]!; });
    y!.data.set(attrs.relu ? out.map((value) => Math.max(0, value)) : out);
  }

  conv2d_dx([dy, w]: View[], [dx]: View[], attrs: Record<string, number>): void {
    const out: Values = new Float64Array(dx!.data.length);
    this.convolve(dx!.shape, w!.shape, dy!.shape, attrs, (i, j, k) => { out[j]! += dy!.data[i]! * w!.data[k]!; });
    dx!.data.set(out);
  }

  conv2d_dw([x, dy]: View[], [dw]: View[], attrs: Record<string, number>): void {
    const out: Values = new Float64Array(dw!.data.length);
    this.convolve(x!.shape, dw!.shape, dy!.shape, attrs, (i, j, k) => { out[k]! += dy!.data[i]! * x!.data[j]!; });
    dw!.data.set(out);
  }

  private pool(x: number[], y: number[], { kernel, stride }: Record<string, number>,
    visit: (y: number, x: number) => void): void {
    const [n, h, w, c] = x as [number, number, number, number];
    const oh = Math.floor((h - kernel!) / stride!) + 1, ow = Math.floor((w - kernel!) / stride!) + 1;
    equal(y, [n, oh, ow, c], "pool");
    for (let b = 0; b < n; b++) for (let i = 0; i < oh; i++) for (let j = 0; j < ow; j++) for (let p = 0; p < c; p++) {
      for (let di = 0; di < kernel!; di++) for (let dj = 0; dj < kernel!; dj++) {
        visit(((b * oh + i) * ow + j) * c + p, ((b * h + i * stride! + di) * w + j * stride! + dj) * c + p);
      }
    }
  }

  maxpool([x]: View[], [y, index]: View[], attrs: Record<string, number>): void {
    y!.data.fill(-Infinity);
    this.pool(x!.shape, y!.shape, attrs, (i, j) => {
      if (x!.data[j]! > y!.data[i]!) { y!.data[i] = x!.data[j]!; index!.data[i] = j; }
    });
  }

  maxpool_grad([dy, index]: View[], [dx]: View[]): void {
    dx!.data.fill(0);
    for (let i = 0; i < dy!.data.length; i++) dx!.data[index!.data[i]!]! += dy!.data[i]!;
  }

  avgpool([x]: View[], [y]: View[], attrs: Record<string, number>): void {
    const out: Values = new Float64Array(y!.data.length);
    this.pool(x!.shape, y!.shape, attrs, (i, j) => { out[i]! += x!.data[j]! / (attrs.kernel! * attrs.kernel!); });
    y!.data.set(out);
  }

  avgpool_grad([dy]: View[], [dx]: View[], attrs: Record<string, number>): void {
    const out: Values = new Float64Array(dx!.data.length);
    this.pool(dx!.shape, dy!.shape, attrs, (i, j) => { out[j]! += dy!.data[i]! / (attrs.kernel! * attrs.kernel!); });
    dx!.data.set(out);
  }

  softmax_xent([logits, labels]: View[], [loss, dlogits]: View[]): void {
    const [n, c] = logits!.shape as [number, number];
    let total = 0;
    for (let i = 0; i < n; i++) {
      const row = Array.from(logits!.data.subarray(i * c, (i + 1) * c));
      const max = Math.max(...row);
      const sum = row.reduce((s, value) => s + Math.exp(value - max), 0);
      const label = labels!.data[i]!;
      total += Math.log(sum) + max - row[label]!;
      row.forEach((value, j) => {
        dlogits!.data[i * c + j] = (Math.exp(value - max) / sum - (j === label ? 1 : 0)) / n;
      });
    }
    loss!.data[0] = total / n;
  }

  count_correct([logits, labels]: View[], [count]: View[]): void {
    const [n, c] = logits!.shape as [number, number];
    let correct = 0;
    for (let i = 0; i < n; i++) {
      const row = Array.from(logits!.data.subarray(i * c, (i + 1) * c));
      if (row.indexOf(Math.max(...row)) === labels!.data[i]) correct++;
    }
    count!.data[0] = correct;
  }

  add([x, y]: View[], [z]: View[]): void {
    equal(x!.shape, y!.shape, "add");
    for (let i = 0; i < z!.data.length; i++) z!.data[i] = x!.data[i]! + y!.data[i]!;
  }

  scale([x]: View[], [y]: View[], attrs: Record<string, number>): void {
    if (x!.data.length !== y!.data.length) throw new Error("scale: lengths differ");
    for (let i = 0; i < y!.data.length; i++) y!.data[i] = attrs.alpha! * x!.data[i]! + attrs.beta!;
  }

  u8_to_f32([x]: View[], [y]: View[], attrs: Record<string, number>): void {
    for (let i = 0; i < y!.data.length; i++) y!.data[i] = x!.data[i]! * attrs.scale! + attrs.shift!;
  }

  sgd([p, g]: View[], _: View[], { learningRate }: Record<string, number>): void {
    for (let i = 0; i < p!.data.length; i++) p!.data[i]! -= learningRate! * g!.data[i]!;
  }

  momentum([p, g, m]: View[], _: View[], attrs: Record<string, number>): void {
    for (let i = 0; i < p!.data.length; i++) {
      m!.data[i] = attrs.momentum! * m!.data[i]! + g!.data[i]!;
      p!.data[i]! -= attrs.learningRate! * m!.data[i]!;
    }
  }

  adam([p, g, m, v, step]: View[], _: View[], attrs: Record<string, number>): void {
    step!.data[0]! += 1;
    const { beta1, beta2, learningRate, epsilon } = attrs as Record<string, number>;
    const c1 = 1 - beta1! ** step!.data[0]!, c2 = 1 - beta2! ** step!.data[0]!;
    for (let i = 0; i < p!.data.length; i++) {
      m!.data[i] = beta1! * m!.data[i]! + (1 - beta1!) * g!.data[i]!;
      v!.data[i] = beta2! * v!.data[i]! + (1 - beta2!) * g!.data[i]! ** 2;
      p!.data[i]! -= (learningRate! * (m!.data[i]! / c1)) / (Math.sqrt(v!.data[i]! / c2) + epsilon!);
    }
  }
}
