// Owns eth_call, eth_estimateGas and eth_createAccessList. Invariant: nothing a caller asks for changes the chain, and no call may use
// more gas than a block.
import { computeIntrinsicGas } from "./intrinsic-gas.js";
import { toHex } from "../bytes.js";
import type { Header } from "../block/header.js";
import type { Chain } from "../chain.js";
import type { AccessList, CallRequest, CallResult, StateOverride } from "../execution/machine.js";
import { invalidParams, RpcError, rpcCode } from "./errors.js";
import { addressParam, bytesParam, hashParam, objectParam, quantityParam } from "./params.js";

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
    ...(given("accessList") ? { accessList: readAccessList(call["accessList"]) } : {}),
  };
}

/** Entries of an access list, and accounts of a state override: each costs a read. */
const ENTRIES_MAX = 1_024;

function readAccessList(param: unknown): AccessList {
  if (!Array.isArray(param) || param.length > ENTRIES_MAX) return invalidParams(`transaction.accessList: expected an array of at most ${ENTRIES_MAX}`);
  return param.map((each: unknown) => {
    const { address, storageKeys = [] } = objectParam(each, "transaction.accessList");
    if (!Array.isArray(storageKeys) || storageKeys.length > ENTRIES_MAX) {
      return invalidParams(`transaction.accessList.storageKeys: expected an array of at most ${ENTRIES_MAX}`);
    }
    return {
      address: toHex(addressParam(address, "transaction.accessList.address")),
      storageKeys: storageKeys.map((key: unknown) => toHex(hashParam(key, "transaction.accessList.storageKeys"))),
    };
  });
}

/** The third parameter of eth_call: accounts by address, as geth takes it. */
export function readOverrides(param: unknown): StateOverride[] {
  if (param === undefined || param === null) return [];
  const accounts = Object.entries(objectParam(param, "stateOverride"));
  if (accounts.length > ENTRIES_MAX) return invalidParams(`stateOverride: at most ${ENTRIES_MAX} accounts, got ${accounts.length}`);
  return accounts.map(([address, value]) => {
    const fields = objectParam(value, "stateOverride");
    const given = (name: string) => fields[name] !== undefined && fields[name] !== null;
    if (given("state") && given("stateDiff")) return invalidParams("stateOverride: give state or stateDiff, not both");
    const slots = (name: string) => Object.entries(objectParam(fields[name], `stateOverride.${name}`))
      .map(([key, slot]) => [hashParam(key, `stateOverride.${name}`), hashParam(slot, `stateOverride.${name}`)] as const);
    return {
      address: addressParam(address, "stateOverride"),
      ...(given("balance") ? { balance: quantityParam(fields["balance"], "stateOverride.balance") } : {}),
      ...(given("nonce") ? { nonce: quantityParam(fields["nonce"], "stateOverride.nonce") } : {}),
      ...(given("code") ? { code: bytesParam(fields["code"], "stateOverride.code") } : {}),
      ...(given("state") ? { state: slots("state") } : {}),
      ...(given("stateDiff") ? { stateDiff: slots("stateDiff") } : {}),
    };
  });
}

export async function ethCall(chain: Chain, param: unknown, at: Header, overrides: unknown): Promise<string> {
  const result = await chain.call({ ...readCall(param, at.gasLimit), overrides: readOverrides(overrides) }, at);
  return toHex(succeed(result));
}

/** Rounds until the list stops growing; a call whose path depends on what is warm may swing for ever. */
const ACCESS_LIST_ROUNDS_MAX = 8;

/** eth_createAccessList: what the call touches, and its gas with that list given beforehand. */
export async function createAccessList(chain: Chain, param: unknown, at: Header): Promise<Record<string, unknown>> {
  const request = readCall(param, at.gasLimit);
  const machine = await chain.machineAt(at);
  let accessList = request.accessList ?? [];
  for (let round = 1; ; round++) {
    const result = await machine.callAsTransaction({ ...request, accessList });
    if (JSON.stringify(result.accessList) === JSON.stringify(accessList) || round === ACCESS_LIST_ROUNDS_MAX) {
      return { accessList, gasUsed: `0x${result.gasUsed.toString(16)}`, ...(result.failure !== undefined && { error: result.failure }) };
    }
    ({ accessList } = result);
  }
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
