// Owns how a worker becomes a candidate: two seeded products before a deadline, checked in parts, attested on
// the chain. Invariant: a node's power is what it proved here, never what it claims.
import type { Address, Hex } from "viem";
import { computeRegistryAbi } from "../../chain/contracts/abi.js";
import { systemAddresses } from "../../chain/contracts/system.js";
import type { Device } from "../../device/device.js";
import { Refusal, type Ref } from "../../runtime/index.js";
import {
  gradeOf, issueChallenge, operandSeedOf, powerLanes, verifyAnswer, type Capability, type ChallengeDims,
} from "../../scheduler/index.js";
import { checkFp32Rows, createTileCheck, FP32_ROWS_CHECKED } from "../capability.js";
import type { Transactor } from "../chain-node/transactor.js";
import type { WorkerProtocol } from "../worker/protocol.js";

/** 0.27 G multiply-adds int8 and 1.1 G fp32: tens of milliseconds on a core, above the link's round trip. */
const INT8_DIMS: ChallengeDims = { m: 256, n: 256, k: 4_096 };
const FP32_SIZE = 1_024;
/** A node that needs longer than this for a challenge is of no use to any task. */
const ALLOWED_MS = 20_000;
/** The best of so many runs: a node that shares its cores is not judged by one unlucky moment. */
const RUNS = 3;

export interface EnrolmentModules {
  device: Device;
  transactor: Transactor;
  now: () => number;
  random: (size: number) => Uint8Array;
}

export interface EnrolledWorker { capability: Capability; grade: number }

/** Challenges a worker and attests what it proved. Throws Refusal when it did not pass. */
export async function enrol(
  worker: Ref<typeof WorkerProtocol>, account: Address, memoryBytes: number, modules: EnrolmentModules,
): Promise<EnrolledWorker> {
  const node = account.toLowerCase();
  let int8 = 0n;
  let fp32 = 0n;
  let proofDigest = "0x";
  for (let run = 0; run < RUNS; run += 1) {
    const proof = await proveInt8(worker, node, modules);
    if (proof.power > int8) ({ power: int8, digest: proofDigest } = proof);
    const power = await proveFp32(worker, modules);
    if (power > fp32) fp32 = power;
  }
  const capability: Capability = {
    power: { fp32, int8, fp16: 0n, fp8: 0n }, memoryBytes: BigInt(memoryBytes), bandwidthBytesPerSecond: 0n,
  };
  const grade = gradeOf(capability);
  await modules.transactor.send({
    address: systemAddresses.computeRegistry, abi: computeRegistryAbi, functionName: "attestPower",
    args: [account, grade, powerLanes(capability), capability.memoryBytes, proofDigest as Hex],
  });
  return { capability, grade };
}

async function proveInt8(worker: Ref<typeof WorkerProtocol>, node: string, modules: EnrolmentModules): Promise<{ power: bigint; digest: string }> {
  const { device, now, random } = modules;
  const challenge = issueChallenge(node, INT8_DIMS, ALLOWED_MS, now(), random);
  const answer = await worker.call("challenge", { operandSeed: operandSeedOf(challenge), dims: INT8_DIMS }, { timeoutMs: ALLOWED_MS });
  const receivedAtMs = now();
  if (!answer.ok) throw new Refusal("no-answer", `the int8 challenge was not answered: ${answer.error.message}`);
  const verdict = verifyAnswer(challenge, { seed: challenge.seed, node, tickets: answer.value.tickets }, receivedAtMs, random, createTileCheck(device));
  if (!verdict.ok) throw new Refusal(verdict.code, verdict.message);
  return { power: verdict.multiplyAddsPerSecond, digest: verdict.proofDigest };
}

async function proveFp32(worker: Ref<typeof WorkerProtocol>, modules: EnrolmentModules): Promise<bigint> {
  const { device, now, random } = modules;
  const seed = random(32);
  const startMs = now();
  const answer = await worker.call("fp32Challenge", { seed, size: FP32_SIZE }, { timeoutMs: ALLOWED_MS });
  const elapsedMs = Math.max(1, now() - startMs);
  if (!answer.ok) throw new Refusal("no-answer", `the fp32 challenge was not answered: ${answer.error.message}`);
  const words = new Uint32Array(random(FP32_ROWS_CHECKED * 4).slice().buffer);
  const rows = Array.from(words, (word) => word % FP32_SIZE);
  if (!checkFp32Rows(device, seed, FP32_SIZE, answer.value.rowHashes, rows)) {
    throw new Refusal("wrong-product", "the fp32 product is not what its operands give");
  }
  return (BigInt(FP32_SIZE) ** 3n * 1_000n) / BigInt(Math.round(elapsedMs));
}
