// Direct clusters over real links: the bits of one process, variables that clients share, processes that are killed,
// joins that end. Children run the built package.
import { spawn, type ChildProcess } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, describe, expect, it } from "vitest";
import { createServer, type ClusterServerOptions } from "../../src/actors/cluster/cluster-server.js";
import { connectCluster } from "../../src/actors/cluster/connect-cluster.js";
import { openDevice } from "../../src/device/device.js";
import {
  ClusterSession, ClusterSpec, compileFetches, FetchPlan, Graph, initialParameters, nn, optim, train, type Server, type Tensor,
} from "../../src/training/index.js";

const folder = mkdtempSync(join(tmpdir(), "cluster-"));
const device = openDevice({ backend: "cpu", threads: 1 });
const servers: Server[] = [], sessions: ClusterSession[] = [], children: ChildProcess[] = [];
afterEach(async () => {
  for (const session of sessions.splice(0)) await session.close();
  await Promise.all(servers.splice(0).map((server) => server.stop()));
  for (const child of children.splice(0)) if (child.exitCode === null) child.kill("SIGKILL");
});
afterAll(() => {
  device.close();
  rmSync(folder, { recursive: true, force: true });
});

let clusters = 0;
function clusterOf(jobs: Record<string, number>): ClusterSpec {
  const number = ++clusters;
  return new ClusterSpec(Object.fromEntries(Object.entries(jobs).map(([job, count]) =>
    [job, Array.from({ length: count }, (_, i) => `ipc://${join(folder, `${number}-${job}-${i}`)}`)])));
}
async function serve(cluster: ClusterSpec, job: string, task: number, more: Partial<ClusterServerOptions> = {}): Promise<Server> {
  const server = await createServer(cluster, { job, task, device: { backend: "cpu", threads: 1 }, ...more });
  servers.push(server);
  return server;
}
const serveAll = (cluster: ClusterSpec, more: Partial<ClusterServerOptions> = {}): Promise<Server[]> =>
  Promise.all(cluster.tasks().map(({ job, task }) => serve(cluster, job, task, more)));
async function connect(cluster: ClusterSpec, graph: Graph, job = "worker", task = 0, more: { signal?: AbortSignal; secret?: string; timeoutMs?: number } = {}): Promise<ClusterSession> {
  const session = await connectCluster(`tesra://${cluster.taskAddress(job, task)}`, { graph, cluster, ...more });
  sessions.push(session);
  return session;
}
/** A server in a process of its own; resolves once it serves. */
async function spawnServer(cluster: ClusterSpec, job: string, task: number): Promise<ChildProcess> {
  const child = spawn(process.execPath, [fileURLToPath(new URL("./cluster-child.mjs", import.meta.url)), JSON.stringify({ cluster, job, task })],
    { stdio: ["ignore", "pipe", "inherit"] });
  children.push(child);
  await new Promise<void>((resolve, reject) => {
    createInterface({ input: child.stdout! }).once("line", () => resolve());
    child.once("exit", (code) => reject(new Error(`the server ended with ${code}; is dist/ built?`)));
  });
  return child;
}
const exited = (child: ChildProcess): Promise<number | null> =>
  new Promise((resolve) => { if (child.exitCode !== null) resolve(child.exitCode); else child.once("exit", resolve); });

