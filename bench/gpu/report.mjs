// Owns the result file of run.sh: collects what the steps printed into one JSON file and prints a table beside peers.
// Invariant: a step that failed or was cut short loses nothing that it had printed: results are one JSON object a line.
// Usage: report.mjs WORK_FOLDER RESULT.json
import { existsSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { cpus, totalmem } from "node:os";
import { join } from "node:path";

const [folder, result] = process.argv.slice(2);
const text = (name) => (existsSync(join(folder, name)) ? readFileSync(join(folder, name), "utf8").trim() : undefined);

/** The JSON objects that a step printed, a line each, whatever stood between them. */
function printed(name) {
  return (text(`${name}.txt`) ?? "").split("\n").flatMap((line) => {
    if (!line.startsWith("{")) return [];
    try {
      return [JSON.parse(line)];
    } catch {
      return []; // the line at which the step was cut short
    }
  });
}
/** { about, times }: a side's own description and its rows. */
function timed(name) {
  const lines = printed(name);
  if (lines.length === 0) return undefined;
  const about = Object.assign({}, ...lines.filter((line) => line.name === undefined));
  return { about, times: lines.filter((line) => line.name !== undefined) };
}

const steps = Object.fromEntries(readdirSync(folder).filter((name) => name.endsWith(".status")).sort().map((file) => {
  const name = file.replace(".status", "");
  return [name, {
    exit: Number(text(file)), seconds: Number(text(`${name}.seconds`) ?? 0), last: text(`${name}.txt`)?.split("\n").at(-1)?.slice(0, 300),
  }];
}));
const sides = {
  kernels: timed("kernel-time"), hopper: timed("kernel-time-hopper"), peers: timed("peers"),
  gpt: timed("gpt"), addon: timed("addon-time"),
};
const record = {
  date: new Date().toISOString(),
  machine: {
    cpu: cpus()[0]?.model, cores: cpus().length, memoryBytes: totalmem(), gpu: text("machine.txt"), nvcc: text("nvcc.txt"), node: process.version,
  },
  steps,
  checks: printed("check-addon").at(-1),
  ...sides,
};
writeFileSync(result, `${JSON.stringify(record, undefined, 2)}\n`);

/** Peers of a row by name: "layer_norm 65536x768" and "layer_norm 65536x768 (compile)" both belong to the first. */
const peersOf = (name) => (sides.peers?.times ?? []).filter((row) => row.rate && (row.name === name || row.name.startsWith(`${name} (`)));
const copy = sides.kernels?.times.find(({ name }) => name.startsWith("device copy"))?.rate;
for (const side of ["kernels", "hopper", "gpt"]) {
  for (const row of sides[side]?.times ?? []) {
    if (row.error !== undefined) {
      console.log(`${side.padEnd(8)} ${row.name.padEnd(38)} ${row.error}`);
      continue;
    }
    // The plain int8 product is also the yardstick of the scan over it.
    const peers = peersOf(row.name).concat(peersOf(row.name.replace("crm scan", "int8 gemm")).filter(() => row.name.startsWith("crm")));
    const best = peers.reduce((found, peer) => (found && found.rate >= peer.rate ? found : peer), undefined);
    const ratio = best ? `peer ${best.rate.toFixed(1).padStart(9)}  ratio ${(row.rate / best.rate).toFixed(2)}` : "";
    const share = copy && row.unit === "GB/s" ? `  ${(100 * row.rate / copy).toFixed(0)} % of copy` : "";
    console.log(`${side.padEnd(8)} ${row.name.padEnd(38)} ${row.ms.toFixed(3).padStart(9)} ms ${row.rate.toFixed(1).padStart(9)} ${row.unit.padEnd(8)} ${ratio}${share}`);
  }
}
console.log(`written: ${result}`);
