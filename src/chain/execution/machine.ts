// Owns one EVM over one world state: transactions, read-only calls and calls by the protocol itself.
// Invariant: a transaction that is refused leaves no trace in the state.
import { createBlock, type Block as EvmBlock } from "@ethereumjs/block";
import type { Common } from "@ethereumjs/common";
import type { EVMResult, InterpreterStep, Message } from "@ethereumjs/evm";
import { createVM, runTx, type RunTxResult, type VM } from "@ethereumjs/vm";
import { Account, Address } from "@ethereumjs/util";
import { createTx, type TypedTransaction } from "@ethereumjs/tx";
import { EMPTY, fromHex } from "../bytes.js";
import { SYSTEM_ADDRESS } from "../contracts/system.js";
import { ChainError } from "../errors.js";
import type { WorldState } from "./state.js";

/** The block as contracts see it. */
export interface BlockContext {
  number: number;
  timestamp: number;
  coinbase: Uint8Array;
  gasLimit: bigint;
  baseFeePerGas: bigint;
  /** PREVRANDAO: the modifier of the parent, known before the block is made. */
  random: Uint8Array;
}

export interface CallResult {
  output: Uint8Array;
  gasUsed: bigint;
  /** undefined on success, otherwise the EVM's reason ("revert", "out of gas", ...). */
  failure: string | undefined;
}

export interface CallRequest {
  from?: Uint8Array;
  to?: Uint8Array;
  data?: Uint8Array;
  value?: bigint;
  gas: bigint;
  gasPrice?: bigint;
  /** Accounts and slots that are warm from the start (EIP-2930). */
  accessList?: AccessList;
  /** What the call finds otherwise than the state has it; by address. */
  overrides?: readonly StateOverride[];
}

export type AccessList = readonly { address: `0x${string}`; storageKeys: readonly `0x${string}`[] }[];

/** An account as eth_call's third parameter changes it for one call. */
export interface StateOverride {
  address: Uint8Array;
  balance?: bigint;
  nonce?: bigint;
  code?: Uint8Array;
  /** The whole storage, or (stateDiff) single slots: 32-byte keys and values. */
  state?: readonly (readonly [Uint8Array, Uint8Array])[];
  stateDiff?: readonly (readonly [Uint8Array, Uint8Array])[];
}

/** Sees an execution as it goes; what it does must not change the state. */
export interface ExecutionObserver {
  /** Before each opcode. */
  step?(step: InterpreterStep): void;
  /** Before a call or creation, the transaction's own at depth 0 included. */
  enter?(message: Message): void;
  /** After it. */
  leave?(result: EVMResult): void;
}

/** Protocol calls are outside the block's gas; listing 1,024 stakers takes 15 M. */
const SYSTEM_CALL_GAS = 50_000_000n;
const systemAddress = new Address(fromHex(SYSTEM_ADDRESS));

/** Hash of the ancestor with this number, for BLOCKHASH. */
export type AncestorHash = (number: number) => Uint8Array;

export class Machine {
  private block: EvmBlock | undefined;

  private constructor(readonly state: WorldState, private readonly vm: VM, private readonly common: Common,
    private readonly ancestry: { hashOf: AncestorHash }) {}

  static async create(state: WorldState, common: Common): Promise<Machine> {
    const ancestry = { hashOf: (number: number): Uint8Array => { throw new ChainError("internal", `no ancestors set (${number})`); } };
    const blockchain = {
      getBlock: async (number: number) => ({ hash: () => ancestry.hashOf(number) }),
      putBlock: async () => {},
      shallowCopy: () => blockchain,
    };
    const vm = await createVM({ common, stateManager: state.manager, blockchain: blockchain as never });
    return new Machine(state, vm, common, ancestry);
  }

  enter(context: BlockContext, hashOf: AncestorHash): void {
    this.ancestry.hashOf = hashOf;
    this.block = createBlock({
      header: {
        number: context.number, timestamp: context.timestamp, coinbase: new Address(context.coinbase),
        gasLimit: context.gasLimit, baseFeePerGas: context.baseFeePerGas, mixHash: context.random,
      },
    }, { common: this.common, skipConsensusFormatValidation: true });
  }

  /** Throws when the transaction is not valid here (nonce, balance, fee); a failed execution is a result. */
  async transact(tx: TypedTransaction, blockGasUsed: bigint): Promise<RunTxResult> {
    return runTx(this.vm, { tx, block: this.block!, blockGasUsed, skipHardForkValidation: true });
  }

