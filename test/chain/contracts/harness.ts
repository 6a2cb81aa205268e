/**
 * Owns: a real EVM with the system contracts placed as genesis places them. Time is set by the test;
 * nothing is mocked. Invariant it offers to check: all balances add up to the supply.
 */
import { type Block, createBlock } from "@ethereumjs/block";
import { Common, Hardfork, Mainnet } from "@ethereumjs/common";
import { createEVM, type EVM } from "@ethereumjs/evm";
import { Caches, MerkleStateManager } from "@ethereumjs/statemanager";
import { createAccount, createAddressFromString, bytesToHex, hexToBytes } from "@ethereumjs/util";
import {
  type Abi, type AbiStateMutability, type ContractFunctionArgs, type ContractFunctionName,
  type ContractFunctionReturnType, decodeErrorResult, decodeEventLog, decodeFunctionResult,
  encodeFunctionData, type Hex, keccak256, pad, toHex,
} from "viem";
import {
  computeRegistryAbi, distributionAbi, masterRegistryAbi, priceFeedAbi, settlementCalculatorAbi, stakeRegistryAbi,
  taskMarketAbi,
} from "../../../src/chain/contracts/abi.js";
import {
  type Address, SUPPLY, SYSTEM_ADDRESS, systemAddresses, systemGenesis, type SystemGenesisParams, TSR,
} from "../../../src/chain/contracts/system.js";

const allAbis: Abi = [
  ...stakeRegistryAbi, ...masterRegistryAbi, ...computeRegistryAbi, ...taskMarketAbi, ...priceFeedAbi,
  ...distributionAbi, ...settlementCalculatorAbi,
];
const contracts = {
  stake: { address: systemAddresses.stakeRegistry, abi: stakeRegistryAbi },
  master: { address: systemAddresses.masterRegistry, abi: masterRegistryAbi },
  compute: { address: systemAddresses.computeRegistry, abi: computeRegistryAbi },
  market: { address: systemAddresses.taskMarket, abi: taskMarketAbi },
  price: { address: systemAddresses.priceFeed, abi: priceFeedAbi },
  distribution: { address: systemAddresses.distribution, abi: distributionAbi },
  calculator: { address: systemAddresses.settlementCalculator, abi: settlementCalculatorAbi },
} as const;
type Contracts = typeof contracts;
export type ContractName = keyof Contracts;

export interface EventRecord {
  name: string;
  args: Record<string, unknown>;
}

export interface CallResult {
  ok: boolean;
  /** The custom error's name, or the EVM's own reason. */
  error?: string;
  errorArgs?: readonly unknown[];
  returnData: Hex;
  events: EventRecord[];
  gasUsed: bigint;
}

export const person = (index: number): Address => pad(toHex(0xa000 + index), { size: 20 });
export const blsKey = (index: number): Hex => pad(toHex(index + 1), { size: 48 });
export const blsProof: Hex = pad("0x01", { size: 96 });
export const transportKey = (index: number): Hex => keccak256(toHex(`transport ${index}`));
export const proofDigest = (index: number): Hex => keccak256(toHex(`proof ${index}`));
export const GENESIS_SECONDS = 1_800_000_000n;
export const HOLDING = 1_000_000n * TSR;

export const people = {
  foundation: person(1), team: person(2), community: person(3), ecology: person(4), platform: person(5),
  validator: person(10), validator2: person(11), master: person(20), master2: person(21), master3: person(22),
  client: person(30), stranger: person(31), worker: (index: number) => person(100 + index),
};
export const WORKERS = 6;

export function defaultGenesis(): SystemGenesisParams {
  const workers = Array.from({ length: WORKERS }, (_, index) => people.worker(index));
  return {
    allocations: [people.client, people.stranger, people.master, people.master2, people.master3, ...workers,
      people.validator, people.validator2].map((address) => ({ address, amount: HOLDING })),
    validators: [
      { owner: people.validator, blsPublicKey: blsKey(1), proofOfPossession: blsProof, amount: 5_000n * TSR },
    ],
    masters: [
      {
        owner: people.master, blsPublicKey: blsKey(2), proofOfPossession: blsProof,
        transportKey: transportKey(2), pledge: 10_000n * TSR,
      },
    ],
    computeNodes: workers.map((owner, index) => ({
      owner, transportKey: transportKey(100 + index), grade: 3, power: [10n ** 12n, 10n ** 12n, 0n, 0n] as const,
      memoryBytes: 2n ** 34n, proofDigest: proofDigest(100 + index),
    })),
    beneficiaries: {
      foundation: people.foundation, team: people.team, distribution: people.community,
      ecology: people.ecology, platform: people.platform,
    },
    priceMicroUsdPerTsr: 20_000n,
  };
}

