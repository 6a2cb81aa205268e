/**
 * Owns the Pell step of the proof of power (white paper 4.3.3.2): x^2 - d*y^2 = 1.
 * Invariant: a solution leaves this file only after the identity was checked, over the integers
 * for the fundamental one and modulo p for its powers.
 *
 * The white paper's recurrences are misprinted; the true ones are x_n = 2*x_1*x_(n-1) - x_(n-2) and
 * the same for y. We use the equivalent power (x_1 + y_1*sqrt(d))^n, that is the 2x2 matrix
 * [[x, d*y], [y, x]] to the n, which takes log2(n) steps.
 */
import { fromLittleEndian, hashFields } from "./hash.js";

/** p = 2^255 - 19, the field of the powers. */
export const PELL_PRIME = 2n ** 255n - 19n;

/** d is drawn from 2^20 values: a few milliseconds of continued fraction at the very worst. */
export const PELL_RANGE_BITS = 20n;

/** A solution of x^2 - d*y^2 = 1. */
export interface PellSolution {
  readonly d: number;
  readonly x: bigint;
  readonly y: bigint;
}

/** d = the first non-square >= 2 + (H(prevHash) mod 2^20). */
export function pellDiscriminant(previousHash: Uint8Array): number {
  const digest = fromLittleEndian(hashFields("pell", [previousHash]));
  const start = 2 + Number(digest & ((1n << PELL_RANGE_BITS) - 1n));
  return isSquare(start) ? start + 1 : start; // two squares > 1 are never neighbours
}

/**
 * The fundamental (smallest positive) solution by the continued fraction of sqrt(d) [Lagrange].
 * Throws RangeError if d is not a non-square integer in 2..2^24.
 */
export function fundamentalSolution(d: number): PellSolution {
  if (!Number.isInteger(d) || d < 2 || d > 2 ** 24 || isSquare(d)) {
    throw new RangeError(`Pell's equation needs a non-square integer in 2..2^24, got ${d}`);
  }
  const root = Math.floor(Math.sqrt(d));
  let [m, q, a] = [0, 1, root]; // complete quotient (sqrt(d) + m) / q, and its integer part
  let [x0, x] = [1n, BigInt(root)];
  let [y0, y] = [0n, 1n];
  let length = 0;
  for (;;) {
    m = a * q - m;
    q = (d - m * m) / q;
    a = Math.floor((root + m) / q);
    length += 1;
    if (q === 1) break; // end of the period: x^2 - d*y^2 = (-1)^length
    [x0, x] = [x, BigInt(a) * x + x0];
    [y0, y] = [y, BigInt(a) * y + y0];
  }
  if (length % 2 === 1) [x, y] = [2n * x * x + 1n, 2n * x * y]; // norm -1: its square has norm 1
  if (x * x - BigInt(d) * y * y !== 1n) throw new Error(`Pell identity fails for d = ${d}`);
  return { d, x, y };
}

/**
 * (x_n, y_n) = (x_1 + y_1*sqrt(d))^n modulo p, with the identity checked modulo p.
 * n >= 0; the base need not be reduced.
 */
export function pellPower(base: PellSolution, n: bigint): PellSolution {
  if (n < 0n) throw new RangeError(`the power must not be negative, got ${n}`);
  const p = PELL_PRIME;
  const d = BigInt(base.d);
  let [x, y] = [1n, 0n];
  let [bx, by] = [base.x % p, base.y % p];
  for (let rest = n; rest > 0n; rest >>= 1n) {
    if (rest & 1n) [x, y] = [(x * bx + d * ((y * by) % p)) % p, (x * by + y * bx) % p];
    [bx, by] = [(bx * bx + d * ((by * by) % p)) % p, (2n * bx * by) % p];
  }
  if (!isPellSolutionModP({ d: base.d, x, y })) throw new Error(`Pell identity fails at n = ${n}`);
  return { d: base.d, x, y };
}

/** x^2 - d*y^2 = 1 modulo p. */
export function isPellSolutionModP({ d, x, y }: PellSolution): boolean {
  const p = PELL_PRIME;
  return (((x * x - BigInt(d) * y * y) % p) + p) % p === 1n;
}

/** The fundamental solution for a block hash, reduced modulo p. */
export function pellBase(previousHash: Uint8Array): PellSolution {
  const key = fromLittleEndian(previousHash);
  const known = recent.get(key);
  if (known) return known;
  const { d, x, y } = fundamentalSolution(pellDiscriminant(previousHash));
  const base = { d, x: x % PELL_PRIME, y: y % PELL_PRIME };
  if (recent.size >= RECENT_MAX) recent.delete(recent.keys().next().value!);
  recent.set(key, base);
  return base;
}

/** Certificates may name one of the last 8 blocks; twice that covers a fork. A pure memo. */
const RECENT_MAX = 16;
const recent = new Map<bigint, PellSolution>();

function isSquare(value: number): boolean {
  const root = Math.round(Math.sqrt(value));
  return root * root === value;
}
