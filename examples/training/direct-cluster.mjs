// A cluster of one's own, without a market: a parameter server and two workers, each a process; two clients train
// one model, each at its own worker (between-graph replication). Run: node examples/training/direct-cluster.mjs
import { fork } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Session, train } from "tesra-supernet/cluster";
import { BatchSampler, Graph, nn, optim } from "tesra-supernet/training";
import { syntheticImages } from "./synthetic.mjs";

if (process.argv[2] === "server") {
  const { cluster, job, task } = JSON.parse(process.argv[3]);
  const server = await train.Server.create(new train.ClusterSpec(cluster), { job, task, device: { backend: "cpu", threads: 1 } });
  process.send("serves");
  process.disconnect();
  await server.join(); // until SIGTERM, server.stop(), or the loss of the cluster
} else {
  const folder = mkdtempSync(join(tmpdir(), "cluster-"));
  const at = (name) => `ipc://${join(folder, name)}`; // across machines: host:port, and a `secret` for all
  const cluster = new train.ClusterSpec({ ps: [at("ps0")], worker: [at("worker0"), at("worker1")] });
  const processes = await Promise.all(cluster.tasks().map(({ job, task }) => new Promise((resolve) => {
    const child = fork(fileURLToPath(import.meta.url), ["server", JSON.stringify({ cluster, job, task })]);
    child.once("message", () => resolve(child));
  })));

  /** Every replica builds the same graph; variables go to the servers, all else to its worker. */
  const replica = async (worker) => {
    const graph = new Graph();
    const place = train.replicaDeviceSetter({ cluster, psStrategy: "by-size", worker: `/job:worker/task:${worker}` });
    const model = graph.device(place, () => nn.classifier(graph, [28, 28, 1],
      nn.sequential(nn.flatten(), nn.dense("hidden", 64, { activation: "relu" }), nn.dense("logits", 10))));
    const session = await Session.connect(`tesra://${cluster.taskAddress("worker", worker)}`, { graph, cluster });
    return { ...model, session };
  };
  const replicas = await Promise.all([replica(0), replica(1)]);
  console.log(`one client initializes: ${(await replicas[0].session.initialize({ seed: 1 })).join(", ")}`);

  await Promise.all(replicas.map(async ({ session, loss, correct, images, labels }, worker) => {
    const step = optim.adam({ learningRate: 2e-3 }).minimize(loss, { correct, maxStaleness: 8 });
    const sampler = new BatchSampler(syntheticImages(2_048, 10 + worker), { batchSize: 64, seed: worker });
    const feeds = () => {
      const batch = sampler.next();
      return [images.feed(batch.images), labels.feed(Int32Array.from(batch.labels))];
    };
    for await (const report of session.run(step, { feeds, steps: 40 })) {
      if (report.step === 40) console.log(`worker ${worker}: step ${report.step}, loss ${report.loss.toFixed(2)}`);
    }
  }));

  // A partial fetch: the logits alone, so no labels are fed and the loss is not computed.
  const test = syntheticImages(500, 2), { session, logits, images } = replicas[1];
  const scores = await session.run(logits, { feeds: [images.feed(test.images)] });
  const right = test.labels.filter((label, row) => {
    const of = scores.subarray(row * 10, row * 10 + 10);
    return of.indexOf(Math.max(...of)) === label;
  }).length;
  console.log(`both workers' variables: test accuracy ${((right / test.labels.length) * 100).toFixed(1)} %`);
  for (const { session: each } of replicas) await each.close();
  for (const child of processes) child.kill("SIGTERM");
  await Promise.all(processes.map((child) => new Promise((resolve) => { child.once("exit", resolve); })));
  rmSync(folder, { recursive: true });
}
