/**
 * Owns: which nodes a task gets (white paper 2.2.3): filter by grade, memory, price, collateral and
 * load; place the gang whole or not at all; name standby nodes; let small tasks fill gaps.
 * Invariant: a pure function of its arguments, the same on every master; ties are broken by a hash
 * of task and node, so nobody gains by choosing an address.
 */
import { blake3 } from "@noble/hashes/blake3.js";
import { bytesToHex, utf8ToBytes } from "@noble/hashes/utils.js";
import { type Capability, gradeOf, type Precision, scoreOf, type Standing } from "./grading.js";

export interface Candidate extends Standing {
  readonly node: string;
  readonly capability: Capability;
  /** What the node can pledge now, in wei. */
  readonly spendable: bigint;
  /** Least it works for, in micro-USD a TFLOPS-hour. */
  readonly askMicroUsd: bigint;
  /** Already bound to a task. */
  readonly isBusy: boolean;
  /** Bound to a task that it took without collateral: may not take another such. */
  readonly hasFreeTask: boolean;
  /** Round trip to the task's data, in ms; 0 when unknown. */
  readonly distanceMs: number;
}

export interface Demand {
  readonly taskId: string;
  readonly precision: Precision;
  readonly minWorkers: number;
  readonly maxWorkers: number;
  readonly standby: number;
  readonly minGrade: number;
  readonly memoryBytes: bigint;
  readonly minerCollateral: bigint;
  /** A node's part of the task in micro-USD, and up to which part no collateral is asked (5.3). */
  readonly shareMicroUsd: bigint;
  readonly freeShareMicroUsd: bigint;
  readonly bidMicroUsd: bigint;
  readonly maxDistanceMs: number;
}

export type Refusal = "busy" | "grade" | "memory" | "unproven" | "price" | "collateral" | "distance";

export type Placement =
  | { ok: true; workers: string[]; standby: string[]; power: bigint }
  | { ok: false; code: "too-few-nodes"; eligible: number; wanted: number; refusals: Record<Refusal, number> };

/** Why a node cannot serve a demand, or undefined when it can. Cheapest question first. */
export function refusalOf(candidate: Candidate, demand: Demand): Refusal | undefined {
  if (candidate.isBusy) return "busy";
  if (candidate.capability.power[demand.precision] === 0n) return "unproven";
  if (gradeOf(candidate.capability) < demand.minGrade) return "grade";
  if (candidate.capability.memoryBytes < demand.memoryBytes) return "memory";
  if (candidate.askMicroUsd > demand.bidMicroUsd) return "price";
  if (candidate.distanceMs > demand.maxDistanceMs) return "distance";
  const mayGoFree = demand.shareMicroUsd <= demand.freeShareMicroUsd && !candidate.hasFreeTask;
  if (candidate.spendable < demand.minerCollateral && !mayGoFree) return "collateral";
  return undefined;
}

/** Places one gang: at least minWorkers or nobody. Best score first. */
export function placeTask(demand: Demand, candidates: readonly Candidate[]): Placement {
  const refusals: Record<Refusal, number> =
    { busy: 0, grade: 0, memory: 0, unproven: 0, price: 0, collateral: 0, distance: 0 };
  const eligible: Candidate[] = [];
  for (const each of candidates) {
    const refusal = refusalOf(each, demand);
    if (refusal === undefined) eligible.push(each);
    else refusals[refusal] += 1;
  }
  if (eligible.length < demand.minWorkers) {
    return { ok: false, code: "too-few-nodes", eligible: eligible.length, wanted: demand.minWorkers, refusals };
  }
  const ranked = rank(eligible, demand);
  const workers = ranked.slice(0, demand.maxWorkers);
  return {
    ok: true,
    workers: workers.map((each) => each.node),
    standby: ranked.slice(workers.length, workers.length + demand.standby).map((each) => each.node),
    power: workers.reduce((total, each) => total + each.capability.power[demand.precision], 0n),
  };
}

/**
 * Places a queue in order. A task that cannot be placed now keeps the nodes it could use once they
 * are free: later tasks are filled in only from nodes that it has no use for.
 */
export function placeQueue(queue: readonly Demand[], candidates: readonly Candidate[]): Map<string, Placement> {
  const placements = new Map<string, Placement>();
  const taken = new Set<string>();
  for (const demand of queue) {
    const free = candidates.filter((each) => !taken.has(each.node));
    const placement = placeTask(demand, free);
    placements.set(demand.taskId, placement);
    const reserved = placement.ok
      ? placement.workers
      : rank(free.filter((each) => refusalOf({ ...each, isBusy: false }, demand) === undefined), demand)
        .slice(0, demand.minWorkers).map((each) => each.node);
    for (const node of reserved) taken.add(node);
  }
  return placements;
}

function rank(eligible: readonly Candidate[], demand: Demand): Candidate[] {
  const keyed = eligible.map((candidate) => ({
    candidate,
    score: scoreOf(candidate.capability, candidate, demand.precision),
    tie: bytesToHex(blake3(utf8ToBytes(`TSR/match/1 ${demand.taskId} ${candidate.node}`))),
  }));
  keyed.sort((a, b) => a.score !== b.score ? (a.score > b.score ? -1 : 1)
    : a.candidate.distanceMs !== b.candidate.distanceMs ? a.candidate.distanceMs - b.candidate.distanceMs
      : a.tie < b.tie ? -1 : 1);
  return keyed.map((each) => each.candidate);
}
