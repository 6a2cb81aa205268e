import { readFileSync } from "node:fs";
import type { Abi } from "viem";
import { describe, expect, it } from "vitest";
import * as abis from "../../../src/chain/contracts/abi.js";
import { contractArtifact, loadArtifacts } from "../../../src/chain/contracts/artifacts.js";
import {
  SUPPLY, SYSTEM_ADDRESS, systemAddresses, systemGenesis, SystemGenesisError, TSR,
} from "../../../src/chain/contracts/system.js";
import { defaultGenesis, people, TestChain } from "./harness.js";

const typed: Record<string, Abi> = {
  StakeRegistry: abis.stakeRegistryAbi, MasterRegistry: abis.masterRegistryAbi,
  ComputeRegistry: abis.computeRegistryAbi, TaskMarket: abis.taskMarketAbi, PriceFeed: abis.priceFeedAbi,
  Distribution: abis.distributionAbi, SettlementCalculator: abis.settlementCalculatorAbi,
};

describe("artifacts", () => {
  it("agree with the typed ABIs, item for item", () => {
    const names = Object.keys(loadArtifacts().contracts).sort();
    expect(names).toEqual(Object.keys(typed).sort());
    const lines = (abi: Abi) => abi.map((each) => JSON.stringify(encoded(each))).sort();
    for (const name of names) expect(lines(typed[name]!), name).toEqual(lines(contractArtifact(name).abi));
  });

  it("have the addresses of system.ts in the Solidity table", () => {
    const source = readFileSync(
      new URL("../../../src/chain/contracts/solidity/SystemContract.sol", import.meta.url), "utf8");
    const constants = Object.fromEntries([...source.matchAll(/address constant (\w+) = (0x[0-9a-fA-F]{40})/g)]
      .map(([, name, address]) => [name, address!.toLowerCase()]));
    expect(constants).toEqual({
      SYSTEM: SYSTEM_ADDRESS,
      ...Object.fromEntries(Object.entries(systemAddresses)
        .map(([name, address]) => [name.replace(/[A-Z]/g, (c) => `_${c}`).toUpperCase(), address])),
    });
  });
});

/** What of an ABI item reaches the wire or the caller, in one order of fields. */
function encoded(item: unknown): unknown {
  if (Array.isArray(item)) return item.map(encoded);
  if (typeof item !== "object" || item === null) return item;
  return Object.fromEntries(Object.entries(item)
    .filter(([key, value]) => key !== "internalType" && key !== "anonymous" && value !== "" && value !== false)
    .sort(([left], [right]) => (left < right ? -1 : 1))
    .map(([key, value]) => [key, encoded(value)]));
}

describe("systemGenesis", () => {
  it("hands out exactly the supply and every init runs", async () => {
    const accounts = systemGenesis(defaultGenesis());
    expect(accounts.reduce((total, each) => total + each.balance, 0n)).toBe(SUPPLY);
    const chain = await TestChain.create();
    expect(await chain.totalBalance()).toBe(SUPPLY);
  });

  it("takes what exceeds the distribution pool out of the foundation's part, and no more", () => {
    const params = defaultGenesis();
    const big = (amount: bigint) =>
      systemGenesis({ ...params, allocations: [{ address: people.client, amount }] });
    expect(big(1_500_000_000n * TSR).reduce((total, each) => total + each.balance, 0n)).toBe(SUPPLY);
    expect(() => big(2_400_000_000n * TSR)).toThrow(SystemGenesisError);
  });

  it("refuses an address twice, and a system address", () => {
    const params = defaultGenesis();
    const twice = [{ address: people.client, amount: 1n }, { address: people.client, amount: 1n }];
    expect(() => systemGenesis({ ...params, allocations: twice })).toThrow(/one allocation/);
    const system = [{ address: systemAddresses.miningReserve, amount: 1n }];
    expect(() => systemGenesis({ ...params, allocations: system })).toThrow(/one allocation/);
  });

  it("initialises once, and only from the system address", async () => {
    const chain = await TestChain.create();
    const init = systemGenesis(defaultGenesis()).filter((each) => each.init !== undefined);
    for (const each of init) {
      expect((await chain.raw(SYSTEM_ADDRESS, each.address, each.init!)).error, each.name)
        .toBe("InvalidInitialization");
    }
    for (const each of init) await chain.place(each.address.replace("0x00", "0x11") as typeof each.address, each.runtimeBytecode);
    for (const each of init) {
      const copy = each.address.replace("0x00", "0x11") as typeof each.address;
      expect((await chain.raw(people.stranger, copy, each.init!)).error, each.name).toBe("OnlySystem");
    }
  });

  it("refuses a contract whose balance is not what its books say", async () => {
    const chain = await TestChain.create();
    const stake = systemGenesis(defaultGenesis()).find((each) => each.name === "stakeRegistry")!;
    const copy = "0x1100000000000000000000000000000000001001";
    await chain.place(copy, stake.runtimeBytecode, stake.balance - 1n);
    expect((await chain.raw(SYSTEM_ADDRESS, copy, stake.init!)).error).toBe("GenesisBalanceMismatch");
  });

  it("keeps coins out of contracts that have no use for them", async () => {
    const chain = await TestChain.create();
    for (const name of ["stakeRegistry", "masterRegistry", "computeRegistry", "taskMarket", "priceFeed"] as const) {
      expect((await chain.raw(people.stranger, systemAddresses[name], "0x", 1n)).ok, name).toBe(false);
    }
  });
});
