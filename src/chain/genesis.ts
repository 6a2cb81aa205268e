// Owns the genesis document: every parameter that a network must agree on, and the accounts it starts with.
// Invariant: it is plain JSON, it carries the contract code itself, and its hash is the parent hash of block 0,
// so nodes that disagree on any parameter have different genesis blocks and never talk past each other.
import { fromHex, keccak, toHex, utf8, padTo, fromBigInt } from "./bytes.js";
import { ChainError } from "./errors.js";
import { DEVNET_DIMS } from "./certificate/miner.js";
import { systemGenesis, type GenesisComputeNode, type SystemGenesisParams } from "./contracts/system.js";

export type HexString = `0x${string}`;

/** 10,000,000,000 TSR of 18 decimals (white paper 5.1). */
export const SUPPLY_WEI = 10_000_000_000n * 10n ** 18n;
export const RESERVE_ADDRESS = padTo(fromBigInt(0x1000n), 20);

export interface ConsensusParams {
  slotMs: number;
  /** The leader target doubles after each step of a slot. */
  stepMs: number;
  /** The lottery of block h uses the modifier of block h - 1 - lag. */
  modifierLagBlocks: number;
  /** A block that claims a later time than now plus this is refused (and may come again). */
  clockDriftMs: number;
  /** Deeper alternatives are refused whatever they weigh. */
  reorganisationBlocksMax: number;
  /** A transaction under this many blocks is reported as final. */
  confirmations: number;
  gasLimit: number;
  baseFeePerGas: string;
}

export interface CertificateParams {
  m: number;
  n: number;
  k: number;
  /** Difficulty at genesis, a 256-bit number: lower is harder. */
  target: HexString;
  /** Easiest target that the adjustment may reach. */
  targetLimit: HexString;
  perBlockMax: number;
  /** The difficulty moves until a block holds this many on average. */
  perBlockGoal: number;
  /** A certificate of height t may stand in blocks t + 1 to t + window. */
  windowBlocks: number;
  /** Blocks over which a steady error of one goal halves or doubles the target. */
  halfLifeBlocks: number;
}

export interface RewardParams {
  /** 66 years of slots: the mining time of the white paper (5.1). */
  miningBlocks: number;
  /** Share of the subsidy that is paid whatever the utilisation, in ten-thousandths. */
  alphaBps: number;
  producerBps: number;
  masterBps: number;
  certificateBps: number;
}

export interface GenesisAccount {
  address: HexString;
  balance: string;
  code?: HexString;
  /** Call data, run from the system address before the state root of block 0 is taken. */
  init?: HexString;
}

export interface Genesis {
  format: "tesra-genesis/1";
  name: string;
  chainId: number;
  timestampMs: number;
  consensus: ConsensusParams;
  certificates: CertificateParams;
  rewards: RewardParams;
  accounts: GenesisAccount[];
}

const MINING_YEARS_SECONDS = 66 * 31_557_600; // Julian years
const BPS = 10_000;

export const mainnetConsensus: ConsensusParams = {
  slotMs: 60_000, stepMs: 1_000, modifierLagBlocks: 100, clockDriftMs: 5_000, reorganisationBlocksMax: 100,
  confirmations: 6, gasLimit: 30_000_000, baseFeePerGas: "1000000000",
};

export interface DevnetOptions {
  name?: string;
  chainId: number | bigint;
  /** Start of slot 0. The domain code has no clock: the caller says what time it is. */
  timestampMs: number;
  validators: { address: string; blsPublicKey: string | Uint8Array; stake: bigint; proofOfPossession?: string | Uint8Array }[];
  masters?: {
    address: string; pledge: bigint;
    /** CURVE public key, 32 bytes. */
    transportKey?: string | Uint8Array;
    blsPublicKey?: string | Uint8Array;
    proofOfPossession?: string | Uint8Array;
  }[];
  computeNodes?: GenesisComputeNode[];
  /** Carved out of the distribution pool, then the foundation's part. */
  allocations: { address: string; amount: bigint }[];
  blockTimeMs?: number;
  stepMs?: number;
  consensus?: Partial<ConsensusParams>;
  certificates?: Partial<CertificateParams>;
  rewards?: Partial<RewardParams>;
  system?: Partial<Omit<SystemGenesisParams, "allocations" | "validators" | "masters" | "computeNodes">>;
}

