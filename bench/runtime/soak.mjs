// Soak: two other processes and this one over real sockets, with links that are cut, a process that is killed and comes
// back, actors that crash, calls, casts, tensors, watches, timers. After each part everything must be as after the first:
// no handle, timer, call, actor or byte more.
// Run: node --expose-gc bench/runtime/soak.mjs --minutes 5
import { fork } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { behavior, createSystem, curveKeys, defineProtocol, silentLogger } from "../../dist/runtime/index.js";
import { readOptions } from "./options.mjs";

const floats = z.custom((value) => value instanceof Float32Array);
const Echo = defineProtocol("echo", 1, {
  call: {
    echo: { request: z.any(), reply: z.any() },
    tensor: { request: z.object({ x: floats }), reply: z.object({ x: floats }) },
    crash: { request: z.null(), reply: z.null() },
  },
  cast: { note: z.any() },
});

const CUT_MS = 3000;
const KILL_MS = 7000;
/** Enough for large frames to take the bulk lane in several chunks. */
const TENSOR_LENGTH = 150_000;
const PARTS = 5;
/** What compiled code, inline caches and the allocator may still move after the first part. */
const HEAP_GROWTH_BYTES_MAX = 6 * 1024 * 1024;
const EXTERNAL_GROWTH_BYTES_MAX = 2 * 1024 * 1024;
const QUIET_MS_MAX = 20_000;

const ANSWERS = new Set(["ok", "fault", "unreachable", "timeout", "aborted", "full", "stopped"]);

function echo() {
  return behavior(Echo, (ctx) => {
    ctx.timers.every("tick", 50, () => undefined);
    return {
      call: {
        echo: (message) => message,
        tensor: ({ x }) => ({ x }),
        crash: () => {
          throw new Error("crash");
        },
      },
      cast: { note: () => ctx.pipeToSelf(Promise.resolve(1), () => undefined) },
    };
  });
}

const spawnEcho = (system, name) =>
  system.spawn(echo(), {
    name,
    supervision: { maxRestarts: 1_000_000, withinMs: 1000, backoff: { initialMs: 1, maxMs: 1 } },
  });

