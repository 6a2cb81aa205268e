// Owns the TensorFlow.js WebAssembly side of the kernel lines. Its threads need workers of a browser, so it runs on one.
import { createInterface } from "node:readline";
import * as tf from "@tensorflow/tfjs-core";
import { setWasmPaths, version_wasm } from "@tensorflow/tfjs-backend-wasm";
import { fileURLToPath } from "node:url";

setWasmPaths(fileURLToPath(new URL("./node_modules/@tensorflow/tfjs-backend-wasm/dist/", import.meta.url)));
await tf.setBackend("wasm");

const cases = {
  sgemm({ m, n, k }) {
    const [a, b] = [tf.randomUniform([m, k]), tf.randomUniform([k, n])];
    return { run: () => tf.matMul(a, b).dispose(), close: () => tf.dispose([a, b]) };
  },
  conv({ n, h, c, oc, kernel, pad }) {
    const [x, w] = [tf.randomUniform([n, h, h, c]), tf.randomUniform([kernel, kernel, c, oc])];
    return { run: () => tf.conv2d(x, w, 1, pad).dispose(), close: () => tf.dispose([x, w]) };
  },
};

const now = () => performance.now() / 1000;
function measure(run, seconds) {
  run();
  const times = [];
  const begin = now();
  do {
    const start = now();
    run();
    times.push(now() - start);
  } while (now() - begin < seconds);
  return times.sort((a, b) => a - b)[times.length >> 1];
}

console.log(JSON.stringify({ version: version_wasm }));
let prepared;
let text;
for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  if (!Object.hasOwn(cases, request.op) || request.threads > 1) {
    console.log(JSON.stringify({ reason: request.threads > 1 ? "one thread only" : "no such operation here" }));
    continue;
  }
  if (line !== text) {
    prepared?.close();
    [prepared, text] = [cases[request.op](request), line];
  }
  console.log(JSON.stringify({ seconds: measure(prepared.run, request.seconds) }));
}
