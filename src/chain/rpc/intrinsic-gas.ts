// Owns the gas that a call costs before its first instruction (yellow paper g_tx, EIP-2028, EIP-3860).
import type { CallRequest } from "../execution/machine.js";

const TRANSACTION_GAS = 21_000n;
const CREATE_GAS = 32_000n;
const ZERO_BYTE_GAS = 4n;
const BYTE_GAS = 16n;
const INIT_CODE_WORD_GAS = 2n;

export function computeIntrinsicGas(request: Pick<CallRequest, "to" | "data">): bigint {
  const data = request.data ?? new Uint8Array(0);
  let gas = TRANSACTION_GAS;
  for (const byte of data) gas += byte === 0 ? ZERO_BYTE_GAS : BYTE_GAS;
  if (request.to === undefined) gas += CREATE_GAS + BigInt(Math.ceil(data.length / 32)) * INIT_CODE_WORD_GAS;
  return gas;
}
