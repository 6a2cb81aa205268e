/**
 * Owns: what a node is worth to a task (white paper 2.2.3): a grade from proven measurements, and a
 * score that orders nodes of enough grade. Integers only, so that every master computes the same.
 * Invariant: without a proof a node has grade 0, whatever it claims.
 */
export type Precision = "fp32" | "int8" | "fp16" | "fp8";
/** The order of the power lanes on chain. */
export const precisions: readonly Precision[] = ["fp32", "int8", "fp16", "fp8"];

export interface Capability {
  /** Proven multiply-adds per second at each precision; 0 where unproven. */
  readonly power: Readonly<Record<Precision, bigint>>;
  readonly memoryBytes: bigint;
  readonly bandwidthBytesPerSecond: bigint;
}

export interface Standing {
  readonly commentBps: bigint;
  /** Tasks finished over tasks taken, in basis points; 10000 for a node without history. */
  readonly reliabilityBps: bigint;
}

const GIGA = 10n ** 9n;
const GIB = 2n ** 30n;

/**
 * Least fp32 power and memory of each grade. A laptop core is 1, a desktop 2, a small GPU or a big
 * server 3, a data-centre GPU 4, its newest generation 5.
 */
const gradeFloors: readonly { power: bigint; memoryBytes: bigint }[] = [
  { power: 1n, memoryBytes: 0n },
  { power: 100n * GIGA, memoryBytes: 4n * GIB },
  { power: 1_000n * GIGA, memoryBytes: 8n * GIB },
  { power: 10_000n * GIGA, memoryBytes: 32n * GIB },
  { power: 25_000n * GIGA, memoryBytes: 80n * GIB },
];

/** 0 (unproven) to 5: the highest grade whose floors of power and memory are both met. */
export function gradeOf(capability: Capability): number {
  let grade = 0;
  for (const floor of gradeFloors) {
    if (capability.power.fp32 < floor.power || capability.memoryBytes < floor.memoryBytes) break;
    grade += 1;
  }
  return grade;
}

/** Power that can be counted on: proven rate x reliability x comment. Orders candidates. */
export function scoreOf(capability: Capability, standing: Standing, precision: Precision): bigint {
  return (capability.power[precision] * standing.reliabilityBps * standing.commentBps) / 100_000_000n;
}

/** The four lanes as the chain stores them. */
export function powerLanes(capability: Capability): [bigint, bigint, bigint, bigint] {
  const { fp32, int8, fp16, fp8 } = capability.power;
  return [fp32, int8, fp16, fp8];
}
