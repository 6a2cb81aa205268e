/** Building graphs: shapes, names, devices, initial values, canonical form, hostile jobs. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compileEvaluation, compileLocalTraining, compileStep } from "../../src/training/compile/compile.js";
import { initialParameters, parameterLayout } from "../../src/training/compile/layout.js";
import { GraphError, JobError, TrainingError } from "../../src/training/errors.js";
import { canonicalJob, jobId } from "../../src/training/graph/canonical.js";
import { ClusterSpec } from "../../src/training/cluster/cluster-spec.js";
import { replicaDeviceSetter } from "../../src/training/cluster/replica-device-setter.js";
import { gradients } from "../../src/training/graph/autodiff.js";
import type { DeviceChooser } from "../../src/training/graph/device-spec.js";
import { Graph, type Tensor } from "../../src/training/graph/graph.js";
import { parseJob, type JobLimits } from "../../src/training/graph/parse.js";
import { partition } from "../../src/training/graph/partition.js";
import { philox4x32 } from "../../src/training/graph/philox.js";
import { cnn, mlp } from "../../src/training/models.js";
import * as nn from "../../src/training/nn.js";
import { adam, momentum, sgd } from "../../src/training/optimizer/optim.js";
import { epochOrder, BatchSampler } from "../../src/training/sample-order.js";
import { PlanInterpreter } from "./plan-interpreter.js";

describe("a graph", () => {
  it("refuses wrong shapes where the op is made, and names op, node and shapes", () => {
    const g = new Graph();
    const x = g.placeholder("x", [null, 8]), w = g.variable("w", [9, 4]), image = g.placeholder("image", [null, 8, 8, 3]);
    const cases: [() => unknown, RegExp][] = [
      [() => x.matmul(w), /^matmul "matmul": inner sizes differ: \(batch, 8\) x \(9, 4\)/],
      [() => x.matmul(image), /matmul.*rank 2/],
      [() => x.biasAdd(g.variable("b", [4])), /biasAdd.*\(4\).*\(batch, 8\)/],
      [() => x.add(w), /add.*\(batch, 8\) and \(9, 4\)/],
      [() => image.conv2d(g.variable("k", [3, 3, 4, 2])), /conv2d.*expects 4 channels.*has 3/],
      [() => image.conv2d(g.variable("k2", [9, 9, 3, 2])), /conv2d.*kernel of 9 does not fit height 8/],
      [() => image.maxPool(9), /maxPool.*does not fit/],
      [() => image.maxPool(0), /maxPool: "kernel" must be an integer from 1 to 64, got 0/],
      [() => x.reshape([null, 3]), /reshape.*counts differ/],
      [() => x.reshape([2, null as never]), /only the first may be -1/],
      [() => nn.softmaxCrossEntropy(x, x), /labels must be i32/],
      [() => nn.softmaxCrossEntropy(x, g.placeholder("y", [null, 1], "i32")), /labels must be \(batch\)/],
      [() => g.variable("v", [0, 4]), /sizes from 1/],
      [() => g.variable("v", [1.5]), /sizes from 1/],
      [() => g.variable("v", [-1, 2]), /cannot depend on the batch/],
      [() => g.placeholder("p", [null], "u8").relu(), /must be f32, got u8/],
      [() => x.scale(Infinity), /finite/],
      [() => x.add(new Graph().placeholder("x", [null, 8])), /another graph/],
      [() => g.add("__proto__", []), /no such operation/],
      [() => g.variable("w", [1]), /taken/],
      [() => g.variable("../x", [1]), /no valid name/],
    ];
    for (const [build, message] of cases) {
      let thrown: unknown;
      try {
        build();
      } catch (error) {
        thrown = error;
      }
      expect(thrown).toBeInstanceOf(GraphError);
      expect((thrown as GraphError).message).toMatch(message);
    }
    try {
      x.matmul(w);
    } catch (error) {
      expect((error as GraphError).shapes).toEqual([[-1, 8], [9, 4]]);
      expect((error as GraphError).op).toBe("matmul");
    }
  });

  it("places nodes by device scopes, names and choosers", () => {
    const g = new Graph();
    const v = (name: string, shape: number[] = [2]): Tensor => g.variable(name, shape);
    const at = (...scopes: (string | DeviceChooser | null)[]): string =>
      scopes.reduceRight<() => Tensor>((body, scope) => () => g.device(scope, body), () => g.placeholder(`p${g.nodes.length}`, [2]))().deviceName;
    expect(at("/job:ps/task:3", "/cpu:0")).toBe("/job:ps/task:3/cpu:0");
    expect(at("/job:worker/gpu:1", "/task:2")).toBe("/job:worker/task:2/gpu:1");
    expect(at("/job:worker/gpu:1", "/job:ps")).toBe("/job:ps/gpu:1");
    expect(at("/gpu:1", "/cpu")).toBe("/cpu");
    expect(at("/job:a", null, "/gpu:0")).toBe("/gpu:0");
    expect(at("/job:a", "")).toBe("/job:a");
    expect(at("/job:a/replica:0/task:1/device:GPU:0")).toBe("/job:a/task:1/gpu:0");
    expect(at(() => "/job:b", "/gpu:1")).toBe("/job:b");
    expect(at("/task:1", ({ device }) => `/job:b${device}`, "/gpu:1")).toBe("/job:b/task:1/gpu:1");
    expect(at("/task:1", () => null, "/gpu:1")).toBe("/task:1/gpu:1");
    expect(v("free").deviceName).toBe("");
    for (const bad of ["job:ps", "/job:ps/task:x", "/gpu:0/job:ps", "/job:ps/../x", "/job:ps/task:999999"]) expect(() => at(bad)).toThrow(/is no device/);
    expect(() => at(() => "nowhere")).toThrow(/placeholder "p\d+": "nowhere" is no device/);
  });

  it("places replicas: variables over the servers, in turn or by size, all else on the worker", () => {
    const cluster = new ClusterSpec({ ps: ["a:1", "b:1"], worker: ["c:1"] });
    const places = (options: Parameters<typeof replicaDeviceSetter>[0]): string[] => {
      const g = new Graph();
      return g.device(replicaDeviceSetter(options), () => {
        const variables = [[100, 10], [10, 10], [10, 5], [10, 90]].map((shape, i) => g.variable(`v${i}`, shape));
        return [...variables, variables[0]!.matmul(variables[1]!), g.device("/gpu:1", () => variables[0]!.relu()), g.device("/job:other", () => g.variable("o", [1]))];
      }).map((tensor) => tensor.deviceName);
    };
    const ends = ["/job:worker", "/job:worker/gpu:1"];
    expect(places({ cluster })).toEqual(["/job:ps/task:0", "/job:ps/task:1", "/job:ps/task:0", "/job:ps/task:1", ...ends, "/job:other"]);
    expect(places({ cluster, psStrategy: "by-size", worker: "/job:worker/task:3" })).toEqual(["/job:ps/task:0", "/job:ps/task:1", "/job:ps/task:1", "/job:ps/task:1",
      "/job:worker/task:3", "/job:worker/task:3/gpu:1", "/job:other"]);
    expect(places({ ps: 0 })).toEqual([...new Array<string>(5).fill("/job:worker"), "/job:worker/gpu:1", "/job:other"]);
  });

  it("places gradients where the ops they belong to are, and writes where their variable is", () => {
    const g = new Graph();
    const x = g.placeholder("x", [null, 4]), labels = g.placeholder("labels", [null], "i32");
    const w = g.device("/job:ps/task:1", () => g.variable("w", [4, 3])), b = g.device("/job:ps/task:0", () => g.variable("b", [3]));
    const y = g.device("/job:worker/task:0", () => x.matmul(w));
    const loss = g.device("/job:worker/task:1", () => nn.softmaxCrossEntropy(y.biasAdd(b), labels));
    const [dw, db] = g.device("/job:elsewhere", () => gradients(loss, [w, b]));
    expect([dw!.deviceName, db!.deviceName]).toEqual(["/job:worker/task:0", "/job:worker/task:1"]);
    expect(g.device("/cpu:0", () => w.assignAdd(dw!)).deviceName).toBe("/job:ps/task:1");
    expect(() => x.assign(x)).toThrow(/assign "assign": writes to a variable, and its first input is a placeholder/);
  });

  it("says where in the user's code an op was made, at once and when it is compiled", () => {
    const g = new Graph();
    const here = (offset: number): RegExp => {
      const line = Number(/graph\.test\.ts:(\d+):\d+/.exec(new Error("x").stack!.split("\n")[2]!)![1]) + offset;
      return new RegExp(`\\(made at .*/test/training/graph\\.test\\.ts:${line}:\\d+\\)$`);
    };
    const x = g.placeholder("x", [null, 8]);
    let expected = here(1);
    expect(() => nn.sequential(nn.dense("a", 4), nn.dense("b", 4, { activation: "relu" }), nn.conv2d("c", 2, 3))(x)).toThrow(expected);
    expect(() => x.matmul(g.variable("w", [9, 4]))).toThrow(/^matmul "matmul": inner sizes differ.*; its inputs are "x" \(batch, 8\), "w" \(9, 4\) \(made at /);
    expected = here(1);
    const dead = nn.countCorrect(x, g.placeholder("labels", [null], "i32"));
    expect(() => gradients(dead, [x])).toThrow(expected);
    expect(() => gradients(dead, [x])).toThrow(/^countCorrect "countCorrect": has no gradient/);
    expect(new Graph({ positions: false }).placeholder("p", [1]).graph.positionOf(0)).toBeUndefined();
  });

  it("is looked up by name", () => {
    const { graph, loss } = mlp();
    expect(graph.getTensorByName("dense1/weight:0").shape).toEqual([784, 512]);
    expect(graph.getOperationByName("softmaxCrossEntropy").id).toBe(loss.id);
    expect(graph.getOperations().map(({ op }) => op).slice(0, 3)).toEqual(["placeholder", "placeholder", "toFloat"]);
    expect(() => graph.getTensorByName("nobody")).toThrow(/no node named "nobody"/);
  });

  it("keeps control dependencies and writes in a job's text, but trains with no write", () => {
    const net = mlp({ height: 4, width: 4, hidden: [4] });
    const count = net.graph.variable("count", [1]);
    const one = net.graph.variable("one", [1], { kind: "constant", value: 1 });
    const step = count.assignAdd(one);
    const idle = canonicalJob({ operation: sgd({ learningRate: 1 }).minimize(net.loss), run: { epochs: 1, batchSize: 2, seed: 0 } });
    expect(canonicalJob(parseJob(idle))).toBe(idle);
    const loss = net.graph.controlDependencies([step, net.correct], () => net.loss.scale(1));
    const operation = sgd({ learningRate: 1 }).minimize(loss);
    expect(() => compileStep(net.graph, { loss, batchSize: 2 })).toThrow(/assignAdd "assignAdd": in training the optimizer alone changes variables \(made at /);
    expect(() => parseJob(canonicalJob({ operation, run: { epochs: 1, batchSize: 2, seed: 0 } }))).toThrow(/the optimizer alone/);
    const controlled = net.graph.controlDependencies([net.correct], () => net.loss.scale(1));
    const job = canonicalJob({ operation: sgd({ learningRate: 1 }).minimize(controlled), run: { epochs: 1, batchSize: 2, seed: 0 } });
    expect(canonicalJob(parseJob(job))).toBe(job);
    const raw = JSON.parse(job) as { nodes: { controls?: number[] }[] };
    raw.nodes.at(-1)!.controls = [raw.nodes.length - 1];
    expect(() => parseJob(JSON.stringify(raw))).toThrow(/may read earlier nodes only/);
  });
});

describe("the partition of a graph", () => {
  it("puts every node into one part, and sends a value to a device once", () => {
    const g = new Graph();
    const w = g.device("/job:ps/task:0", () => g.variable("w", [4, 4]));
    const [y, z] = g.device("/job:worker/task:0", () => {
      const first = w.relu();
      return [first, w.add(first)];
    });
    const { parts, transfers } = partition(g);
    expect([...parts]).toEqual([["/job:ps/task:0", [w.id]], ["/job:worker/task:0", [y!.id, z!.id]]]);
    expect(transfers).toEqual([{ node: w.id, from: "/job:ps/task:0", to: "/job:worker/task:0" }]);
  });
});

describe("initial values", () => {
  it("come from Philox4x32-10 as published (Random123's known answers)", () => {
    const out = new Uint32Array(4);
    philox4x32([0, 0, 0, 0], [0, 0], out);
    expect([...out]).toEqual([0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
    const f = 0xffffffff;
    philox4x32([f, f, f, f], [f, f], out);
    expect([...out]).toEqual([0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
    philox4x32([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0], out);
    expect([...out]).toEqual([0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]);
  });
  it("depend on the seed alone, and lie within their bounds", () => {
    const { graph } = cnn();
    const a = initialParameters(graph, 1);
    expect(initialParameters(cnn().graph, 1)).toEqual(a);
    expect(initialParameters(graph, 2)).not.toEqual(a);
    const { parameters, parameterCount } = parameterLayout(graph);
    expect(a.length).toBe(parameterCount);
    for (const { name, offset, size } of parameters) {
      expect(offset % 16).toBe(0);
      const values = a.subarray(offset, offset + size);
      if (name.endsWith("bias")) expect(values.every((value) => value === 0)).toBe(true);
      else {
        const mean = values.reduce((sum, value) => sum + value, 0) / size;
        const deviation = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / size);
        expect(Math.abs(mean)).toBeLessThan((5 * deviation) / Math.sqrt(size));
      }
    }
    const g = new Graph();
    g.variable("n", [100, 100], { kind: "normal", deviation: 0.02 });
    const normal = initialParameters(g, 5);
    expect(Math.sqrt(normal.reduce((sum, value) => sum + value * value, 0) / 10_000)).toBeCloseTo(0.02, 3);
  });
});

describe("the compiler", () => {
  it("never lets two live tensors share bytes: a poisoned arena changes nothing", () => {
    // Each run starts with garbage in every temporary; results must not depend on it.
    const net = cnn({ height: 12, width: 12, filters: [3, 4], units: 8 });
    const { spec, tensors, parameterCount } = compileStep(net.graph, { ...net, batchSize: 2 });
    const run = (garbage: number): [number, Float32Array] => {
      const plan = new PlanInterpreter(spec);
      const written = new Set([tensors.x, tensors.labels, tensors.parametersFlat, tensors.gradientsFlat]);
      spec.tensors.forEach((tensor, i) => {
        if (!written.has(i) && tensor.dtype === "f32" && !tensor.name.includes("weight") && !tensor.name.includes("bias")) plan.view(i).fill(garbage);
      });
      plan.write(tensors.parametersFlat, initialParameters(net.graph, 1));
      plan.write(tensors.gradientsFlat, new Float32Array(parameterCount));
      plan.write(tensors.x, Uint8Array.from({ length: 288 }, (_, i) => i * 7));
      plan.write(tensors.labels, Int32Array.of(3, 7));
      plan.runSync();
      return [plan.view(tensors.loss)[0]!, Float32Array.from(plan.view(tensors.gradientsFlat))];
    };
    expect(run(1e30)).toEqual(run(-5));
  });

  it("plans less memory than all tensors together, and keeps flat vectors contiguous", () => {
    const net = cnn();
    const compiled = compileStep(net.graph, { ...net, batchSize: 128 });
    const total = compiled.spec.tensors.reduce((sum, tensor) => sum + tensor.shape.reduce((a, b) => a * b, 1) * 4, 0);
    expect(compiled.spec.arenaBytes).toBeLessThan(total * 0.75);
    const base = compiled.spec.tensors[compiled.tensors.parametersFlat]!.offsetBytes;
    for (const { name, offset } of compiled.parameters) {
      expect(compiled.spec.tensors.find((tensor) => tensor.name === name)!.offsetBytes).toBe(base + offset * 4);
    }
    expect(compiled.multiplyAdds).toBe(128 * (3 * (100 * 25 * 16 * 32 + 800 * 128 + 1280) + 2 * 784 * 25 * 16));
  });

  it("training locally as one plan equals gradients and rule apart", () => {
    const net = mlp({ height: 4, width: 4, hidden: [6, 5] });
    for (const optimizer of [sgd({ learningRate: 0.1 }), momentum({ learningRate: 0.1 }), adam({ learningRate: 0.01 })]) {
      const local = compileLocalTraining(net.graph, { ...net, batchSize: 4, optimizer: optimizer.descriptor });
      const plan = new PlanInterpreter(local.spec);
      plan.write(local.tensors.parametersFlat, initialParameters(net.graph, 2));
      plan.write(local.tensors.x, Uint8Array.from({ length: 64 }, (_, i) => i * 4));
      plan.write(local.tensors.labels, Int32Array.of(0, 1, 2, 3));
      const losses = Array.from({ length: 30 }, () => {
        plan.runSync();
        return plan.view(local.tensors.loss)[0]!;
      });
      expect(losses[29]).toBeLessThan(losses[0]! * 0.8);
    }
    const decay = { kind: "linear", updates: 10, finalFactor: 0 } as const;
    expect(() => compileLocalTraining(net.graph, { ...net, batchSize: 4, optimizer: sgd({ learningRate: 1, decay }).descriptor })).toThrow(TrainingError);
  });

  it("refuses graphs that are no classifier, with the reason", () => {
    const net = mlp(), other = mlp();
    expect(() => compileStep(net.graph, { ...net, batchSize: 0 })).toThrow(/batchSize/);
    expect(() => compileStep(net.graph, { loss: other.loss, batchSize: 1 })).toThrow(/another graph/);
    expect(() => compileStep(net.graph, { loss: net.logits, batchSize: 1 })).toThrow(/scalar/);
    const g = new Graph();
    expect(() => compileEvaluation(g, { loss: g.variable("v", []), batchSize: 1 })).toThrow(/placeholder/);
  });
});

describe("jobs as data", () => {
  const job = (): string => {
    const net = cnn();
    return canonicalJob({ operation: adam({ learningRate: 1e-3 }).minimize(net.loss, { ...pick(net), maxStaleness: 4 }), run: { batchSize: 128, epochs: 3, seed: 1 } });
  };
  const pick = ({ logits, correct }: nn.Classifier): Pick<nn.Classifier, "logits" | "correct"> => ({ logits, correct });

  it("round trip, and the id depends on every part", () => {
    const text = job();
    const parsed = parseJob(text);
    expect(canonicalJob(parsed)).toBe(text);
    expect(jobId(job())).toBe(jobId(text));
    expect(parsed.cost.parameterCount).toBe(parameterLayout(parsed.graph).parameterCount);
    expect(parsed.operation.rules).toEqual({ mode: "async", maxStaleness: 4, alpha: 0.1 });
    const other = JSON.parse(text) as { run: { seed: number } };
    other.run.seed = 2;
    expect(jobId(canonicalJob(parseJob(JSON.stringify(other))))).not.toBe(jobId(text));
    expect(canonicalJob(parseJob(JSON.stringify(JSON.parse(text), null, 2)))).toBe(text);
  });

  it("hostile ones are refused with a typed error, before anything is allocated", () => {
    const base = JSON.parse(job()) as Record<string, any>;
    const changed = (change: (copy: Record<string, any>) => void): string => {
      const copy = structuredClone(base);
      change(copy);
      return JSON.stringify(copy);
    };
    const limits: Partial<JobLimits> = {};
    const cases: [string, string, RegExp, Partial<JobLimits>?][] = [
      ["{", "not-json", /not JSON/],
      ["[]", "format", /job must be an object/],
      ["{}", "format", /format/],
      [changed((j) => { j.extra = 1; }), "format", /unknown field "extra"/],
      [changed((j) => { j.nodes[3].op = "eval"; }), "unknown-op", /"eval" is no operation/],
      [changed((j) => { j.nodes[3].op = "constructor"; }), "unknown-op", /constructor/],
      [changed((j) => { j.nodes[3].op = "reluGrad"; }), "unknown-op", /reluGrad/],
      [changed((j) => { j.nodes[2].inputs = [9]; }), "cycle", /reads node 9/],
      [changed((j) => { j.nodes[2].inputs = [2]; }), "cycle", /reads node 2/],
      [changed((j) => { j.nodes[2].inputs = [1e9]; }), "format", /inputs must be an integer/],
      [changed((j) => { j.nodes[2].inputs = [-1]; }), "format", /inputs/],
      [changed((j) => { j.nodes[2].attributes = null; }), "format", /attributes/],
      [changed((j) => { j.nodes[2].attributes.command = "rm"; }), "invalid-graph", /no attribute "command"/],
      [changed((j) => { j.nodes[3].name = "a b"; }), "invalid-graph", /no valid name/],
      [changed((j) => { j.nodes[3].name = j.nodes[0].name; }), "invalid-graph", /taken/],
      [changed((j) => { j.nodes[3].device = "/job:ps; rm"; }), "invalid-graph", /no device/],
      [changed((j) => { j.nodes[3].attributes.shape = [2 ** 31 - 1, 2 ** 31 - 1, 2 ** 31 - 1, 2 ** 31 - 1]; }), "overflow", /overflow/],
      [changed((j) => { j.nodes[3].attributes.shape = [2 ** 20, 2 ** 10, 1, 16]; }), "limit", /tensorElements/],
      [changed((j) => { j.nodes[3].attributes.shape = [1e400]; }), "invalid-graph", /sizes from 1/],
      [changed((j) => { j.nodes[0].attributes.shape = [-1, 2 ** 16, 2 ** 16, 1]; }), "limit", /tensorElements/],
      [changed((j) => { j.run.batchSize = 1e6; }), "limit", /batchSize/],
      [changed((j) => { j.run.epochs = 1e6; }), "limit", /epochs/],
      [changed((j) => { j.run.epochs = "3"; }), "format", /run.epochs/],
      [changed((j) => { j.train.loss = 0; }), "format", /scalar/],
      [changed((j) => { j.train.correct = 2; }), "format", /countCorrect/],
      [changed((j) => { j.train.optimizer.kind = "__proto__"; }), "invalid-graph", /unknown optimizer/],
      [changed((j) => { j.train.optimizer.learningRate = -1; }), "invalid-graph", /learningRate/],
      [changed((j) => { j.train.optimizer.beta2 = 1; }), "invalid-graph", /beta2/],
      [changed((j) => { j.train.rules.maxStaleness = 1e9; }), "invalid-graph", /maxStaleness/],
      [changed((j) => { j.train.rules.mode = "gossip"; }), "invalid-graph", /mode/],
      [job(), "too-large", /larger than 100/, { textBytes: 100 }],
      [job(), "limit", /nodes/, { nodes: 5 }],
      [job(), "limit", /depth/, { depth: 5 }],
      [job(), "limit", /parameters/, { parameters: 1000 }],
      [job(), "limit", /memoryBytes/, { memoryBytes: 1e6 }],
      [job(), "limit", /multiplyAddsPerStep/, { multiplyAddsPerStep: 1e6 }],
    ];
    for (const [text, code, message, own] of cases) {
      expect(() => parseJob(text, own ?? limits), `${code} ${message}`).toThrow(expect.objectContaining({ name: "JobError", code, message: expect.stringMatching(message) }));
    }
  });

  it("any change of any value gives a job or a JobError, never anything else", () => {
    const base = job();
    const paths: (string | number)[][] = [];
    const walk = (value: unknown, path: (string | number)[]): void => {
      if (path.length > 0) paths.push(path);
      if (typeof value === "object" && value !== null) {
        for (const [key, child] of Object.entries(value)) walk(child, [...path, Array.isArray(value) ? Number(key) : key]);
      }
    };
    walk(JSON.parse(base), []);
    const hostile = fc.oneof(fc.jsonValue({ maxDepth: 2 }), fc.constantFrom(-1, 0, 2 ** 31, 2 ** 53, 1e308, "", "__proto__", null));
    fc.assert(fc.property(fc.constantFrom(...paths), hostile, (path, value) => {
      const copy = JSON.parse(base) as any;
      path.slice(0, -1).reduce((at, key) => at[key], copy)[path.at(-1)!] = value;
      try {
        parseJob(JSON.stringify(copy));
      } catch (error) {
        expect(error).toBeInstanceOf(JobError);
      }
    }), { numRuns: 150 });
  });
});

describe("sample order", () => {
  it("is a permutation of the shard that seed, shard and epoch determine", () => {
    fc.assert(fc.property(fc.nat(1000), fc.nat(5), fc.nat(5), fc.integer({ min: 1, max: 300 }), (seed, shard, epoch, rows) => {
      const order = epochOrder(seed, shard, epoch, rows);
      expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: rows }, (_, i) => i));
      expect(epochOrder(seed, shard, epoch, rows)).toEqual(order);
    }), { numRuns: 50 });
    expect(epochOrder(1, 0, 0, 100)).not.toEqual(epochOrder(1, 0, 1, 100));
    expect(epochOrder(1, 0, 0, 100)).not.toEqual(epochOrder(1, 1, 0, 100));
  });
  it("gives every row once an epoch across batch borders, and continues after a seek", () => {
    const data = { images: Uint8Array.from({ length: 20 }, (_, i) => i), labels: Uint8Array.from({ length: 10 }, (_, i) => i) };
    const sampler = new BatchSampler(data, { batchSize: 4, seed: 3 });
    const rows: number[] = [], copies: number[][] = [];
    for (let i = 0; i < 10; i++) {
      const batch = sampler.next();
      expect(batch.index).toBe(i);
      rows.push(...batch.labels);
      copies.push([...batch.images]);
    }
    for (let epoch = 0; epoch < 4; epoch++) expect(rows.slice(epoch * 10, epoch * 10 + 10).sort()).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    const again = new BatchSampler(data, { batchSize: 4, seed: 3 });
    again.seek(7);
    for (const index of [7, 8, 9]) expect([...again.next().images]).toEqual(copies[index]);
  });
});
