/**
 * Owns: the program of a direct cluster: a graph as data, what is fed and fetched, and the update, if it
 * trains. Every server derives its own part from the same text, so no derived op is ever taken from another
 * machine. Invariant: parseProgram(canonicalProgram(x)) has the same canonical text; nothing is allocated
 * before its size passed the limits.
 */
import { GraphError, JobError, TrainingError } from "../errors.js";
import { canonicalJson, jobId, nodesAsData } from "../graph/canonical.js";
import { parseDevice } from "../graph/device-spec.js";
import type { Graph, Tensor } from "../graph/graph.js";
import { DEFAULT_JOB_LIMITS, integer, limited, object, parseNodes, type JobLimits } from "../graph/parse.js";
import { checkOptimizer, type OptimizerDescriptor } from "../optimizer/descriptor.js";
import type { TrainOperation } from "../optimizer/optim.js";
import { checkRules, type AsyncRules } from "../optimizer/rules.js";

export const PROGRAM_FORMAT = "tesra-program/1";
/** Fetches and feeds of one run: a list for a person to write. */
const ENDS_MAX = 1024;

/** A server's task, as devices name it: "/job:worker/task:0". */
export type TaskName = string;

export interface Program {
  graph: Graph;
  fetches: readonly Tensor[];
  feeds: readonly Tensor[];
  /** Gradients of the loss go to the servers that have the variables. */
  train?: { loss: Tensor; optimizer: OptimizerDescriptor; rules: AsyncRules };
  batchSize?: number;
  /** Where a node runs whose device names no job: the server that the client speaks to. */
  master: TaskName;
}

/** The part of a train operation that a cluster needs; throws for rules that wait for others. */
export function trainPart({ loss, optimizer, rules }: TrainOperation): NonNullable<Program["train"]> {
  if (rules.mode !== "async") {
    throw new TrainingError("option", `a direct cluster applies gradients as they arrive: mode must be "async", got "${String(rules.mode)}"`);
  }
  if ("compression" in rules) throw new TrainingError("option", "gradients travel uncompressed in a direct cluster: leave compression out");
  if (optimizer.kind === "muon") {
    throw new TrainingError("option", "muon trains in a local plan alone");
  }
  return { loss, optimizer, rules };
}

export function canonicalProgram({ graph, fetches, feeds, train, batchSize, master }: Program): string {
  return canonicalJson({
    format: PROGRAM_FORMAT, nodes: nodesAsData(graph), master, batchSize,
    fetches: fetches.map(({ id }) => id), feeds: feeds.map(({ id }) => id),
    ...(train && { train: { loss: train.loss.id, optimizer: train.optimizer, rules: train.rules } }),
  });
}

/** Hex BLAKE3 of the canonical text. */
export const programId = jobId;

/** Parses and checks a program that came from elsewhere; throws JobError. */
export function parseProgram(text: string, limits: Partial<JobLimits> = {}): Program {
  const all = { ...DEFAULT_JOB_LIMITS, ...limits };
  if (Buffer.byteLength(text) > all.textBytes) {
    throw new JobError("too-large", `the program is larger than ${all.textBytes} bytes`,
      { limit: "textBytes", expected: all.textBytes, actual: Buffer.byteLength(text) });
  }
  let raw: unknown;
  try {
    raw = JSON.parse(text);
  } catch (error) {
    throw new JobError("not-json", `the program is not JSON: ${(error as Error).message}`);
  }
  const program = object(raw, "program", ["format", "nodes", "fetches", "feeds", "train", "batchSize", "master"]);
  if (program.format !== PROGRAM_FORMAT) {
    throw new JobError("format", `the program's format must be "${PROGRAM_FORMAT}", got ${JSON.stringify(program.format)}`, { path: "format" });
  }
  try {
    const batchSize = program.batchSize === undefined ? undefined
      : integer(program.batchSize, "batchSize", 1, Number.MAX_SAFE_INTEGER);
    limited("batchSize", "batchSize", all.batchSize, batchSize ?? 1);
    const graph = parseNodes(program.nodes, { batchSize: batchSize ?? 1 }, all);
    const tensors = (value: unknown, path: string): Tensor[] => {
      if (!Array.isArray(value) || value.length > ENDS_MAX) throw new JobError("format", `${path} must be a list of at most ${ENDS_MAX}`, { path });
      return value.map((id) => graph.tensor(integer(id, path, 0, graph.nodes.length - 1)));
    };
    const { train } = program;
    return {
      graph, fetches: tensors(program.fetches, "fetches"), feeds: tensors(program.feeds, "feeds"),
      master: taskName(program.master), ...(batchSize !== undefined && { batchSize }),
      ...(train !== undefined && { train: parseTrain(train, graph) }),
    };
  } catch (error) {
    if (error instanceof GraphError || error instanceof TrainingError) throw new JobError("invalid-graph", error.message);
    throw error;
  }
}

function parseTrain(value: unknown, graph: Graph): NonNullable<Program["train"]> {
  const train = object(value, "train", ["loss", "optimizer", "rules"]);
  const loss = graph.tensor(integer(train.loss, "train.loss", 0, graph.nodes.length - 1));
  return trainPart({ loss, optimizer: checkOptimizer(train.optimizer), rules: checkRules(train.rules) });
}

function taskName(value: unknown): TaskName {
  const { job, task, kind } = parseDevice(value as string);
  if (job === undefined || task === undefined || kind !== undefined) {
    throw new JobError("format", `master must be a task, like /job:worker/task:0, got ${JSON.stringify(value)}`, { path: "master" });
  }
  return `/job:${job}/task:${task}`;
}

/** The task that runs a node of this device: an open job is the master's, an open task the master's or 0. */
export function taskOf(device: string, master: TaskName): TaskName {
  const own = parseDevice(master), { job = own.job!, task } = parseDevice(device);
  return `/job:${job}/task:${task ?? (job === own.job ? own.task! : 0)}`;
}
