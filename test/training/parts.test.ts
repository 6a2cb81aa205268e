/** A program in parts: the same bits as one plan, values that cross once, variables that clients share, hostile programs. */
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { openDevice, type TensorArray } from "../../src/device/device.js";
import { compileFetches } from "../../src/training/compile/fetch.js";
import { compileStep } from "../../src/training/compile/compile.js";
import { initialParameters, parameterLayout } from "../../src/training/compile/layout.js";
import { compilePart, PartPlan } from "../../src/training/cluster/part-plan.js";
import { runPart, type PartLinks, type PartResult } from "../../src/training/cluster/part-run.js";
import { splitProgram } from "../../src/training/cluster/parts.js";
import { canonicalProgram, parseProgram, taskOf, trainPart, type Program } from "../../src/training/cluster/program.js";
import { VariableStore } from "../../src/training/cluster/variable-store.js";
import { JobError } from "../../src/training/errors.js";
import { FetchPlan } from "../../src/training/fetch-plan.js";
import { Graph, type Tensor } from "../../src/training/graph/graph.js";
import { PhiloxStream } from "../../src/training/graph/philox.js";
import * as nn from "../../src/training/nn.js";
import { adam, sgd } from "../../src/training/optimizer/optim.js";
import { createUpdateKernels } from "../../src/training/parameter-server/device-kernels.js";

const device = openDevice({ backend: "cpu", threads: 1 });
afterAll(() => device.close());
const kernels = createUpdateKernels(device);
const random = new PhiloxStream(3n, 7);
const MASTER = "/job:worker/task:0";

/** Servers of one process: the stores live on, the links are promises. */
class Servers {
  readonly stores = new Map<string, VariableStore>();
  readonly sent: string[] = [];

  store(task: string): VariableStore {
    const known = this.stores.get(task) ?? new VariableStore({ elementsMax: 1e6 }, { kernels });
    this.stores.set(task, known);
    return known;
  }

  initialize({ graph }: Program, seed: number, program: Program): void {
    const flat = initialParameters(graph, seed), { parameters } = parameterLayout(graph);
    for (const { task, variables } of splitProgram(program).parts.values()) {
      for (const { name, shape, number } of variables) {
        const { offset, size } = parameters[number]!;
        this.store(task).create(name, shape, () => flat.slice(offset, offset + size));
      }
    }
  }

  async run(given: Program, feeds: Record<string, TensorArray>, number = 1): Promise<{ values: TensorArray[]; results: PartResult[] }> {
    const program = parseProgram(canonicalProgram(given));
    const split = splitProgram(program);
    const boxes = new Map<string, { promise: Promise<TensorArray>; resolve: (value: TensorArray) => void }>();
    const box = (key: string) => {
      let known = boxes.get(key);
      if (known === undefined) {
        let resolve!: (value: TensorArray) => void;
        known = { promise: new Promise<TensorArray>((done) => { resolve = done; }), resolve };
        boxes.set(key, known);
      }
      return known;
    };
    const fed = new Map(program.feeds.map(({ id, name }) => [id, feeds[name]!]));
    const results = await Promise.all([...split.parts.values()].map(async (part) => {
      const plan = new PartPlan(device, compilePart(part, program.batchSize));
      const links: PartLinks = {
        receive: (node) => box(`${node}>${part.task}`).promise,
        send: (node, to, value) => {
          this.sent.push(`${split.graph.nodes[node]!.name}>${to}`);
          box(`${node}>${to}`).resolve(value.slice());
          return Promise.resolve();
        },
      };
      try {
        return await runPart(plan, program, this.store(part.task), links, fed, number);
      } finally {
        plan.close();
      }
    }));
    const fetched = new Map(results.flatMap((result) => [...result.fetched]));
    return { values: program.fetches.map(({ id }) => fed.get(id) ?? fetched.get(id)!), results };
  }
}

/** Layers over two workers, forward and back, variables on two servers. */
function splitModel(): { graph: Graph; loss: Tensor; correct: Tensor; logits: Tensor } {
  const graph = new Graph();
  const images = graph.placeholder("images", [null, 8, 8, 1], "u8"), labels = graph.placeholder("labels", [null], "i32");
  let turn = 0;
  const placed = <T>(worker: number, body: () => T): T =>
    graph.device(({ op, device: said }) => (op === "variable" ? `/job:ps/task:${turn++ % 2}` : said || `/job:worker/task:${worker}`), body);
  const a = placed(0, () => nn.sequential(nn.conv2d("conv", 3, 3, { activation: "relu" }), nn.maxPool2d(2), nn.flatten())(images.toFloat()));
  const b = placed(1, () => nn.layerNorm("norm")(nn.dense("one", 12, { activation: "relu" })(a)));
  const c = placed(0, () => nn.dense("two", 7)(b.dropout(0.3, { stream: 1 })).scale(0.5));
  const logits = placed(1, () => nn.dense("three", 10)(c.add(c.relu())));
  return { graph, logits, ...placed(1, () => ({ loss: nn.softmaxCrossEntropy(logits, labels), correct: nn.countCorrect(logits, labels) })) };
}
const batch = (rows: number): Record<string, TensorArray> => ({
  images: Uint8Array.from({ length: rows * 64 }, () => random.below(256)), labels: Int32Array.from({ length: rows }, () => random.below(10)),
});

