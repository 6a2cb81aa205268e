// Owns what consensus reads from the system contracts. Invariant: read at a fixed state and block context, so
// every node reads the same; a chain whose genesis has no such contract reads nothing.
import { decodeFunctionResult, encodeFunctionData } from "viem";
import { masterRegistryAbi, stakeRegistryAbi, taskMarketAbi } from "../contracts/abi.js";
import { systemAddresses } from "../contracts/system.js";
import { fromHex, toHex, equals, ZERO_ADDRESS } from "../bytes.js";
import type { Staker } from "../consensus/leader.js";
import type { Machine } from "./machine.js";

const activeStakers = encodeFunctionData({ abi: stakeRegistryAbi, functionName: "activeStakers" });
const nextPayee = encodeFunctionData({ abi: masterRegistryAbi, functionName: "nextPayee" });
const provenMultiplyAdds = encodeFunctionData({ abi: taskMarketAbi, functionName: "provenMultiplyAdds" });

export async function readStakers(machine: Machine): Promise<Staker[]> {
  const output = await machine.view(systemAddresses.stakeRegistry, activeStakers);
  if (output.length === 0) return [];
  const entries = decodeFunctionResult({ abi: stakeRegistryAbi, functionName: "activeStakers", data: toHex(output) });
  return entries.filter((entry) => entry.amount > 0n).map((entry) => ({
    address: fromHex(entry.owner.toLowerCase()), blsPublicKey: fromHex(entry.blsPublicKey), equity: entry.amount,
  }));
}

/** The master whose turn it is to be paid, if any is alive. */
export async function readNextPayee(machine: Machine): Promise<Uint8Array | undefined> {
  const output = await machine.view(systemAddresses.masterRegistry, nextPayee);
  if (output.length !== 32) return undefined;
  const payee = output.slice(12);
  return equals(payee, ZERO_ADDRESS) ? undefined : payee;
}

export async function recordMasterPayment(machine: Machine, master: Uint8Array, amount: bigint): Promise<void> {
  const data = encodeFunctionData({ abi: masterRegistryAbi, functionName: "recordPayment", args: [toHex(master), amount] });
  await machine.command(fromHex(systemAddresses.masterRegistry), fromHex(data));
}

/** Multiply-adds of settled tasks since genesis. */
export async function readProvenMultiplyAdds(machine: Machine): Promise<bigint> {
  const output = await machine.view(systemAddresses.taskMarket, provenMultiplyAdds);
  return output.length === 32 ? BigInt(toHex(output)) : 0n;
}
