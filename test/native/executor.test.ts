// The executor of each device: several plans on several devices at once give the bits that they give alone, and ten
// thousand calls leave memory as it was.
import { afterAll, describe, expect, test } from "vitest";
import { openDevice, type Device, type Plan } from "../../src/device/device.js";
import { bits, f32, randomFloats, seeded } from "./reference.js";

const devices: Device[] = [];
const open = (threads: number): Device => {
  const device = openDevice({ backend: "cpu", threads });
  devices.push(device);
  return device;
};
afterAll(() => { for (const d of devices) d.close(); });

const [m, n, k] = [70, 96, 600];

/** c = relu(a b), then c2 = c b2 in exact-int: two products that feed each other, in every way of threading. */
function productPlan(device: Device, seed: number): { plan: Plan; result(): Buffer } {
  const random = seeded(seed);
  const shapes = [[m, k], [k, n], [m, n], [n, n], [m, n]];
  let arenaBytes = 0;
  const tensors = shapes.map((shape, i) => {
    const tensor = { name: `t${i}`, dtype: "f32" as const, shape, offsetBytes: arenaBytes };
    arenaBytes += Math.ceil((shape[0]! * shape[1]! * 4) / 64) * 64;
    return tensor;
  });
  const plan = device.createPlan({ tensors, arenaBytes, ops: [
    { op: "gemm", in: [0, 1], out: [2], attrs: { relu: 1 } },
    { op: "gemm", in: [2, 3], out: [4], attrs: { slices: 2 } },
  ] });
  for (const i of [0, 1, 3]) plan.write(i, randomFloats(shapes[i]![0]! * shapes[i]![1]!, random));
  return { plan, result: () => { const out = f32(m * n); plan.read(4, out); return bits(out); } };
}

describe("executors", () => {
  test("siblings work on one arena, one at a time, and keep it when the first is closed", async () => {
    const device = open(1);
    const tensors = [0, 64].map((offsetBytes, i) => ({ name: `t${i}`, dtype: "f32" as const, shape: [4], offsetBytes }));
    const spec = { tensors, arenaBytes: 128 };
    const first = device.createPlan({ ...spec, ops: [{ op: "scale", in: [0], out: [1], attrs: { alpha: 2, beta: 0 } }] });
    const second = first.sibling({ ...spec, ops: [{ op: "scale", in: [1], out: [0], attrs: { alpha: 1, beta: 1 } }] });
    const value = (plan: Plan): number[] => { const out = f32(4); plan.read(0, out); return [...out]; };
    first.write(0, Float32Array.of(1, 2, 3, 4));
    const running = first.run();
    await expect(second.run()).rejects.toMatchObject({ code: "busy" });
    expect(() => second.read(0, f32(4))).toThrow(/under way/);
    await running;
    await second.run();
    expect(value(first)).toEqual([3, 5, 7, 9]);
    expect(() => first.sibling({ ...spec, arenaBytes: 192, ops: [] })).toThrow(/arenaBytes of the plan/);
    expect(() => first.sibling({ ...spec, ops: [{ op: "gemm", in: [0, 1], out: [0] }] })).toThrow();
    first.close();
    const view = second.view(0)!;
    second.runSync();
    expect(value(second)).toEqual([3, 5, 7, 9]);
    second.close();
    expect([...view]).toEqual([3, 5, 7, 9]);
  });

  test("several plans on several devices at once", async () => {
    const alone = [1, 2, 3].map((seed) => { const { plan, result } = productPlan(open(1), seed); plan.runSync(); return result(); });
    const several = [open(1), open(2), open(3)];
    const running = several.flatMap((device) => [1, 2, 3].map((seed) => ({ seed, ...productPlan(device, seed) })));
    for (let round = 0; round < 10; round++) {
      // All nine wait on three executors; the loop's own calls go in between.
      const runs = running.map(({ plan }) => plan.run());
      several[1]!.blake3(new Uint8Array(100));
      await Promise.all(runs);
      for (const { seed, result } of running) expect(result().equals(alone[seed - 1]!), `seed ${seed}, round ${round}`).toBe(true);
    }
  });

  test("a device that closes rejects what waits, and its neighbours go on", async () => {
    const [going, closing] = [open(2), openDevice({ backend: "cpu", threads: 2 })];
    const plans = Array.from({ length: 20 }, (_, i) => productPlan(closing, i).plan);
    const neighbour = productPlan(going, 5);
    const runs = plans.map((plan) => plan.run().then(() => "ran", (error: { code: string }) => error.code));
    closing.close();
    await neighbour.plan.run();
    const outcomes = await Promise.all(runs);
    // What ran, ran in order: the rest was refused as a whole, and nothing was left waiting.
    const refused = outcomes.indexOf("unavailable");
    const ran = refused < 0 ? outcomes.length : refused;
    expect(outcomes).toEqual(outcomes.map((_, i) => (i < ran ? "ran" : "unavailable")));
  });

  test("memory stays flat over 10,000 calls", async () => {
    const device = open(2);
    const { plan } = productPlan(device, 9);
    const size = 128;
    const [a, b, out] = [new Int8Array(size * size).fill(3), new Int8Array(size * size).fill(5), new Int32Array(size * size)];
    const dims = { m: size, n: size, k: size };
    const target = new Uint8Array(32);
    // Each call takes at least 32 KiB of working memory or operands: 10,000 leaks would be 320 MiB.
    const calls = async (count: number) => {
      for (let i = 0; i < count; i += 5) {
        device.int8Gemm(a, b, dims, out);
        device.crmScan(a, b, dims, target, target);
        const scan = device.crmScanAsync(a, b, dims, target, target);
        device.sgemm(new Float32Array(out.buffer, 0, 64 * 128), new Float32Array(out.buffer, 0, 64 * 128), { m: 64, n: 64, k: 128 });
        await Promise.all([scan, plan.run()]);
      }
    };
    await calls(1000);
    const before = process.memoryUsage().rss;
    await calls(10_000);
    expect(process.memoryUsage().rss - before).toBeLessThan(64e6);
  });
});