describe("a program in parts", () => {
  it("has the bits of one process: forward, gradients and updates", async () => {
    const model = splitModel(), { graph } = model;
    const feeds = batch(5);
    const optimizer = sgd({ learningRate: 1 });
    const program: Program = {
      graph, master: MASTER, batchSize: 5, fetches: [model.loss, model.correct, model.logits], train: trainPart(optimizer.minimize(model.loss, { alpha: 0 })),
      feeds: [graph.getTensorByName("images"), graph.getTensorByName("labels")],
    };
    const servers = new Servers();
    servers.initialize(program, 4, program);
    const { values, results } = await servers.run(program, feeds);
    expect(new Set(servers.sent).size).toBe(servers.sent.length);
    expect(splitProgram(program).parts.size).toBe(4);

    const parameters = initialParameters(graph, 4), compiled = compileStep(graph, { loss: model.loss, batchSize: 5 });
    const whole = new FetchPlan(device, compileFetches(graph, { fetches: [...program.fetches], batchSize: 5, training: true }));
    expect(values).toEqual(whole.runSync({ feeds, parameters }));
    whole.close();
    const step = device.createPlan(compiled.spec), gradient = new Float32Array(compiled.parameterCount);
    step.write(compiled.tensors.x, feeds.images!);
    step.write(compiled.tensors.labels, feeds.labels!);
    step.write(compiled.tensors.parametersFlat, parameters);
    step.runSync();
    step.read(compiled.tensors.gradientsFlat, gradient);
    step.close();
    device.sgd(parameters, gradient, { learningRate: 1 });
    compiled.parameters.forEach(({ name, shape, offset, size }, i) =>
      expect(servers.store(`/job:ps/task:${i % 2}`).read(name, shape)).toEqual({ version: 1, values: parameters.slice(offset, offset + size) }));
    expect(results.reduce((sum, each) => sum + each.applied, 0)).toBe(compiled.parameters.length);
  });

  it("runs what is fetched alone, and what is fed is sent to its readers alone", async () => {
    const model = splitModel(), { graph } = model;
    const hidden = graph.getTensorByName("norm/layerNorm");
    const forward: Program = { graph, master: MASTER, batchSize: 2, fetches: [hidden], feeds: [graph.getTensorByName("images")] };
    expect([...splitProgram(forward).parts.keys()].sort()).toEqual(["/job:ps/task:0", "/job:ps/task:1", "/job:worker/task:0", "/job:worker/task:1"]);
    const late: Program = { ...forward, fetches: [model.logits, hidden], feeds: [hidden] };
    const split = splitProgram(late);
    expect(split.parts.get("/job:worker/task:0")!.feeds).toEqual([hidden.id]);
    expect(split.parts.get("/job:worker/task:1")!.feeds).toEqual([]);
    const servers = new Servers();
    servers.initialize(forward, 1, { ...forward, fetches: graph.variables(), feeds: [] });
    const { values: [value] } = await servers.run(forward, batch(2));
    const { values } = await servers.run(late, { [hidden.name]: value! });
    expect(values[1]).toEqual(value);
    expect(values[0]).toHaveLength(20);
  });

  it("keeps order across servers by control dependencies, and shares what is assigned", async () => {
    const graph = new Graph();
    const count = graph.device("/job:ps/task:0", () => graph.variable("count", [1]));
    const one = graph.variable("one", [1], { kind: "constant", value: 1 });
    const add = count.assignAdd(one);
    const after = graph.controlDependencies([add], () => graph.device("/job:worker/task:1", () => one.scale(5)));
    const servers = new Servers();
    const program: Program = { graph, master: MASTER, fetches: [after], feeds: [] };
    servers.initialize(program, 0, program);
    await servers.run(program, {});
    expect((await servers.run({ ...program, fetches: [add, count, after] }, {})).values.map((each) => each[0])).toEqual([2, 2, 5]);
    expect(servers.sent).toContain("assignAdd>/job:worker/task:1");
  });

  it("places what names no task at the master, and puts open tasks at 0", () => {
    expect(["", "/gpu:0", "/job:worker", "/task:3", "/job:ps", "/job:ps/task:1/cpu:0"].map((place) => taskOf(place, "/job:worker/task:2"))).toEqual(
      ["/job:worker/task:2", "/job:worker/task:2", "/job:worker/task:2", "/job:worker/task:3", "/job:ps/task:0", "/job:ps/task:1"]);
  });

  it("has a canonical text; a changed one is a program or a JobError, never anything else", () => {
    const model = splitModel(), { graph } = model;
    const text = canonicalProgram({ graph, master: MASTER, batchSize: 3, fetches: [model.loss], train: trainPart(adam({ learningRate: 0.1 }).minimize(model.loss)),
      feeds: [graph.getTensorByName("images"), graph.getTensorByName("labels")] });
    expect(canonicalProgram(parseProgram(text))).toBe(text);
    fc.assert(fc.property(fc.nat(), fc.jsonValue(), (at, value) => {
      const raw = JSON.parse(text) as Record<string, unknown>;
      const spots: [Record<string | number, unknown>, string | number][] = [];
      const visit = (node: unknown): void => {
        if (typeof node !== "object" || node === null) return;
        for (const key of Object.keys(node)) {
          spots.push([node as Record<string, unknown>, key]);
          visit((node as Record<string, unknown>)[key]);
        }
      };
      visit(raw);
      const [object, key] = spots[at % spots.length]!;
      object[key] = value;
      try {
        const program = parseProgram(JSON.stringify(raw));
        for (const part of splitProgram(program).parts.values()) compilePart(part, program.batchSize);
      } catch (error) {
        if (!(error instanceof JobError) && !["GraphError", "TrainingError"].includes((error as Error).name)) throw error;
      }
    }), { numRuns: 150, seed: 11 });
    for (const [change, message] of [
      [{ master: "/job:worker" }, /master must be a task/], [{ fetches: [9999] }, /fetches must be an integer/], [{ format: "tesra-job/1" }, /format must be/],
      [{ batchSize: 1e9 }, /batchSize/], [{ nodes: [] }, /integer/],
    ] as const) expect(() => parseProgram(JSON.stringify({ ...JSON.parse(text) as object, ...change }))).toThrow(message);
    expect(() => parseProgram(text, { nodes: 5 })).toThrow(/limit of 5/);
    expect(() => parseProgram(text, { tensorElements: 20 })).toThrow(/tensorElements/);
  });
});

