// One 64 MiB Float32Array from one process to another on the same host: by shared memory (copied once, and handed
// over without a copy), by the runtime's lanes, and by what Node and ZeroMQ give by themselves. All in one run, round
// robin, so that the machine's other load falls on all alike; GB/s one way, medians.
//   node bench/runtime/shared-memory.mjs [--rounds 7] [--mebibytes 64] [--json]
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { connect as connectSocket, createServer } from "node:net";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { openSharedMemory } from "../../dist/device/shared-memory.js";
import {
  behavior, createSystem, curveKeys, defineProtocol, handOver, releaseTensors, silentLogger,
} from "../../dist/runtime/index.js";
import { readOptions } from "./options.mjs";

const CHUNK_BYTES = 256 * 1024;
/** Messages in flight: one is written while the other is received. */
const WINDOW = 2;
const MESSAGES_PER_ROUND = 6;
const CALL_TIMEOUT_MS = 60_000;

const floats = z.custom((value) => value instanceof Float32Array);
const Sink = defineProtocol("sink", 1, {
  call: {
    take: { request: z.object({ x: floats }), reply: z.number() },
    read: { request: z.object({ x: floats }), reply: z.number() },
  },
});

// --- the receiving process --------------------------------------------------------------------------------------

async function serve(directory, clientKey) {
  const zmq = await import("zeromq");
  const keys = curveKeys();
  const listen = async (name, endpoint, sharedMemory) => {
    const system = createSystem({ name, logger: silentLogger, ...(sharedMemory === undefined ? {} : { sharedMemory }) });
    system.spawn(behavior(Sink, () => ({
      call: {
        take: ({ x }) => {
          const last = x[x.length - 1];
          releaseTensors(x);
          return last;
        },
        read: ({ x }) => {
          let sum = 0; // a cache line at a time: what moving the memory to this core costs
          for (let i = 0; i < x.length; i += 16) sum += x[i];
          releaseTensors(x);
          return sum;
        },
      },
    })), { name: "sink" });
    return (await system.listen({ endpoint, keys, allow: (key) => key === clientKey, plain: true })).endpoint;
  };
  const shared = await listen("shared", `ipc://${join(directory, "shared")}`, openSharedMemory());
  const ipc = await listen("ipc", `ipc://${join(directory, "ipc")}`);
  const tcp = await listen("tcp", "tcp://127.0.0.1:0");

  const acknowledge = (socket) => {
    let due = 0;
    let got = 0;
    socket.on("data", (chunk) => {
      let rest = chunk;
      if (due === 0) {
        due = rest.readDoubleLE(0); // the first 8 bytes: how many follow
        rest = rest.subarray(8);
      }
      got += rest.length;
      if (got < due) return;
      due = got = 0;
      socket.write("x");
    });
    socket.on("error", () => undefined);
  };
  const bind = (where) => new Promise((resolve) => {
    const server = createServer(acknowledge).listen(where, () => resolve(server.address()));
  });
  const unix = await bind(join(directory, "unix"));
  const { port } = await bind({ port: 0, host: "127.0.0.1" });

  const raw = new zmq.Pair();
  await raw.bind("tcp://127.0.0.1:*");
  void (async () => {
    for await (const [head, body] of raw) if (body === undefined && head.length === 1) await raw.send("x");
  })();
  console.log(JSON.stringify({ key: keys.publicKey, shared, ipc, tcp, unix, port, raw: raw.lastEndpoint }));
  process.stdin.on("end", () => process.exit(0)).resume();
}

// --- the sending process ----------------------------------------------------------------------------------------