  /** Lets an observer watch while the work is done. */
  async observed<T>(observer: ExecutionObserver, work: () => Promise<T>): Promise<T> {
    const { events } = this.vm.evm;
    const step = (data: InterpreterStep): void => observer.step?.(data);
    const enter = (data: Message): void => observer.enter?.(data);
    const leave = (data: EVMResult): void => observer.leave?.(data);
    if (observer.step) events?.on("step", step); // a listener costs a snapshot of memory and stack for each opcode
    events?.on("beforeMessage", enter);
    events?.on("afterMessage", leave);
    try {
      return await work();
    } finally {
      events?.off("step", step);
      events?.off("beforeMessage", enter);
      events?.off("afterMessage", leave);
    }
  }

  /**
   * Runs a call as the transaction that it would be, fees left out, and forgets what it changed.
   * @returns the gas of the whole transaction and the accounts and slots that it touched
   */
  async callAsTransaction(request: CallRequest): Promise<CallResult & { accessList: AccessList }> {
    const from = new Address(request.from ?? new Uint8Array(20));
    const tx = createTx({
      type: 1, chainId: this.common.chainId(), gasLimit: request.gas, gasPrice: 0n, value: request.value ?? 0n,
      data: request.data ?? EMPTY, accessList: (request.accessList ?? []) as never,
      ...(request.to ? { to: new Address(request.to) } : {}),
    }, { common: this.common, freeze: false });
    tx.getSenderAddress = () => from; // nobody signed it
    const { manager } = this.state;
    await manager.checkpoint();
    try {
      await this.override(request.overrides ?? []);
      const block = createBlock({ header: { ...this.block!.header, baseFeePerGas: 0n } }, { common: this.common, skipConsensusFormatValidation: true });
      const { execResult, totalGasSpent, accessList = [] } = await runTx(this.vm, {
        tx, block, skipNonce: true, skipBalance: true, skipBlockGasLimitValidation: true, skipHardForkValidation: true, reportAccessList: true,
      });
      return {
        output: execResult.returnValue, gasUsed: totalGasSpent, failure: execResult.exceptionError?.error,
        accessList: accessList as unknown as AccessList,
      };
    } finally {
      await manager.revert();
    }
  }

  /** Runs a call and forgets what it changed. */
  async call(request: CallRequest): Promise<CallResult> {
    const { manager } = this.state;
    await manager.checkpoint();
    try {
      await this.override(request.overrides ?? []);
      return await this.run(request, request.from ? new Address(request.from) : new Address(new Uint8Array(20)));
    } finally {
      await manager.revert();
      await this.vm.evm.journal.cleanup();
    }
  }

  /** A read-only call by the protocol. Throws ChainError "system-call" when the contract refuses. */
  async view(to: string, data: string): Promise<Uint8Array> {
    const result = await this.call({ from: systemAddress.bytes, to: fromHex(to), data: fromHex(data), gas: SYSTEM_CALL_GAS });
    return this.succeed(result, to);
  }

  /** A call by the protocol whose changes stay. Throws ChainError "system-call" when the contract refuses. */
  async command(to: Uint8Array, data: Uint8Array): Promise<Uint8Array> {
    const result = await this.run({ to, data, gas: SYSTEM_CALL_GAS }, systemAddress);
    await this.vm.evm.journal.cleanup();
    return this.succeed(result, `0x${Buffer.from(to).toString("hex")}`);
  }

  private async override(overrides: readonly StateOverride[]): Promise<void> {
    const { manager } = this.state;
    for (const { address, balance, nonce, code, state, stateDiff } of overrides) {
      const owner = new Address(address);
      const account = (await manager.getAccount(owner)) ?? new Account();
      if (balance !== undefined) account.balance = balance;
      if (nonce !== undefined) account.nonce = nonce;
      await manager.putAccount(owner, account);
      if (code !== undefined) await manager.putCode(owner, code);
      if (state !== undefined) await manager.clearStorage(owner);
      for (const [key, value] of state ?? stateDiff ?? []) await manager.putStorage(owner, key, value);
    }
  }

  private succeed(result: CallResult, to: string): Uint8Array {
    if (result.failure !== undefined) {
      const detail = Buffer.from(result.output).toString("hex").slice(0, 200);
      throw new ChainError("system-call", `protocol call to ${to} failed: ${result.failure} ${detail}`.trim());
    }
    return result.output;
  }

  private async run(request: CallRequest, caller: Address): Promise<CallResult> {
    const isCheckingBalance = request.value !== undefined && request.value > 0n;
    const { execResult } = await this.vm.evm.runCall({
      block: this.block! as never, caller, origin: caller, gasLimit: request.gas, gasPrice: request.gasPrice ?? 0n,
      data: request.data ?? EMPTY, value: request.value ?? 0n, skipBalance: !isCheckingBalance,
      // a creation takes its address from the nonce it increments; the protocol's own account keeps none
      ...(request.to ? { to: new Address(request.to), skipNonceIncrement: true } : {}),
    });
    return {
      output: execResult.returnValue, gasUsed: execResult.executionGasUsed - (execResult.gasRefund ?? 0n),
      failure: execResult.exceptionError?.error,
    };
  }
}
