// Owns the measuring commands: picks a suite, prints its table, ends with one line of JSON on --json.
// Invariant: ours and the peer's are measured in one interleaved run; a peer that cannot be had is null
// with a reason, never a remembered figure.
import { writeFileSync } from "node:fs";
import { machine } from "./machine.mjs";

const suites = {
  kernels: () => import("./kernels/suite.mjs"),
  training: () => import("./training/suite.mjs"),
  runtime: () => import("./runtime/suite.mjs"),
};

const args = process.argv.slice(2);
const flag = (name) => args.includes(name);
const value = (name) => {
  const at = args.indexOf(name);
  return at >= 0 ? args[at + 1] : undefined;
};
const suiteName = args.find(
  (arg, i) => !arg.startsWith("-") && !["--runs", "--output", "--only", "--report"].includes(args[i - 1]),
);

if (flag("--help") || flag("-h") || !suiteName) {
  console.log(`Usage: npm run bench -- <suite> [--quick] [--only NAME[,NAME]] [--no-peers] [--json] [--runs N] [--output FILE]

Suites: ${Object.keys(suites).join(", ")}

  --quick    under a minute, with more spread
  --json     the last line of stdout is one JSON object
  --only N   only these lines ("ask" also takes "ask-window"); a wrong name lists them all
  --no-peers kernels, runtime: our side alone
  --runs N   interleaved runs of each side (default 5, quick 3)
  --output F also write the JSON to a file
  --report F training: where the convergence page goes (default bench/results/convergence.html;
             with --quick the temporary folder)

The PyTorch and onnxruntime peers need a Python that has them: TESRA_PYTHON=/path/to/python (default python3). The runtime's peers on
npm are installed into bench/peers/runtime when first needed; bench/README.md says how to get Erlang and Ray.

Examples:
  npm run bench -- training --quick
  npm run bench -- training --only convergence --report convergence.html
  TESRA_PYTHON=~/torch/bin/python npm run bench -- kernels --only sgemm,int8 --quick
  TESRA_PYTHON=~/torch/bin/python npm run bench -- training --json
  npm run bench -- runtime --only ask,spawn-stop --quick`);
  process.exit(suiteName || flag("--help") || flag("-h") ? 0 : 2);
}
const load = suites[suiteName];
if (!load) {
  console.error(`No suite is called "${suiteName}"; expected one of: ${Object.keys(suites).join(", ")}.`);
  process.exit(2);
}
const runs = Number(value("--runs") ?? (flag("--quick") ? 3 : 5));
if (!Number.isInteger(runs) || runs < 1 || runs > 100) {
  console.error(`--runs expects a whole number from 1 to 100, got "${value("--runs")}".`);
  process.exit(2);
}

const suite = await load();
const only = value("--only")?.split(",");
const unknown =
  only?.filter((name) => !(suite.names ?? []).some((each) => each === name || each.startsWith(`${name}-`))) ?? [];
if (unknown.length > 0) {
  console.error(
    `--only: no line "${unknown.join(", ")}" in suite ${suiteName}; expected ${suite.names?.join(", ") ?? "no --only at all"}.`,
  );
  process.exit(2);
}
const progress = (text) => process.stderr.write(`${text}\n`);
const { results, versions, failed } = await suite.run({
  runs,
  quick: flag("--quick"),
  only,
  hasPeers: !flag("--no-peers"),
  report: value("--report"),
  progress,
});
const report = { suite: suiteName, date: new Date().toISOString(), machine: machine(versions), results };

const cell = (x, digits = 2) => (x === null || x === undefined ? "-" : typeof x === "number" ? x.toFixed(digits) : x);
const rows = suite.table?.(results) ?? [
  ["name", "unit", "ours", "min", "max", "peer", "peer name", "ratio", "floor", "goal"],
  ...results.map((r) => [
    r.name,
    r.unit,
    ...[r.ours, r.min, r.max, r.peer].map((x) => cell(x, r.unit === "GB/s" ? 2 : 0)),
    r.peerName ?? r.reason ?? "-",
    cell(r.ratio),
    cell(r.floor),
    cell(r.goal),
  ]),
];
const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => String(row[column]).length)));
for (const row of rows) progress(row.map((text, i) => String(text).padEnd(widths[i])).join("  "));

const line = JSON.stringify(report);
if (value("--output")) writeFileSync(value("--output"), `${line}\n`);
if (flag("--json")) console.log(line);
if (failed) process.exitCode = 1;
