/**
 * Owns: the canonical form of a job: one JSON text per meaning (sorted keys, no spaces, nodes in
 * creation order, derived nodes excluded), whose BLAKE3 is the job id.
 * Invariant: parseJob(canonicalJob(x)) has the same canonical text.
 */
import { blake3 } from "@noble/hashes/blake3.js";
import { bytesToHex, utf8ToBytes } from "@noble/hashes/utils.js";
import type { TrainOperation } from "../optimizer/optim.js";
import type { Graph } from "./graph.js";
import { TrainingError } from "../errors.js";

export const JOB_FORMAT = "tesra-job/1";

/** How long a run is: part of the job, because a worker's step budget is checked against it. */
export interface RunPlan {
  /** Rows of one gradient. */
  batchSize: number;
  epochs: number;
  /** Seeds the initial values and the order of the samples. */
  seed: number;
}

export interface Job {
  operation: TrainOperation;
  run: RunPlan;
}

/** JSON with sorted keys; numbers as ECMAScript prints them, so equal values give equal text. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  if (typeof value === "object" && value !== null) {
    const entries = Object.entries(value).filter(([, field]) => field !== undefined)
      .sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
    return `{${entries.map(([key, field]) => `${JSON.stringify(key)}:${canonicalJson(field)}`).join(",")}}`;
  }
  if (typeof value === "number" && !Number.isFinite(value)) {
    throw new TrainingError("format", "NaN and infinity have no canonical form");
  }
  return JSON.stringify(value);
}

/** A graph's nodes as data. */
export function nodesAsData(graph: Graph): unknown[] {
  return graph.nodes.map((node) => ({
    op: node.op, name: node.name, inputs: node.inputs, attributes: node.attributes,
    ...(node.device === "" ? {} : { device: node.device }),
    ...(node.controls.length === 0 ? {} : { controls: node.controls }),
  }));
}

export function canonicalJob(job: Job): string {
  const { operation, run } = job;
  return canonicalJson({
    format: JOB_FORMAT, nodes: nodesAsData(operation.loss.graph), run,
    train: {
      loss: operation.loss.id, logits: operation.logits?.id, correct: operation.correct?.id,
      optimizer: operation.optimizer, rules: operation.rules,
    },
  });
}

/** Hex BLAKE3 of the canonical text. */
export function jobId(canonical: string): string {
  return bytesToHex(blake3(utf8ToBytes(canonical)));
}
