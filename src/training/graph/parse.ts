/**
 * Owns: reading a job that came from a stranger. A job is data, never code: known ops only, every
 * node through the same rules as a local graph, and nothing is allocated before its size passed
 * the limits. Every refusal is a JobError that says which limit or which node.
 */
import { GraphError, JobError, TrainingError } from "../errors.js";
import { compileStep, type Compiled } from "../compile/compile.js";
import { checkOptimizer, momentsOf } from "../optimizer/descriptor.js";
import { checkRules } from "../optimizer/rules.js";
import { JOB_FORMAT, type Job, type RunPlan } from "./canonical.js";
import { Graph, Tensor } from "./graph.js";
import { BATCH, elementsOf, OPS } from "./ops.js";

export interface JobLimits {
  /** UTF-8 text of the job. */
  textBytes: number;
  nodes: number;
  /** Longest chain of nodes. */
  depth: number;
  /** Elements of any one tensor at the job's batch size. */
  tensorElements: number;
  parameters: number;
  /** Arena of a worker's plan. */
  memoryBytes: number;
  multiplyAddsPerStep: number;
  batchSize: number;
  epochs: number;
}

/** Room for a GPT-2 sized graph on one host; a node may set its own, smaller ones. */
export const DEFAULT_JOB_LIMITS: JobLimits = {
  textBytes: 4 * 2 ** 20,
  nodes: 4096,
  depth: 2048,
  tensorElements: 2 ** 28,
  parameters: 2 ** 28,
  memoryBytes: 4 * 2 ** 30,
  multiplyAddsPerStep: 2 ** 42,
  batchSize: 65_536,
  epochs: 10_000,
};

export interface ParsedJob extends Job {
  graph: Graph;
  /** The plan's figures for the job's batch size, from which a worker sizes itself. */
  cost: { parameterCount: number; memoryBytes: number; multiplyAddsPerStep: number };
}

/** Nodes that one node waits for: a list, not a second graph. */
const CONTROLS_MAX = 64;

type Json = Record<string, unknown>;

export function limited(path: string, limit: keyof JobLimits, expected: number, actual: number): void {
  if (actual <= expected) return;
  throw new JobError("limit", `${path}: ${actual} is above the limit of ${expected} (${limit})`,
    { path, limit, expected, actual });
}

export function object(value: unknown, path: string, keys: readonly string[]): Json {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new JobError("format", `${path} must be an object`, { path });
  }
  const unknown = Object.keys(value).find((key) => !keys.includes(key));
  if (unknown !== undefined) throw new JobError("format", `${path} has the unknown field "${unknown}"`, { path });
  return value as Json;
}

export function integer(value: unknown, path: string, min: number, max: number): number {
  if (!Number.isInteger(value) || (value as number) < min || (value as number) > max) {
    throw new JobError("format", `${path} must be an integer from ${min} to ${max}, got ${JSON.stringify(value)}`, { path });
  }
  return value as number;
}

/** nodes, node, attributes, initializer or shape: a job needs six levels. */
const NESTING_MAX = 16;
const QUOTE = 0x22, BACKSLASH = 0x5c, OPEN = new Set([0x5b, 0x7b]), CLOSE = new Set([0x5d, 0x7d]);

/** Before anything is built of the text: what quotes a value in an error message walks it by recursion. */
function checkNesting(text: string): void {
  let depth = 0, isQuoted = false;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (isQuoted) {
      if (code === BACKSLASH) i++;
      else if (code === QUOTE) isQuoted = false;
    } else if (code === QUOTE) isQuoted = true;
    else if (OPEN.has(code)) {
      if (++depth > NESTING_MAX) throw new JobError("format", `the job is nested deeper than ${NESTING_MAX} levels`);
    } else if (CLOSE.has(code)) depth--;
  }
}

/** Parses, checks and sizes a job; throws JobError. */
export function parseJob(text: string, limits: Partial<JobLimits> = {}): ParsedJob {
  const all = { ...DEFAULT_JOB_LIMITS, ...limits };
  if (Buffer.byteLength(text) > all.textBytes) {
    throw new JobError("too-large", `the job is larger than ${all.textBytes} bytes`,
      { limit: "textBytes", expected: all.textBytes, actual: Buffer.byteLength(text) });
  }
  checkNesting(text);
  let raw: unknown;
  try {
    raw = JSON.parse(text);
  } catch (error) {
    throw new JobError("not-json", `the job is not JSON: ${(error as Error).message}`);
  }
  const job = object(raw, "job", ["format", "nodes", "train", "run"]);
  if (job.format !== JOB_FORMAT) {
    throw new JobError("format", `the job's format must be "${JOB_FORMAT}", got ${JSON.stringify(job.format)}`, { path: "format" });
  }
  const run = parseRun(job.run, all);
  try {
    const graph = parseNodes(job.nodes, run, all);
    return sized(parseTrain(job.train, graph), run, graph, all);
  } catch (error) {
    if (error instanceof GraphError || error instanceof TrainingError) {
      throw new JobError("invalid-graph", error.message);
    }
    throw error;
  }
}

