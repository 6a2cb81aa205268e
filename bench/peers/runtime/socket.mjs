// Owns the plain node:net socket's side of the bulk measure: tensors without any framing, received into buffers that
// the receiver keeps, each answered with one byte. `--write BYTES` cuts the sender's writes; `--onread` lets the
// kernel read straight into the tensor, otherwise "data" events are copied.
import { fork } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { perSecond, print, sideArguments, STREAM_GO_MS_MIN } from "../../runtime/timing.mjs";
import { TENSOR_BYTES, TENSORS_UNDER_WAY } from "../../runtime/workload.mjs";

if (process.argv[2] === "receiver") receive(JSON.parse(process.argv[3]), process.argv[4] === "onread");
else await send();

/** The receiver is the one that connects, because only `connect` takes `onread`. */
function receive(address, isReadInPlace) {
  const tensors = Array.from({ length: TENSORS_UNDER_WAY }, () => new Uint8Array(TENSOR_BYTES));
  let filled = 0;
  let at = 0;
  const advance = (size) => {
    filled += size;
    if (filled < TENSOR_BYTES) return;
    filled = 0;
    at = (at + 1) % TENSORS_UNDER_WAY;
    socket.write("e");
  };
  const onread = { buffer: () => tensors[at].subarray(filled), callback: (size) => (advance(size), true) };
  const socket = connect({ ...address, ...(isReadInPlace ? { onread } : {}) });
  if (!isReadInPlace) {
    socket.on("data", (data) => {
      for (let from = 0; from < data.length; ) {
        const size = Math.min(data.length - from, TENSOR_BYTES - filled);
        tensors[at].set(data.subarray(from, from + size), filled);
        from += size;
        advance(size);
      }
    });
  }
  process.on("message", () => {
    const { user, system } = process.cpuUsage();
    process.send({ cpuUs: user + system });
  });
  process.on("disconnect", () => process.exit(0));
}

async function send() {
  const measures = {
    bulk: async () => {
      const tensor = new Uint8Array(new Float32Array(TENSOR_BYTES / 4).fill(1.5).buffer);
      const parts = [];
      for (let i = 0; i < TENSOR_BYTES; i += writeBytes)
        parts.push(tensor.subarray(i, Math.min(TENSOR_BYTES, i + writeBytes)));
      let answers = 0;
      let wake = () => undefined;
      socket.on("data", (data) => {
        answers += data.length;
        wake();
      });
      let sent = 0;
      const answered = async (least) => {
        while (answers < least) await new Promise((resolve) => (wake = resolve));
      };
      return perSecond(
        seconds,
        async (count) => {
          for (let i = 0; i < count; i++) {
            await answered(sent - TENSORS_UNDER_WAY + 1);
            for (const part of parts) if (!socket.write(part)) await once(socket, "drain");
            sent += 1;
          }
          await answered(sent);
        },
        { first: TENSORS_UNDER_WAY, goMsMin: STREAM_GO_MS_MIN, otherCpuUs },
      );
    },
  };
  const { measure, seconds, value, has } = sideArguments(measures);
  const writeBytes = Number(value("--write", String(TENSOR_BYTES)));
  const directory = mkdtempSync(join(tmpdir(), "bench-"));
  const isIpc = value("--endpoint", "tcp") === "ipc";
  const server = createServer();
  await once(server.listen(isIpc ? { path: join(directory, "s") } : { port: 0, host: "127.0.0.1" }), "listening");
  const address = isIpc ? { path: server.address() } : { port: server.address().port, host: "127.0.0.1" };
  const child = fork(fileURLToPath(import.meta.url), [
    "receiver",
    JSON.stringify(address),
    has("--onread") ? "onread" : "data",
  ]);
  const otherCpuUs = async () => {
    child.send("cpu");
    const [{ cpuUs }] = await once(child, "message");
    return cpuUs;
  };
  const [socket] = await once(server, "connection");
  socket.setNoDelay?.(true);
  const rates = await measures[measure]();
  socket.destroy();
  server.close();
  child.disconnect();
  rmSync(directory, { recursive: true });
  print(
    Object.fromEntries(Object.entries(rates).map(([key, rate]) => [key, (rate * TENSOR_BYTES) / 1e9])),
    process.versions.node,
  );
}