export class TestChain {
  time = GENESIS_SECONDS;
  number = 1n;
  /** Every address that was ever given coins or called; the supply is the sum over them. */
  readonly known = new Set<Address>();

  private constructor(readonly evm: EVM, readonly common: Common) {}

  static #shared: TestChain | undefined;

  /**
   * A chain just after genesis. With the default genesis it is the same chain, taken back to genesis:
   * a file's tests run one after another, and each uses only the chain it created last.
   */
  static async create(params?: SystemGenesisParams): Promise<TestChain> {
    if (params !== undefined) return TestChain.#build(params);
    const shared = (TestChain.#shared ??= await TestChain.#build(defaultGenesis()));
    await shared.#rewind();
    return shared;
  }

  /** The open checkpoint keeps changes in the cache: nothing is hashed, and a rewind forgets them. */
  async #rewind(): Promise<void> {
    await this.evm.stateManager.revert();
    await this.evm.stateManager.checkpoint();
    this.time = GENESIS_SECONDS;
    this.number = 1n;
    this.known.clear();
    for (const each of this.#genesisKnown) this.known.add(each);
  }

  readonly #genesisKnown = new Set<Address>();

  static async #build(params: SystemGenesisParams): Promise<TestChain> {
    const common = new Common({ chain: Mainnet, hardfork: Hardfork.Cancun });
    const stateManager = new MerkleStateManager({ common, caches: new Caches() });
    const evm = await createEVM({ common, stateManager });
    const chain = new TestChain(evm, common);
    const accounts = systemGenesis(params);
    for (const each of accounts) {
      await chain.place(each.address, each.runtimeBytecode, each.balance);
    }
    for (const each of accounts) {
      if (each.init === undefined) continue;
      const result = await chain.raw(SYSTEM_ADDRESS, each.address, each.init);
      if (!result.ok) throw new Error(`${each.name}: ${result.error} ${String(result.errorArgs)}`);
    }
    for (const each of Object.values(params.beneficiaries)) chain.known.add(each);
    for (const each of chain.known) chain.#genesisKnown.add(each);
    await evm.stateManager.checkpoint();
    return chain;
  }

  async place(address: Address, code: Hex, balance = 0n): Promise<void> {
    const to = createAddressFromString(address);
    await this.evm.stateManager.putAccount(to, createAccount({ balance, nonce: 0n }));
    if (code !== "0x") await this.evm.stateManager.putCode(to, hexToBytes(code));
    this.known.add(address);
  }

  async raw(from: Address, to: Address, data: Hex, value = 0n, gasLimit = 100_000_000n): Promise<CallResult> {
    this.known.add(from);
    const block = this.#block(gasLimit);
    const { execResult } = await this.evm.runCall({
      caller: createAddressFromString(from), origin: createAddressFromString(from),
      to: createAddressFromString(to), data: hexToBytes(data), value, gasLimit, block,
    });
    await this.evm.journal.cleanup();
    this.evm.stateManager.originalStorageCache.clear();
    const returnData = bytesToHex(execResult.returnValue);
    const failure = execResult.exceptionError;
    return {
      ok: failure === undefined,
      ...(failure === undefined ? {} : explain(failure.error, returnData)),
      returnData,
      events: (failure === undefined ? execResult.logs ?? [] : []).map(([, topics, data]) => decodeLog(topics, data)),
      gasUsed: execResult.executionGasUsed,
    };
  }