function parseRun(value: unknown, limits: JobLimits): RunPlan {
  const run = object(value, "run", ["batchSize", "epochs", "seed"]);
  const batchSize = integer(run.batchSize, "run.batchSize", 1, Number.MAX_SAFE_INTEGER);
  const epochs = integer(run.epochs, "run.epochs", 1, Number.MAX_SAFE_INTEGER);
  limited("run.batchSize", "batchSize", limits.batchSize, batchSize);
  limited("run.epochs", "epochs", limits.epochs, epochs);
  return { batchSize, epochs, seed: integer(run.seed, "run.seed", 0, Number.MAX_SAFE_INTEGER) };
}

/** Nodes that came as data, each through the rules of a local graph; `batchSize` sizes them. */
export function parseNodes(value: unknown, { batchSize }: { batchSize: number }, limits: JobLimits): Graph {
  if (!Array.isArray(value)) throw new JobError("format", "nodes must be a list", { path: "nodes" });
  limited("nodes", "nodes", limits.nodes, value.length);
  const graph = new Graph({ positions: false });
  const depths: number[] = [];
  let parameters = 0;
  value.forEach((entry: unknown, position) => {
    const path = `nodes[${position}]`;
    const { op, name, inputs, attributes, device = "", controls = [] } =
      object(entry, path, ["op", "name", "inputs", "attributes", "device", "controls"]);
    if (typeof op !== "string" || !Object.hasOwn(OPS, op) || OPS[op]!.derived) {
      throw new JobError("unknown-op", `${path}: ${JSON.stringify(op)} is no operation of ${JOB_FORMAT}`, { path });
    }
    if (typeof name !== "string") throw new JobError("format", `${path}.name must be a string`, { path });
    if (typeof device !== "string") throw new JobError("format", `${path}.device must be a string`, { path });
    if (!Array.isArray(inputs) || inputs.length > 8) {
      throw new JobError("format", `${path}.inputs must be a list of at most 8`, { path });
    }
    if (!Array.isArray(controls) || controls.length > CONTROLS_MAX) {
      throw new JobError("format", `${path}.controls must be a list of at most ${CONTROLS_MAX}`, { path });
    }
    const ids = inputs.map((input) => integer(input, `${path}.inputs`, 0, value.length - 1));
    const before = controls.map((control) => integer(control, `${path}.controls`, 0, value.length - 1));
    const later = [...ids, ...before].find((id) => id >= position);
    if (later !== undefined) {
      throw new JobError("cycle", `${path} reads node ${later}: a node may read earlier nodes only`, { path });
    }
    depths.push(1 + Math.max(0, ...ids.map((id) => depths[id]!), ...before.map((id) => depths[id]!)));
    limited(path, "depth", limits.depth, depths[position]!);
    const known = typeof attributes === "object" && attributes !== null && !Array.isArray(attributes);
    if (!known) throw new JobError("format", `${path}.attributes must be an object`, { path });
    const tensors = (of: number[]): Tensor[] => of.map((id) => graph.tensor(id));
    const node = graph.device(device, () => graph.controlDependencies(tensors(before), () =>
      graph.add(op, tensors(ids), attributes as Json, name)));
    const elements = elementsOf(node.shape.map((size) => (size === BATCH ? batchSize : size)));
    if (!Number.isSafeInteger(elements)) {
      throw new JobError("overflow", `${path}: the element count overflows`, { path });
    }
    limited(path, "tensorElements", limits.tensorElements, elements);
    if (op === "variable") {
      parameters += elements;
      limited(path, "parameters", limits.parameters, parameters);
    }
  });
  return graph;
}

function parseTrain(value: unknown, graph: Graph): Job["operation"] {
  const train = object(value, "train", ["loss", "logits", "correct", "optimizer", "rules"]);
  const node = (id: unknown, path: string): Tensor => graph.tensor(integer(id, path, 0, graph.nodes.length - 1));
  const loss = node(train.loss, "train.loss");
  if (loss.shape.length !== 0) throw new JobError("format", "train.loss must be a scalar node", { path: "train.loss" });
  const optimizer = checkOptimizer(train.optimizer);
  if (optimizer.kind === "muon") {
    throw new JobError("format", "train.optimizer: muon needs whole matrices, which a parameter server has not", { path: "train.optimizer" });
  }
  return {
    loss,
    ...(train.logits === undefined ? {} : { logits: node(train.logits, "train.logits") }),
    ...(train.correct === undefined ? {} : { correct: node(train.correct, "train.correct") }),
    optimizer,
    rules: checkRules(train.rules),
  };
}

function sized(operation: Job["operation"], run: RunPlan, graph: Graph, limits: JobLimits): ParsedJob {
  const { loss, logits, correct } = operation;
  for (const [tensor, op] of [[correct, "countCorrect"]] as const) {
    if (tensor !== undefined && tensor.op !== op) {
      throw new JobError("format", `train.correct must be a ${op} node, got ${tensor.op}`, { path: "train.correct" });
    }
  }
  const compiled: Compiled = compileStep(graph, {
    loss, batchSize: run.batchSize, ...(logits && { logits }), ...(correct && { correct }),
  });
  const memoryBytes = compiled.spec.arenaBytes + momentsOf(operation.optimizer).length * compiled.parameterCount * 4;
  limited("job", "memoryBytes", limits.memoryBytes, memoryBytes);
  limited("job", "multiplyAddsPerStep", limits.multiplyAddsPerStep, compiled.multiplyAdds);
  return {
    operation, run, graph,
    cost: {
      parameterCount: compiled.parameterCount, memoryBytes, multiplyAddsPerStep: compiled.multiplyAdds,
    },
  };
}
