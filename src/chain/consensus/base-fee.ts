// Owns the base fee of the next block (EIP-1559: elasticity 2, at most an eighth up or down).
const ELASTICITY = 2n;
const CHANGE_DENOMINATOR = 8n;

export function nextBaseFee(parent: { baseFeePerGas: bigint; gasUsed: bigint; gasLimit: bigint; number: number }): bigint {
  const { baseFeePerGas: fee, gasUsed } = parent;
  const target = parent.gasLimit / ELASTICITY;
  if (parent.number === 0 || gasUsed === target) return fee;
  if (gasUsed > target) {
    const rise = (fee * (gasUsed - target)) / target / CHANGE_DENOMINATOR;
    return fee + (rise > 0n ? rise : 1n);
  }
  return fee - (fee * (target - gasUsed)) / target / CHANGE_DENOMINATOR;
}