/**
 * A network for one machine: short slots, small certificates, stakes that count at once.
 * Throws SystemGenesisError when the allocations exceed what genesis may hand out.
 */
export function createDevnetGenesis(options: DevnetOptions): Genesis {
  const slotMs = options.blockTimeMs ?? 1_000;
  const genesis: Genesis = {
    format: "tesra-genesis/1",
    name: options.name ?? "devnet",
    chainId: Number(options.chainId),
    timestampMs: options.timestampMs,
    consensus: {
      ...mainnetConsensus, slotMs, stepMs: options.stepMs ?? Math.max(1, Math.floor(slotMs / 10)), modifierLagBlocks: 4,
      clockDriftMs: 500, ...options.consensus,
    },
    certificates: {
      ...DEVNET_DIMS, target: powerOfTwo(247), targetLimit: powerOfTwo(252), perBlockMax: 10,
      perBlockGoal: 4, windowBlocks: 8, halfLifeBlocks: 8, ...options.certificates,
    },
    rewards: {
      miningBlocks: Math.floor((MINING_YEARS_SECONDS * 1000) / slotMs), alphaBps: 2_000, producerBps: 3_000,
      masterBps: 2_000, certificateBps: 5_000, ...options.rewards,
    },
    accounts: devnetAccounts(options),
  };
  checkGenesis(genesis);
  return genesis;
}

function devnetAccounts(options: DevnetOptions): GenesisAccount[] {
  const nobody = (label: string) => toHex(keccak(utf8(`tesra devnet ${label}`)).slice(12));
  // A genesis author vouches for the keys it lists; proofs of possession matter when strangers register.
  const proof = (value: string | Uint8Array | undefined) => hex(value ?? new Uint8Array(96));
  return systemGenesis({
    beneficiaries: {
      foundation: nobody("foundation"), team: nobody("team"), distribution: nobody("distribution"),
      ecology: nobody("ecology"), platform: nobody("platform"),
    },
    priceMicroUsdPerTsr: 10_000n, // one cent, until the masters' median replaces it
    ...options.system,
    stake: { maturitySeconds: 0n, minimumStake: 1n, ...options.system?.stake },
    allocations: options.allocations.map(({ address, amount }) => ({ address: address.toLowerCase() as HexString, amount })),
    validators: options.validators.map((each) => ({
      owner: each.address as HexString, blsPublicKey: hex(each.blsPublicKey), amount: each.stake,
      proofOfPossession: proof(each.proofOfPossession),
    })),
    masters: (options.masters ?? []).map((each) => ({
      owner: each.address as HexString, blsPublicKey: hex(each.blsPublicKey ?? unusableBlsKey(each.address)),
      transportKey: hex(each.transportKey ?? keccak(utf8(`no transport key ${each.address}`))),
      pledge: each.pledge, proofOfPossession: proof(each.proofOfPossession),
    })),
    ...(options.computeNodes ? { computeNodes: options.computeNodes } : {}),
  }).map((account) => ({
    address: account.address.toLowerCase() as HexString,
    balance: account.balance.toString(),
    ...(account.runtimeBytecode === "0x" ? {} : { code: account.runtimeBytecode }),
    ...(account.init === undefined ? {} : { init: account.init }),
  }));
}

/** Registered for a master that has no BLS key yet: unique, and no point of the curve, so nobody can sign for it. */
function unusableBlsKey(address: string): Uint8Array {
  const label = utf8(`no BLS key ${address.toLowerCase()}`);
  const key = new Uint8Array(48);
  key.set(keccak(label), 16);
  return key; // the compression flag (top bit) is clear, which no 48-byte encoding allows
}

