/**
 * Owns: one run of a part: variables in, stage by stage, values out to other servers as they are ready,
 * gradients into the variables. Invariants: variables are read once, at the beginning, so a run sees one
 * version of each; a stage that writes to one has it alone, and works on its present value; a value is
 * sent to a server once.
 */
import type { TensorArray } from "../../device/device.js";
import { TrainingError } from "../errors.js";
import type { PartPlan } from "./part-plan.js";
import type { Program, TaskName } from "./program.js";
import type { VariableRead, VariableStore } from "./variable-store.js";

/** How the values of one run travel. */
export interface PartLinks {
  receive(node: number): Promise<TensorArray>;
  send(node: number, to: TaskName, value: TensorArray): Promise<void>;
}

export interface PartResult {
  /** By node of the whole graph. */
  fetched: Map<number, TensorArray>;
  /** Updates applied, the largest staleness among them, and updates dropped for theirs. */
  applied: number;
  staleness: number;
  stale: number;
}

const NOTHING = new Uint8Array(0);

export async function runPart(plan: PartPlan, program: Program, store: VariableStore, links: PartLinks,
  feeds: ReadonlyMap<number, TensorArray>, number: number): Promise<PartResult> {
  const { part, writes } = plan.compiled;
  const variables = new Map<number, { name: string; shape: readonly number[]; read: VariableRead }>();
  for (const { node, name, shape } of part.variables) variables.set(node, { name, shape, read: store.read(name, shape) });
  const ends = plan.compiled.ends;
  for (const node of part.feeds) {
    const value = feeds.get(node);
    if (value === undefined) throw new TrainingError("option", `"${ends.get(node)!.name}" must be fed`);
    plan.write(node, value);
  }
  for (const node of part.used) plan.write(node, variables.get(node)!.read.values);
  plan.setRun(number);

  const received = new Map<number, Promise<TensorArray>>();
  const receive = (node: number): Promise<TensorArray> => {
    const known = received.get(node);
    if (known !== undefined) return known;
    const arriving = links.receive(node);
    received.set(node, arriving);
    return arriving;
  };
  const sending: Promise<void>[] = [];
  const send = (stage: number): void => {
    for (const { node, to, empty } of part.sends.filter((each) => each.stage === stage)) {
      const value = empty ? NOTHING : variables.get(node)?.read.values ?? plan.read(node);
      const sent = links.send(node, to, value);
      sent.catch(() => undefined); // awaited below; until then it must not count as unhandled
      sending.push(sent);
    }
  };
  send(-1);
  for (const [index, { stage, receives }] of part.stages.entries()) {
    const values = await Promise.all(receives.map(({ node }) => receive(node)));
    receives.forEach(({ node, empty }, i) => { if (!empty) plan.write(node, values[i]!); });
    const written = writes[index]!;
    if (written.length === 0) await plan.runStage(index);
    else {
      await store.exchange(written.map((node) => variables.get(node)!), async (present) => {
        written.forEach((node, i) => plan.write(node, present[i]!));
        await plan.runStage(index);
        return written.map((node) => plan.read(node) as Float32Array);
      });
    }
    send(stage);
  }
  const fetched = new Map<number, TensorArray>();
  for (const node of part.fetches) {
    const variable = variables.get(node);
    fetched.set(node, variable === undefined ? plan.read(node) : store.read(variable.name, variable.shape).values);
  }
  const updates = await Promise.all(part.updates.map(async ({ variable, gradient, from }) => {
    const { name, shape, read } = variables.get(variable)!;
    const value = from === part.task ? plan.read(gradient) : await receive(gradient);
    if (!(value instanceof Float32Array) || value.length !== read.values.length) {
      throw new TrainingError("length", `a gradient of "${name}" has ${read.values.length} float32 elements, got ${value.length}`);
    }
    const { optimizer, rules } = program.train!;
    return store.update(name, shape, read, value, optimizer, rules);
  }));
  await Promise.all(sending);
  const applied = updates.filter((each) => each.status === "applied");
  return {
    fetched, applied: applied.length, stale: updates.length - applied.length,
    staleness: Math.max(0, ...applied.map((each) => (each.status === "applied" ? each.staleness : 0))),
  };
}
