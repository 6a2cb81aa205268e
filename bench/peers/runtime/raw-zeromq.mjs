// Owns raw zeromq.js's side of the measures between two processes: sockets and nothing above them.
// cast: one record a frame, PUSH to PULL (`--dealer`: DEALER to ROUTER). ask: REQ to REP (`--dealer` likewise).
// bulk: a tensor in chunks of `--chunk BYTES`, put together by the receiver in a buffer that it keeps (`--fresh`: in a
// new one for each, as a receiver needs that hands its tensors on), and answered.
import { fork } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import * as zmq from "zeromq";
import { latency, perSecond, print, sideArguments, STREAM_GO_MS_MIN } from "../../runtime/timing.mjs";
import { RECORD_BYTES, TENSOR_BYTES, TENSORS_UNDER_WAY } from "../../runtime/workload.mjs";

/** No bound on what waits (a socket takes only the marks of its own direction), unless `--hwm` keeps zeromq's 1000. */
const limitsOf = (Type, hasMarks) => ({
  ...(Type === zmq.Pull ? {} : { linger: 0 }),
  ...(hasMarks || Type === zmq.Pull ? {} : { sendHighWaterMark: 0 }),
  ...(hasMarks || Type === zmq.Push ? {} : { receiveHighWaterMark: 0 }),
});
const END = Buffer.from("end");

if (process.argv[2] === "receiver") await receive(JSON.parse(process.argv[3]));
else await send();

async function receive({ measure, endpoint, isDealer, isFresh, hwm, chunkBytes, serverKeys }) {
  const server = serverKeys
    ? { curveServer: true, curvePublicKey: serverKeys.publicKey, curveSecretKey: serverKeys.secretKey }
    : {};
  const Type =
    measure === "ask" ? (isDealer ? zmq.Router : zmq.Reply) : measure === "cast" && !isDealer ? zmq.Pull : zmq.Router;
  const socket = new Type({ ...limitsOf(Type, hwm), ...server });
  await socket.bind(endpoint);
  process.on("message", () => {
    const { user, system } = process.cpuUsage();
    process.send({ cpuUs: user + system });
  });
  process.on("disconnect", () => process.exit(0));
  process.send({ endpoint: socket.lastEndpoint });
  const handlers = {
    cast: async () => {
      let handled = 0;
      if (isDealer) {
        for await (const [, message] of socket) {
          if (message.length === RECORD_BYTES) handled += 1;
          else process.send({ handled });
        }
      } else {
        for await (const [message] of socket) {
          if (message.length === RECORD_BYTES) handled += 1;
          else process.send({ handled });
        }
      }
    },
    ask: async () => {
      if (isDealer) for await (const [id, message] of socket) await socket.send([id, message]);
      else for await (const [message] of socket) await socket.send(message);
    },
    bulk: async () => {
      const tensors = Array.from({ length: TENSORS_UNDER_WAY }, () => new Uint8Array(TENSOR_BYTES));
      let filled = 0;
      let at = 0;
      for await (const [id, chunk] of socket) {
        if (filled === 0 && isFresh) tensors[at] = Buffer.allocUnsafeSlow(TENSOR_BYTES);
        tensors[at].set(chunk, filled);
        filled += chunk.length;
        if (filled < TENSOR_BYTES) continue;
        filled = 0;
        at = (at + 1) % TENSORS_UNDER_WAY;
        await socket.send([id, END]);
      }
    },
  };
  await handlers[measure]();
}

async function send() {
  const measures = {
    cast: async () => {
      const record = Buffer.from(new Uint8Array(RECORD_BYTES).map((_, i) => i));
      let total = 0;
      return perSecond(
        seconds,
        async (count) => {
          for (let i = 0; i < count; i++) await socket.send(record);
          const handled = message();
          await socket.send(END);
          total += count;
          const reply = await handled;
          if (reply.handled !== total) throw new Error(`sent ${total}, handled ${reply.handled}`);
        },
        { first: 5000, goMsMin: STREAM_GO_MS_MIN, otherCpuUs },
      );
    },
    ask: async () => {
      const question = Buffer.from('{"i":1}');
      return latency(seconds, async () => {
        await socket.send(question);
        await socket.receive();
      });
    },
    bulk: async () => {
      const tensor = new Uint8Array(new Float32Array(TENSOR_BYTES / 4).fill(1.5).buffer);
      const chunks = [];
      for (let i = 0; i < TENSOR_BYTES; i += chunkBytes)
        chunks.push(tensor.subarray(i, Math.min(TENSOR_BYTES, i + chunkBytes)));
      const rates = await perSecond(
        seconds,
        async (count) => {
          let underWay = 0;
          for (let i = 0; i < count; i++) {
            if (underWay === TENSORS_UNDER_WAY) await socket.receive();
            else underWay += 1;
            for (const chunk of chunks) await socket.send(chunk);
          }
          for (; underWay > 0; underWay--) await socket.receive();
        },
        { first: TENSORS_UNDER_WAY, goMsMin: STREAM_GO_MS_MIN, otherCpuUs },
      );
      return Object.fromEntries(Object.entries(rates).map(([key, rate]) => [key, (rate * TENSOR_BYTES) / 1e9]));
    },
  };
  const { measure, seconds, value, has } = sideArguments(measures);
  const isDealer = has("--dealer");
  const chunkBytes = Number(value("--chunk", "262144"));
  const directory = mkdtempSync(join(tmpdir(), "bench-"));
  const serverKeys = has("--curve") ? zmq.curveKeyPair() : undefined;
  const endpoint = value("--endpoint", "tcp") === "ipc" ? `ipc://${join(directory, "s")}` : "tcp://127.0.0.1:*";
  const child = fork(fileURLToPath(import.meta.url), [
    "receiver",
    JSON.stringify({
      measure,
      endpoint,
      isDealer,
      isFresh: has("--fresh"),
      hwm: has("--hwm"),
      chunkBytes,
      serverKeys,
    }),
  ]);
  const message = () => new Promise((resolve) => child.once("message", resolve));
  const server = await message();
  const otherCpuUs = async () => {
    child.send("cpu");
    return (await message()).cpuUs;
  };
  const mine = serverKeys ? zmq.curveKeyPair() : undefined;
  const curve = serverKeys
    ? { curveServerKey: serverKeys.publicKey, curvePublicKey: mine.publicKey, curveSecretKey: mine.secretKey }
    : {};
  const Type = measure === "ask" && !isDealer ? zmq.Request : measure === "cast" && !isDealer ? zmq.Push : zmq.Dealer;
  const socket = new Type({ ...limitsOf(Type, has("--hwm")), ...curve });
  socket.connect(server.endpoint);
  const values = await measures[measure]();
  socket.close();
  child.disconnect();
  rmSync(directory, { recursive: true });
  print(values, createRequire(import.meta.url)("zeromq/package.json").version);
}
