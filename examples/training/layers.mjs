// The same by layers: an MLP and a LeNet-like CNN (LeCun et al. 1998) for images of 28 x 28.
// Run: node examples/training/layers.mjs [--data <folder of Fashion-MNIST>] [--epochs 3]
import { parseArgs } from "node:util";
import { openDevice } from "tesra-supernet";
import { BatchSampler, compileLocalTraining, Evaluator, Graph, initialParameters, LocalTrainStep, nn, optim } from "tesra-supernet/training";
import { loadImages } from "./images.mjs";

const { values } = parseArgs({ options: { data: { type: "string" }, epochs: { type: "string", default: "3" } } });
const { train, test } = loadImages(values.data, 4_096);
const BATCH = 64;

const networks = {
  mlp: nn.sequential(nn.flatten(), nn.dense("hidden", 128, { activation: "relu" }), nn.dense("logits", 10)),
  cnn: nn.sequential(
    nn.conv2d("conv1", 8, 5, { padding: 2, activation: "relu" }), nn.maxPool2d(2),
    nn.conv2d("conv2", 16, 5, { activation: "relu" }), nn.maxPool2d(2),
    nn.flatten(), nn.dense("hidden", 64, { activation: "relu" }), nn.dense("logits", 10),
  ),
};
const device = openDevice();
for (const [name, network] of Object.entries(networks)) {
  const { graph, loss, correct } = nn.classifier(new Graph(), [28, 28, 1], network);
  const optimizer = optim.adam({ learningRate: 3e-3, beta1: 0.9 }).descriptor;
  const step = new LocalTrainStep(device, compileLocalTraining(graph, { loss, correct, batchSize: BATCH, optimizer }), initialParameters(graph, 1));
  const sampler = new BatchSampler(train, { batchSize: BATCH, seed: 1 });
  const steps = Number(values.epochs) * Math.floor(train.labels.length / BATCH);
  for (let i = 0; i < steps; i += 1) {
    const batch = sampler.next();
    await step.run(batch.images, batch.labels);
  }
  const evaluator = new Evaluator(device, graph, { loss, correct });
  const { accuracy } = await evaluator.evaluate(step.parameters(), test.images, test.labels);
  console.log(`${name}: ${steps} steps, test accuracy ${(accuracy * 100).toFixed(1)} %`);
  evaluator.close();
  step.close();
}
device.close();
