// An MLP from graph operations, without layers: placeholders, variables, products; trained in one native call a batch,
// then asked for what no loss needs. Run: node examples/training/graph-ops.mjs [--data <folder of Fashion-MNIST>]
import { parseArgs } from "node:util";
import { openDevice } from "tesra-supernet";
import {
  BatchSampler, compileFetches, compileLocalTraining, FetchPlan, Graph, initialParameters, LocalTrainStep, nn, optim,
} from "tesra-supernet/training";
import { loadImages } from "./images.mjs";

const { values } = parseArgs({ options: { data: { type: "string" } } });
const { train, test } = loadImages(values.data, 4_096);
const BATCH = 64;

const g = new Graph();
const images = g.placeholder("images", [null, 28, 28], "u8"); // null: the batch
const labels = g.placeholder("labels", [null], "i32");
const w1 = g.variable("w1", [784, 128]), b1 = g.variable("b1", [128]);
const w2 = g.variable("w2", [128, 10]), b2 = g.variable("b2", [10]);
const hidden = images.toFloat().flatten().matmul(w1).biasAdd(b1).relu();
const logits = hidden.matmul(w2).biasAdd(b2);
const loss = nn.softmaxCrossEntropy(logits, labels);

try {
  hidden.matmul(b2.reshape([5, 2]));
} catch (error) {
  console.log(`a mistake: ${error.message.replace(/\(made at .*\/examples/, "(made at examples")}`);
}

const device = openDevice();
const optimizer = optim.adam({ learningRate: 1e-3, beta1: 0.9 }).descriptor;
const step = new LocalTrainStep(device, compileLocalTraining(g, { loss, batchSize: BATCH, optimizer }), initialParameters(g, 1));
const sampler = new BatchSampler(train, { batchSize: BATCH, seed: 1 });
const steps = 2 * Math.floor(train.labels.length / BATCH);
let last = 0;
for (let i = 0; i < steps; i += 1) {
  const batch = sampler.next();
  last = (await step.run(batch.images, batch.labels)).loss;
}
console.log(`${steps} steps, loss ${last.toFixed(3)}`);

// Any tensors can be fetched; nothing else is computed, so no labels are fed here.
const rows = 500;
const predict = new FetchPlan(device, compileFetches(g, { fetches: [logits.softmax(), hidden], batchSize: rows }));
const [probabilities] = await predict.run({ feeds: [images.feed(test.images.subarray(0, rows * 784))], parameters: step.parameters() });
let right = 0;
for (let row = 0; row < rows; row += 1) {
  const of = probabilities.subarray(row * 10, row * 10 + 10);
  if (of.indexOf(Math.max(...of)) === test.labels[row]) right += 1;
}
console.log(`${((right / rows) * 100).toFixed(1)} % of ${rows} test images`);
predict.close();
step.close();
device.close();
