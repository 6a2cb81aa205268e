// Trains an MLP in this process: graph, autodiff, one native call a batch.
// Run: node examples/training/local-mlp.mjs [--epochs 2] [--data <folder with the four Fashion-MNIST files>]
// Without --data it trains on synthetic rows.
import { parseArgs } from "node:util";
import { openDevice } from "tesra-supernet";
import {
  BatchSampler, compileLocalTraining, Evaluator, initialParameters, LocalTrainStep, mlp, optim,
} from "tesra-supernet/training";
import { loadImages } from "./images.mjs";

const { values } = parseArgs({ options: { epochs: { type: "string", default: "2" }, data: { type: "string" } } });
const BATCH = 128;
const { train, test } = loadImages(values.data);

const model = mlp();
const device = openDevice(); // CUDA where the addon has it and a GPU is there, else the CPU
const compiled = compileLocalTraining(model.graph, {
  loss: model.loss, correct: model.correct, batchSize: BATCH,
  optimizer: optim.adam({ learningRate: 1e-3, beta1: 0.9 }).descriptor,
});
const step = new LocalTrainStep(device, compiled, initialParameters(model.graph, 1));
const evaluator = new Evaluator(device, model.graph, { loss: model.loss, correct: model.correct });
const sampler = new BatchSampler(train, { batchSize: BATCH, seed: 1 });
console.log(`${compiled.parameterCount} parameters on ${device.backend}/${device.isa}`);

const steps = Math.floor(train.labels.length / BATCH);
for (let epoch = 1; epoch <= Number(values.epochs); epoch += 1) {
  const startMs = performance.now();
  let loss = 0;
  for (let i = 0; i < steps; i += 1) {
    const batch = sampler.next();
    loss += (await step.run(batch.images, batch.labels)).loss / steps;
  }
  const seconds = (performance.now() - startMs) / 1000;
  const { accuracy } = await evaluator.evaluate(step.parameters(), test.images, test.labels);
  console.log(`epoch ${epoch}: loss ${loss.toFixed(3)}, test accuracy ${(accuracy * 100).toFixed(1)} %, ${Math.round((steps * BATCH) / seconds)} images/s`);
}
evaluator.close();
step.close();
device.close();
