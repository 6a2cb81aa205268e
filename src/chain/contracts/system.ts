/**
 * Owns: where the system contracts live and how genesis creates them.
 * Invariant: the balances that systemGenesis returns add up to the whole supply, exactly; each
 * contract checks in initialize() that its own balance equals what its books say.
 *
 * How genesis uses it: give every returned account its balance and code, then, in order, run each
 * `init` call in the EVM from SYSTEM_ADDRESS (value 0) with the genesis timestamp, then take the
 * state root. Constructors never run.
 */
import { encodeFunctionData, type Hex } from "viem";
import {
  computeRegistryAbi, distributionAbi, masterRegistryAbi, priceFeedAbi, stakeRegistryAbi, taskMarketAbi,
} from "./abi.js";
import { contractArtifact } from "./artifacts.js";

export type Address = Hex;

/** The caller of protocol-only functions: nobody holds a key for it. */
export const SYSTEM_ADDRESS: Address = "0xfffffffffffffffffffffffffffffffffffffffe";

/** Fixed addresses. The mining reserve is an account without code that only the protocol can debit. */
export const systemAddresses = {
  miningReserve: "0x0000000000000000000000000000000000001000",
  stakeRegistry: "0x0000000000000000000000000000000000001001",
  masterRegistry: "0x0000000000000000000000000000000000001002",
  computeRegistry: "0x0000000000000000000000000000000000001003",
  taskMarket: "0x0000000000000000000000000000000000001004",
  priceFeed: "0x0000000000000000000000000000000000001005",
  distribution: "0x0000000000000000000000000000000000001006",
  settlementCalculator: "0x0000000000000000000000000000000000001007",
} as const satisfies Record<string, Address>;

export type SystemAccountName = keyof typeof systemAddresses;

/** 10^10 TSR of 18 decimals (white paper 5.1). */
export const TSR = 10n ** 18n;
export const SUPPLY = 10_000_000_000n * TSR;
/** White paper 5.2, in hundredths of the supply. */
export const supplyShares = { mining: 66n, foundation: 14n, team: 10n, distribution: 10n } as const;

export interface GenesisStake {
  owner: Address;
  /** 48 bytes, compressed G1. */
  blsPublicKey: Hex;
  /** 96 bytes, compressed G2; checked by protocol code, the contract only keeps it. */
  proofOfPossession: Hex;
  amount: bigint;
}

export interface GenesisMaster {
  owner: Address;
  blsPublicKey: Hex;
  proofOfPossession: Hex;
  /** 32 bytes: the CURVE public key under which the master answers. */
  transportKey: Hex;
  pledge: bigint;
}

export interface GenesisComputeNode {
  owner: Address;
  transportKey: Hex;
  grade: number;
  /** Multiply-adds per second at fp32, int8, fp16, fp8. */
  power: readonly [bigint, bigint, bigint, bigint];
  memoryBytes: bigint;
  proofDigest: Hex;
}

export interface SystemGenesisParams {
  /** Paid out of the distribution pool, and past it out of the foundation's part, with the stakes and pledges. */
  allocations: readonly { address: Address; amount: bigint }[];
  validators: readonly GenesisStake[];
  masters: readonly GenesisMaster[];
  computeNodes?: readonly GenesisComputeNode[];
  beneficiaries: {
    foundation: Address;
    team: Address;
    distribution: Address;
    ecology: Address;
    /** Receives the platform fee of settled tasks. */
    platform: Address;
  };
  /** Micro-USD for one TSR until the masters' median replaces it. */
  priceMicroUsdPerTsr: bigint;
  stake?: Partial<StakeParams>;
  master?: Partial<MasterParams>;
  market?: Partial<MarketParams>;
  priceMaxAgeSeconds?: bigint;
}

export interface StakeParams {
  maturitySeconds: bigint;
  unbondingSeconds: bigint;
  minimumStake: bigint;
}

export interface MasterParams {
  pledge: bigint;
  heartbeatWindowSeconds: bigint;
  unbondingSeconds: bigint;
  downtimeForfeitBps: number;
}

export interface MarketParams {
  feeBps: number;
  minerCollateralBps: number;
  cancelGraceSeconds: bigint;
  expireGraceSeconds: bigint;
  freeShareMicroUsd: bigint;
  feeWeiPerMultiplyAdd: bigint;
  plausibilityFactor: number;
}

export interface SystemAccount {
  /** A name from systemAddresses, or "allocation". */
  name: SystemAccountName | "allocation";
  address: Address;
  balance: bigint;
  /** "0x" where the account has no code. */
  runtimeBytecode: Hex;
  /** Call data to run from SYSTEM_ADDRESS at genesis. */
  init?: Hex;
}

const WEEK_SECONDS = 604_800n;

/** One week is the floor of the unbonding time (spec); a devnet overrides it. */
export const defaultStakeParams: StakeParams = {
  maturitySeconds: 7_200n, // longer than the deepest reorganisation: 100 blocks of 60 s
  unbondingSeconds: WEEK_SECONDS,
  minimumStake: 1_000n * TSR,
};
export const defaultMasterParams: MasterParams = {
  pledge: 10_000n * TSR,
  heartbeatWindowSeconds: 3_600n,
  unbondingSeconds: WEEK_SECONDS,
  downtimeForfeitBps: 100, // 1 % of the pledge for each missed window
};
export const defaultMarketParams: MarketParams = {
  feeBps: 300, // below the 5 % of white paper 3.2
  minerCollateralBps: 2_000,
  cancelGraceSeconds: 120n, // two blocks for the master to post what was computed before the stop
  expireGraceSeconds: 3_600n, // a heartbeat window: time for another master to take over
  freeShareMicroUsd: 1_000_000n, // one dollar of work at a time without collateral (5.3)
  feeWeiPerMultiplyAdd: 1n,
  plausibilityFactor: 16,
};

