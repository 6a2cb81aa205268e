import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  fundamentalSolution, isPellSolutionModP, PELL_PRIME, pellBase, pellDiscriminant, pellPower,
} from "../../../src/chain/certificate/pell.js";

const isSquare = (d: number) => Math.round(Math.sqrt(d)) ** 2 === d;
const nonSquares = (to: number) =>
  Array.from({ length: to - 2 }, (_, i) => i + 2).filter((d) => !isSquare(d));

/** Powers over the integers by the true recurrence x_n = 2*x_1*x_(n-1) - x_(n-2). */
function exactPowers(x1: bigint, y1: bigint, count: number): [bigint, bigint][] {
  const powers: [bigint, bigint][] = [[1n, 0n], [x1, y1]];
  while (powers.length < count) {
    const [[xa, ya], [xb, yb]] = [powers.at(-2)!, powers.at(-1)!];
    powers.push([2n * x1 * xb - xa, 2n * x1 * yb - ya]);
  }
  return powers;
}

/** Bhaskara II's cyclic method (1150), which ends at the smallest solution; a^2 - d*b^2 = k. */
function chakravala(d: number): [bigint, bigint] {
  const root = Math.floor(Math.sqrt(d));
  let a = BigInt(root * root + root < d ? root + 1 : root);
  let b = 1n;
  let k = Number(a * a) - d;
  while (k !== 1) {
    const size = Math.abs(k);
    let best = 0;
    let distance = Infinity;
    for (let m = 1; m <= root + size + 1; m += 1) {
      if ((a + b * BigInt(m)) % BigInt(size) !== 0n || Math.abs(m * m - d) >= distance) continue;
      [best, distance] = [m, Math.abs(m * m - d)];
    }
    [a, b, k] = [
      (a * BigInt(best) + BigInt(d) * b) / BigInt(size),
      (a + b * BigInt(best)) / BigInt(size),
      (best * best - d) / k,
    ];
  }
  return [a, b < 0n ? -b : b];
}

describe("fundamental solutions", () => {
  it("solves the equation exactly for every non-square d < 2000", () => {
    for (const d of nonSquares(2_000)) {
      const { x, y } = fundamentalSolution(d);
      expect(x * x - BigInt(d) * y * y).toBe(1n);
      expect(y > 0n).toBe(true);
    }
  });

  it("is the smallest: no y below 2000 that is smaller works", () => {
    const tries = 2_000n;
    for (const d of nonSquares(2_000)) {
      const { y } = fundamentalSolution(d);
      const below = y - 1n < tries ? y - 1n : tries;
      for (let v = 1n; v <= below; v += 1n) {
        const square = Number(BigInt(d) * v * v + 1n); // < 2^53: exact
        if (isSquare(square)) throw new Error(`d = ${d}: y = ${v} solves it before ${y}`);
      }
    }
  });

  it("is the smallest: another algorithm that finds the smallest agrees, every d < 2000", () => {
    for (const d of nonSquares(2_000)) {
      const { x, y } = fundamentalSolution(d);
      expect([d, x, y]).toEqual([d, ...chakravala(d)]);
    }
  });

  it.each([
    [2, 3n, 2n],
    [61, 1766319049n, 226153980n],
    [109, 158070671986249n, 15140424455100n],
    [181, 2469645423824185801n, 183567298683461940n],
    [277, 159150073798980475849n, 9562401173878027020n],
    [397, 838721786045180184649n, 42094239791738433660n],
    [409, 25052977273092427986049n, 1238789998647218582160n],
    [421, 3879474045914926879468217167061449n, 189073995951839020880499780706260n],
    [991, 379516400906811930638014896080n, 12055735790331359447442538767n],
  ])("knows the hard case d = %i", (d, x, y) => {
    expect(fundamentalSolution(d)).toEqual({ d, x, y });
  });

  it("handles the largest d that a block hash can give", () => {
    for (let d = 2 ** 20 - 60; d < 2 ** 20 + 4; d += 1) {
      if (isSquare(d)) continue;
      const { x, y } = fundamentalSolution(d);
      expect(x * x - BigInt(d) * y * y).toBe(1n);
    }
  });

  it("handles the longest period that a block hash can give", () => {
    const { x, y } = fundamentalSolution(1_027_261); // 5,226 quotients, the most for d <= 2^20 + 2
    expect(x * x - 1_027_261n * y * y).toBe(1n);
    expect(x.toString(2)).toHaveLength(8_762);
  });

  it("refuses squares and what is no natural", () => {
    for (const d of [-1, 0, 1, 4, 9, 1024 ** 2, 2.5, Number.NaN, 2 ** 25]) {
      expect(() => fundamentalSolution(d)).toThrow(RangeError);
    }
  });
});

describe("powers modulo 2^255 - 19", () => {
  it("equal the exact ones, reduced", () => {
    for (const d of [2, 3, 61, 991, 1_048_573]) {
      const base = fundamentalSolution(d);
      exactPowers(base.x, base.y, 24).forEach(([x, y], n) => {
        expect(pellPower(base, BigInt(n))).toEqual({ d, x: x % PELL_PRIME, y: y % PELL_PRIME });
      });
    }
  });

  it("keep the identity and add exponents", () => {
    const exponent = fc.bigInt({ min: 0n, max: 2n ** 63n - 1n });
    fc.assert(fc.property(fc.integer({ min: 2, max: 5_000 }), exponent, exponent, (d, n, m) => {
      fc.pre(!isSquare(d));
      const base = fundamentalSolution(d);
      const [a, b, sum] = [pellPower(base, n), pellPower(base, m), pellPower(base, n + m)];
      expect(isPellSolutionModP(sum)).toBe(true);
      expect((a.x * b.x + BigInt(d) * a.y * b.y) % PELL_PRIME).toBe(sum.x);
      expect((a.x * b.y + a.y * b.x) % PELL_PRIME).toBe(sum.y);
    }), { numRuns: 60 });
  });

  it("rejects a pair that is no solution", () => {
    const base = fundamentalSolution(7);
    expect(isPellSolutionModP({ ...base, x: base.x + 1n })).toBe(false);
    expect(() => pellPower({ ...base, y: base.y + 1n }, 5n)).toThrow(/identity/);
  });
});

describe("the discriminant of a block", () => {
  it("is a non-square in range, fixed by the hash alone", () => {
    fc.assert(fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), (hash) => {
      const d = pellDiscriminant(hash);
      expect(d).toBeGreaterThanOrEqual(2);
      expect(d).toBeLessThanOrEqual(2 ** 20 + 2);
      expect(isSquare(d)).toBe(false);
      expect(pellDiscriminant(Uint8Array.from(hash))).toBe(d);
    }));
  });

  it("is memoised without mixing blocks up", () => {
    const hashes = Array.from({ length: 40 }, (_, i) => new Uint8Array(32).fill(i + 1));
    const first = hashes.map((hash) => pellBase(hash));
    for (const [i, hash] of hashes.entries()) {
      expect(pellBase(hash)).toEqual(first[i]);
      expect(pellBase(hash).d).toBe(pellDiscriminant(hash));
    }
  });
});
