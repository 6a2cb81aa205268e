// Owns the training suite: single-process images/s of MLP and CNN, ours beside PyTorch's, interleaved; and the
// convergence of many workers, with its page (convergence/).
import { spawnSync } from "node:child_process";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { run as parameterServer } from "./parameter-server.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const python = process.env.TESRA_PYTHON ?? "python3";
const median = (xs) => [...xs].sort((a, b) => a - b)[Math.floor(xs.length / 2)];
const FLOOR = 0.6; // of PyTorch now; 1.0 and beyond is the compute engine's own goal
const GOAL = 1.0;
/** Where the convergence page goes, beside its JSON, unless --report names another place. */
const reportPath = (quick) => (quick ? join(tmpdir(), "convergence-quick.html") : join(here, "../results/convergence.html"));

function lastJson(command, args) {
  const result = spawnSync(command, args, { encoding: "utf8", maxBuffer: 16 << 20 });
  if (result.error || result.status !== 0) {
    return { reason: (result.error?.message ?? result.stderr.trim().split("\n").at(-1) ?? `exit ${result.status}`).slice(0, 120) };
  }
  return JSON.parse(result.stdout.trim().split("\n").at(-1));
}

const PARTS = { throughput, "parameter-server": parameterServer, convergence };
/** What --only takes. */
export const names = Object.keys(PARTS);

export async function run(options) {
  const parts = [];
  for (const name of names) if (options.only?.includes(name) ?? true) parts.push(await PARTS[name](options));
  return {
    results: parts.flatMap(({ results }) => results), versions: Object.assign({}, ...parts.map(({ versions }) => versions ?? {})),
    failed: parts.some(({ failed }) => failed),
  };
}

/** One line a variant: test accuracy beside the sequential run's, in percent; the page has the rest. */
async function convergence({ quick, progress, report }) {
  const { runConvergence } = await import("./convergence/suite.mjs");
  const path = report ?? reportPath(quick);
  const data = await runConvergence({ quick, progress, reportPath: path });
  progress(`convergence: ${path}`);
  const sequential = data.results.find(({ name }) => name === "sequential").accuracy;
  return {
    versions: {}, failed: data.results.some(({ withinGate }) => withinGate === false),
    results: data.results.map(({ name, accuracy, accuracyMin, accuracyMax }) => ({
      name: `convergence: ${name}`, unit: "% right", ours: accuracy * 100, min: accuracyMin * 100, max: accuracyMax * 100,
      peer: sequential * 100, peerName: "sequential", ratio: accuracy / sequential,
    })),
  };
}

async function throughput({ runs, quick, progress }) {
  const seconds = quick ? 2 : 4;
  const results = [];
  const versions = {};
  for (const model of ["mlp", "cnn"]) {
    for (const threads of [1, 2]) {
      const args = ["--model", model, "--threads", String(threads), "--seconds", String(seconds)];
      const ours = [];
      const peers = [];
      let reason;
      for (let i = 0; i < runs; i += 1) {
        const mine = lastJson(process.execPath, [join(here, "local.mjs"), ...args]);
        if (mine.reason) throw new Error(`our ${model} run failed: ${mine.reason}`);
        ours.push(mine.imagesPerSecond);
        const peer = reason ? { reason } : lastJson(python, [join(here, "../peers/pytorch/train.py"), ...args]);
        if (peer.reason) reason = peer.reason;
        else { peers.push(peer.imagesPerSecond); versions.torch = peer.torch; }
        progress(`${model} ${threads} threads, run ${i + 1}/${runs}: ${Math.round(ours.at(-1))} images/s, `
          + `PyTorch ${peers.length ? Math.round(peers.at(-1)) : `not measured (${reason})`}`);
      }
      const peer = peers.length ? median(peers) : null;
      results.push({
        name: `${model} b128 Adam, ${threads} thread${threads > 1 ? "s" : ""}`, unit: "images/s",
        ours: median(ours), min: Math.min(...ours), max: Math.max(...ours),
        peer, peerName: peer === null ? null : `PyTorch ${versions.torch}`, ...(peer === null ? { reason } : {}),
        ratio: peer === null ? null : median(ours) / peer, floor: FLOOR, goal: GOAL,
      });
    }
  }
  return { results, versions };
}
