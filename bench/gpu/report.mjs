// Owns the result file of run.sh: collects what the steps printed into one JSON file and prints a table beside peers.
// Usage: report.mjs WORK_FOLDER RESULT.json BUILD_SECONDS
import { existsSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { cpus, totalmem } from "node:os";
import { join } from "node:path";

const [folder, result, buildSeconds] = process.argv.slice(2);
const text = (name) => (existsSync(join(folder, name)) ? readFileSync(join(folder, name), "utf8").trim() : undefined);
/** The JSON object that a step printed, whatever stood around it. */
function printed(name) {
  const body = text(`${name}.txt`);
  if (body === undefined || text(`${name}.status`) !== "0") return undefined;
  return JSON.parse(body.slice(body.indexOf("{"), body.lastIndexOf("}") + 1));
}

const checks = Object.fromEntries(readdirSync(folder).filter((name) => name.endsWith(".status")).sort().map((file) => {
  const name = file.replace(".status", "");
  return [name, { exit: Number(text(file)), last: text(`${name}.txt`)?.split("\n").at(-1)?.slice(0, 300) }];
}));
const kernels = printed("kernel-time"), peers = printed("peers");
const record = {
  date: new Date().toISOString(),
  machine: { cpu: cpus()[0]?.model, cores: cpus().length, memoryBytes: totalmem(), gpu: text("machine.txt"), nvcc: text("nvcc.txt"), node: process.version },
  buildSeconds: Number(buildSeconds),
  checks,
  kernels,
  addon: printed("addon-time"),
  peers,
};
writeFileSync(result, `${JSON.stringify(record, undefined, 2)}\n`);

const byName = new Map((peers?.times ?? []).map((row) => [row.name, row]));
for (const row of kernels?.times ?? []) {
  // The plain int8 product is also the yardstick of the scan over it.
  const peer = byName.get(row.name) ?? byName.get(row.name.replace("crm scan", "int8 gemm"));
  const ratio = peer?.rate ? `peer ${peer.rate.toFixed(1).padStart(9)}  ratio ${(row.rate / peer.rate).toFixed(2)}` : "";
  console.log(`${row.name.padEnd(34)} ${row.ms.toFixed(3).padStart(9)} ms ${row.rate.toFixed(1).padStart(9)} ${row.unit.padEnd(8)} ${ratio}`);
}
console.log(`written: ${result}`);