  /** Building a block costs more than most calls: one serves as long as time stands still. */
  #block(gasLimit: bigint): Block {
    const { timestamp, number } = this.#lastBlock?.header ?? {};
    if (this.#lastBlock === undefined || timestamp !== this.time || number !== this.number) {
      this.#lastBlock = createBlock(
        { header: { timestamp: this.time, number: this.number, gasLimit } },
        { common: this.common, skipConsensusFormatValidation: true },
      );
    }
    return this.#lastBlock;
  }

  #lastBlock: Block | undefined;

  /** A transaction's call; a revert is a result, not an exception. */
  async send<
    N extends ContractName,
    F extends ContractFunctionName<Contracts[N]["abi"], "nonpayable" | "payable">,
  >(
    from: Address, contract: N, functionName: F,
    args: ContractFunctionArgs<Contracts[N]["abi"], "nonpayable" | "payable", F>, value = 0n,
  ): Promise<CallResult> {
    const { address, abi } = contracts[contract];
    const data = encodeFunctionData({ abi: abi as Abi, functionName: functionName as string, args: args as readonly unknown[] });
    return this.raw(from, address, data, value);
  }

  /** As send, but a revert fails the test with the error's name. */
  async must<
    N extends ContractName,
    F extends ContractFunctionName<Contracts[N]["abi"], "nonpayable" | "payable">,
  >(
    from: Address, contract: N, functionName: F,
    args: ContractFunctionArgs<Contracts[N]["abi"], "nonpayable" | "payable", F>, value = 0n,
  ): Promise<CallResult> {
    const result = await this.send(from, contract, functionName, args, value);
    if (!result.ok) {
      throw new Error(`${contract}.${functionName}: ${result.error}(${String(result.errorArgs ?? "")})`);
    }
    return result;
  }

  async view<N extends ContractName, F extends ContractFunctionName<Contracts[N]["abi"], "view" | "pure">>(
    contract: N, functionName: F, args: ContractFunctionArgs<Contracts[N]["abi"], "view" | "pure", F>,
  ): Promise<ContractFunctionReturnType<Contracts[N]["abi"], AbiStateMutability, F>> {
    const { address, abi } = contracts[contract];
    const data = encodeFunctionData({ abi: abi as Abi, functionName: functionName as string, args: args as readonly unknown[] });
    const result = await this.raw("0x0000000000000000000000000000000000000000", address, data);
    if (!result.ok) throw new Error(`${contract}.${functionName}: ${result.error}`);
    return decodeFunctionResult({ abi: abi as Abi, functionName: functionName as string, data: result.returnData }) as
      ContractFunctionReturnType<Contracts[N]["abi"], AbiStateMutability, F>;
  }

  async balance(address: Address): Promise<bigint> {
    const account = await this.evm.stateManager.getAccount(createAddressFromString(address));
    return account?.balance ?? 0n;
  }

  async totalBalance(): Promise<bigint> {
    let total = 0n;
    for (const each of this.known) total += await this.balance(each);
    return total;
  }

  /** The market's books against its coins, and the whole ledger against the supply. */
  async conservation(): Promise<{ marketGap: bigint; supplyGap: bigint }> {
    const escrowed = await this.view("market", "totalEscrowed", []);
    const credited = await this.view("market", "totalCredited", []);
    return {
      marketGap: (await this.balance(systemAddresses.taskMarket)) - escrowed - credited,
      supplyGap: (await this.totalBalance()) - SUPPLY,
    };
  }
}

function explain(reason: string, data: Hex): { error: string; errorArgs?: readonly unknown[] } {
  if (data.length < 10) return { error: reason };
  try {
    const decoded = decodeErrorResult({ abi: allAbis, data });
    return { error: decoded.errorName, errorArgs: (decoded.args ?? []) as readonly unknown[] };
  } catch {
    return { error: `${reason} ${data.slice(0, 74)}` };
  }
}

function decodeLog(topics: Uint8Array[], data: Uint8Array): EventRecord {
  const decoded = decodeEventLog({
    abi: allAbis, data: bytesToHex(data), topics: topics.map((each) => bytesToHex(each)) as [Hex, ...Hex[]],
  });
  return { name: decoded.eventName ?? "", args: (decoded.args ?? {}) as unknown as Record<string, unknown> };
}
