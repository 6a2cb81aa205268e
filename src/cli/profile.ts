/**
 * Owns `supernet profile`: times each operation of a model's training step on this machine.
 */
import { writeFileSync } from "node:fs";
import type { Command } from "commander";
import type { CliContext } from "./context.js";
import { fileFault, UserError } from "./errors.js";
import { wholeNumber } from "./options.js";

interface ProfileFlags {
  batch: string; steps: string; length: string; trace?: string; threads?: string; backend?: string;
}

const MODEL_NAMES = ["mlp", "cnn", "cnn-wide", "gpt2"] as const;
type ProfiledModel = (typeof MODEL_NAMES)[number];

export function register(program: Command, context: CliContext): void {
  program.command("profile").argument("<model>", MODEL_NAMES.join(", "))
    .description("time each operation of a training step")
    .option("--batch <rows>", "rows of one step; default: 128, gpt2 1")
    .option("--length <tokens>", "gpt2: tokens of one row", "128")
    .option("--steps <n>", "steps that are timed, after two that are not", "5")
    .option("--trace <file>", "write a Chrome trace: ui.perfetto.dev and chrome://tracing open it")
    .option("--threads <n>", "kernel threads")
    .option("--backend <name>", "auto, cpu or cuda")
    .addHelpText("after", `
A step is forward, backward and an Adam update on random data. GFLOP/s count two for each multiply-add, GB/s each
tensor read or written once.

Examples:
  $ supernet profile cnn
  $ supernet profile gpt2 --length 64 --trace step.json
  $ supernet profile mlp --batch 512 --threads 1 -o json`)
    .action((model: string, flags: ProfileFlags) => profile(context, model, flags));
}

async function profile(context: CliContext, name: string, flags: ProfileFlags): Promise<void> {
  if (!(MODEL_NAMES as readonly string[]).includes(name)) {
    throw new UserError(`profile: expected ${MODEL_NAMES.join(", ")}, got "${name}"`);
  }
  const { device: defaults } = await context.settings();
  const output = await context.output();
  const backend = flags.backend ?? defaults.backend;
  if (backend !== "auto" && backend !== "cpu" && backend !== "cuda") throw new UserError(`--backend: expected auto, cpu or cuda, got "${backend}"`);
  const threads = flags.threads === undefined ? defaults.threads : wholeNumber("--threads", flags.threads, 1, 1_024);
  const steps = wholeNumber("--steps", flags.steps, 1, 1_000);
  const batchSize = wholeNumber("--batch", flags.batch ?? (name === "gpt2" ? "1" : "128"), 1, 65_536);
  const length = wholeNumber("--length", flags.length, 1, 1_024);
  const { openDevice } = await import("../device/device.js");
  const { chromeTrace, profileStep, summarizeOps } = await import("../training/index.js");
  const device = openDevice({ backend, ...(threads !== undefined && { threads }) });
  try {
    const batch = await randomBatch(name as ProfiledModel, batchSize, length);
    const runs = await profileStep(device, { ...batch, runs: steps }, { nowUs: () => performance.now() * 1e3 });
    const thread = `${device.backend} ${device.isa}, ${device.threads} thread${device.threads === 1 ? "" : "s"}`;
    if (flags.trace) {
      try {
        writeFileSync(flags.trace, JSON.stringify(chromeTrace(runs, { process: `${name}, batch ${batchSize}`, thread })));
      } catch (error) {
        throw fileFault("write the trace to", flags.trace, error);
      }
    }
    const summary = summarizeOps(runs);
    output.list(summary, [
      { title: "OPERATION", value: ({ op }) => op },
      { title: "CALLS", value: ({ calls }) => calls, align: "right" },
      { title: "MS A STEP", value: ({ totalUs }) => (totalUs / 1e3).toFixed(3), align: "right" },
      { title: "SHARE", value: ({ share }) => `${(share * 100).toFixed(1)}%`, align: "right" },
      { title: "GFLOP/S", value: ({ gflopsPerSecond }) => gflopsPerSecond?.toFixed(1), align: "right" },
      { title: "GB/S", value: ({ gigabytesPerSecond }) => gigabytesPerSecond.toFixed(1), align: "right" },
    ]);
    const stepMs = summary.reduce((sum, { totalUs }) => sum + totalUs, 0) / 1e3;
    output.note(`${name}, batch ${batchSize}, ${thread}: ${stepMs.toFixed(2)} ms a step in its operations`
      + `${flags.trace ? `; trace in ${flags.trace}` : ""}`);
  } finally {
    device.close();
  }
}

/** A step of the model, and one batch of random rows for it. */
async function randomBatch(name: ProfiledModel, batchSize: number, length: number) {
  const { compileLocalTraining, gpt2, GPT2_SMALL, initialParameters, MODELS, optim } = await import("../training/index.js");
  const model = name === "gpt2" ? gpt2({ ...GPT2_SMALL, length }) : MODELS[name]();
  const optimizer = optim.adam({ learningRate: 1e-4 }).descriptor;
  const compiled = compileLocalTraining(model.graph, { loss: model.loss, batchSize, optimizer });
  const elements = batchSize * compiled.rowElements;
  const limit = compiled.vocabulary ?? 256;
  const random = (below: number): number => Math.floor(Math.random() * below);
  const inputs = compiled.inputType === "u8" ? Uint8Array.from({ length: elements }, () => random(256))
    : Int32Array.from({ length: elements }, () => random(limit));
  return {
    compiled, inputs, parameters: initialParameters(model.graph, 1),
    labels: Int32Array.from({ length: batchSize * compiled.rowLabels }, () => random(compiled.classes)),
  };
}