function hex(value: string | Uint8Array): HexString {
  if (typeof value !== "string") return toHex(value);
  return (value.startsWith("0x") ? value : `0x${value}`) as HexString;
}

function powerOfTwo(exponent: number): HexString {
  return `0x${(1n << BigInt(exponent)).toString(16)}`;
}

/** Throws ChainError "genesis" that names the field, what was expected and what was found. */
export function checkGenesis(genesis: Genesis): void {
  const fail = (field: string, expected: string, found: unknown): never => {
    throw new ChainError("genesis", `genesis.${field} must be ${expected}, found ${String(found)}`);
  };
  const natural = (field: string, value: number, min: number, max = Number.MAX_SAFE_INTEGER) => {
    if (!Number.isSafeInteger(value) || value < min || value > max) fail(field, `an integer of ${min} to ${max}`, value);
  };
  if (genesis.format !== "tesra-genesis/1") fail("format", '"tesra-genesis/1"', genesis.format);
  const { consensus, certificates, rewards } = genesis;
  natural("chainId", genesis.chainId, 1);
  natural("timestampMs", genesis.timestampMs, 0);
  natural("consensus.slotMs", consensus.slotMs, 10);
  natural("consensus.stepMs", consensus.stepMs, 1, consensus.slotMs);
  natural("consensus.modifierLagBlocks", consensus.modifierLagBlocks, 0);
  natural("consensus.clockDriftMs", consensus.clockDriftMs, 0);
  natural("consensus.reorganisationBlocksMax", consensus.reorganisationBlocksMax, 1);
  natural("consensus.confirmations", consensus.confirmations, 1);
  natural("consensus.gasLimit", consensus.gasLimit, 1_000_000, GAS_LIMIT_MAX);
  natural("certificates.perBlockMax", certificates.perBlockMax, 0, 10);
  natural("certificates.perBlockGoal", certificates.perBlockGoal, 1, 10);
  natural("certificates.windowBlocks", certificates.windowBlocks, 1, 64);
  natural("certificates.halfLifeBlocks", certificates.halfLifeBlocks, 1);
  if (BigInt(certificates.target) < 1n || BigInt(certificates.target) > BigInt(certificates.targetLimit)) {
    fail("certificates.target", "between 1 and targetLimit", certificates.target);
  }
  if (BigInt(certificates.targetLimit) >= 1n << 256n) fail("certificates.targetLimit", "below 2^256", certificates.targetLimit);
  natural("rewards.miningBlocks", rewards.miningBlocks, 1);
  natural("rewards.alphaBps", rewards.alphaBps, 0, BPS);
  const shares = rewards.producerBps + rewards.masterBps + rewards.certificateBps;
  if (shares !== BPS) fail("rewards", `shares that add up to ${BPS}`, shares);
  const supply = genesis.accounts.reduce((sum, account) => sum + BigInt(account.balance), 0n);
  if (supply !== SUPPLY_WEI) fail("accounts", `balances that add up to ${SUPPLY_WEI} wei`, supply);
}

/** 100 M gas touch at most 53,000 accounts or slots, which the state cache must hold at once. */
export const GAS_LIMIT_MAX = 100_000_000;

/** keccak of the canonical JSON (keys sorted): the parent hash of block 0. */
export function genesisConfigHash(genesis: Genesis): Uint8Array {
  return keccak(utf8(canonicalJson(genesis)));
}

function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  if (value !== null && typeof value === "object") {
    const entries = Object.entries(value).filter(([, each]) => each !== undefined).sort(([a], [b]) => (a < b ? -1 : 1));
    return `{${entries.map(([key, each]) => `${JSON.stringify(key)}:${canonicalJson(each)}`).join(",")}}`;
  }
  return JSON.stringify(value);
}

export function accountBytes(account: GenesisAccount): { address: Uint8Array; balance: bigint; code?: Uint8Array; init?: Uint8Array } {
  return {
    address: fromHex(account.address), balance: BigInt(account.balance),
    ...(account.code ? { code: fromHex(account.code) } : {}), ...(account.init ? { init: fromHex(account.init) } : {}),
  };
}
