// Owns eth_call and eth_estimateGas. Invariant: nothing a caller asks for changes the chain, and no call may use
// more gas than a block.
import { computeIntrinsicGas } from "./intrinsic-gas.js";
import { toHex } from "../bytes.js";
import type { Header } from "../block/header.js";
import type { Chain } from "../chain.js";
import type { CallRequest, CallResult } from "../execution/machine.js";
import { RpcError, rpcCode } from "./errors.js";
import { addressParam, bytesParam, objectParam, quantityParam } from "./params.js";

export function readCall(param: unknown, gasCap: bigint): CallRequest {
  const call = objectParam(param, "transaction");
  const given = (name: string) => call[name] !== undefined && call[name] !== null;
  const gas = given("gas") ? quantityParam(call["gas"], "transaction.gas") : gasCap;
  const data = given("input") ? call["input"] : given("data") ? call["data"] : undefined;
  return {
    gas: gas < gasCap ? gas : gasCap,
    ...(given("from") ? { from: addressParam(call["from"], "transaction.from") } : {}),
    ...(given("to") ? { to: addressParam(call["to"], "transaction.to") } : {}),
    ...(data !== undefined ? { data: bytesParam(data, "transaction.data") } : {}),
    ...(given("value") ? { value: quantityParam(call["value"], "transaction.value") } : {}),
  };
}

export async function ethCall(chain: Chain, param: unknown, at: Header): Promise<string> {
  const result = await chain.call(readCall(param, at.gasLimit), at);
  return toHex(succeed(result));
}

/** The least gas with which the transaction succeeds, found by bisection as geth does. */
export async function estimateGas(chain: Chain, param: unknown, at: Header): Promise<bigint> {
  const request = readCall(param, at.gasLimit);
  await checkFunds(chain, param, request, at);
  const intrinsic = computeIntrinsicGas(request);
  const machine = await chain.machineAt(at);
  const run = (gas: bigint) => machine.call({ ...request, gas: gas - intrinsic });
  if (request.gas < intrinsic) throw new RpcError(rpcCode.server, `intrinsic gas too low: gas ${request.gas}, minimum needed ${intrinsic}`);
  const best = await run(request.gas);
  succeed(best);
  let low = intrinsic + best.gasUsed - 1n; // the refund was taken off, so less than this cannot be enough
  let high = request.gas;
  if ((await run(low + 1n)).failure === undefined) return low + 1n; // transfers, and whatever needs no headroom
  low += 1n;
  const guess = ((intrinsic + best.gasUsed + CALL_STIPEND) * 64n) / 63n; // most calls need this much (EIP-150)
  if (guess < high && (await run(guess)).failure === undefined) high = guess;
  while (low + 1n < high) {
    if ((high - low) * ESTIMATE_ERROR_RATIO < high) break;
    const middle = (low + high) / 2n;
    if ((await run(middle)).failure === undefined) high = middle;
    else low = middle;
  }
  return high;
}

/** What a value-carrying CALL leaves to its callee. */
const CALL_STIPEND = 2_300n;
/** geth stops at 1.5 %; a search to the last unit costs ten more runs. */
const ESTIMATE_ERROR_RATIO = 66n;

async function checkFunds(chain: Chain, param: unknown, request: CallRequest, at: Header): Promise<void> {
  if (!request.from || !request.value) return;
  const { balance } = await chain.account(request.from, at);
  if (balance < request.value) {
    const from = (param as { from: string }).from;
    throw new RpcError(rpcCode.server, `insufficient funds for transfer: ${from} has ${balance}, needs ${request.value}`);
  }
}

function succeed(result: CallResult): Uint8Array {
  if (result.failure === undefined) return result.output;
  if (result.failure !== "revert") throw new RpcError(rpcCode.server, result.failure);
  const reason = revertReason(result.output);
  throw new RpcError(rpcCode.reverted, `execution reverted${reason ? `: ${reason}` : ""}`, toHex(result.output));
}

const ERROR_STRING_SELECTOR = "08c379a0";

/** The text of Solidity's Error(string), where that is what was thrown. */
export function revertReason(output: Uint8Array): string | undefined {
  const data = Buffer.from(output);
  if (data.subarray(0, 4).toString("hex") !== ERROR_STRING_SELECTOR || data.length < 68) return undefined;
  const length = Number(BigInt(`0x${data.subarray(36, 68).toString("hex")}`));
  return Number.isSafeInteger(length) ? data.subarray(68, 68 + length).toString("utf8") : undefined;
}
