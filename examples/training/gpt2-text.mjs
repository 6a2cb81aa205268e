// GPT-2 from a safetensors file with Hugging Face's names: trained for some steps on this project's own docs, sampled,
// and written back under the same names.
// Run: node examples/training/gpt2-text.mjs [--config small|124m] [--steps 60] [--weights model.safetensors] [--vocab vocab.json --merges merges.txt]
// Without --weights it first writes random ones from a seed; without --vocab each byte is a token.
import { createWriteStream, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { openDevice } from "tesra-supernet";
import {
  BpeTokenizer, byteTokenizer, compileLocalTraining, encodeTokenShard, exportWeights, gpt2, gpt2WeightMap, importWeights,
  initialParametersOn, LocalTrainStep, memorySource, openFileSource, optim, parameterLayout, SafetensorsFile, safetensorsChunks,
  TextGenerator, TokenShards,
} from "tesra-supernet/training";

const CONFIGS = {
  small: { layers: 2, heads: 4, width: 64, context: 64, length: 64, vocabulary: 256, batchSize: 8, learningRate: 5e-3 },
  "124m": { layers: 12, heads: 12, width: 768, context: 1024, length: 128, vocabulary: 50_257, batchSize: 1, learningRate: 5e-5 },
};
const { values } = parseArgs({
  options: {
    config: { type: "string", default: "small" }, steps: { type: "string", default: "60" }, tokens: { type: "string", default: "60" },
    weights: { type: "string" }, vocab: { type: "string" }, merges: { type: "string" },
  },
});
const { batchSize, learningRate, ...config } = CONFIGS[values.config];
const tokenizer = values.vocab ? BpeTokenizer.parse(readFileSync(values.vocab, "utf8"), readFileSync(values.merges, "utf8")) : byteTokenizer;
const device = openDevice();
const model = gpt2(config), layout = parameterLayout(model.graph), names = gpt2WeightMap(config);
const folder = mkdtempSync(join(tmpdir(), "gpt2-text-"));

/** Tensor by tensor, so that a large model has no second copy in memory. */
const write = (path, parameters) => pipeline(Readable.from(safetensorsChunks(exportWeights(parameters, layout, names), { format: "pt" })), createWriteStream(path));

const path = values.weights ?? join(folder, "random.safetensors");
if (values.weights === undefined) await write(path, initialParametersOn(device, model.graph, 1));
const file = await SafetensorsFile.open(await openFileSource(path));
const parameters = await importWeights(file, layout, names);
await file.close();
console.log(`${file.tensors.size} tensors, ${layout.parameterCount} weights on ${device.backend}/${device.isa}`);

const docs = fileURLToPath(new URL("../../docs", import.meta.url));
const text = readdirSync(docs).filter((name) => name.endsWith(".md")).sort().map((name) => readFileSync(join(docs, name), "utf8")).join("\n");
const shards = await TokenShards.open([memorySource(encodeTokenShard(tokenizer.encode(text)))],
  { length: config.length, batchSize, seed: 1, vocabulary: config.vocabulary });
const compiled = compileLocalTraining(model.graph, {
  loss: model.loss, batchSize, clipNorm: 1, optimizer: optim.adamW({ learningRate, beta1: 0.9, beta2: 0.95, weightDecay: 0.1 }).descriptor,
});
const step = new LocalTrainStep(device, compiled, parameters);
const steps = Number(values.steps), startMs = performance.now();
for (let i = 0; i < steps; i += 1) {
  const { tokens, labels } = await shards.batch(i);
  const { loss } = await step.run(tokens, labels);
  if (i === 0 || i === steps - 1) console.log(`step ${i + 1}: loss ${loss.toFixed(3)}`);
}
console.log(`${Math.round((steps * batchSize * config.length * 1000) / (performance.now() - startMs))} tokens/s trained`);

const trained = step.parameters();
step.close();
const generator = new TextGenerator(device, { model: (length) => gpt2({ ...config, length }), context: config.context, parameters: trained });
const ids = [], sampleMs = performance.now();
for await (const id of generator.generate(tokenizer.encode("The actor "), { tokens: Number(values.tokens), temperature: 0.8, topK: 40, topP: 0.95, seed: 1 })) ids.push(id);
console.log(`sampled: ${JSON.stringify(tokenizer.decode(ids))}`);
console.log(`${((ids.length * 1000) / (performance.now() - sampleMs)).toFixed(1)} tokens/s sampled`);

const tuned = join(folder, "tuned.safetensors");
await write(tuned, trained);
const again = await SafetensorsFile.open(await openFileSource(tuned));
const same = (await importWeights(again, layout, names)).every((weight, i) => weight === trained[i]);
await again.close();
console.log(`written and read back: ${same}`);
generator.close();
device.close();
rmSync(folder, { recursive: true });
