/** Partial fetches: only what is asked for runs, anything may be fed, and the bits are the training plan's. */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, describe, expect, it } from "vitest";
import { openDevice } from "../../src/device/device.js";
import { compileFetches } from "../../src/training/compile/fetch.js";
import { compileEvaluation, compileStep } from "../../src/training/compile/compile.js";
import { initialParameters } from "../../src/training/compile/layout.js";
import { FetchPlan, type FetchRun } from "../../src/training/fetch-plan.js";
import { gradients } from "../../src/training/graph/autodiff.js";
import { Graph, type Tensor } from "../../src/training/graph/graph.js";
import { PhiloxStream } from "../../src/training/graph/philox.js";
import { cnn, gpt2, mlp } from "../../src/training/models.js";
import * as nn from "../../src/training/nn.js";

const device = openDevice({ backend: "cpu", threads: 1 });
afterAll(() => device.close());
const random = new PhiloxStream(5n, 1);
const pixels = (length: number): Uint8Array => Uint8Array.from({ length }, () => random.below(256));
const ids = (length: number, bound: number): Int32Array => Int32Array.from({ length }, () => random.below(bound));

async function fetched(graph: Graph, fetches: Tensor[], run: FetchRun, batchSize?: number, training = false): Promise<ArrayLike<number>[]> {
  const plan = new FetchPlan(device, compileFetches(graph, { fetches, training, ...(batchSize && { batchSize }) }));
  try {
    return await plan.run(run);
  } finally {
    plan.close();
  }
}