describe("variables of a server", () => {
  const gradient = (value: number): Float32Array => Float32Array.of(value, value);
  it("are made once, keep their shape, and say when they have no value", () => {
    const store = new VariableStore({ elementsMax: 3 }, { kernels });
    expect(() => store.read("w", [2])).toThrow(/has no value yet/);
    expect([store.create("w", [2], () => gradient(1)), store.create("w", [2], () => gradient(2))]).toEqual([true, false]);
    expect(store.read("w", [2])).toEqual({ version: 0, values: gradient(1) });
    expect(() => store.read("w", [1, 2])).toThrow(/is \(2\) in this cluster, this graph has it as \(1, 2\)/);
    expect(() => store.create("v", [2], () => gradient(1))).toThrow(/at most 3 elements/);
  });

  it("take gradients one after another, drop the too old, refuse NaN, and never change what was read", async () => {
    const store = new VariableStore({ elementsMax: 100 }, { kernels });
    store.create("w", [2], () => gradient(10));
    const base = store.read("w", [2]), rules = trainPart(sgd({ learningRate: 1 }).minimize(splitModel().loss, { maxStaleness: 2, alpha: 1 })).rules;
    const descriptor = sgd({ learningRate: 1 }).descriptor;
    const push = (value: number) => store.update("w", [2], base, gradient(value), descriptor, rules);
    const results = await Promise.all([push(1), push(1), push(1), push(1)]);
    expect(results).toEqual([{ status: "applied", staleness: 0 }, { status: "applied", staleness: 1 }, { status: "applied", staleness: 2 }, { status: "stale" }]);
    expect(base.values).toEqual(gradient(10));
    expect(store.read("w", [2]).values[0]).toBeCloseTo(10 - 1 - 1 / 2 - 1 / 3, 5);
    await expect(store.update("w", [2], store.read("w", [2]), gradient(NaN), descriptor, rules)).rejects.toMatchObject({ code: "not-finite" });
    // changes follow one another: neither is lost, whichever came first
    const half = store.exchange([{ name: "w", shape: [2] }], ([values]) => Promise.resolve([values!.map((value) => value + 100)]));
    await Promise.all([half, store.update("w", [2], store.read("w", [2]), gradient(1), descriptor, rules)]);
    expect(store.read("w", [2]).values[0]).toBeCloseTo(10 - 1 - 1 / 2 - 1 / 3 + 100 - 1 / 2, 4);
    expect(store.read("w", [2]).version).toBe(5);
  });
});
