// Owns the execution of one block on its parent's state: transactions in order, then the base fee back to the
// reserve, then the subsidy. Invariant: the sum of all balances is the same before and after.
import type { RunTxResult } from "@ethereumjs/vm";
import type { Transaction } from "../block/transaction.js";
import { encodeConsensusReceipt, logsBloom, type Log, type Outcome, type Receipt } from "../block/receipt.js";
import { orderedTrieRoot } from "../block/trie-root.js";
import { blockPayments, type CertificateClaim, type Payment } from "../consensus/rewards.js";
import { messageOf, reject } from "../errors.js";
import { RESERVE_ADDRESS, type Genesis } from "../genesis.js";
import type { StoreOperation } from "../store/store.js";
import type { AncestorHash, BlockContext, Machine } from "./machine.js";
import { readNextPayee, readProvenMultiplyAdds, recordMasterPayment } from "./system-views.js";

export interface BlockResult {
  stateRoot: Uint8Array;
  receiptsRoot: Uint8Array;
  logsBloom: Uint8Array;
  gasUsed: bigint;
  outcome: Outcome;
  writes: StoreOperation[];
}

const paymentRoles: readonly Payment["role"][] = ["producer", "master", "certificate"];
export const roleName = (role: number): Payment["role"] => paymentRoles[role]!;

export class BlockRun {
  readonly receipts: Receipt[] = [];
  gasUsed = 0n;

  constructor(private readonly machine: Machine, private readonly genesis: Genesis,
    private readonly context: BlockContext, hashOf: AncestorHash) {
    machine.enter(context, hashOf);
  }

  get gasLeft(): bigint {
    return this.context.gasLimit - this.gasUsed;
  }

  /** Throws ChainError "transaction" when it is not valid at this point of the block. */
  async transact(transaction: Transaction): Promise<void> {
    const { tx } = transaction;
    if (tx.gasLimit > this.gasLeft) {
      reject("transaction", `needs ${tx.gasLimit} gas, the block has ${this.gasLeft} left`);
    }
    let result: RunTxResult;
    try {
      result = await this.machine.transact(tx, this.gasUsed);
    } catch (error) {
      return reject("transaction", messageOf(error));
    }
    this.gasUsed += result.totalGasSpent;
    const logs = (result.execResult.logs ?? []).map(([address, topics, data]): Log => ({ address, topics, data }));
    this.receipts.push({
      type: tx.type, succeeded: result.execResult.exceptionError === undefined, gasUsed: result.totalGasSpent,
      cumulativeGasUsed: this.gasUsed, contractAddress: tx.to === undefined ? result.createdAddress?.bytes : undefined, logs,
    });
  }

  async finish(certificates: readonly CertificateClaim[], parent: Outcome): Promise<BlockResult> {
    const { state } = this.machine;
    await state.addBalance(RESERVE_ADDRESS, this.gasUsed * this.context.baseFeePerGas);
    const provenTotal = await readProvenMultiplyAdds(this.machine);
    const useful = provenTotal - parent.usefulMultiplyAddsTotal;
    const payments = blockPayments({
      number: this.context.number, reserve: (await state.account(RESERVE_ADDRESS)).balance,
      producer: this.context.coinbase, master: await readNextPayee(this.machine), certificates, usefulMultiplyAdds: useful,
    }, this.genesis.rewards);
    for (const payment of payments) {
      await state.addBalance(RESERVE_ADDRESS, -payment.amount);
      await state.addBalance(payment.to, payment.amount);
      if (payment.role === "master") await recordMasterPayment(this.machine, payment.to, payment.amount);
    }
    const work = certificates.reduce((sum, each) => sum + each.multiplyAdds, 0n);
    const stateRoot = await state.root();
    return {
      stateRoot,
      receiptsRoot: orderedTrieRoot(this.receipts.map(encodeConsensusReceipt)),
      logsBloom: logsBloom(this.receipts.flatMap((receipt) => receipt.logs)),
      gasUsed: this.gasUsed,
      outcome: {
        receipts: this.receipts,
        payments: payments.map(({ to, amount, role }) => ({ to, amount, role: paymentRoles.indexOf(role) })),
        usefulMultiplyAdds: useful, usefulMultiplyAddsTotal: provenTotal,
        certificateMultiplyAdds: work, certificateMultiplyAddsTotal: parent.certificateMultiplyAddsTotal + work,
        certificatesTotal: parent.certificatesTotal + certificates.length,
        rewardsTotal: parent.rewardsTotal + payments.reduce((sum, each) => sum + each.amount, 0n),
      },
      writes: state.takeWrites(),
    };
  }
}
