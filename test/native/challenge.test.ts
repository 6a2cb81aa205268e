// The device's challenge matrices have the bits of src/chain/certificate/matrices.ts: a scan of a seed finds what a
// scan of the matrices made here finds, on every instruction set; the bytes that are skipped fall everywhere.
import { afterAll, describe, expect, test } from "vitest";
import { fillChallengeRows, MATRIX_A, MATRIX_B_TRANSPOSED } from "../../src/chain/certificate/matrices.js";
import { openDevice, type Device } from "../../src/device/device.js";
import { seeded } from "./reference.js";

const devices: Device[] = [];
for (const isa of ["scalar", "avx2", "avx512"] as const)
  try { devices.push(openDevice({ backend: "cpu", isa, threads: isa === "avx2" ? 3 : 1 })); } catch { /* absent here */ }
afterAll(() => { for (const d of devices) d.close(); });
const random = seeded(12);
const randomBytes = (n: number) => Uint8Array.from({ length: n }, () => Math.floor(random() * 256));
const ALL = new Uint8Array(32).fill(255);

describe("challenges of a seed", () => {
  test.each([[64, 64, 128], [128, 64, 2176], [64, 192, 384], [64, 64, 4096]])("%d x %d x %d", async (m, n, k) => {
    for (let round = 0; round < 3; round++) {
      const seed = randomBytes(32), key = randomBytes(32), dims = { m, n, k };
      const a = new Int8Array(m * k), bT = new Int8Array(n * k);
      fillChallengeRows(seed, MATRIX_A, a, k, 0, m);
      fillChallengeRows(seed, MATRIX_B_TRANSPOSED, bT, k, 0, n);
      const want = devices.at(-1)!.crmScan(a, bT, dims, key, ALL);
      expect(want.tickets.length).toBe((m * n) / 128);
      for (const d of devices) expect(await d.crmChallengeAsync(seed, dims, key, ALL), d.isa).toEqual(want);
    }
  });

  test("refuses what cannot be", async () => {
    const [d] = devices, good = [randomBytes(32), { m: 64, n: 64, k: 128 }, randomBytes(32), ALL] as const;
    for (const [at, bad, code] of [
      [0, randomBytes(31), "shape"], [0, "seed", "argument"], [1, { m: 64, n: 63, k: 128 }, "shape"], [1, { m: 64, n: 64, k: 65664 }, "shape"],
      [1, undefined, "argument"], [2, randomBytes(33), "shape"], [3, new Int8Array(32), "argument"],
    ] as const) {
      const list: unknown[] = [...good];
      list[at] = bad;
      await expect(d!.crmChallengeAsync(...(list as unknown as typeof good)), `argument ${at}`).rejects.toMatchObject({ code });
    }
  });
});
