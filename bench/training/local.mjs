// Owns our side of the training comparison: one process, one native call a step, one JSON line.
// Images are synthetic uint8 in memory, so reading a data set is in neither side's time; the gather of a
// batch, the cast to float, forward, backward and the update are in both sides'.
import { openDevice } from "../../dist/device/device.js";
import { BatchSampler, compileLocalTraining, initialParameters, LocalTrainStep, MODELS, optim } from "../../dist/training/index.js";

const args = process.argv.slice(2);
const value = (name, fallback) => (args.includes(name) ? args[args.indexOf(name) + 1] : fallback);
const model = value("--model", "cnn");
const threads = Number(value("--threads", "1"));
const seconds = Number(value("--seconds", "4"));
const backend = value("--backend", "cpu");
const BATCH = 128;
const ROWS = 8192;
if (!Object.hasOwn(MODELS, model) || !(threads >= 1) || !(seconds > 0)) {
  console.error("Usage: node bench/training/local.mjs [--model mlp|cnn] [--threads N] [--seconds N] [--backend cpu|cuda]");
  process.exit(2);
}

const device = openDevice({ backend, threads });
const net = MODELS[model]();
const compiled = compileLocalTraining(net.graph, {
  loss: net.loss, correct: net.correct, batchSize: BATCH,
  optimizer: optim.adam({ learningRate: 1e-3, beta1: 0.9 }).descriptor,
});
const step = new LocalTrainStep(device, compiled, initialParameters(net.graph, 1));
let state = 1;
const random = () => (state = Math.imul(state, 1664525) + 1013904223 >>> 0) >>> 24;
const images = Uint8Array.from({ length: ROWS * compiled.rowElements }, random);
const labels = Uint8Array.from({ length: ROWS }, () => random() % 10);
const sampler = new BatchSampler({ images, labels }, { batchSize: BATCH, seed: 1 });
const run = () => {
  const batch = sampler.next();
  return step.run(batch.images, batch.labels);
};

for (let i = 0; i < 20; i += 1) await run();
let steps = 0;
const cpuStart = process.cpuUsage();
const start = performance.now();
while (performance.now() - start < seconds * 1000) {
  for (let i = 0; i < 5; i += 1) await run();
  steps += 5;
}
const elapsed = (performance.now() - start) / 1000;
const cpu = process.cpuUsage(cpuStart); // of all threads: on a busy machine the fairer figure
const cpuSeconds = (cpu.user + cpu.system) / 1e6;
console.log(JSON.stringify({
  engine: "tesra", backend: device.backend, isa: device.isa, model, threads, batchSize: BATCH, steps,
  imagesPerSecond: steps * BATCH / elapsed, imagesPerCpuSecond: steps * BATCH / cpuSeconds,
  gigaMultiplyAddsPerSecond: steps * compiled.multiplyAdds / elapsed / 1e9,
}));
step.close();
device.close();