/** Two layers, each on a worker of its own; the variables on the parameter servers. */
function model(cluster: ClusterSpec, width = 300) {
  const graph = new Graph();
  const x = graph.placeholder("x", [null, 40]), labels = graph.placeholder("labels", [null], "i32");
  const on = (worker: number, body: () => Tensor): Tensor<"f32"> =>
    graph.device(train.replicaDeviceSetter({ cluster, psStrategy: "by-size", worker: `/job:worker/task:${worker}` }), body) as Tensor<"f32">;
  const hidden = on(0, () => nn.dense("one", width, { activation: "relu" })(x));
  const logits = on(1, () => nn.dense("two", 10)(hidden));
  const loss = on(1, () => nn.softmaxCrossEntropy(logits, labels)), correct = on(1, () => nn.countCorrect(logits, labels));
  return { graph, x, labels, hidden, logits, loss, correct };
}
/** Ten directions and noise: linear, so that a few steps learn it. */
function rows(count: number, seed: number): { x: Float32Array; labels: Int32Array } {
  let state = seed;
  const next = (): number => ((state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32);
  const labels = Int32Array.from({ length: count }, () => Math.floor(next() * 10));
  return { labels, x: Float32Array.from({ length: count * 40 }, (_, i) => (Math.floor(i % 40 / 4) === labels[Math.floor(i / 40)] ? 1 : 0) + next() - 0.5) };
}

describe("a direct cluster", () => {
  it("runs a model split over two workers with the bits of one process, and trains it", { timeout: 60_000 }, async () => {
    const cluster = clusterOf({ ps: 2, worker: 2 });
    await serveAll(cluster);
    const { graph, x, labels, hidden, logits, loss, correct } = model(cluster);
    const session = await connect(cluster, graph);
    expect((await session.uninitializedVariables()).sort()).toEqual(["one/bias", "one/weight", "two/bias", "two/weight"]);
    await expect(session.run(loss, { feeds: rows(4, 1) as never })).rejects.toMatchObject({ code: "remote", fields: { reason: "uninitialized" } });
    expect((await session.initialize({ seed: 5 })).sort()).toEqual(["one/bias", "one/weight", "two/bias", "two/weight"]);
    expect(await session.initialize({ seed: 6 })).toEqual([]);

    const data = rows(64, 1), feeds = [x.feed(data.x), labels.feed(data.labels)];
    const whole = new FetchPlan(device, compileFetches(graph, { fetches: [loss, logits, hidden], batchSize: 64 }));
    const expected = whole.runSync({ feeds, parameters: initialParameters(graph, 5) });
    whole.close();
    expect(Object.values(await session.run({ loss, logits, hidden }, { feeds }))).toEqual(expected);
    expect(await session.run(hidden, { feeds: [x.feed(data.x)] })).toEqual(expected[2]);
    expect(await session.run([logits], { feeds: [hidden.feed(expected[2] as Float32Array)] })).toEqual([expected[1]]);

    const step = optim.sgd({ learningRate: 0.5 }).minimize(loss, { correct });
    const losses: number[] = [];
    for await (const report of session.run(step, { steps: 25, feeds: (i) => {
      const batch = rows(64, i + 2);
      return [x.feed(batch.x), labels.feed(batch.labels)];
    } })) {
      expect(report).toMatchObject({ step: losses.length + 1, staleness: 0, stale: 0 });
      losses.push(report.loss);
    }
    expect(losses.length).toBe(25);
    expect(losses.at(-1)!).toBeLessThan(losses[0]! / 2);
    const test = rows(200, 99);
    expect((await session.run(correct, { feeds: [x.feed(test.x), labels.feed(test.labels)] }))[0]).toBeGreaterThan(150);
  });

  it("shares variables between clients and servers, and refuses another shape, a wrong feed, a wrong secret", { timeout: 60_000 }, async () => {
    const cluster = clusterOf({ ps: 1, worker: 2 }), secret = "a secret of this cluster";
    await serveAll(cluster, { secret });
    const counter = (): { graph: Graph; count: Tensor<"f32">; add: Tensor<"f32">; by: Tensor<"f32"> } => {
      const graph = new Graph(), by = graph.placeholder("by", [2]);
      const count = graph.device("/job:ps", () => graph.variable("count", [2]));
      return { graph, count, by, add: count.assignAdd(by) };
    };
    const a = counter(), b = counter();
    const one = await connect(cluster, a.graph, "worker", 0, { secret }), two = await connect(cluster, b.graph, "worker", 1, { secret });
    await one.initialize();
    const adds = Array.from({ length: 10 }, (_, i) => (i % 2 ? one.run(a.add, { feeds: [a.by.feed(Float32Array.of(1, 0))] })
      : two.run(b.add, { feeds: [b.by.feed(Float32Array.of(0, 1))] })));
    await Promise.all(adds);
    expect(await one.run(a.count)).toEqual(await two.run(b.count));
    expect(await two.run(b.count)).toEqual(Float32Array.of(5, 5));

    const other = new Graph(), wide = other.device("/job:ps", () => other.variable("count", [3]));
    const third = await connect(cluster, other, "ps", 0, { secret });
    await expect(third.run(wide)).rejects.toMatchObject({ code: "remote", fields: { reason: "variable" } });
    await expect(one.run(a.add, { feeds: [a.by.feed(Float32Array.of(1))] })).rejects.toThrow(/"by" has 2 elements/);
    await expect(one.run(a.add)).rejects.toThrow(/placeholder "by"/);
    await expect(connect(cluster, a.graph, "worker", 0, { secret: "another secret, as long", timeoutMs: 300 })).rejects.toMatchObject({ code: "unreachable" });
    const elsewhere = new Graph(), lost = elsewhere.device("/job:ps/task:7", () => elsewhere.variable("v", [1]));
    await expect((await connect(cluster, elsewhere, "worker", 0, { secret })).run(lost)).rejects.toThrow(/\/job:ps\/task:7 is not in the cluster/);
    await expect(connectCluster("tesra://nowhere:1", { graph: other, cluster })).rejects.toThrow(/is no server of the cluster/);
    await expect(createServer(new ClusterSpec({ ps: ["10.0.0.1:1"] }), { job: "ps", task: 0 })).rejects.toThrow(/give all servers and clients/);
    const stop = new AbortController();
    const fourth = await connect(cluster, a.graph, "worker", 0, { secret, signal: stop.signal });
    stop.abort();
    await expect(fourth.run(a.count)).rejects.toMatchObject({ code: "closed" });
    await two.close();
    await expect(two.run(b.count)).rejects.toMatchObject({ code: "closed" });
  });

  it("ends join() when it is stopped, and when its cluster is gone", { timeout: 60_000 }, async () => {
    const cluster = clusterOf({ ps: 1, worker: 1 });
    const [ps, worker] = await Promise.all([serve(cluster, "ps", 0), serve(cluster, "worker", 0, { lostAfterMs: 50 })]);
    const graph = new Graph(), v = graph.device("/job:ps", () => graph.variable("v", [1]));
    await (await connect(cluster, graph)).initialize();
    const before = process.listenerCount("SIGTERM");
    const joined = ps!.join(), alone = worker!.join();
    expect(process.listenerCount("SIGTERM")).toBe(before + 2);
    await ps!.stop();
    await joined;
    await alone;
    expect(process.listenerCount("SIGTERM")).toBe(before);
    expect(v.name).toBe("v");
  });

  it("of processes trains by between-graph replication, and survives kill -9 of a server", { timeout: 120_000 }, async () => {
    const cluster = clusterOf({ ps: 2, worker: 2 });
    const [, ps1, worker0] = await Promise.all(cluster.tasks().map(({ job, task }) => spawnServer(cluster, job, task)));
    /** The same model on each worker, one set of variables. */
    const replica = async (worker: number) => {
      const graph = new Graph();
      const x = graph.placeholder("x", [null, 40]), labels = graph.placeholder("labels", [null], "i32");
      return graph.device(train.replicaDeviceSetter({ cluster, worker: `/job:worker/task:${worker}` }), async () => {
        const logits = nn.sequential(nn.dense("one", 64, { activation: "relu" }), nn.dense("two", 10))(x);
        const loss = nn.softmaxCrossEntropy(logits, labels), correct = nn.countCorrect(logits, labels);
        return { x, labels, loss, correct, step: optim.momentum({ learningRate: 0.1 }).minimize(loss, { maxStaleness: 16 }), session: await connect(cluster, graph, "worker", worker) };
      });
    };
    const replicas = await Promise.all([replica(0), replica(1)]);
    await replicas[0]!.session.initialize({ seed: 1 });
    expect(await replicas[1]!.session.uninitializedVariables()).toEqual([]);
    const trainReplica = async ({ session, step, x, labels }: (typeof replicas)[number], steps: number, seed: number): Promise<number> => {
      let reports = 0;
      for await (const { stale } of session.run(step, { steps, feeds: (i) => {
        const batch = rows(64, seed + i);
        return [x.feed(batch.x), labels.feed(batch.labels)];
      } })) reports += 1 - Math.sign(stale);
      return reports;
    };
    const done = await Promise.all(replicas.map((each, i) => trainReplica(each, 20, 1_000 * i)));
    expect(done).toEqual([20, 20]);
    const test = rows(500, 77);
    const correctOf = async ({ session, correct, x, labels }: (typeof replicas)[number]): Promise<number> =>
      (await session.run(correct, { feeds: [x.feed(test.x), labels.feed(test.labels)] }))[0]!;
    // chance is 50
    expect(await correctOf(replicas[0]!)).toBeGreaterThan(400);

    const endless = trainReplica(replicas[1]!, 1e6, 5);
    const failed = expect(endless).rejects.toMatchObject({ name: "SessionError", code: "unreachable" });
    ps1!.kill("SIGKILL");
    await failed;
    await expect(correctOf(replicas[0]!)).rejects.toMatchObject({ code: "unreachable", message: expect.stringMatching(/\/job:ps\/task:1/) as string });
    const again = await spawnServer(cluster, "ps", 1);
    // waits for the server that comes back
    expect((await replicas[0]!.session.initialize()).sort()).toEqual(["one/bias", "two/bias"]);
    await Promise.all(replicas.map((each, i) => trainReplica(each, 10, 5_000 + 1_000 * i)));
    expect(await correctOf(replicas[1]!)).toBeGreaterThan(400);

    for (const child of [worker0!, again]) {
      child.kill("SIGTERM");
      expect(await exited(child)).toBe(0);
    }
    await expect(correctOf(replicas[0]!)).rejects.toMatchObject({ code: "unreachable" });
    await replicas[0]!.session.close();
  });
});
