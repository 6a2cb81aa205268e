/** Cluster descriptions and sessions, over a link in memory. */
import { describe, expect, it } from "vitest";
import { ClusterSpec } from "../../src/training/cluster/cluster-spec.js";
import { Server } from "../../src/training/cluster/server.js";
import { Session, type Progress, type SessionLink, type SessionModules } from "../../src/training/cluster/session.js";
import { parseJob } from "../../src/training/graph/parse.js";
import { mlp } from "../../src/training/models.js";
import { adam } from "../../src/training/optimizer/optim.js";

describe("a cluster", () => {
  const cluster = new ClusterSpec({ ps: ["10.0.0.1:2222"], worker: ["tcp://[::1]:2223", "ipc:///run/w1"], standby: [] });
  it("lists its tasks and describes servers", () => {
    expect(cluster.taskAddress("worker", 1)).toBe("ipc:///run/w1");
    expect(new ClusterSpec(cluster.toJSON()).tasks()).toEqual(cluster.tasks());
    expect(Server.describe(cluster, { job: "worker", task: 0, gpu: "GPU-5a2c" })).toEqual({
      job: "worker", task: 0, gpu: "GPU-5a2c", address: "tcp://[::1]:2223", device: "/job:worker/task:0",
    });
  });
  it("refuses what does not exist or does not parse, and says what would", () => {
    expect(() => cluster.taskAddress("worker", 2)).toThrow(/has 2 tasks, there is no task 2/);
    expect(() => cluster.addresses("chief")).toThrow(/has no job "chief"; it has ps, worker, standby/);
    expect(() => Server.describe(cluster, { job: "ps", task: 0, gpu: "0; rm -rf /" })).toThrow(/no GPU id/);
    for (const bad of ["host", "host:0", "host:70000", "http://host:1", "a b:1", ""]) expect(() => new ClusterSpec({ ps: [bad] })).toThrow(/no address/);
    expect(() => new ClusterSpec({ "PS!": [] })).toThrow(/no job name/);
    expect(() => new ClusterSpec({ ps: ["a:1"], worker: ["a:1"] })).toThrow(/share the address/);
  });
});

describe("a session", () => {
  const net = mlp({ height: 4, width: 4, hidden: [4] });
  const operation = adam({ learningRate: 0.1 }).minimize(net.loss);
  const report = (step: number, fields: Partial<Progress> = {}): Progress =>
    ({ step, epoch: 0, loss: 1 / step, version: step, staleness: 0, samplesPerSecond: 10, cost: BigInt(step), ...fields });

  interface Log { submitted: { canonical: string; jobId: string }[]; cancelled: string[]; closed: number }
  function world(reports: unknown[], broken: Partial<SessionLink> = {}): { log: Log; modules: SessionModules } {
    const log: Log = { submitted: [], cancelled: [], closed: 0 };
    const link: SessionLink = {
      submit: (job) => { log.submitted.push(job); return Promise.resolve({ taskId: "7" }); },
      async *progress() { yield* reports; },
      cancel: (id) => { log.cancelled.push(id); return Promise.resolve(); },
      close: () => { log.closed++; return Promise.resolve(); },
      ...broken,
    };
    return { log, modules: { connect: () => Promise.resolve(link), sleep: () => Promise.resolve() } };
  }
  const connect = (modules: SessionModules, options: { budget?: bigint; signal?: AbortSignal } = {}): Promise<Session> =>
    Session.connect("tesra://localhost:7700", { graph: net.graph, ...options }, modules);
  async function collect(session: Session): Promise<Progress[]> {
    const seen: Progress[] = [];
    for await (const progress of session.run(operation, { epochs: 2, batchSize: 8, seed: 1 })) seen.push(progress);
    return seen;
  }

  it("submits the canonical job and yields its progress", async () => {
    const { log, modules } = world([report(1), report(2, { accuracy: 0.5 })]);
    const session = await connect(modules);
    expect(await collect(session)).toEqual([report(1), report(2, { accuracy: 0.5 })]);
    expect(parseJob(log.submitted[0]!.canonical).run).toEqual({ epochs: 2, batchSize: 8, seed: 1 });
    await session.close();
    expect(log).toMatchObject({ cancelled: [], closed: 1 });
    await expect(collect(session)).rejects.toMatchObject({ code: "closed" });
  });

  it("cancels when the caller leaves, when the budget is spent, and when it is aborted", async () => {
    const reports = [report(1), report(2), report(3)];
    const left = world(reports);
    for await (const _ of (await connect(left.modules)).run(operation, { epochs: 1 })) break;
    expect(left.log.cancelled).toEqual(["7"]);
    const spent = world(reports);
    await expect(collect(await connect(spent.modules, { budget: 1n }))).rejects.toMatchObject({ code: "budget", fields: { cost: 2n } });
    expect(spent.log.cancelled).toEqual(["7"]);
    const aborted = world(reports), controller = new AbortController();
    const run = (await connect(aborted.modules, { signal: controller.signal })).run(operation, { epochs: 1 });
    await run.next();
    controller.abort();
    await expect(run.next()).rejects.toMatchObject({ code: "aborted" });
    expect(aborted.log.cancelled).toEqual(["7"]);
  });

  it("believes no report in a wrong form", async () => {
    const wrong: unknown[] = [null, 5, {}, report(1, { step: -1 }), report(1, { step: 0.5 }), report(1, { accuracy: 2 }),
      report(1, { cost: 5 as never }), report(1, { cost: -1n }), { ...report(1), loss: "low" }, report(1, { samplesPerSecond: NaN })];
    for (const bad of wrong) {
      const { log, modules } = world([bad]);
      await expect(collect(await connect(modules))).rejects.toMatchObject({ code: "protocol" });
      expect(log.cancelled).toEqual(["7"]);
    }
    await expect(collect(await connect(world([report(2), report(1)]).modules))).rejects.toThrow(/it went back/);
    expect(await collect(await connect(world([report(1, { loss: NaN })]).modules))).toHaveLength(1); // diverged, but honest
  });

  it("close() returns even if the other end never answers or fails", async () => {
    const never = (): Promise<never> => new Promise(() => undefined);
    for (const broken of [{ cancel: never, close: never }, { cancel: () => { throw new Error("x"); }, close: () => Promise.reject(new Error("y")) }]) {
      const { modules } = world([report(1), report(2)], broken);
      const session = await connect(modules);
      const run = session.run(operation, { epochs: 1 });
      await run.next();
      await session.close();
      await session.close();
    }
    await expect(connect(world([]).modules).then(() => Session.connect("http://x", { graph: net.graph }, world([]).modules))).rejects.toMatchObject({ code: "protocol" });
  });
});
