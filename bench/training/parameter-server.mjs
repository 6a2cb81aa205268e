// Owns the parameter-server suite: two processes of this host, one holds the parameters, the other pushes gradients and
// pulls; ours over each of the runtime's transports beside torch.distributed.rpc, gloo and TensorFlow's
// ParameterServerStrategy, round robin, so that the machine's other load falls on all alike. And the update itself
// beside a stream of Adam's shape.
//   npm run bench -- training --only parameter-server [--quick] [--runs N]
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { openDevice } from "../../dist/device/device.js";
import { openSharedMemory } from "../../dist/device/shared-memory.js";
import {
  behavior, createSystem, curveKeys, defineProtocol, handOver, releaseTensors, silentLogger,
} from "../../dist/runtime/index.js";
import { checkRules, createUpdateKernels, optim, ParameterStore } from "../../dist/training/index.js";
import { Side } from "../kernels/sides.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const python = process.env.TESRA_PYTHON ?? "python3";
const tensorflow = process.env.TESRA_TENSORFLOW_PYTHON ?? python;
/** Bytes of parameters. */
const SIZES = [4e6, 100e6, 500e6];
const CALL_TIMEOUT_MS = 120_000;
const FLOOR = 2; // times the best peer
const APPLY_FLOOR = 0.9; // of the stream
const median = (xs) => [...xs].sort((a, b) => a - b)[xs.length >> 1];

const floats = z.custom((value) => value instanceof Float32Array);
const Server = defineProtocol("bench.parameter-server", 1, {
  call: {
    host: { request: z.object({ length: z.number() }), reply: z.object({}) },
    push: { request: z.object({ sequence: z.number(), baseVersion: z.number(), gradient: floats }), reply: z.object({ version: z.number() }) },
    pull: { request: z.object({}), reply: z.object({ version: z.number(), parameters: floats }) },
    ping: { request: z.object({}), reply: z.object({}) },
  },
});

// --- the process that holds the parameters ----------------------------------------------------------------------

async function serve(directory, clientKey) {
  const keys = curveKeys();
  const device = openDevice({ backend: "cpu" });
  const serverOf = () => behavior(Server, () => {
    let store, lent;
    return {
      call: {
        host: ({ length }) => {
          const optimizer = optim.sgd({ learningRate: 1e-6 }).descriptor;
          store = new ParameterStore({ parameters: new Float32Array(length), optimizer, rules: checkRules({}) }, { kernels: createUpdateKernels(device) });
          store.admit("w");
          return {};
        },
        push: async ({ sequence, baseVersion, gradient }) => {
          lent?.release(); // the worker has what it pulled, or it would not push
          lent = undefined;
          const result = await store.push({ worker: "w", epoch: 1, sequence, baseVersion, gradient });
          if (result.status !== "applied") throw new Error(JSON.stringify(result));
          releaseTensors(gradient);
          return { version: result.version };
        },
        pull: () => {
          lent = store.lend();
          return { version: lent.version, parameters: handOver(lent.parameters) };
        },
        ping: () => ({}),
      },
    };
  });
  const listen = async (name, endpoint, sharedMemory) => {
    const system = createSystem({ name, logger: silentLogger, ...(sharedMemory === undefined ? {} : { sharedMemory }) });
    system.spawn(serverOf(), { name: "server" });
    return (await system.listen({ endpoint, keys, allow: (key) => key === clientKey, plain: true })).endpoint;
  };
  const shared = await listen("shared", `ipc://${join(directory, "shared")}`, openSharedMemory({ budgetBytes: 4 * 2 ** 30 }));
  const tcp = await listen("tcp", "tcp://127.0.0.1:0");
  console.log(JSON.stringify({ key: keys.publicKey, shared, tcp }));
  process.stdin.on("end", () => process.exit(0)).resume();
}

// --- the process that pushes and pulls --------------------------------------------------------------------------

/** { name, version?, exchanges(bytes), pings } of ours: each runs for some seconds. */
async function ourSides() {
  const directory = mkdtempSync(join(tmpdir(), "tesra-bench-"));
  const keys = curveKeys();
  const child = spawn(process.execPath, [fileURLToPath(import.meta.url), "--serve", directory, keys.publicKey], { stdio: ["pipe", "pipe", "inherit"] });
  const at = JSON.parse(await firstLine(child));
  const systems = [];
  const side = async (name, endpoint, sharedMemory) => {
    const system = createSystem({ name: "bench", logger: silentLogger, ...(sharedMemory === undefined ? {} : { sharedMemory }) });
    systems.push(system);
    const peer = await system.connect({ endpoint, serverKey: at.key, keys, plain: true });
    const ref = peer.ref(Server, "server");
    const ask = async (call, message) => {
      const answer = await ref.call(call, message, { timeoutMs: CALL_TIMEOUT_MS });
      if (!answer.ok) throw new Error(answer.error.message);
      return answer.value;
    };
    let hosted = 0, sequence = 0, version = 0, gradient;
    return {
      name,
      async measure({ bytes, seconds }) {
        if (bytes === 0) return { roundTripsPerSecond: await timed(() => ask("ping", {}), seconds) };
        if (hosted !== bytes) {
          await ask("host", { length: bytes / 4 });
          gradient = new Float32Array(bytes / 4).fill(0.5);
          [hosted, sequence, version] = [bytes, 0, 0];
        }
        const rate = await timed(async () => {
          await ask("push", { sequence: sequence++, baseVersion: version, gradient });
          const pulled = await ask("pull", {});
          version = pulled.version;
          releaseTensors(pulled.parameters);
        }, seconds);
        return { pushPullGBps: rate * 2 * bytes / 1e9 };
      },
    };
  };
  const memory = openSharedMemory({ budgetBytes: 4 * 2 ** 30 });
  const sides = [...(memory === undefined ? [] : [await side("shared memory", at.shared, memory)]), await side("tcp", at.tcp)];
  const close = async () => {
    for (const system of systems) await system.shutdown({ deadlineMs: 1000 });
    child.stdin.end();
    rmSync(directory, { recursive: true, force: true });
  };
  return { sides, close };
}

