// Whatever is passed, the addon answers with a typed error: no crash, no half-written state.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { DeviceError, openDevice, probe, type Device, type PlanSpec } from "../../src/device/device.js";
import { explainLoadFailure } from "../../src/device/load-addon.js";

let device: Device;
beforeAll(() => { device = openDevice({ backend: "cpu" }); });
afterAll(() => device.close());

function codeOf(action: () => unknown): string {
  try { action(); } catch (error) {
    if (!(error instanceof DeviceError)) throw error;
    expect(error.message.length).toBeGreaterThan(10);
    return error.code;
  }
  throw new Error("nothing was thrown");
}

const f = (n: number) => new Float32Array(n);
// Every type check of TypeScript is waived on purpose here.
const any = (x: unknown) => x as never;

describe("arguments", () => {
  const junk: unknown[] = [undefined, null, 1, -1, NaN, "x", Symbol("s"), 1n, {}, [], () => 1, new Proxy({}, { get() { throw new Error("trap"); } }), new Date(), new ArrayBuffer(8), new DataView(new ArrayBuffer(8)), new Float64Array(4), new BigInt64Array(4), new Uint8ClampedArray(4)];

  test("junk in every position of every method", () => {
    const good: Record<string, unknown[]> = {
      sgd: [f(4), f(4), { learningRate: 1 }],
      momentum: [f(4), f(4), f(4), { learningRate: 1, momentum: 0.9 }],
      adam: [f(4), f(4), f(4), f(4), { learningRate: 1, beta1: 0.9, beta2: 0.9, epsilon: 1, step: 1 }],
      delayCompensate: [f(4), f(4), f(4), 1],
      isFinite: [f(4)],
      blake3: [new Uint8Array(4), new Uint8Array(32)],
      compress: ["topk", f(4), { entries: 2, residual: f(4) }],
      decompress: [device.compress("int8", f(4)), f(4), { scale: 2 }],
      crmScan: [new Int8Array(64 * 128), new Int8Array(64 * 128), { m: 64, n: 64, k: 128 }, new Uint8Array(32), new Uint8Array(32)],
      cn2Hash: [new Uint8Array(4)],
      crmTile: [new Int8Array(8 * 128), new Int8Array(16 * 128), 128],
      int8Gemm: [new Int8Array(4), new Int8Array(4), { m: 2, n: 2, k: 2 }],
      sgemm: [f(4), f(4), { m: 2, n: 2, k: 2 }, { bias: f(2) }],
      createPlan: [{ tensors: [], arenaBytes: 0, ops: [] }],
    };
    for (const [method, args] of Object.entries(good)) {
      const call = (list: unknown[]) => (device as unknown as Record<string, (...a: unknown[]) => unknown>)[method]!(...list);
      call(args);
      for (let i = 0; i < args.length; i++)
        for (const bad of junk) {
          const list = args.slice();
          list[i] = bad;
          try { call(list); } catch (error) {
            // TypeScript-side dereferences may throw plain errors; the addon throws typed ones.
            if (!(error instanceof Error)) throw error;
          }
        }
    }
  });

  test("lengths, overlaps and ranges", () => {
    expect(codeOf(() => device.sgd(f(4), f(5), { learningRate: 1 }))).toBe("shape");
    const shared = f(8);
    expect(codeOf(() => device.sgd(shared.subarray(0, 5), shared.subarray(3, 8), { learningRate: 1 }))).toBe("argument");
    expect(codeOf(() => device.sgd(f(4), f(4), { learningRate: Infinity }))).toBe("argument");
    expect(codeOf(() => device.adam(f(4), f(4), f(4), f(4), { learningRate: 1, beta1: 1, beta2: 0.9, epsilon: 1, step: 1 }))).toBe("argument");
    for (const step of [0, -1, 1.5, 2 ** 32]) expect(codeOf(() => device.adam(f(4), f(4), f(4), f(4), { learningRate: 1, beta1: 0.9, beta2: 0.9, epsilon: 1, step }))).toBe("argument");
    expect(codeOf(() => device.blake3(new Uint8Array(1), new Uint8Array(31)))).toBe("shape");
    for (const [m, n, k] of [[64, 64, 127], [64, 64, 65664], [63, 64, 128], [64, 0, 128], [2 ** 29, 2 ** 29, 128]])
      expect(["shape", "argument"]).toContain(codeOf(() => device.crmScan(new Int8Array(64 * 128), new Int8Array(64 * 128), { m: m!, n: n!, k: k! }, new Uint8Array(32), new Uint8Array(32))));
    expect(codeOf(() => device.crmTile(new Int8Array(8 * 100), new Int8Array(16 * 100), 100))).toBe("shape");
    expect(codeOf(() => device.int8Gemm(new Int8Array(4), new Int8Array(4), { m: 2 ** 30, n: 2 ** 30, k: 0 }))).toBe("shape");
    expect(codeOf(() => device.sgemm(f(0), f(0), { m: 2 ** 30, n: 2 ** 30, k: 0 }))).toBe("shape");
    expect(codeOf(() => device.sgemm(f(4), f(4), { m: -2, n: 2, k: 2 }))).toBe("argument");
  });

  test("detached buffers read as empty", () => {
    const p = f(4);
    structuredClone(p.buffer, { transfer: [p.buffer as ArrayBuffer] });
    expect(codeOf(() => device.sgd(f(4), p, { learningRate: 1 }))).toBe("shape");
    expect(device.isFinite(p)).toBe(true);
  });

  test("a getter that detaches a vector is found out before the vector is touched", async () => {
    const hostile = (p: Float32Array<ArrayBuffer>) => ({ get learningRate() { structuredClone(p.buffer, { transfer: [p.buffer] }); return 1; } });
    const [p, q] = [f(65536), f(65536)];
    expect(codeOf(() => device.sgd(p, f(65536), hostile(p)))).toBe("shape");
    await expect(device.applyAsync("sgd", [q, f(65536)], hostile(q))).rejects.toMatchObject({ code: "shape" });
    const list: Float32Array[] = [f(4), f(4)];
    let reads = 0;
    Object.defineProperty(list, 1, { get: () => (reads++ === 0 ? f(4) : 7) });
    await device.applyAsync("sgd", list, { learningRate: 1 });
    expect(reads).toBe(1);
  });

  test("options of openDevice", () => {
    expect(codeOf(() => openDevice(any({ backend: "tpu" })))).toBe("argument");
    expect(codeOf(() => openDevice(any({ backend: "cpu", threads: -1 })))).toBe("argument");
    expect(codeOf(() => openDevice(any({ backend: "cpu", isa: "sse9" })))).toBe("argument");
  });
});

