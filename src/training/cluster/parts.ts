/**
 * Owns: the split of a program into one part for each server: gradients, pruning, and which values cross.
 *
 * A part computes in stages: a node's stage is one more than that of any value it reads from another
 * server. Values cross only from a lower stage to a higher, so whatever order servers run in, a part that
 * waits before each stage for what it reads there can never wait in a circle.
 * Invariant: every needed node is computed in exactly one part, and a value crosses to a server once.
 */
import { GraphError } from "../errors.js";
import { neededNodes } from "../compile/fetch.js";
import { gradients } from "../graph/autodiff.js";
import { Graph, type GraphNode, type Tensor } from "../graph/graph.js";
import { DTYPES, OPS } from "../graph/ops.js";
import { taskOf, type Program, type TaskName } from "./program.js";

export interface Crossing {
  /** Of the whole graph; a crossing for order alone carries no value. */
  node: number;
  empty: boolean;
}

export interface PartVariable {
  node: number;
  name: string;
  /** Its number among the graph's variables: it seeds the first values. */
  number: number;
  shape: readonly number[];
}

export interface Part {
  task: TaskName;
  /** The part's own nodes by stage, then by id, with a placeholder for each value that comes from outside. */
  graph: Graph;
  /** Node of the whole graph -> node of the part's. */
  local: ReadonlyMap<number, number>;
  /** Of what the part computes, ascending. */
  stages: readonly { stage: number; nodes: readonly number[]; receives: readonly Crossing[] }[];
  /** For other servers, as soon as the stage is done; -1: before any. */
  sends: readonly (Crossing & { to: TaskName; stage: number })[];
  feeds: readonly number[];
  /** Fetched here. */
  fetches: readonly number[];
  variables: readonly PartVariable[];
  /** Variables that the part's own ops read or write. */
  used: readonly number[];
  /** Variables of this part and the gradient that each is changed by; `from` is another task, or this one. */
  updates: readonly { variable: number; gradient: number; from: TaskName }[];
}

export interface Parts {
  program: Program;
  parts: ReadonlyMap<TaskName, Part>;
  /** With the gradients. */
  graph: Graph;
}

export function splitProgram(program: Program): Parts {
  const graph = program.graph.clone();
  const rebind = (tensors: readonly Tensor[]): Tensor[] => tensors.map(({ id }) => graph.tensor(id));
  const feeds = rebind(program.feeds), fetches = rebind(program.fetches);
  const variables = graph.variables();
  const fed = new Set(feeds.map(({ id }) => id));
  const trained = program.train === undefined ? [] : gradients(graph.tensor(program.train.loss.id), variables)
    .flatMap((gradient, i) => (gradient === undefined || fed.has(variables[i]!.id) ? [] : [{ variable: variables[i]!, gradient }]));
  if (program.train !== undefined && trained.length === 0) {
    throw new GraphError("unsupported", "the loss depends on no variable");
  }
  const roots = [...fetches, ...trained.map(({ gradient }) => gradient)];
  const needed = neededNodes(graph, roots, feeds);
  const lost = needed.find(({ id, op }) => op === "placeholder" && !fed.has(id));
  if (lost !== undefined) throw new GraphError("unsupported", "the fetches need this placeholder, and it is not among the feeds", { op: lost.op, node: lost.name });

  const task = graph.nodes.map(({ device }) => taskOf(device, program.master));
  const stage = stagesOf(graph, needed, fed, task);
  const drafts = new Map<TaskName, Draft>();
  const draft = (name: TaskName): Draft => {
    const known = drafts.get(name);
    if (known !== undefined) return known;
    const made: Draft = { nodes: [], arrivals: new Map(), sends: new Map(), feeds: new Set(), fetches: [], variables: [], used: new Set(), updates: [] };
    drafts.set(name, made);
    return made;
  };
  const cross = (node: number, to: TaskName, empty: boolean, neededAt: number): void => {
    const from = draft(task[node]!), key = `${node}>${to}`, before = from.sends.get(key);
    from.sends.set(key, { node, to, stage: graph.nodes[node]!.op === "variable" ? -1 : stage[node]!, empty: empty && (before?.empty ?? true) });
    const arrival = draft(to).arrivals.get(node);
    draft(to).arrivals.set(node, { node, stage: Math.min(neededAt, arrival?.stage ?? Infinity), empty: empty && (arrival?.empty ?? true) });
  };
  for (const node of needed) {
    const here = task[node.id]!;
    if (fed.has(node.id)) continue;
    if (node.op === "variable") {
      draft(here).variables.push({ node: node.id, name: node.name, number: variables.findIndex(({ id }) => id === node.id), shape: node.shape });
      continue;
    }
    draft(here).nodes.push(node);
    node.inputs.forEach((input, position) => {
      if (OPS[node.op]!.shapeOnly === position) return;
      if (fed.has(input)) draft(here).feeds.add(input);
      else if (task[input] !== here) cross(input, here, false, stage[node.id]!);
      else if (graph.nodes[input]!.op === "variable") draft(here).used.add(input);
    });
    for (const control of node.controls) {
      if (!fed.has(control) && task[control] !== here) cross(control, here, true, stage[node.id]!);
    }
  }
  for (const { id } of fetches) {
    if (!fed.has(id) && !draft(task[id]!).fetches.includes(id)) draft(task[id]!).fetches.push(id);
  }
  for (const { variable, gradient } of trained) {
    const to = task[variable.id]!, from = task[gradient.id]!;
    draft(to).updates.push({ variable: variable.id, gradient: gradient.id, from });
    if (!draft(to).variables.some(({ node }) => node === variable.id)) {
      draft(to).variables.push({ node: variable.id, name: variable.name, number: variables.findIndex(({ id }) => id === variable.id), shape: variable.shape });
    }
    if (from !== to) cross(gradient.id, to, false, Infinity);
  }
  const parts = new Map([...drafts].map(([name, each]) => [name, finish(name, each, graph, stage)]));
  return { program, parts, graph };
}

