// Owns the convergence part of the training suite: which problem is trained, all variants over all seeds, the
// medians, the gate, the page. Invariant: what it returns is plain JSON, and the page is made of nothing else.
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { openDevice } from "../../../dist/device/device.js";
import { loadDataset } from "../../../dist/cli/dataset.js";
import { MODELS } from "../../../dist/training/index.js";
import { syntheticImages } from "../../../examples/training/synthetic.mjs";
import { machine } from "../../machine.mjs";
import { VARIANTS } from "./experiments.mjs";
import { median, renderReport } from "./report.mjs";
import { CLUSTER, trainSimulated } from "./run.mjs";

/** Asynchronous training may end this far below sequential training, in points of test accuracy. */
export const GATE_POINTS = 0.5;

/** Quick: seconds, and no data set; it shows that everything works, not how well. */
const QUICK = { model: { hidden: [24] }, rows: 2_048, testRows: 512, batchSize: 64, epochs: 2, seeds: [1] };
const FULL = { batchSize: 128, epochs: 2, seeds: [1, 2, 3] };

export async function createProblem(quick) {
  if (quick) {
    return {
      net: MODELS.mlp(QUICK.model), train: syntheticImages(QUICK.rows, 1), test: syntheticImages(QUICK.testRows, 2), ...QUICK, isQuick: true, evaluateEvery: 8,
      description: `An MLP on ${QUICK.rows} synthetic images, ${QUICK.epochs} epochs in batches of ${QUICK.batchSize}`,
    };
  }
  const { train, test } = await loadDataset();
  return {
    net: MODELS.cnn(), train, test, ...FULL, evaluateEvery: Math.ceil(train.labels.length / FULL.batchSize / 4),
    description: `The CNN on Fashion-MNIST, ${FULL.epochs} epochs of ${train.labels.length} images in batches of ${FULL.batchSize}`,
  };
}

/** One variant with one seed; a device of one thread is what a simulated worker has. */
export const runVariant = (device, problem, variant, seed) => trainSimulated(device, { ...problem, seed }, variant);

/** `runsOf`: Map of a variant's name to its runs, in the order of the seeds. */
export function summarize(problem, runsOf) {
  const { isQuick } = problem;
  const sequential = runsOf.get("sequential");
  const accuracyOf = (runs) => median(runs.map(({ accuracy }) => accuracy));
  return VARIANTS.filter(({ name }) => runsOf.has(name)).map(({ name, group, workers, gate }) => {
    const runs = runsOf.get(name);
    const accuracies = runs.map(({ accuracy }) => accuracy);
    const { staleness } = runs[0];
    const points = sequential ? (accuracyOf(runs) - accuracyOf(sequential)) * 100 : null;
    return {
      name, group, workers, accuracy: accuracyOf(runs), accuracyMin: Math.min(...accuracies), accuracyMax: Math.max(...accuracies), points,
      speedup: sequential ? sequential[0].timeMs / runs[0].timeMs : null,
      meanStaleness: staleness.reduce((sum, count, t) => sum + count * t, 0) / Math.max(1, staleness.reduce((a, b) => a + b, 0)),
      ...(gate && points !== null && !isQuick && { withinGate: points >= -GATE_POINTS }), runs,
    };
  });
}

export function reportData(problem, runsOf) {
  return {
    suite: "convergence", date: new Date().toISOString(), machine: machine(), cluster: CLUSTER,
    setting: { description: problem.description, seeds: problem.seeds, epochs: problem.epochs, batchSize: problem.batchSize },
    results: summarize(problem, runsOf),
  };
}

/** Writes the page and its JSON beside each other. */
export function writeReport(data, path) {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, renderReport(data));
  writeFileSync(path.replace(/\.html$/, "") + ".json", `${JSON.stringify(data)}\n`);
}

/** Variants that are no gate run with the first seed alone: their curves are what is looked at. */
export async function runConvergence({ quick, progress, reportPath }) {
  const problem = await createProblem(quick);
  const device = openDevice({ backend: "cpu", threads: 1 });
  const runsOf = new Map();
  try {
    for (const variant of VARIANTS) {
      const seeds = variant.gate || variant.name === "sequential" ? problem.seeds : problem.seeds.slice(0, 1);
      const runs = [];
      for (const seed of seeds) {
        const run = await runVariant(device, problem, variant, seed);
        runs.push(run);
        progress(`${variant.name}, seed ${seed}: ${(run.accuracy * 100).toFixed(2)} % after ${run.samples} samples, ${(run.timeMs / 1000).toFixed(1)} s of the simulated cluster`);
      }
      runsOf.set(variant.name, runs);
    }
  } finally {
    device.close();
  }
  const data = reportData(problem, runsOf);
  if (reportPath) writeReport(data, reportPath);
  return data;
}