describe("plans", () => {
  const tensor = (name: string, shape: number[], offsetBytes: number, dtype: "f32" | "i32" | "u8" = "f32") => ({ name, dtype, shape, offsetBytes });
  const base = (): PlanSpec => ({ tensors: [tensor("a", [4, 4], 0), tensor("b", [4, 4], 64), tensor("c", [4, 4], 128)], arenaBytes: 192, ops: [{ op: "gemm", in: [0, 1], out: [2] }] });
  const broken = (change: (s: PlanSpec) => void) => { const s = base(); change(s); return codeOf(() => device.createPlan(s)); };

  test("bad specs are refused with their reason", () => {
    device.createPlan(base()).close();
    expect(broken((s) => { s.tensors[0]!.offsetBytes = 4; })).toBe("argument");
    expect(broken((s) => { s.tensors[2]!.offsetBytes = 192; })).toBe("shape");
    expect(broken((s) => { s.tensors[2]!.shape = [2 ** 31 - 1, 2 ** 31 - 1, 2 ** 31 - 1]; })).toBe("shape");
    expect(broken((s) => { s.tensors[2]!.shape = [-1, 4]; })).toBe("argument");
    expect(broken((s) => { s.tensors[2]!.shape = [1.5, 4]; })).toBe("argument");
    expect(broken((s) => { s.tensors[2]!.dtype = any("f64"); })).toBe("argument");
    expect(broken((s) => { s.arenaBytes = 2 ** 50; })).toBe("argument");
    expect(broken((s) => { s.ops[0]!.op = any("explode"); })).toBe("unsupported");
    expect(broken((s) => { s.ops[0]!.in = [0, 3]; })).toBe("argument");
    expect(broken((s) => { s.ops[0]!.in = [0]; })).toBe("argument");
    expect(broken((s) => { s.ops[0]!.out = [0]; })).toBe("argument");
    expect(broken((s) => { s.tensors[1]!.shape = [3, 4]; })).toBe("shape");
    expect(broken((s) => { s.tensors[2]!.dtype = "i32"; })).toBe("argument");
    expect(broken((s) => { s.ops[0]!.attrs = { transQ: 1 }; })).toBe("argument");
    expect(broken((s) => { s.ops[0]!.attrs = { relu: 2 }; })).toBe("argument");
    expect(broken((s) => { s.ops[0]!.attrs = { relu: NaN }; })).toBe("argument");
    expect(broken((s) => { s.ops = any("x"); })).toBe("argument");
    expect(broken((s) => { s.ops = [any(null)]; })).toBe("argument");
    const at = (() => { try { device.createPlan({ ...base(), ops: [base().ops[0]!, { op: "gemm", in: [0, 1], out: [1] }] }); } catch (e) { return e as DeviceError; } return undefined; })();
    expect(at).toMatchObject({ code: "argument", op: "gemm", opIndex: 1 });
  });

  test("window and kernel sizes cannot lead outside", () => {
    const conv = (shapes: number[][], attrs: Record<string, number>) => codeOf(() => device.createPlan({
      tensors: shapes.map((s, i) => tensor(`t${i}`, s, i * 65536)), arenaBytes: 65536 * 3, ops: [{ op: "conv2d", in: [0, 1], out: [2], attrs }],
    }));
    expect(conv([[1, 4, 4, 1], [5, 5, 1, 1], [1, 1, 1, 1]], {})).toBe("shape");
    expect(conv([[1, 4, 4, 1], [3, 3, 1, 1], [1, 6, 6, 1]], { padH: 3, padW: 3 })).toBe("shape");
    expect(conv([[1, 4, 4, 1], [3, 3, 2, 1], [1, 2, 2, 1]], {})).toBe("shape");
    expect(conv([[1, 4, 4, 1], [3, 3, 1, 1], [1, 2, 2, 1]], { strideH: 0 })).toBe("argument");
    expect(conv([[1, 4, 4, 1], [0, 3, 1, 1], [1, 2, 2, 1]], {})).toBe("shape");
    const pool = (kernel: number) => codeOf(() => device.createPlan({ tensors: [tensor("x", [1, 4, 4, 1], 0), tensor("y", [1, 2, 2, 1], 64), tensor("i", [1, 2, 2, 1], 128, "i32")], arenaBytes: 192, ops: [{ op: "maxpool", in: [0], out: [1, 2], attrs: { kernel, stride: 2 } }] }));
    expect(pool(5)).toBe("shape");
    expect(pool(0)).toBe("argument");
  });

  test("a hostile pooling index writes nothing outside", () => {
    const plan = device.createPlan({ tensors: [tensor("dy", [1, 1, 1, 4], 0), tensor("i", [1, 1, 1, 4], 64, "i32"), tensor("dx", [1, 2, 2, 4], 128)], arenaBytes: 192, ops: [{ op: "maxpool_grad", in: [0, 1], out: [2], attrs: { kernel: 2, stride: 2 } }] });
    plan.write(0, f(4).fill(1));
    plan.write(1, Int32Array.of(-1, 16, -2147483648, 2147483647));
    plan.runSync();
    const dx = f(16);
    plan.read(2, dx);
    expect(dx.every((v) => v === 0)).toBe(true);
    plan.close();
  });

  test("one run at a time; close in the middle; use after close", async () => {
    const n = 512;
    const plan = device.createPlan({ tensors: [tensor("a", [n, n], 0), tensor("b", [n, n], n * n * 4), tensor("c", [n, n], n * n * 8)], arenaBytes: n * n * 12, ops: Array.from({ length: 6 }, () => ({ op: "gemm" as const, in: [0, 1], out: [2] })) });
    expect(plan.multiplyAdds).toBe(6 * n ** 3);
    const view = plan.view(2)!;
    const first = plan.run();
    await expect(plan.run()).rejects.toMatchObject({ code: "busy" });
    expect(codeOf(() => plan.runSync())).toBe("busy");
    expect(codeOf(() => plan.read(0, f(n * n)))).toBe("busy");
    plan.close();
    await first;
    expect(codeOf(() => plan.read(0, f(n * n)))).toBe("closed");
    await expect(plan.run()).rejects.toMatchObject({ code: "closed" });
    expect(view[0]).toBe(0);
    expect(codeOf(() => plan.view(9))).toBe("argument");
  });

  test("closing a device settles what waits on it", async () => {
    const own = openDevice({ backend: "cpu", threads: 1 });
    const plan = own.createPlan({ tensors: [tensor("a", [256, 256], 0), tensor("b", [256, 256], 262144), tensor("c", [256, 256], 524288)], arenaBytes: 786432, ops: Array.from({ length: 20 }, () => ({ op: "gemm" as const, in: [0, 1], out: [2] })) });
    const running = plan.run();
    const waiting = own.applyAsync("sgd", [f(10), f(10)], { learningRate: 1 });
    own.close();
    const settled = await Promise.allSettled([running, waiting]);
    expect(settled.map((s) => s.status === "fulfilled" || s.reason.code === "unavailable")).toEqual([true, true]);
    expect(codeOf(() => own.isFinite(f(1)))).toBe("closed");
    expect(codeOf(() => plan.runSync())).toBe("closed");
    own.close();
  });

  test("views are the arena itself; reads and writes check type and length", () => {
    const plan = device.createPlan(base());
    const a = plan.view(0)!, b = plan.view(1)!;
    a.set([1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]);
    b.fill(3);
    plan.runSync();
    expect(plan.view(2)).toEqual(f(16).fill(3));
    expect(codeOf(() => plan.write(0, f(15)))).toBe("shape");
    expect(codeOf(() => plan.write(0, new Int32Array(16)))).toBe("argument");
    expect(codeOf(() => plan.write(7, f(16)))).toBe("argument");
    plan.close();
  });
});

