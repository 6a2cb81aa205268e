// Owns the block subsidy. R_max(h) = remaining reserve / remaining blocks, so what is not paid is spread over the
// blocks to come and the sum never passes the reserve. R(h) = R_max x (alpha + (1 - alpha) x u), u = share of the
// block's multiply-adds that belong to paid tasks; it is split among the producer, one master (in turn) and the
// certificates. Challenge certificates share the alpha part of their pot pro rata to work; the utilisation part of
// that pot belongs to task certificates and stays in the reserve in a block that has none.
// Invariant: the sum of the payments never exceeds R_max, and R_max never exceeds the reserve.
import type { RewardParams } from "../genesis.js";
import { keyOf } from "../bytes.js";

export interface CertificateClaim {
  miner: Uint8Array;
  multiplyAdds: bigint;
}

export interface Payment {
  to: Uint8Array;
  amount: bigint;
  role: "producer" | "master" | "certificate";
}

export interface RewardInput {
  number: number;
  reserve: bigint;
  producer: Uint8Array;
  master: Uint8Array | undefined;
  certificates: readonly CertificateClaim[];
  /** Multiply-adds of paid tasks that were settled in this block. */
  usefulMultiplyAdds: bigint;
}

const BPS = 10_000n;

export function subsidyMax(number: number, reserve: bigint, params: RewardParams): bigint {
  const remainingBlocks = params.miningBlocks - number + 1;
  return remainingBlocks <= 0 ? 0n : reserve / BigInt(remainingBlocks);
}

/** One payment per recipient and role, in an order that every node derives alike. */
export function blockPayments(input: RewardInput, params: RewardParams): Payment[] {
  const max = subsidyMax(input.number, input.reserve, params);
  const work = input.certificates.reduce((sum, each) => sum + each.multiplyAdds, 0n);
  const total = input.usefulMultiplyAdds + work;
  const alphaPart = (max * BigInt(params.alphaBps)) / BPS;
  const taskPart = total === 0n ? 0n : ((max - alphaPart) * input.usefulMultiplyAdds) / total;
  const share = (part: bigint, bps: number) => (part * BigInt(bps)) / BPS;
  const payments: Payment[] = [
    { to: input.producer, amount: share(alphaPart + taskPart, params.producerBps), role: "producer" },
  ];
  if (input.master) {
    payments.push({ to: input.master, amount: share(alphaPart + taskPart, params.masterBps), role: "master" });
  }
  const pot = share(alphaPart, params.certificateBps);
  const byMiner = new Map<string, Payment>();
  for (const { miner, multiplyAdds } of input.certificates) {
    const payment = byMiner.get(keyOf(miner)) ?? { to: miner, amount: 0n, role: "certificate" as const };
    payment.amount += (pot * multiplyAdds) / work;
    byMiner.set(keyOf(miner), payment);
  }
  payments.push(...byMiner.values());
  return payments.filter((payment) => payment.amount > 0n);
}
