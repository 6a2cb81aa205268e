// Fuzzes everything that reads bytes from the network.
// Run: node --expose-gc bench/runtime/fuzz.mjs --cases 10000000 --seed 1
import { recordCorpus } from "./fuzz-corpus.mjs";
import { Fuzzer } from "./fuzzer.mjs";

const args = process.argv.slice(2);
const number = (name, fallback) => {
  const at = args.indexOf(name);
  const value = at < 0 ? fallback : Number(args[at + 1]);
  if (!Number.isSafeInteger(value) || value < 0) {
    console.error(`${name} expects a whole number, got "${args[at + 1]}".`);
    process.exit(2);
  }
  return value;
};
if (args.includes("--help")) {
  console.log(
    "Usage: node [--expose-gc] bench/runtime/fuzz.mjs [--cases N] [--seed S] [--from CASE]\n" +
      "Runs N cases (default 100000) from case CASE on; prints a line of JSON; exit code 1 on a finding.",
  );
  process.exit(0);
}
const cases = number("--cases", 100_000);
const seed = number("--seed", 1);
const from = number("--from", 0);
/** A case that the event loop never saw the end of would hide here; also when progress is printed. */
const BLOCK_CASES = 100_000;
/** Above what is live after a collection at the start: the corpus is a megabyte, and nothing may pile up. */
const HEAP_GROWTH_BYTES_MAX = 64 * 1024 * 1024;
const FINDINGS_MAX = 20;

const corpus = await recordCorpus();
const fuzzer = new Fuzzer(seed, corpus);
const liveBytes = () => {
  globalThis.gc?.();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
};
const findings = [];
const report = (finding) => {
  findings.push(finding);
  console.error(JSON.stringify(finding));
};

const startBytes = liveBytes();
const startMs = performance.now();
let done = 0;
while (done < cases && findings.length < FINDINGS_MAX) {
  const end = Math.min(cases, done + BLOCK_CASES);
  for (; done < end && findings.length < FINDINGS_MAX; done++) {
    const finding = fuzzer.run(from + done);
    if (finding !== undefined) report(finding);
    // Links plan work in microtasks; let it run, as between frames of a real socket.
    if (done % 256 === 0) await null;
  }
  await new Promise((resolve) => setImmediate(resolve));
  const seconds = (performance.now() - startMs) / 1000;
  process.stderr.write(`${done} of ${cases} cases, ${seconds.toFixed(0)} s, ${findings.length} findings\n`);
  if (globalThis.gc !== undefined && liveBytes() - startBytes > HEAP_GROWTH_BYTES_MAX) {
    report({ case: from + done, problem: `${liveBytes() - startBytes} bytes stay live` });
  }
}
const seconds = (performance.now() - startMs) / 1000;
console.log(
  JSON.stringify({
    cases: done,
    seed,
    seconds: Number(seconds.toFixed(1)),
    ...fuzzer.outcomes,
    slowestMs: Number(fuzzer.slowestMs.toFixed(1)),
    liveGrowthBytes: globalThis.gc === undefined ? null : liveBytes() - startBytes,
    findings: findings.length,
  }),
);
process.exitCode = findings.length > 0 ? 1 : 0;