describe("no leaks", () => {
  test("memory stays flat over thousands of plans, runs and async updates", async () => {
    const cycle = async () => {
      for (let i = 0; i < 150; i++) {
        const plan = device.createPlan({ tensors: [{ name: "x", dtype: "f32", shape: [65536], offsetBytes: 0 }], arenaBytes: 262144, ops: [{ op: "relu", in: [0], out: [0] }] });
        if (i % 3 === 0) plan.view(0);
        await plan.run();
        plan.close();
        await device.applyAsync("sgd", [f(1000), f(1000)], { learningRate: 0.1 });
        device.blake3(new Uint8Array(3000));
        try { device.createPlan(any({ tensors: [], arenaBytes: 1e6, ops: [{ op: "none" }] })); } catch { /* expected */ }
      }
      globalThis.gc?.();
    };
    await cycle();
    await cycle();
    const before = process.memoryUsage().rss;
    for (let i = 0; i < 8; i++) await cycle();
    // 1,200 plans of 256 KiB would be 300 MB if they leaked.
    expect(process.memoryUsage().rss - before).toBeLessThan(120e6);
  });
});

describe("loading", () => {
  test("the report of this machine", () => {
    const report = probe();
    expect(report.addon).toMatchObject({ loaded: true });
    expect(["scalar", "avx2", "avx512", "amx"]).toContain(report.isa);
    expect(report.threads).toBeGreaterThan(0);
    expect(report.cuda.available || report.cuda.reason.length > 10).toBe(true);
  });

  test.each([
    ["libfoo.so.3: cannot open shared object file: No such file or directory", /lacks libfoo\.so\.3/],
    ["/lib/libc.so.6: version `GLIBC_2.39' not found (required by x)", /GLIBC_2\.39/],
    ["x.node: invalid ELF header", /another system/],
    ["x.node: wrong ELF class: ELFCLASS32", /another processor/],
    ["was compiled against a different Node.js version using NODE_MODULE_VERSION 93", /another version of Node/],
    ["x.node: failed to map segment from shared object", /may not be read or executed/],
    ["something new", /something new/],
  ])("explains: %s", (message, pattern) => {
    const error = explainLoadFailure("/a/x.node", message);
    expect(error.message).toMatch(pattern);
    expect(error.hint.length).toBeGreaterThan(10);
  });
});