/** @returns { [way]: { medianGBps, all: number[] } } and what they were measured with. */
export async function measureSharedMemory({ rounds = 7, mebibytes = 64 } = {}) {
  const sizeBytes = mebibytes * 1024 * 1024;
  const directory = mkdtempSync(join(tmpdir(), "tesra-bench-"));
  const clientKeys = curveKeys();
  const child = spawn(process.execPath, [fileURLToPath(import.meta.url), "--serve", directory, clientKeys.publicKey], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const systems = [];
  let raw;
  const sockets = [];
  try {
    const at = JSON.parse(await new Promise((resolve, reject) => {
      createInterface({ input: child.stdout }).once("line", resolve);
      child.once("exit", (code) => reject(new Error(`the receiving process ended with ${code}`)));
    }));
    const open = async (endpoint, sharedMemory) => {
      const system = createSystem({ name: "bench", logger: silentLogger, ...(sharedMemory === undefined ? {} : { sharedMemory }) });
      systems.push(system);
      return system.connect({ endpoint, serverKey: at.key, keys: clientKeys, plain: true });
    };
    const source = new Float32Array(sizeBytes / 4).fill(1.5);
    const lengthOf = source.length;
    const byRuntime = (peer, name, make) => {
      const ref = peer.ref(Sink, "sink");
      return inWindow(async () => {
        const answer = await ref.call(name, { x: make() }, { timeoutMs: CALL_TIMEOUT_MS });
        if (!answer.ok) throw new Error(answer.error.message);
      });
    };
    const memory = openSharedMemory();
    const ways = {};
    if (memory !== undefined) {
      const peer = await open(at.shared, memory);
      ways["shared memory, one copy"] = byRuntime(peer, "take", () => source);
      ways["shared memory, one copy, read by the receiver"] = byRuntime(peer, "read", () => source);
      ways["shared memory, handed over"] = byRuntime(peer, "take", () => peer.createTensor(Float32Array, lengthOf));
      ways["shared memory, filled and handed over"] = byRuntime(peer, "read", () => peer.createTensor(Float32Array, lengthOf).fill(1.5));
    }
    const [ipc, tcp] = [await open(at.ipc), await open(at.tcp)];
    ways["runtime lanes, ipc"] = byRuntime(ipc, "take", () => handOver(source));
    ways["runtime lanes, tcp"] = byRuntime(tcp, "take", () => handOver(source));
    const zmq = await import("zeromq");
    raw = new zmq.Pair();
    raw.connect(at.raw);
    const bytes = Buffer.from(source.buffer);
    ways["raw zeromq, tcp, 256 KiB chunks"] = inOrder(async () => {
      for (let from = 0; from < sizeBytes; from += CHUNK_BYTES) {
        await raw.send([bytes.subarray(0, 1), bytes.subarray(from, from + CHUNK_BYTES)]);
      }
      await raw.send("e");
      await raw.receive();
    });
    const length = Buffer.alloc(8);
    length.writeDoubleLE(sizeBytes);
    for (const [name, where] of [["node:net, unix socket", { path: at.unix }], ["node:net, tcp", { port: at.port, host: "127.0.0.1" }]]) {
      const socket = connectSocket(where);
      sockets.push(socket);
      ways[name] = inOrder(() => new Promise((resolve, reject) => {
        const fail = (error) => reject(error);
        socket.once("error", fail).once("data", () => (socket.off("error", fail), resolve()));
        socket.write(length);
        socket.write(bytes);
      }));
    }
    const figures = Object.fromEntries(Object.keys(ways).map((way) => [way, []]));
    for (let round = -1; round < rounds; round++) {
      for (const [way, send] of Object.entries(ways)) {
        const begin = process.hrtime.bigint();
        await send(MESSAGES_PER_ROUND);
        const seconds = Number(process.hrtime.bigint() - begin) / 1e9;
        if (round >= 0) figures[way].push((sizeBytes * MESSAGES_PER_ROUND) / seconds / 1e9); // the first warms up
      }
    }
    const table = Object.fromEntries(Object.entries(figures).map(([way, all]) => [way, { medianGBps: median(all), all }]));
    return { mebibytes, rounds, loadAverage: loadavg()[0], ways: table, shared: systems[0]?.links()[0]?.shared };
  } finally {
    for (const socket of sockets) socket.destroy();
    raw?.close();
    for (const system of systems) await system.shutdown({ deadlineMs: 1000 });
    child.stdin.end();
    rmSync(directory, { recursive: true, force: true });
  }
}

/** `count` messages, WINDOW of them under way at a time. */
function inWindow(send) {
  return async (count) => {
    let left = count;
    const run = async () => {
      while (left-- > 0) await send();
    };
    await Promise.all(Array.from({ length: WINDOW }, run));
  };
}

function inOrder(send) {
  return async (count) => {
    for (let i = 0; i < count; i++) await send();
  };
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1];
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const args = process.argv.slice(2);
  if (args[0] === "--serve") await serve(args[1], args[2]);
  else {
    const { rounds, mebibytes, json } = readOptions(
      "Usage: node bench/runtime/shared-memory.mjs [--rounds 7] [--mebibytes 64] [--json]", { rounds: 7, mebibytes: 64 },
    );
    const result = await measureSharedMemory({ rounds, mebibytes });
    if (json) console.log(JSON.stringify(result));
    else {
      console.log(`one Float32Array of ${result.mebibytes} MiB to another process, GB/s one way, median of ${result.rounds} ` +
        `(load average ${result.loadAverage.toFixed(1)})`);
      for (const [way, { medianGBps, all }] of Object.entries(result.ways)) {
        console.log(`${way.padEnd(48)} ${medianGBps.toFixed(2).padStart(8)}   ${Math.min(...all).toFixed(2)} .. ${Math.max(...all).toFixed(2)}`);
      }
      console.log("segments", JSON.stringify(result.shared));
    }
  }
}
