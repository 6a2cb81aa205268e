// Confines itself as the child of a worker does, tries what a task must not do, and says what came of it.
import { spawnSync } from "node:child_process";
import { openSync, readFileSync, writeSync } from "node:fs";
import { connect, createServer } from "node:net";
import { openDevice } from "../../../dist/device/device.js";
import { confineChild } from "../../../dist/actors/worker/vm/confinement.js";

openDevice({ backend: "cpu", threads: 2 });
const confinement = confineChild(process.ppid, "cpu", 64 * 2 ** 20);
const codes = {};
function attempt(name, action) {
  try {
    action();
    codes[name] = "done";
  } catch (error) {
    codes[name] = error.code ?? error.message;
  }
}
attempt("read a file", () => readFileSync("/etc/hostname"));
attempt("write a file", () => openSync("/tmp/tesra-probe", "w"));
attempt("signal the parent", () => process.kill(process.ppid, 0));
attempt("run a program", () => {
  const { error } = spawnSync("/bin/true");
  if (error) throw error;
});
const network = (name, socket) => new Promise((resolve) => {
  const settle = (code) => { codes[name] = code; resolve(); };
  socket.once("error", (error) => settle(error.code)).once("connect", () => settle("done")).once("listening", () => settle("done"));
});
await network("connect", connect({ host: "127.0.0.1", port: 9 }));
await network("connect locally", connect("/tmp/tesra-probe.sock"));
await network("listen", createServer().listen(0, "127.0.0.1"));
writeSync(1, JSON.stringify({ confinement, codes }));
// a memory bomb: four times what the limit leaves
const kept = [];
for (let i = 0; i < 64; i += 1) kept.push(Buffer.alloc(64 * 2 ** 20, 1));
process.exit(0);
