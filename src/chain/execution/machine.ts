// Owns one EVM over one world state: transactions, read-only calls and calls by the protocol itself.
// Invariant: a transaction that is refused leaves no trace in the state.
import { createBlock, type Block as EvmBlock } from "@ethereumjs/block";
import type { Common } from "@ethereumjs/common";
import { createVM, runTx, type RunTxResult, type VM } from "@ethereumjs/vm";
import { Address } from "@ethereumjs/util";
import type { TypedTransaction } from "@ethereumjs/tx";
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

  /** Runs a call and forgets what it changed. */
  async call(request: CallRequest): Promise<CallResult> {
    const { manager } = this.state;
    await manager.checkpoint();
    try {
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
