// Times the training step of GPT-2 124M on the GPU: forward, backward and AdamW in one captured graph, in fp32 and with
// products in bf16, at the largest batch that the memory holds. Prints one JSON object a line.
// Needs dist/ (npm run build) and no package. Options: --addon=PATH --steps=N --length=N --short --dry (on the CPU)
import { existsSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { EXIT_NO_GPU, EXIT_USAGE, parseOptions } from "./addon.mjs";

const options = parseOptions({ steps: 5, length: 1024, short: false, dry: false });
process.env.TESRA_NATIVE_ADDON = resolve(options.addon);
const dist = join(dirname(fileURLToPath(import.meta.url)), "../../dist");
if (!existsSync(dist)) {
  console.error(`${dist} is missing: run npm run build, and copy it along`);
  process.exit(EXIT_USAGE);
}
const from = (path) => import(join(dist, path));
const { openDevice, probe } = await from("device/device.js");
const { compileLocalTraining } = await from("training/compile/compile.js");
const { adamW } = await from("training/optimizer/optim.js");
const { GPT2_SMALL, gpt2 } = await from("training/models.js");
const { LocalTrainStep } = await from("training/train-step.js");

const { cuda } = probe();
if (!cuda.available && !options.dry) {
  console.error(cuda.reason);
  process.exit(EXIT_NO_GPU);
}
const WARM_UPS = 2;
const size = options.short ? { vocabulary: 512, layers: 2, heads: 2, width: 64 } : GPT2_SMALL;
const length = options.short ? 64 : options.length;
const device = openDevice({ backend: options.dry ? "cpu" : "cuda" });
console.log(JSON.stringify({ device: device.isa, hopper: process.env.TESRA_HOPPER ?? "0", steps: options.steps }));

let seed = 1;
const random = () => (seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) / 2 ** 32;

async function time(precision, batch) {
  const model = gpt2({ ...size, length });
  const optimizer = adamW({ learningRate: 3e-4, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1 }).descriptor;
  const compiled = compileLocalTraining(model.graph, { loss: model.loss, batchSize: batch, optimizer, precision });
  const step = new LocalTrainStep(device, compiled, Float32Array.from({ length: compiled.parameterCount }, () => 0.04 * random() - 0.02));
  try {
    const tokens = () => Int32Array.from({ length: batch * length }, () => Math.floor(random() * size.vocabulary));
    const found = [], losses = [];
    for (let i = 0; i < WARM_UPS + options.steps; i++) {
      const inputs = tokens(), labels = tokens(), begin = performance.now();
      losses.push((await step.run(inputs, labels)).loss);
      if (i >= WARM_UPS) found.push(performance.now() - begin);
    }
    const ms = found.sort((x, y) => x - y)[found.length >> 1];
    return { name: `gpt2 ${precision} b${batch} t${length}`, ms, rate: batch * length / ms * 1000, unit: "tokens/s", losses };
  } finally {
    step.close();
  }
}

let timed = 0;
for (const precision of ["bf16", "f32"]) {
  for (const batch of options.short ? [2] : [64, 32, 16]) {
    try {
      console.log(JSON.stringify(await time(precision, batch)));
      timed++;
      break;
    } catch (error) { // no memory for this batch: the next smaller one
      console.log(JSON.stringify({ name: `gpt2 ${precision} b${batch} t${length}`, error: error.message }));
    }
  }
}
device.close();
process.exitCode = timed === 0 ? 1 : 0;