interface Draft {
  nodes: GraphNode[];
  /** What comes from other servers, and the first stage that reads it. */
  arrivals: Map<number, Crossing & { stage: number }>;
  sends: Map<string, Crossing & { to: TaskName; stage: number }>;
  feeds: Set<number>;
  fetches: number[];
  variables: PartVariable[];
  used: Set<number>;
  updates: { variable: number; gradient: number; from: TaskName }[];
}

/** On one server reads and writes of a variable keep the graph's order; another server reads what was there before. */
function stagesOf(graph: Graph, needed: readonly GraphNode[], fed: ReadonlySet<number>, task: readonly TaskName[]): number[] {
  const stage = new Array<number>(graph.nodes.length).fill(0);
  const lastRead = new Map<number, number>(), lastWrite = new Map<number, number>();
  for (const { id, op, inputs, controls } of needed) {
    if (fed.has(id)) continue;
    let own = 0;
    for (const before of [...inputs, ...controls]) {
      if (fed.has(before)) continue;
      own = Math.max(own, task[before] === task[id] ? stage[before]! : stage[before]! + 1);
    }
    const variables = inputs.filter((input) => graph.nodes[input]!.op === "variable" && task[input] === task[id]);
    for (const variable of variables) own = Math.max(own, lastWrite.get(variable) ?? 0);
    if (OPS[op]!.writes) own = Math.max(own, lastRead.get(inputs[0]!) ?? 0);
    stage[id] = own;
    for (const variable of variables) lastRead.set(variable, Math.max(own, lastRead.get(variable) ?? 0));
    if (OPS[op]!.writes) lastWrite.set(inputs[0]!, own);
  }
  return stage;
}

function finish(task: TaskName, draft: Draft, whole: Graph, stage: readonly number[]): Part {
  const graph = new Graph({ positions: false });
  const local = new Map<number, number>();
  const add = (node: GraphNode, op: string, inputs: Tensor[], attributes: Record<string, unknown>): void => {
    local.set(node.id, graph.add(op, inputs, attributes, node.name).id);
  };
  const outside = (id: number): void => {
    if (local.has(id)) return;
    const node = whole.nodes[id]!;
    add(node, "placeholder", [], { shape: node.shape, dtype: DTYPES.indexOf(node.dtype) });
  };
  for (const { node } of draft.variables) add(whole.nodes[node]!, "variable", [], { ...whole.nodes[node]!.attributes });
  for (const id of draft.feeds) outside(id);
  for (const { node, empty, stage: first } of draft.arrivals.values()) if (!empty && first !== Infinity) outside(node);
  const own = new Set(draft.nodes.map(({ id }) => id));
  const ordered = [...draft.nodes].sort((a, b) => stage[a.id]! - stage[b.id]! || a.id - b.id);
  for (const node of ordered) {
    // Shapes of values that stay elsewhere.
    for (const input of node.inputs) if (!own.has(input)) outside(input);
    add(node, node.op, node.inputs.map((input) => graph.tensor(local.get(input)!)), { ...node.attributes });
  }
  const stages = [...new Set(ordered.map(({ id }) => stage[id]!))].map((each) => ({
    stage: each, nodes: ordered.filter(({ id }) => stage[id] === each).map(({ id }) => id),
    receives: [...draft.arrivals.values()].filter((arrival) => arrival.stage === each).map(({ node, empty }) => ({ node, empty })),
  }));
  return {
    task, graph, local, stages, sends: [...draft.sends.values()], feeds: [...draft.feeds], fetches: draft.fetches,
    variables: draft.variables, used: [...draft.used], updates: draft.updates,
  };
}
