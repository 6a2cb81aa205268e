// An ONNX model that PyTorch wrote becomes a graph, is trained further, and leaves as ONNX again.
// Run: node examples/training/onnx-finetune.mjs [--model in.onnx] [--out out.onnx]
// Without --model it takes the small network of the tests: images of 8 x 8, ten classes.
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { openDevice } from "tesra-supernet";
import { compileFetches, compileLocalTraining, exportOnnx, FetchPlan, importOnnx, LocalTrainStep, nn, optim } from "tesra-supernet/training";

const { values } = parseArgs({ options: { model: { type: "string" }, out: { type: "string" } } });
const path = values.model ?? fileURLToPath(new URL("../../test/training/onnx/cnn.onnx", import.meta.url));
const BATCH = 20, STEPS = 40;

const model = importOnnx(readFileSync(path));
const [input] = model.inputs, [output] = model.outputs;
console.log(`${model.producer}: ${input.tensor} -> ${output.tensor}, ${model.graph.variables().length} weights`);

// Ten patterns under noise, one a class: what the model is to learn beside what it knew.
let state = 7;
const next = () => ((state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32 - 0.5);
const pixels = input.tensor.shape.slice(1).reduce((product, size) => product * size, 1), classes = output.tensor.shape.at(-1);
const patterns = Float32Array.from({ length: classes * pixels }, next);
const labels = Uint8Array.from({ length: BATCH }, (_, row) => row % classes);
const images = () => Float32Array.from({ length: BATCH * pixels }, (_, i) => 3 * patterns[labels[Math.floor(i / pixels)] * pixels + (i % pixels)] + next());

const loss = nn.softmaxCrossEntropy(output.tensor, model.graph.placeholder("labels", [null], "i32"));
const compiled = compileLocalTraining(model.graph, { loss, batchSize: BATCH, optimizer: optim.adam({ learningRate: 3e-3, beta1: 0.9 }).descriptor });
const device = openDevice();
const step = new LocalTrainStep(device, compiled, model.parameters);
for (let i = 0; i < STEPS; i += 1) {
  const { loss: value } = await step.run(images(), labels);
  if (i === 0 || i === STEPS - 1) console.log(`step ${i + 1}: loss ${value.toFixed(3)}`);
}
const parameters = step.parameters();
step.close();

const file = exportOnnx(model.graph, { outputs: [output.tensor], parameters, outputNames: [output.name] });
if (values.out) writeFileSync(values.out, file);
const logitsOf = async ({ graph, inputs, outputs }, weights, x) => {
  const plan = new FetchPlan(device, compileFetches(graph, { fetches: [outputs[0].tensor], batchSize: BATCH }));
  const [logits] = await plan.run({ parameters: weights, feeds: { [inputs[0].tensor.name]: x } });
  plan.close();
  return logits;
};
const again = importOnnx(file), x = images();
const [tuned, read] = [await logitsOf(model, parameters, x), await logitsOf(again, again.parameters, x)];
const right = labels.filter((label, row) => tuned.indexOf(Math.max(...tuned.slice(row * classes, (row + 1) * classes)), row * classes) === row * classes + label).length;
console.log(`${right} of ${BATCH} right; exported ${file.length} bytes, read back within ${Math.max(...tuned.map((logit, i) => Math.abs(logit - read[i]))).toExponential(0)}`);
device.close();
