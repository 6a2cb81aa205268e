// Owns the difficulty of certificates and the weight they give a block. Invariant: integer arithmetic only, so
// every node computes the same target.
import type { CertificateParams } from "../genesis.js";

/** Weight of a block without certificates; a certificate of the genesis difficulty weighs as much. */
export const WEIGHT_UNIT = 1n << 32n;

/** 1 + work of the certificates, work being proportional to 1 / target (relative to genesis). */
export function blockWeight(certificateTargets: readonly bigint[], params: CertificateParams): bigint {
  const reference = BigInt(params.target);
  return certificateTargets.reduce((sum, target) => sum + (WEIGHT_UNIT * reference) / target, WEIGHT_UNIT);
}

/**
 * Absolutely scheduled exponential adjustment (ASERT, as in Bitcoin Cash's aserti3-2d), per block and in
 * certificates instead of seconds: target x 2^((goal - count) / (goal x halfLife)).
 */
export function nextPowTarget(parentTarget: bigint, certificates: number, params: CertificateParams): bigint {
  const goal = params.perBlockGoal;
  const exponent = Math.floor(((goal - certificates) * FIXED_ONE) / (goal * params.halfLifeBlocks));
  const adjusted = scaleByPowerOfTwo(parentTarget, exponent);
  const limit = BigInt(params.targetLimit);
  return adjusted < 1n ? 1n : adjusted > limit ? limit : adjusted;
}

const FIXED_BITS = 16n;
const FIXED_ONE = 65_536;

/** value x 2^(exponent / 65,536) by aserti3-2d's cubic, error below 0.013 %. */
function scaleByPowerOfTwo(value: bigint, exponent: number): bigint {
  const whole = BigInt(Math.floor(exponent / FIXED_ONE));
  const fraction = BigInt(exponent) - (whole << FIXED_BITS);
  const factor = 65_536n + ((195_766_423_245_049n * fraction + 971_821_376n * fraction ** 2n
    + 5_127n * fraction ** 3n + (1n << 47n)) >> 48n);
  const scaled = value * factor;
  const shift = whole - FIXED_BITS;
  return shift >= 0n ? scaled << shift : scaled >> -shift;
}