async function timed(exchange, seconds) {
  for (let i = 0; i < 2; i++) await exchange();
  const begin = process.hrtime.bigint();
  for (let count = 1; ; count++) {
    await exchange();
    const elapsed = Number(process.hrtime.bigint() - begin) / 1e9;
    if (elapsed >= seconds && count >= 3) return count / elapsed;
  }
}

function firstLine(child) {
  return new Promise((resolve, reject) => {
    createInterface({ input: child.stdout }).once("line", resolve);
    child.once("error", reject).once("exit", (code) => reject(new Error(`the process ended with ${code}`)));
  });
}

/** A peer's process, asked by lines; undefined where its library is missing. */
async function peerSide(command, kind) {
  const child = spawn(command, [join(here, "../peers/pytorch/parameter_server.py"), kind], { stdio: ["pipe", "pipe", "ignore"] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const ended = new Promise((resolve) => child.once("exit", resolve).once("error", resolve));
  const next = async () => {
    const line = await Promise.race([lines.next(), ended.then(() => ({ done: true }))]);
    if (line.done) throw new Error(`${kind} ended`);
    return JSON.parse(line.value);
  };
  try {
    const { name, version } = await next();
    return {
      name, version,
      measure: (request) => { child.stdin.write(`${JSON.stringify(request)}\n`); return next(); },
      close: () => { child.stdin.end(); child.kill(); },
    };
  } catch {
    return undefined;
  }
}

// --- the suite --------------------------------------------------------------------------------------------------

/** Apply of Adam, as the server runs it, beside the limit's stream of the same shape; GB/s of 28 bytes an element. */
async function measureApply({ rounds, seconds, progress }) {
  const device = openDevice({ backend: "cpu" });
  const kernels = createUpdateKernels(device);
  const stream = await new Side("limits").start();
  const length = 25_000_000;
  const optimizer = optim.adam({ learningRate: 1e-3 }).descriptor;
  const vector = () => new Float32Array(length).fill(0.25);
  const gradient = vector();
  let [from, to] = [0, 1].map(() => ({ parameters: vector(), moments: [vector(), vector()] }));
  let step = 0;
  const applies = [], streams = [];
  for (let round = 0; round < rounds; round++) {
    const rate = await timed(async () => {
      await kernels.update(optimizer, from, gradient, to, 1e-3, ++step);
      [from, to] = [to, from];
    }, seconds);
    const bound = await stream.measure({ op: "adam", n: length, threads: device.threads, seconds });
    applies.push(rate * 28 * length / 1e9);
    if (bound.reason === undefined) streams.push(28 * length / bound.seconds / 1e9);
    progress(`apply ${applies.at(-1).toFixed(1)} GB/s, stream ${bound.reason ?? streams.at(-1).toFixed(1)}`);
  }
  stream.close();
  device.close();
  const peer = streams.length === rounds ? median(streams) : null;
  return {
    name: "apply Adam, 100 MB", unit: "GB/s", ours: median(applies), min: Math.min(...applies), max: Math.max(...applies),
    peer, peerName: "stream of Adam's shape", ratio: peer === null ? null : median(applies.map((value, i) => value / streams[i])), floor: APPLY_FLOOR,
  };
}

/** @returns what bench/main.mjs prints: one line a size, the round trips, and the update beside its stream. */
export async function run({ runs, quick, progress }) {
  const seconds = quick ? 0.5 : 2;
  const results = [await measureApply({ rounds: runs, seconds, progress })];
  const { sides: ours, close } = await ourSides();
  const peers = (await Promise.all([peerSide(python, "rpc"), peerSide(python, "gloo"), peerSide(tensorflow, "tensorflow")])).filter(Boolean);
  const versions = Object.fromEntries(peers.map(({ name, version }) => [name, version]));
  try {
    for (const bytes of [0, ...(quick ? SIZES.slice(0, 2) : SIZES)]) {
      const title = bytes === 0 ? "round trips" : `push and pull ${bytes / 1e6} MB`;
      const key = bytes === 0 ? "roundTripsPerSecond" : "pushPullGBps";
      const figures = new Map([...ours, ...peers].map((side) => [side, []]));
      for (let round = 0; round < runs; round++) {
        for (const [side, values] of figures) {
          values.push((await side.measure({ bytes, seconds }))[key]);
          progress(`${title}, ${side.name}: ${values.at(-1).toFixed(bytes === 0 ? 0 : 2)}`);
        }
      }
      const of = (list) => list.map((side) => ({ name: side.name, value: median(figures.get(side)) })).sort((a, b) => b.value - a.value);
      const [mine] = of(ours), [best] = of(peers);
      const all = figures.get(ours.find((side) => side.name === mine.name));
      results.push({
        name: `${title}, ${mine.name}`, unit: bytes === 0 ? "1/s" : "GB/s", ours: mine.value, min: Math.min(...all), max: Math.max(...all),
        peer: best?.value ?? null, peerName: best?.name ?? null, ratio: best === undefined ? null : mine.value / best.value,
        floor: bytes === 0 ? 1 : FLOOR, all: Object.fromEntries([...of(ours), ...of(peers)].map(({ name, value }) => [name, value])),
      });
    }
  } finally {
    for (const peer of peers) peer.close();
    await close();
  }
  return { results, versions };
}

if (process.argv[1] === fileURLToPath(import.meta.url) && process.argv[2] === "--serve") await serve(process.argv[3], process.argv[4]);
