// A pool across processes: workers get a job when they are free, the producer waits while the queue is full, and the job
// of a worker that is killed goes to another. Run: node examples/runtime/work-pulling.mjs
import { fork } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { behavior, createSystem, curveKeys, defineProtocol, replyLater } from "tesra-supernet/runtime";

const Pool = defineProtocol("pool", 1, {
  call: { submit: { request: z.number(), reply: z.null() } }, // answered when the queue has taken the job
  cast: { ready: z.null(), done: z.object({ job: z.number(), result: z.number() }) },
});
const Worker = defineProtocol("worker", 1, { cast: { work: z.number() } });
const [JOBS, WORKERS, QUEUE_MAX] = [300, 3, 8];

if (process.argv[2] === "worker") {
  const { endpoint, serverKey, keys } = await new Promise((resolve) => process.once("message", resolve));
  process.once("disconnect", () => void system.shutdown());
  const system = createSystem({ name: "worker" });
  const pool = (await system.connect({ endpoint, serverKey, keys })).ref(Pool, "pool");
  system.spawn(behavior(Worker, () => ({ cast: { work: (job) => void pool.cast("done", { job, result: job * job }) } })), { name: "worker" });
  pool.cast("ready", null);
} else {
  const results = new Map();
  const stats = { deepest: 0, given: 0, takenBack: 0 };
  let allDone;
  const finished = new Promise((resolve) => (allDone = resolve));
  const pool = behavior(Pool, (ctx) => {
    const [queue, blocked, leases] = [[], [], new Map()];
    let idle = [];
    const pump = () => {
      for (;;) {
        while (blocked.length > 0 && queue.length < QUEUE_MAX) blocked.shift()();
        stats.deepest = Math.max(stats.deepest, queue.length);
        if (queue.length === 0 || idle.length === 0) return;
        const [worker, job] = [idle.shift(), queue.shift()];
        leases.set(worker.nodeId, job);
        worker.cast("work", job);
        stats.given += 1;
      }
    };
    const gone = (nodeId) => {
      idle = idle.filter((worker) => worker.nodeId !== nodeId);
      if (leases.has(nodeId)) {
        queue.unshift(leases.get(nodeId));
        stats.takenBack += 1;
      }
      leases.delete(nodeId);
      pump();
    };
    return {
      call: {
        submit: (job) => replyLater(new Promise((resolve) => {
          blocked.push(() => {
            queue.push(job);
            resolve(null);
          });
          pump();
        })),
      },
      cast: {
        ready: (_, { sender }) => {
          const worker = sender.link.ref(Worker, "worker");
          ctx.watch(worker, () => gone(sender.nodeId));
          idle.push(worker);
          pump();
        },
        done: ({ job, result }, { sender }) => {
          if (leases.get(sender.nodeId) !== job) return; // a job that was given to another meanwhile
          leases.delete(sender.nodeId);
          results.set(job, result);
          idle.push(sender.link.ref(Worker, "worker"));
          if (results.size === JOBS) allDone();
          pump();
        },
      },
    };
  });

  const directory = mkdtempSync(join(tmpdir(), "pool-"));
  const endpoint = `ipc://${join(directory, "pool")}`;
  const system = createSystem({ name: "pool" });
  const ref = system.spawn(pool, { name: "pool" });
  const [keys, workerKeys] = [curveKeys(), Array.from({ length: WORKERS }, () => curveKeys())];
  await system.listen({ endpoint, keys, allow: (key) => workerKeys.some((each) => each.publicKey === key) });
  const workers = workerKeys.map((each) => {
    const worker = fork(fileURLToPath(import.meta.url), ["worker"]);
    worker.send({ endpoint, serverKey: keys.publicKey, keys: each });
    return worker;
  });
  for (let job = 0; job < JOBS; job++) {
    const taken = await ref.call("submit", job, { timeoutMs: 20_000 });
    if (!taken.ok) throw new Error(taken.error.message);
    if (job === 50) workers[0].kill("SIGKILL");
  }
  await finished;
  const isRight = [...results].every(([job, result]) => result === job * job);
  console.log(`${results.size} results, all right: ${isRight}; deepest queue: ${stats.deepest}`);
  console.log(`jobs given: ${stats.given}, taken back from the killed worker: ${stats.takenBack}`);
  for (const worker of workers) if (worker.connected) worker.disconnect();
  await system.shutdown();
  rmSync(directory, { recursive: true });
}
