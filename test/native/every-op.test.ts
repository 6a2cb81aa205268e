// Every operation that a plan can hold, by the random cases of bench/gpu/cases.mjs, which the GPU checks use too: the
// same bits on every instruction set and thread count with NaN, infinities, denormals and both zeros among the values
// and wild integers among the indices; and a specification that was tampered with is refused with a typed error, or
// is a plan that runs.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
// @ts-expect-error plain JavaScript without types
import { GENERATORS, contentsOf, createRandom } from "../../bench/gpu/cases.mjs";
import { DeviceError, openDevice, type Device, type PlanSpec, type TensorArray } from "../../src/device/device.js";
import { bits } from "./reference.js";

interface Random { next(): number; pick(low: number, high: number): number; coin(chance?: number): boolean }
interface Case { label: string; spec: PlanSpec; fills: string[] }
const generators = GENERATORS as Record<string, (random: Random) => Case>;
const contents = contentsOf as (random: Random, tensor: PlanSpec["tensors"][number], fill: string) => TensorArray;
const randomOf = createRandom as (seed: number) => Random;

const devices: { name: string; device: Device }[] = [];
for (const isa of ["scalar", "avx2", "avx512", "amx"] as const)
  for (const threads of isa === "scalar" ? [1] : [1, 3]) {
    try { devices.push({ name: `${isa} x ${threads}`, device: openDevice({ backend: "cpu", isa, threads }) }); }
    catch { /* this processor lacks the instruction set */ }
  }
afterAll(() => { for (const d of devices) d.device.close(); });

/** Bits with every NaN the same: payloads and signs of NaN are outside the contract. */
const canonical = (a: TensorArray): Buffer => bits(a instanceof Float32Array ? a.map((x) => (Number.isNaN(x) ? NaN : x)) : a);

function run(device: Device, spec: PlanSpec, start: TensorArray[]): Buffer[] {
  const plan = device.createPlan(spec);
  start.forEach((data, id) => { if (data.length > 0) plan.write(id, data); });
  plan.runSync();
  const out = start.map((data, id) => {
    const copy = data.slice();
    if (copy.length > 0) plan.read(id, copy);
    return canonical(copy);
  });
  plan.close();
  return out;
}

test("the cases know every operation", () => {
  const folder = fileURLToPath(new URL("../../native/addon/ops", import.meta.url));
  const known = new Set<string>();
  for (const file of readdirSync(folder).filter((name) => name.endsWith(".cc")))
    for (const [, name] of readFileSync(join(folder, file), "utf8").matchAll(/\{"(\w+)",\s*TESRA_OP_/g)) known.add(name!);
  expect(known.size).toBeGreaterThan(40);
  const covered = new Set(Object.values(generators).flatMap((make) => make(randomOf(1)).spec.ops.map(({ op }) => op as string)));
  expect([...known].filter((name) => !covered.has(name))).toEqual([]);
});

const HOSTILE = [NaN, Infinity, -Infinity, 1e-41, -1e-41, 0, -0, 3.4e38, -3.4e38, 1e-20];
describe.each(Object.keys(generators))("%s", (name) => {
  test("the same bits everywhere, hostile values included", () => {
    for (let seed = 1; seed <= 3; seed++) {
      const random = randomOf(1000 * seed + name.length);
      const { label, spec, fills } = generators[name]!(random);
      const start = spec.tensors.map((tensor, id) => contents(random, tensor, fills[id]!));
      for (const data of start)
        if (data instanceof Float32Array && data.length > 20)
          for (const value of HOSTILE) if (random.coin()) data[random.pick(0, data.length - 1)] = value;
      const [first, ...others] = devices;
      const expected = run(first!.device, spec, start);
      for (const { name: on, device } of others)
        run(device, spec, start).forEach((got, id) => {
          if (!got.equals(expected[id]!)) throw new Error(`${label}, seed ${seed}: tensor ${id} differs on ${on}`);
        });
    }
  });

  test("a specification that was tampered with is refused by a typed error, or runs", () => {
    let refused = 0;
    const { device } = devices.at(-1)!;
    for (let seed = 1; seed <= 60; seed++) {
      const random = randomOf(7919 * seed + name.length);
      const { spec, fills } = generators[name]!(random);
      const one = <T>(list: readonly T[]): T => list[random.pick(0, list.length - 1)]!;
      const step = one(spec.ops), tensor = one(spec.tensors);
      const sizes = [-1, 0, 1, 2, 3, 1.5, 2 ** 31 - 1, 2 ** 31, 2 ** 53, NaN, Infinity];
      const tamper = random.pick(0, 9);
      if (tamper === 0) tensor.shape[random.pick(0, tensor.shape.length - 1)] = one(sizes);
      else if (tamper === 1) tensor.shape.push(one(sizes));
      else if (tamper === 2) tensor.shape.pop();
      else if (tamper === 3) tensor.dtype = one(["f32", "i32", "u8"] as const);
      else if (tamper === 4) tensor.offsetBytes = one([0, 64, 4, -64, spec.arenaBytes, NaN, 2 ** 53]);
      else if (tamper === 5) step.in = [...step.in, one([0, -1, spec.tensors.length, 1.5])];
      else if (tamper === 6) step.in = step.in.slice(1);
      else if (tamper === 7) step.out = one([[], [...step.out, 0], [...step.in].slice(0, step.out.length)]);
      else if (tamper === 8) step.attrs = { ...step.attrs, [one([...Object.keys(step.attrs ?? {}), "unknown"])]: one([-1, 1e300, NaN, 2 ** 31, 0.5, -0.5]) };
      else spec.arenaBytes = one([0, 64, -1, NaN, 2 ** 60]);
      try {
        const plan = device.createPlan(spec);
        spec.tensors.forEach((each, id) => {
          const data = contents(random, each, fills[id]!.startsWith("index") ? fills[id]! : each.dtype === "i32" ? "zero" : fills[id]!);
          if (data.length > 0) plan.write(id, data);
        });
        plan.runSync();
        plan.close();
      } catch (error) {
        if (!(error instanceof DeviceError)) throw error;
        expect(["argument", "shape", "unsupported", "memory"]).toContain(error.code);
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(10);
  });
});