describe("fetches", () => {
  it("have the bits of the training plan, forward and backward", async () => {
    const rows = 6;
    const graph = new Graph();
    const dropped = nn.classifier(graph, [8, 8, 1], nn.sequential(nn.flatten(), nn.dense("a", 24, { activation: "relu" }),
      (x) => x.dropout(0.4, { stream: 3, seed: 9 }), nn.dense("b", 10)));
    for (const net of [mlp({ height: 8, width: 8, hidden: [24, 16] }), cnn({ height: 12, width: 12, filters: [4, 6], units: 16 }), dropped]) {
      const size = net.images.shape.slice(1).reduce((a, b) => a * b, 1);
      const feeds = { images: pixels(rows * size), labels: ids(rows, 10) };
      const parameters = initialParameters(net.graph, 3);
      const compiled = compileStep(net.graph, { ...net, batchSize: rows });
      const step = device.createPlan(compiled.spec);
      step.write(compiled.tensors.x, feeds.images);
      step.write(compiled.tensors.labels, feeds.labels);
      step.write(compiled.tensors.parametersFlat, parameters);
      step.runSync();
      const wanted = { loss: new Float32Array(1), correct: new Float32Array(1), flat: new Float32Array(compiled.parameterCount) };
      step.read(compiled.tensors.loss, wanted.loss);
      step.read(compiled.tensors.correct!, wanted.correct);
      step.read(compiled.tensors.gradientsFlat, wanted.flat);
      step.close();

      const forward = await fetched(net.graph, [net.loss, net.correct, net.logits], { feeds, parameters }, rows, true);
      expect(forward.slice(0, 2)).toEqual([wanted.loss, wanted.correct]);
      expect((await fetched(net.graph, [net.logits], { feeds: { images: feeds.images }, parameters }, rows, true))[0]).toEqual(forward[2]);
      const variables = net.graph.variables();
      const backward = await fetched(net.graph, gradients(net.loss, variables) as Tensor[], { feeds, parameters }, rows, true);
      backward.forEach((gradient, i) => {
        const { offset, size: length } = compiled.parameters[i]!;
        expect(gradient).toEqual(wanted.flat.slice(offset, offset + length));
      });
    }
  });

  it("run only what is needed: no label, no other head, no variable that nobody reads", async () => {
    const net = mlp({ height: 4, width: 4, hidden: [8] });
    const other = nn.dense("other", 500)(net.logits);
    const compiled = compileFetches(net.graph, { fetches: [net.logits], batchSize: 2 });
    expect(compiled.feeds.map(({ name }) => name)).toEqual(["images"]);
    expect(compiled.spec.ops.map(({ op }) => op)).toEqual(["u8_to_f32", "gemm", "gemm"]);
    expect(compileFetches(net.graph, { fetches: [net.images.flatten()], batchSize: 2 })).toMatchObject({ parametersFlat: undefined, spec: { ops: [] } });
    expect(compileFetches(net.graph, { fetches: [other], batchSize: 2 }).multiplyAdds).toBe(compiled.multiplyAdds + 2 * 10 * 500);
  });

  it("give back what was fed, views, variables and one tensor twice", async () => {
    const g = new Graph();
    const x = g.placeholder("x", [null, 2, 2], "u8"), y = g.placeholder("y", [3], "i32"), v = g.variable("v", [2, 2]);
    const flat = x.flatten();
    const out = await fetched(g, [x, flat, y, v, v.reshape([4]), flat.toFloat(2, 1), v],
      { feeds: new Map<Tensor, Uint8Array | Int32Array>([[x, Uint8Array.of(1, 2, 3, 4)], [y, Int32Array.of(-7, 0, 7)]]), parameters: Float32Array.from({ length: 16 }, (_, i) => i) }, 1);
    expect(out.map((each) => [...Array.from(each)])).toEqual([[1, 2, 3, 4], [1, 2, 3, 4], [-7, 0, 7], [0, 1, 2, 3], [0, 1, 2, 3], [3, 5, 7, 9], [0, 1, 2, 3]]);
  });

  it("take any tensor as a feed, and leave out what only led to it", async () => {
    const net = mlp({ height: 4, width: 4, hidden: [8] });
    const hidden = net.graph.getTensorByName("dense1/relu"), product = net.graph.getTensorByName("logits/matmul");
    const parameters = initialParameters(net.graph, 1), images = pixels(32);
    const [value, sum, logits] = await fetched(net.graph, [hidden, product, net.logits], { feeds: { images }, parameters }, 2) as Float32Array[];
    const compiled = compileFetches(net.graph, { fetches: [net.logits], feeds: [hidden, net.images], batchSize: 2 });
    expect(compiled.spec.ops.map(({ op }) => op)).toEqual(["gemm"]);
    const plan = new FetchPlan(device, compiled);
    expect(plan.runSync({ feeds: { [hidden.name]: value! }, parameters })[0]).toEqual(logits);
    plan.close();
    // the product alone is fed: its bias must be added to what was fed, not to a product computed anew
    const late = new FetchPlan(device, compileFetches(net.graph, { fetches: [net.logits], feeds: [product], batchSize: 2 }));
    expect(late.runSync({ feeds: { [product.name]: sum! }, parameters })[0]).toEqual(logits);
    expect(late.runSync({ feeds: { [product.name]: sum!.map(() => 0) }, parameters: new Float32Array(parameters.length) })[0]).toEqual(new Float32Array(20));
    late.close();
    // fed logits stay as they were, though the loss may work in the place of logits that it owns
    const loss = new FetchPlan(device, compileFetches(net.graph, { fetches: [net.loss], feeds: [net.logits, net.labels], batchSize: 2 }));
    const labels = ids(2, 10);
    const [first] = loss.runSync({ feeds: { [net.logits.name]: logits!, labels } });
    expect(loss.runSync({ feeds: { [net.logits.name]: logits!, labels } })).toEqual([first]);
    loss.close();
  });

  it("of a language model: logits of each position without labels, as its evaluation has them", async () => {
    const model = gpt2({ vocabulary: 40, length: 6, layers: 1, heads: 2, width: 8 });
    expect(compileFetches(model.graph, { fetches: [model.logits], batchSize: 2 }).feeds).toMatchObject([{ name: "tokens", bound: 40, shape: [2, 6] }]);
    const parameters = initialParameters(model.graph, 2), tokens = ids(12, 40);
    const [logits] = await fetched(model.graph, [model.logits], { feeds: { tokens }, parameters }, 2);
    const compiled = compileEvaluation(model.graph, { loss: model.loss, logits: model.logits, batchSize: 2 });
    const evaluation = device.createPlan(compiled.spec), expected = new Float32Array(480);
    evaluation.write(compiled.tensors.x, tokens);
    evaluation.write(compiled.tensors.parametersFlat, parameters);
    evaluation.runSync();
    evaluation.read(compiled.tensors.logits!, expected);
    evaluation.close();
    expect(logits).toEqual(expected);
  });

  it("follow control dependencies, nested and reset", () => {
    const g = new Graph();
    const a = g.placeholder("a", [2]), b = a.relu(), c = a.scale(2);
    const [inner, free] = g.controlDependencies([b], () => g.controlDependencies([c, b], () =>
      [a.scale(3), g.controlDependencies(null, () => a.scale(4))] as const));
    expect(g.nodes[inner.id]!.controls).toEqual([b.id, c.id]);
    expect(g.nodes[free.id]!.controls).toEqual([]);
    expect(compileFetches(g, { fetches: [inner] }).spec.ops).toHaveLength(3);
    expect(compileFetches(g, { fetches: [free] }).spec.ops).toHaveLength(1);
    expect(() => g.controlDependencies([new Graph().placeholder("x", [1])], () => a)).toThrow(/another graph/);
  });

  it("write to variables in the order of the graph, and no product moves past a write", async () => {
    const g = new Graph();
    const x = g.placeholder("x", [1, 2]), w = g.variable("w", [2, 2]), b = g.variable("b", [2]);
    const before = x.matmul(w);
    const doubled = w.assign(w.scale(2)), more = b.assignAdd(b);
    const after = before.biasAdd(b), next = x.matmul(w);
    const plan = new FetchPlan(device, compileFetches(g, { fetches: [after, next, doubled, more, w] }));
    const parameters = new Float32Array(32);
    parameters.set([1, 2, 3, 4], 0);
    parameters.set([10, 20], 16);
    const feeds = { x: Float32Array.of(1, 1) };
    const values = (run: FetchRun): number[][] => plan.runSync(run).map((each) => [...Array.from(each)]);
    expect(values({ feeds, parameters })).toEqual([[24, 46], [8, 12], [2, 4, 6, 8], [20, 40], [2, 4, 6, 8]]);
    expect(values({ feeds })).toEqual([[48, 92], [16, 24], [4, 8, 12, 16], [40, 80], [4, 8, 12, 16]]);
    plan.close();
    expect(compileFetches(g, { fetches: [next] }).spec.ops).toHaveLength(1);
  });

  it("refuse what is not fed, twice fed, of another graph, of the wrong type, length or range", async () => {
    const model = gpt2({ vocabulary: 40, length: 6, layers: 1, heads: 2, width: 8 });
    const { graph, logits, tokens, loss } = model;
    const of = (options: Parameters<typeof compileFetches>[1]) => () => compileFetches(graph, options);
    expect(of({ fetches: [] })).toThrow(/nothing to fetch/);
    expect(of({ fetches: [loss], feeds: [tokens], batchSize: 1 })).toThrow(/placeholder "labels": the fetches need this placeholder/);
    expect(of({ fetches: [logits], feeds: [tokens, tokens], batchSize: 1 })).toThrow(/fed twice/);
    expect(of({ fetches: [logits] })).toThrow(/batchSize is needed: the shape of placeholder "tokens"/);
    expect(of({ fetches: [mlp().logits], batchSize: 1 })).toThrow(/another graph/);
    const plan = new FetchPlan(device, compileFetches(graph, { fetches: [logits], feeds: [tokens, model.labels], batchSize: 1 }));
    const fed = (array: Uint8Array | Int32Array | Float32Array, more = {}) => () => plan.runSync({ feeds: { tokens: array, ...more } });
    expect(fed(new Float32Array(6))).toThrow(/"tokens" is i32: feed a Int32Array/);
    expect(fed(new Int32Array(5))).toThrow(/"tokens" has 6 elements \(1 x 6\), got 5/);
    expect(fed(Int32Array.of(0, 1, 2, 40, 4, 5))).toThrow(/"tokens" holds 40 at 3, which is not in 0..39/);
    expect(fed(Int32Array.of(0, 1, 2, -1, 4, 5))).toThrow(/holds -1/);
    expect(fed(new Int32Array(6), { nobody: new Float32Array(1) })).toThrow(/"nobody" is not fed here; the feeds are tokens, labels/);
    expect(() => plan.runSync({})).toThrow(/"tokens" must be fed/);
    expect(() => plan.runSync({ feeds: { tokens: new Int32Array(6) }, parameters: new Float32Array(3) })).toThrow(/parameters, got 3/);
    expect(plan.runSync({ feeds: { tokens: new Int32Array(6) } })[0]).toHaveLength(240);
    plan.close();
  });

  it("and feeds are typed by the graph", { timeout: 60_000 }, async () => {
    // the compiler is the judge: every line marked as an error must be one, and no other
    const { stdout } = await promisify(execFile)(process.execPath, ["node_modules/typescript/lib/tsc.js", "--noEmit", "--ignoreConfig", "--strict", "--skipLibCheck", "--target", "es2022",
      "--lib", "es2023", "--module", "nodenext", "--types", "node", "test/training/session-types.ts"], { cwd: join(import.meta.dirname, "../..") }).catch((error: { stdout: string }) => error);
    expect(stdout).toBe("");
  });
});