async function checkpoint(system) {
  // Two rounds: what the first one frees may hold the last reference to more.
  for (let i = 0; i < 4; i++) {
    globalThis.gc();
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
  const { heapUsed, external, arrayBuffers, rss } = process.memoryUsage();
  const resources = {};
  for (const name of process.getActiveResourcesInfo()) resources[name] = (resources[name] ?? 0) + 1;
  const { actors, callsPending } = system.inspect();
  const count = (each) => each.reduce((sum, actor) => sum + 1 + count(actor.children), 0);
  return {
    heapUsed,
    external,
    arrayBuffers,
    rss,
    resources,
    actors: count(actors),
    callsPending,
    links: system.links().length,
  };
}

if (process.argv[2] === "child") await child();
else await main();

async function child() {
  const { endpoint, keys, driver } = await new Promise((resolve) => process.once("message", resolve));
  const system = createSystem({ name: "child", logger: silentLogger });
  spawnEcho(system, "echo");
  await system.listen({ endpoint, keys, allow: (key) => key === driver });
  process.on("message", async (question) => {
    if (question === "cut") system.disconnect(driver);
    else if (question === "checkpoint") process.send(await checkpoint(system));
    else if (question === "end") await system.shutdown().then(() => process.disconnect());
  });
  process.send("listening");
}

async function main() {
  const usage = "Usage: node --expose-gc bench/runtime/soak.mjs [--minutes 5]";
  const { minutes } = readOptions(usage, { minutes: 5 });
  if (globalThis.gc === undefined) {
    console.error(`Memory cannot be judged without --expose-gc.\n${usage}`);
    process.exit(2);
  }
  const directory = mkdtempSync(join(tmpdir(), "soak-"));
  const keys = curveKeys();
  const makeNode = (name) => ({
    name,
    keys: curveKeys(),
    endpoint: `ipc://${join(directory, name)}`,
    child: undefined,
  });
  const start = async (node) => {
    node.child = fork(fileURLToPath(import.meta.url), ["child"], { execArgv: ["--expose-gc"] });
    node.child.send({ endpoint: node.endpoint, keys: node.keys, driver: keys.publicKey });
    await answerOf(node);
  };
  const [steady, victim] = [makeNode("steady"), makeNode("victim")];
  await Promise.all([start(steady), start(victim)]);

  const system = createSystem({ name: "driver", logger: silentLogger });
  const local = spawnEcho(system, "local");
  const connect = (node) => system.connect({ endpoint: node.endpoint, serverKey: node.keys.publicKey, keys });
  await Promise.all([connect(steady), connect(victim)]);
  const refOf = (node) => system.peer(node.keys.publicKey).ref(Echo, "echo");

  const totals = { calls: 0, casts: 0, tensors: 0, watches: 0, watchesFired: 0, cuts: 0, kills: 0, crashes: 0 };
  const outcomes = {};
  const call = async (ref, name, message, options) => {
    totals.calls += 1;
    const answer = await ref.call(name, message, options);
    const outcome = answer.ok ? "ok" : answer.error.code;
    outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
    if (!ANSWERS.has(outcome)) throw new Error(`a call answered ${JSON.stringify(answer)}`);
    return answer;
  };
  const x = Float32Array.from({ length: TENSOR_LENGTH }, (_, i) => i);

  const round = async (ref, number) => {
    const waiting = [];
    for (let i = 0; i < 100; i++, totals.casts += 1) ref.cast("note", { i, text: "soak" });
    for (let i = 0; i < 20; i++, totals.casts += 1) ref.cast("note", { i, text: "reliable" }, { delivery: "reliable" });
    for (let i = 0; i < 20; i++) waiting.push(call(ref, "echo", { i, list: [1, 2, 3] }, { timeoutMs: 5000 }));
    totals.tensors += 1;
    waiting.push(
      call(ref, "tensor", { x }, { timeoutMs: 5000 }).then((answer) => {
        if (answer.ok && answer.value.x.length !== TENSOR_LENGTH) throw new Error("a tensor of another length");
      }),
    );
    const abort = new AbortController();
    waiting.push(call(ref, "echo", 1, { signal: abort.signal, timeoutMs: 5000 }));
    abort.abort();
    for (let i = 0; i < 3; i++) ref.watch(() => undefined)();
    if (number % 20 === 0) {
      totals.crashes += 1;
      waiting.push(call(ref, "crash", null, { timeoutMs: 5000 }));
      waiting.push(call(local, "crash", null, { timeoutMs: 5000 }));
      const short = spawnEcho(system, `short-${ref === local ? "l" : "r"}${totals.crashes}`);
      totals.watches += 1;
      short.watch(() => void (totals.watchesFired += 1));
      waiting.push(system.stop(short));
    }
    await Promise.all(waiting);
  };

  /** While its link is down a node is left alone for a moment; calls that fail at once would be most of all calls. */
  const roundAt = async (node, number) => {
    if (system.peer(node.keys.publicKey).isUp) await round(refOf(node), number);
    else await new Promise((resolve) => setTimeout(resolve, 10));
  };

  let [cutAtMs, killAtMs] = [performance.now() + CUT_MS, performance.now() + KILL_MS];
  const traffic = async (endMs) => {
    for (let number = 0; performance.now() < endMs; number++) {
      const now = performance.now();
      if (now >= cutAtMs) {
        cutAtMs = now + CUT_MS;
        totals.cuts += 1;
        steady.child.send("cut");
      }
      if (now >= killAtMs) {
        killAtMs = now + KILL_MS;
        totals.kills += 1;
        totals.watches += 1;
        refOf(victim).watch(() => void (totals.watchesFired += 1));
        const exited = new Promise((resolve) => victim.child.once("exit", resolve));
        victim.child.kill("SIGKILL");
        await exited;
        await start(victim);
      }
      await Promise.all([roundAt(steady, number), roundAt(victim, number + 10), round(local, number + 5)]);
    }
    await quiet();
    // New links have empty buffer pools; what an old one may keep for its next tensors is no leak.
    await Promise.all([steady, victim].map(renewLink));
    await quiet();
  };

  const renewLink = (node) => new Promise((resolve) => {
    const end = system.onPeer((peer) => {
      if (peer.nodeId !== node.keys.publicKey) return;
      end();
      resolve();
    });
    node.child.send("cut");
  });

  /** Both links up and nothing under way. */
  const quiet = async () => {
    const endMs = performance.now() + QUIET_MS_MAX;
    for (;;) {
      const answers = await Promise.all(
        [steady, victim].map((node) => call(refOf(node), "echo", 1, { timeoutMs: 2000 })),
      );
      if (answers.every((answer) => answer.ok) && system.inspect().callsPending === 0) break;
      if (performance.now() > endMs) throw new Error("the links did not come back");
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    await new Promise((resolve) => setTimeout(resolve, 300)); // backoffs of crashed actors, timers of cut links
  };

  const points = [];
  const startMs = performance.now();
  for (let part = 1; part <= PARTS; part++) {
    await traffic(startMs + (minutes * 60_000 * part) / PARTS);
    steady.child.send("checkpoint");
    points.push({ driver: await checkpoint(system), steady: await answerOf(steady) });
    const { driver, steady: other } = points.at(-1);
    console.error(
      `part ${part}: heap ${mib(driver.heapUsed)} and ${mib(other.heapUsed)} MiB, external ${mib(driver.external)} and ` +
        `${mib(other.external)}, RSS ${mib(driver.rss)} and ${mib(other.rss)}, ${JSON.stringify(driver.resources)} ${JSON.stringify(totals)}`,
    );
  }

  const problems = [];
  for (const who of ["driver", "steady"]) {
    const [first, last] = [points[0][who], points.at(-1)[who]];
    const grown = (field, limit) => {
      if (last[field] - first[field] > limit)
        problems.push(`${who}: ${field} grew by ${last[field] - first[field]} bytes`);
    };
    grown("heapUsed", HEAP_GROWTH_BYTES_MAX);
    grown("external", EXTERNAL_GROWTH_BYTES_MAX);
    grown("arrayBuffers", EXTERNAL_GROWTH_BYTES_MAX);
    for (const field of ["actors", "callsPending", "links"]) {
      if (last[field] !== first[field]) problems.push(`${who}: ${field} went from ${first[field]} to ${last[field]}`);
    }
    for (const name of new Set([...Object.keys(first.resources), ...Object.keys(last.resources)])) {
      const [before, after] = [first.resources[name] ?? 0, last.resources[name] ?? 0];
      if (after > before) problems.push(`${who}: ${name} went from ${before} to ${after}`);
    }
  }
  if (totals.watches !== totals.watchesFired)
    problems.push(`${totals.watches} watches fired ${totals.watchesFired} times`);

  const exits = [steady, victim].map(({ child }) => new Promise((resolve) => child.once("exit", resolve)));
  for (const { child } of [steady, victim]) child.send("end");
  const codes = await Promise.all(exits);
  if (codes.some((code) => code !== 0)) problems.push(`the children ended with ${codes}`);
  const report = await system.shutdown({ deadlineMs: 5000 });
  if (report.abandoned.length > 0) problems.push(`abandoned: ${report.abandoned}`);
  rmSync(directory, { recursive: true });
  await new Promise((resolve) => setTimeout(resolve, 50)); // a child's handle is closed a little after its "exit"
  const left = process.getActiveResourcesInfo().filter((name) => !/Pipe|TTY/.test(name));
  if (left.length > 0) problems.push(`after the shutdown there are ${left}`);
  const growth = (who) => ({
    heapBytes: points.at(-1)[who].heapUsed - points[0][who].heapUsed,
    externalBytes: points.at(-1)[who].external - points[0][who].external,
  });
  console.log(
    JSON.stringify({
      minutes,
      loadAverage: loadavg()[0],
      totals,
      outcomes,
      growth: { driver: growth("driver"), steady: growth("steady") },
      problems,
    }),
  );
  process.exitCode = problems.length > 0 ? 1 : 0; // and no process.exit: ending by itself is part of the test
}

function answerOf(node) {
  return new Promise((resolve) => node.child.once("message", resolve));
}

function mib(bytes) {
  return (bytes / 2 ** 20).toFixed(1);
}
