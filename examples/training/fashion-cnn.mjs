// Trains a wider CNN on Fashion-MNIST: AdamW behind a parameter store, whose rate climbs and then falls linearly.
// Run: node examples/training/fashion-cnn.mjs --data <folder with the four Fashion-MNIST files> [--epochs 8] [--metrics runs/1]
// Without --data it trains on a few synthetic rows for one epoch.
import { parseArgs } from "node:util";
import { openDevice } from "tesra-supernet";
import {
  BatchSampler, compileStep, createUpdateKernels, Evaluator, initialParameters, optim, ParameterStore, recordTraining,
  TensorBoardMetrics, TrainStep, wideCnn,
} from "tesra-supernet/training";
import { loadImages } from "./images.mjs";

const { values } = parseArgs({ options: { epochs: { type: "string" }, data: { type: "string" }, metrics: { type: "string" } } });
const BATCH = 128;
const epochs = Number(values.epochs ?? (values.data ? 8 : 1));
const { train, test } = loadImages(values.data, 2_048);

const model = wideCnn(); // convolutions of 32 and 64 filters, dropout 0.25
const device = openDevice();
const step = new TrainStep(device, compileStep(model.graph, { loss: model.loss, correct: model.correct, batchSize: BATCH }));
const sampler = new BatchSampler(train, { batchSize: BATCH, seed: 1 });
const updates = epochs * sampler.batchesPerEpoch;
const store = new ParameterStore({
  parameters: initialParameters(model.graph, 1), rules: { mode: "async", maxStaleness: 0, alpha: 0 },
  optimizer: optim.adamW({
    learningRate: 0.002, beta1: 0.9, weightDecay: 0.01,
    decay: { kind: "linear", updates, finalFactor: 0.01, warmup: Math.min(200, Math.ceil(updates / 10)) },
  }).descriptor,
}, { kernels: createUpdateKernels(device) });
const { epoch: incarnation } = store.admit("worker");
const evaluator = new Evaluator(device, model.graph, { loss: model.loss, correct: model.correct });
const metrics = values.metrics ? new TensorBoardMetrics({ directory: values.metrics, wallTimeMs: Date.now() }) : undefined;

for (let epoch = 1; epoch <= epochs; epoch += 1) {
  const startMs = performance.now();
  let loss = 0;
  for (let i = 0; i < sampler.batchesPerEpoch; i += 1) {
    const { index, images, labels } = sampler.next();
    const { version, parameters } = store.pull();
    step.setParameters(parameters);
    const result = await step.run(images, labels);
    const { status } = await store.push({ worker: "worker", epoch: incarnation, sequence: index, baseVersion: version, gradient: result.gradient });
    if (status !== "applied") throw new Error(`a gradient was ${status}`);
    loss += result.loss / sampler.batchesPerEpoch;
    if (metrics) recordTraining(metrics, { step: version + 1, epoch: epoch - 1, loss: result.loss }, Date.now());
  }
  const samplesPerSecond = (sampler.batchesPerEpoch * BATCH * 1000) / (performance.now() - startMs);
  const { accuracy, loss: testLoss } = await evaluator.evaluate(store.pull().parameters, test.images, test.labels);
  if (metrics) recordTraining(metrics, { step: store.version, accuracy, testLoss, samplesPerSecond }, Date.now());
  console.log(`epoch ${epoch}: loss ${loss.toFixed(3)}, test accuracy ${(accuracy * 100).toFixed(2)} %, ${Math.round(samplesPerSecond)} images/s`);
}
metrics?.close();
evaluator.close();
step.close();
device.close();