/** A day: a feed that no master has renewed for so long keeps its last median. */
const DEFAULT_PRICE_MAX_AGE_SECONDS = 86_400n;

export class SystemGenesisError extends Error {
  constructor(
    readonly code: "allocations-exceed-supply" | "duplicate-allocation",
    readonly amount: bigint,
    message: string,
  ) {
    super(message);
    this.name = "SystemGenesisError";
  }
}

const sum = (amounts: readonly bigint[]): bigint => amounts.reduce((total, each) => total + each, 0n);
const share = (hundredths: bigint): bigint => (SUPPLY * hundredths) / 100n;

/** Foundation and distribution pool after what genesis hands out at once was taken from them. */
function carve(params: SystemGenesisParams): { foundation: bigint; distribution: bigint; staked: bigint; pledged: bigint } {
  const staked = sum(params.validators.map((each) => each.amount));
  const pledged = sum(params.masters.map((each) => each.pledge));
  const carved = staked + pledged + sum(params.allocations.map((each) => each.amount));
  const pool = share(supplyShares.distribution);
  const fromPool = carved < pool ? carved : pool;
  const fromFoundation = carved - fromPool;
  const foundation = share(supplyShares.foundation);
  if (fromFoundation > foundation) {
    throw new SystemGenesisError(
      "allocations-exceed-supply",
      carved,
      `Genesis allocations, stakes and pledges add up to ${carved} wei; at most ${pool + foundation} wei `
        + `(distribution and foundation parts) can be handed out at genesis. Lower them.`,
    );
  }
  return { foundation: foundation - fromFoundation, distribution: pool - fromPool, staked, pledged };
}

/** Every genesis account: allocations, the mining reserve and the system contracts with their init calls. */
export function systemGenesis(params: SystemGenesisParams): SystemAccount[] {
  const { foundation, distribution, staked, pledged } = carve(params);
  const team = share(supplyShares.team);
  const stake = { ...defaultStakeParams, ...params.stake };
  const master = { ...defaultMasterParams, ...params.master };
  const market = { ...defaultMarketParams, ...params.market };
  const { beneficiaries } = params;
  const account = (name: SystemAccountName, contract: string, balance: bigint, init: Hex): SystemAccount => ({
    name,
    address: systemAddresses[name],
    balance,
    runtimeBytecode: contractArtifact(contract).deployedBytecode,
    init,
  });
  return [
    ...allocationAccounts(params),
    { name: "miningReserve", address: systemAddresses.miningReserve, balance: share(supplyShares.mining), runtimeBytecode: "0x" },
    account("stakeRegistry", "StakeRegistry", staked, encodeFunctionData({
      abi: stakeRegistryAbi,
      functionName: "initialize",
      args: [stake.maturitySeconds, stake.unbondingSeconds, stake.minimumStake, [...params.validators]],
    })),
    account("masterRegistry", "MasterRegistry", pledged, encodeFunctionData({
      abi: masterRegistryAbi,
      functionName: "initialize",
      args: [
        master.pledge, master.heartbeatWindowSeconds, master.unbondingSeconds, master.downtimeForfeitBps, [...params.masters],
      ],
    })),
    account("computeRegistry", "ComputeRegistry", 0n, encodeFunctionData({
      abi: computeRegistryAbi,
      functionName: "initialize",
      args: [[...(params.computeNodes ?? [])]],
    })),
    account("taskMarket", "TaskMarket", 0n, encodeFunctionData({
      abi: taskMarketAbi,
      functionName: "initialize",
      args: [{ platform: beneficiaries.platform, ...market }],
    })),
    account("priceFeed", "PriceFeed", 0n, encodeFunctionData({
      abi: priceFeedAbi,
      functionName: "initialize",
      args: [params.priceMicroUsdPerTsr, params.priceMaxAgeSeconds ?? DEFAULT_PRICE_MAX_AGE_SECONDS],
    })),
    account("distribution", "Distribution", foundation + team + distribution, encodeFunctionData({
      abi: distributionAbi,
      functionName: "initialize",
      args: [
        [beneficiaries.foundation, beneficiaries.team, beneficiaries.distribution, beneficiaries.ecology],
        [foundation, team, distribution, 0n],
      ],
    })),
    {
      name: "settlementCalculator",
      address: systemAddresses.settlementCalculator,
      balance: 0n,
      runtimeBytecode: contractArtifact("SettlementCalculator").deployedBytecode,
    },
  ];
}

function allocationAccounts(params: SystemGenesisParams): SystemAccount[] {
  const seen = new Set<string>(Object.values(systemAddresses));
  return params.allocations.map(({ address, amount }) => {
    if (seen.has(address.toLowerCase())) {
      throw new SystemGenesisError(
        "duplicate-allocation", amount,
        `Genesis allocates to ${address} twice or to a system account; give each address one allocation.`,
      );
    }
    seen.add(address.toLowerCase());
    return { name: "allocation", address, balance: amount, runtimeBytecode: "0x" };
  });
}
