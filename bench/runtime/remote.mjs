// Owns our side of the measures between two processes: this one sends, a child of it receives.
// `--endpoint tcp|ipc` (default tcp), `--curve` (default plain: loopback only, as the raw peers run), `--shared`: both
// may lay tensors in shared memory.
import { fork } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import {
  behavior,
  createSystem,
  curveKeys,
  defineProtocol,
  handOver,
  releaseTensors,
  silentLogger,
} from "../../dist/runtime/index.js";
import { ASK_WARM_UP_SHARE, latency, perSecond, print, sideArguments, STREAM_GO_MS_MIN } from "./timing.mjs";
import { RECORD_BYTES, TENSOR_BYTES, TENSORS_UNDER_WAY, WINDOW } from "./workload.mjs";

const Sink = defineProtocol("sink", 1, {
  cast: { note: z.instanceof(Uint8Array) },
  call: {
    add: { request: z.object({ i: z.number() }), reply: z.number() },
    handled: { request: z.null(), reply: z.number() },
    tensor: { request: z.object({ x: z.instanceof(Float32Array) }), reply: z.number() },
  },
});
const options = { timeoutMs: 60_000 };
/** Loaded only when asked for: it needs the native addon. */
const memoryOf = async (isShared) =>
  isShared ? { sharedMemory: (await import("../../dist/device/shared-memory.js")).openSharedMemory() } : {};
/** The receiver counts; with room for all that can be under way nothing is dropped. */
const MAILBOX_CAPACITY = 1 << 18;
/** Casts in a row before the event loop gets its turn, as an actor's own turns would end. */
const CASTS_A_TURN = 4096;

if (process.argv[2] === "receiver") await receive(process.argv[3], process.argv[4], process.argv.slice(5));
else await send();

async function receive(endpoint, allowed, modes) {
  const plain = modes.includes("plain");
  const memory = await memoryOf(modes.includes("shared"));
  const system = createSystem({ name: "receiver", logger: silentLogger, ...memory });
  let handled = 0;
  system.spawn(
    behavior(Sink, () => ({
      cast: { note: () => void (handled += 1) },
      call: {
        add: ({ i }) => i + 1,
        handled: () => handled,
        tensor: ({ x }) => {
          const sum = x[0] + x[x.length - 1];
          releaseTensors(x); // as the raw peers keep the buffer that they receive into
          return sum;
        },
      },
    })),
    { name: "sink", mailbox: { capacity: MAILBOX_CAPACITY } },
  );
  const keys = curveKeys();
  const listener = await system.listen({
    endpoint,
    keys,
    allow: (key) => key === allowed,
    ...(plain ? { plain } : {}),
  });
  process.on("message", () => {
    const { user, system: kernel } = process.cpuUsage();
    process.send({ cpuUs: user + kernel });
  });
  process.on("disconnect", () => process.exit(0));
  process.send({ endpoint: listener.endpoint, serverKey: keys.publicKey });
}

async function send() {
  const measures = {
    cast: (ref) => {
      let total = 0;
      const record = new Uint8Array(RECORD_BYTES).map((_, i) => i);
      return perSecond(
        seconds,
        async (count) => {
          for (let i = 0; i < count; ) {
            const end = Math.min(count, i + CASTS_A_TURN);
            while (i < end && ref.cast("note", record) === "accepted") i += 1;
            await new Promise(setImmediate);
          }
          total += count;
          const reply = await ref.call("handled", null, options);
          if (!reply.ok || reply.value !== total) throw new Error(`sent ${total}, handled ${JSON.stringify(reply)}`);
        },
        { first: 5000, goMsMin: STREAM_GO_MS_MIN, otherCpuUs },
      );
    },
    ask: async (ref) =>
      latency(seconds, async () => {
        const reply = await ref.call("add", { i: 1 }, options);
        if (!reply.ok) throw new Error(JSON.stringify(reply.error));
      }),
    askSequence: (ref) =>
      perSecond(
        seconds,
        async (count) => {
          for (let i = 0; i < count; i++) {
            const reply = await ref.call("add", { i }, options);
            if (!reply.ok) throw new Error(JSON.stringify(reply.error));
          }
        },
        { warmUpShare: ASK_WARM_UP_SHARE, otherCpuUs },
      ),
    askWindow: (ref) =>
      perSecond(
        seconds,
        (count) =>
          Promise.all(
            Array.from({ length: WINDOW }, async () => {
              for (let i = 0; i < count / WINDOW; i++) {
                const reply = await ref.call("add", { i }, options);
                if (!reply.ok) throw new Error(JSON.stringify(reply.error));
              }
            }),
          ),
        { first: WINDOW, warmUpShare: ASK_WARM_UP_SHARE, otherCpuUs },
      ),
    bulk: async (ref) => {
      const x = handOver(new Float32Array(TENSOR_BYTES / 4).fill(1.5));
      const rates = await perSecond(
        seconds,
        (count) =>
          Promise.all(
            Array.from({ length: TENSORS_UNDER_WAY }, async () => {
              for (let i = 0; i < count; i++) {
                const reply = await ref.call("tensor", { x }, options);
                if (!reply.ok || reply.value !== 3) throw new Error(JSON.stringify(reply));
              }
            }),
          ),
        { first: 1, goMsMin: STREAM_GO_MS_MIN, otherCpuUs },
      );
      return bytesOf(rates, TENSORS_UNDER_WAY * TENSOR_BYTES);
    },
  };
  const { measure, seconds, value, has } = sideArguments(measures);
  const directory = mkdtempSync(join(tmpdir(), "bench-"));
  const endpoint = value("--endpoint", "tcp") === "ipc" ? `ipc://${join(directory, "s")}` : "tcp://127.0.0.1:0";
  const keys = curveKeys();
  const plain = !has("--curve");
  const child = fork(fileURLToPath(import.meta.url), [
    "receiver",
    endpoint,
    keys.publicKey,
    plain ? "plain" : "curve",
    has("--shared") ? "shared" : "copied",
  ]);
  const message = () => new Promise((resolve) => child.once("message", resolve));
  const server = await message();
  const otherCpuUs = async () => {
    child.send("cpu");
    return (await message()).cpuUs;
  };
  const system = createSystem({ name: "sender", logger: silentLogger, ...(await memoryOf(has("--shared"))) });
  const peer = await system.connect({ ...server, keys, ...(plain ? { plain } : {}) });
  const values = await measures[measure](peer.ref(Sink, "sink"));
  await system.shutdown();
  child.disconnect();
  rmSync(directory, { recursive: true });
  print(values);
}

/** Rates of tensors as rates of 10^9 bytes. */
function bytesOf(rates, sizeBytes) {
  return Object.fromEntries(Object.entries(rates).map(([key, rate]) => [key, (rate * sizeBytes) / 1e9]));
}
