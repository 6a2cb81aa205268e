/**
 * Owns: hostile payees as run-time bytecode, assembled by hand so that the tests need no second
 * compiler run. Invariant: each is a few opcodes, written out beside it.
 */
import { type Address, concatHex, encodeFunctionData, type Hex, size, toHex } from "viem";
import { taskMarketAbi } from "../../../src/chain/contracts/abi.js";
import { systemAddresses } from "../../../src/chain/contracts/system.js";

/** PUSH0 PUSH0 REVERT: refuses every coin. */
export const refusing: Hex = "0x5f5ffd";

/** STOP: takes every coin. */
export const accepting: Hex = "0x00";

/** JUMPDEST PUSH0 JUMP: burns all the gas it is given. */
export const burning: Hex = "0x5b5f56";

/** PUSH3 0x0fffff PUSH0 REVERT: refuses with a megabyte of return data. */
export const bombing: Hex = "0x620fffff5ffd";

/**
 * On receiving coins calls the market with `data`, ignores the outcome, and keeps the coins. Called
 * with call data it forwards that to the market, value included, so that it can act as a client.
 *
 *   CALLDATASIZE PUSH2 forward JUMPI
 *   PUSH2 len PUSH2 offset PUSH0 CODECOPY            memory <- data
 *   PUSH0 PUSH0 PUSH2 len PUSH0 PUSH0 PUSH20 market GAS CALL POP STOP
 *   forward: JUMPDEST CALLDATASIZE PUSH0 PUSH0 CALLDATACOPY
 *   PUSH0 PUSH0 CALLDATASIZE PUSH0 CALLVALUE PUSH20 market GAS CALL PUSH2 ok JUMPI
 *   RETURNDATASIZE PUSH0 PUSH0 RETURNDATACOPY RETURNDATASIZE PUSH0 REVERT
 *   ok: JUMPDEST STOP
 */
export function reentering(data: Hex): Hex {
  const u16 = (value: number) => toHex(value, { size: 2 });
  const market = systemAddresses.taskMarket;
  const assemble = (forward: number, offset: number, ok: number): Hex => concatHex([
    "0x3661", u16(forward), "0x57",
    "0x61", u16(size(data)), "0x61", u16(offset), "0x5f39",
    "0x5f5f61", u16(size(data)), "0x5f5f73", market, "0x5af15000",
    "0x5b365f5f37", "0x5f5f365f3473", market, "0x5af161", u16(ok), "0x57", "0x3d5f5f3e3d5ffd", "0x5b00",
  ]);
  const empty = assemble(0, 0, 0);
  const forward = 5 + 9 + 7 + 20 + 4;
  return concatHex([assemble(forward, size(empty), size(empty) - 2), data]);
}

export const withdrawData: Hex = encodeFunctionData({ abi: taskMarketAbi, functionName: "withdraw" });
export const cancelData = (taskId: bigint): Hex =>
  encodeFunctionData({ abi: taskMarketAbi, functionName: "cancel", args: [taskId] });

export function openData(terms: {
  manifestRoot: Hex; graphHash: Hex; computeMicroUsd: bigint; storageMicroUsd: bigint; quotedMultiplyAdds: bigint;
  rangeBps: number; expectedSeconds: number; deadlineSeconds: number; acceptSeconds: number; minWorkers: number;
  maxWorkers: number; minGrade: number; allowStandby: boolean; master: Address;
}): Hex {
  return encodeFunctionData({ abi: taskMarketAbi, functionName: "open", args: [terms] });
}
