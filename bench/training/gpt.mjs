// Owns the GPT-2 and Llama comparison: the same weights, tokens and AdamW here and in PyTorch; the losses must agree
// and the tokens a second and the peak memory of each process are set side by side. Each side can be run alone (--side), for a quiet machine.
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { openDevice } from "../../dist/device/device.js";
import { compileLocalTraining, gpt2, llama, LocalTrainStep, openFileSource, optim, SafetensorsFile } from "../../dist/training/index.js";

const CONFIGS = {
  "124m": { vocabulary: 50_257, layers: 12, heads: 12, width: 768 },
  small: { vocabulary: 512, layers: 4, heads: 4, width: 128 },
  "llama-small": { vocabulary: 512, layers: 4, heads: 4, keyHeads: 2, width: 128, hidden: 344 },
  // One block of Llama 3.2 1B's shape over a small vocabulary: the block is what is measured.
  "llama-block": { vocabulary: 512, layers: 1, heads: 32, keyHeads: 8, width: 2048, hidden: 8192 },
};
const TOLERANCE = 1e-3;
const args = process.argv.slice(2);
const value = (name, fallback) => (args.includes(name) ? args[args.indexOf(name) + 1] : fallback);
const config = value("--config", "small"), side = value("--side", "both"), backend = value("--backend", "cpu");
const number = (name, fallback) => Number(value(name, fallback));
const batch = number("--batch", 1), length = number("--length", 128), steps = number("--steps", 10), threads = number("--threads", 2);
if (args.includes("--help") || !Object.hasOwn(CONFIGS, config) || !["both", "ours", "torch"].includes(side) ||
    ![batch, length, steps, threads].every((n) => Number.isInteger(n) && n >= 1)) {
  console.error(`Usage: node bench/training/gpt.mjs [--config ${Object.keys(CONFIGS).join("|")}] [--batch N] [--length N] [--steps N]
         [--threads N] [--backend cpu|cuda] [--side both|ours|torch] [--weights FILE]

Trains GPT-2 or Llama on random tokens from one set of weights here and in PyTorch (TESRA_PYTHON=/path/to/python) and
compares losses, tokens a second and peak memory. --weights keeps the weights in FILE, made when it is not there.`);
  process.exit(args.includes("--help") ? 0 : 2);
}

const peer = join(dirname(fileURLToPath(import.meta.url)), "../peers/pytorch/gpt.py");
function python(...extra) {
  const r = spawnSync(process.env.TESRA_PYTHON ?? "python3", [peer, "--config", config, "--batch", `${batch}`,
    "--length", `${length}`, "--steps", `${steps}`, "--threads", `${threads}`, ...extra], { encoding: "utf8" });
  if (r.status !== 0) throw new Error(`${peer} failed: ${(r.stderr || String(r.error)).trim().split("\n").at(-1)}`);
  return r.stdout;
}

async function ours(weights) {
  const device = openDevice({ backend, threads });
  const { vocabulary } = CONFIGS[config];
  const model = (CONFIGS[config].hidden ? llama : gpt2)({ ...CONFIGS[config], length });
  const compiled = compileLocalTraining(model.graph, {
    loss: model.loss, batchSize: batch,
    optimizer: optim.adamW({ learningRate: 3e-4, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1 }).descriptor,
  });
  const file = await SafetensorsFile.open(await openFileSource(weights));
  const flat = new Float32Array(compiled.parameterCount);
  for (const { name, offset, size } of compiled.parameters) await file.readFloat32(name, flat.subarray(offset, offset + size));
  await file.close();
  const step = new LocalTrainStep(device, compiled, flat);
  let state = 1;
  const losses = [], seconds = [];
  for (let i = 0; i < steps; i += 1) {
    const tokens = new Int32Array(batch * length), labels = new Int32Array(batch * length);
    for (let b = 0; b < batch; b += 1)
      for (let t = 0; t <= length; t += 1) {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        const token = (state >>> 8) % vocabulary;
        if (t < length) tokens[b * length + t] = token;
        if (t > 0) labels[b * length + t - 1] = token;
      }
    const start = performance.now();
    losses.push((await step.run(tokens, labels)).loss);
    seconds.push((performance.now() - start) / 1000);
  }
  const result = { engine: `tesra ${device.backend} ${device.isa}`, losses, seconds, multiplyAdds: compiled.multiplyAdds, peakBytes: process.resourceUsage().maxRSS * 1024 };
  step.close();
  device.close();
  return result;
}

const median = (list) => list.toSorted((a, b) => a - b)[list.length >> 1];
// The first step touches fresh memory on both sides.
const speed = (result) => batch * length / median(result.seconds.slice(Math.min(1, steps - 1)));
const folder = mkdtempSync(join(tmpdir(), "gpt-weights-"));
try {
  const weights = value("--weights", join(folder, "weights.safetensors"));
  if (!existsSync(weights)) python("--write", weights);
  const results = {};
  if (side !== "torch") results.ours = await ours(weights);
  if (side !== "ours") results.torch = JSON.parse(python("--read", weights));
  for (const result of Object.values(results)) {
    console.log(`${result.engine}: ${speed(result).toFixed(0)} tokens/s, peak ${(result.peakBytes / 2 ** 20).toFixed(0)} MiB; losses ${result.losses.map((l) => l.toFixed(5)).join(" ")}`);
  }
  if (results.ours && results.torch) {
    const apart = Math.max(...results.ours.losses.map((loss, i) => Math.abs(loss - results.torch.losses[i])));
    console.log(`${config}, batch ${batch} x ${length}, ${threads} threads: losses within ${apart.toExponential(2)} ` +
      `(${apart <= TOLERANCE ? "ok" : "TOO FAR"}), ${(speed(results.ours) / speed(results.torch)).toFixed(2)}x tokens/s`);
    if (!(apart <= TOLERANCE)) process.exitCode = 1;
  }
  if (args.includes("--json")) console.log(JSON.stringify({ config, batch, length, threads, ...results }));
} finally {
  rmSync(folder, { recursive: true });
}
