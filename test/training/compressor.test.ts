/** A worker's compressor and the store that decodes: what is left out comes later, what was refused is not counted, hostile bytes are refused. */
import { afterAll, describe, expect, it } from "vitest";
import { openDevice } from "../../src/device/device.js";
import { PhiloxStream } from "../../src/training/graph/philox.js";
import { sgd } from "../../src/training/optimizer/optim.js";
import { checkRules, type Compression } from "../../src/training/optimizer/rules.js";
import { GradientCompressor } from "../../src/training/parameter-server/compressor.js";
import { createUpdateKernels } from "../../src/training/parameter-server/device-kernels.js";
import { ParameterStore, type Push } from "../../src/training/parameter-server/parameter-store.js";

const device = openDevice({ backend: "cpu" });
afterAll(() => device.close());
const kernels = createUpdateKernels(device);
const LENGTH = 1000;
const KINDS: Compression[] = [{ kind: "fp16" }, { kind: "int8" }, { kind: "topk", ratio: 0.05 }, { kind: "sign" }];
const stream = new PhiloxStream(4n, 0);
const gradient = (): Float32Array => Float32Array.from({ length: LENGTH }, () => stream.uniform() - 0.5);
const decoded = async (message: Awaited<ReturnType<GradientCompressor["compress"]>>): Promise<Float32Array> => {
  const out = new Float32Array(LENGTH);
  await kernels.decode(message, out);
  return out;
};
const create = (compression: Compression): ParameterStore => {
  const store = new ParameterStore({ parameters: new Float32Array(LENGTH), optimizer: sgd({ learningRate: 1 }).descriptor, rules: checkRules({ compression }) }, { kernels });
  store.admit("w");
  return store;
};

describe("compressed gradients", () => {
  it.each(KINDS)("what has been sent and the residual make up all gradients: $kind", async (compression) => {
    const compressor = new GradientCompressor(compression, LENGTH, device);
    const total = new Float64Array(LENGTH), arrived = new Float64Array(LENGTH);
    for (let i = 0; i < 8; i++) {
      const g = gradient();
      if (i === 5) { // refused by the server: it leaves no trace
        await compressor.compress(gradient());
        compressor.dropped();
      }
      const message = await compressor.compress(g);
      await expect(compressor.compress(g)).rejects.toMatchObject({ code: "busy" });
      (await decoded(message)).forEach((value, j) => { arrived[j]! += value; });
      g.forEach((value, j) => { total[j]! += value; });
      compressor.sent();
    }
    const residual = compressor.save();
    expect(residual.length).toBe(compression.kind === "fp16" ? 0 : LENGTH);
    const most = compression.kind === "fp16" ? 8 * 2 ** -12 : 1e-4; // half a place of 0.5 each; float32 sums
    total.forEach((value, j) => expect(Math.abs(value - arrived[j]! - (residual[j] ?? 0))).toBeLessThan(most));
    // a compressor that takes the residual up goes on with the same bytes
    const other = new GradientCompressor(compression, LENGTH, device), next = gradient();
    other.restore(residual);
    expect(await other.compress(next)).toEqual(await compressor.compress(next));
    expect(() => other.restore(new Float32Array(3))).toThrow(/residual/);
  });

  it.each(KINDS)("are applied as their decoded values: $kind", async (compression) => {
    const store = create(compression);
    const message = await new GradientCompressor(compression, LENGTH, device).compress(gradient());
    const want = (await decoded(message)).map((value) => 0 - value);
    const hash = device.blake3(message.bytes);
    const result = await store.push({ worker: "w", epoch: 1, sequence: 0, baseVersion: 0, gradient: message, hash });
    expect(result).toMatchObject({ status: "applied" });
    expect(store.pull().parameters).toEqual(want);
  });

  it("hostile messages are refused, each for its fault, and change nothing", async () => {
    const store = create({ kind: "topk", ratio: 0.01 });
    const message = await new GradientCompressor({ kind: "topk", ratio: 0.01 }, LENGTH, device).compress(gradient());
    const reason = async (fields: Partial<Push>): Promise<string> => {
      const result = await store.push({ worker: "w", epoch: 1, sequence: 0, baseVersion: 0, gradient: message, ...fields });
      return result.status === "rejected" ? result.reason : result.status;
    };
    const changed = (change: (view: DataView) => void): Push["gradient"] => {
      const bytes = message.bytes.slice();
      change(new DataView(bytes.buffer));
      return { ...message, bytes };
    };
    expect(await reason({ gradient: { ...message, kind: "int8" } })).toBe("encoding");
    expect(await reason({ gradient: { ...message, length: LENGTH + 1 } })).toBe("length");
    expect(await reason({ gradient: { ...message, bytes: message.bytes.subarray(1) } })).toBe("encoding");
    expect(await reason({ gradient: { ...message, bytes: "no" as never } })).toBe("encoding");
    expect(await reason({ gradient: {} as never })).toBe("length");
    expect(await reason({ gradient: changed((v) => v.setUint32(16, 0xffffffff, true)) })).toBe("encoding"); // index
    expect(await reason({ gradient: changed((v) => v.setUint32(4, 0x7fffffff, true)) })).toBe("encoding"); // entries
    expect(await reason({ gradient: changed((v) => v.setFloat32(v.byteLength - 4, NaN, true)) })).toBe("not-finite");
    expect(await reason({ gradient: changed((v) => v.setFloat32(v.byteLength - 4, 1e20, true)) })).toBe("too-large");
    expect(await reason({ hash: new Uint8Array(32) })).toBe("hash");
    expect(store.version).toBe(0);
    expect(await reason({})).toBe("applied");
    const scaled = create({ kind: "int8" });
    const int8 = await new GradientCompressor({ kind: "int8" }, LENGTH, device).compress(gradient());
    new DataView(int8.bytes.buffer, int8.bytes.byteOffset).setFloat32(16, NaN, true);
    expect(await scaled.push({ worker: "w", epoch: 1, sequence: 0, baseVersion: 0, gradient: int8 })).toMatchObject({ reason: "not-finite" });
  });
});
