// Owns the clock of every JavaScript side: warm-up, the measured stretch, and the line a side ends with.
// Invariant: every side of a line goes through here (the Erlang and Python ones repeat it), so that warm-up and
// stretch are the same for all.
import { performance } from "node:perf_hooks";

/** Below this a stretch is mostly start-up; a workload is doubled until one go takes so long. */
const GO_MS_MIN = 20;
/** A stream between processes ends each go with an answer; it must be long against that round trip. */
export const STREAM_GO_MS_MIN = 200;
const WARM_UP_SHARE = 0.4;
/**
 * Asks between processes: a few thousand a second, and V8 has optimized the last of the functions on their way after 20
 * to 40 thousand. Until then ours take 150 us where they then take 100; measured are processes that stay up.
 */
export const ASK_WARM_UP_SHARE = 2;

/**
 * `--seconds N` and the measure's name, as each side is started.
 * @param measures the names there are, or an object that has them as keys
 */
export function sideArguments(measures) {
  const [measure, ...rest] = process.argv.slice(2);
  const value = (name, fallback) => (rest.includes(name) ? rest[rest.indexOf(name) + 1] : fallback);
  const seconds = Number(value("--seconds", "1"));
  const names = Array.isArray(measures) ? measures : Object.keys(measures);
  if (!names.includes(measure) || !(seconds > 0)) {
    console.error(`Expected one of ${names.join(", ")} and --seconds N, got: ${process.argv.slice(2).join(" ")}`);
    process.exit(2);
  }
  return { measure, seconds, value, has: (name) => rest.includes(name) };
}

/**
 * Calls `go(count)`, which does `count` operations, until `seconds` have passed; before that it warms up.
 * @param otherCpuUs microseconds of CPU that other processes of this side have used so far
 */
export async function perSecond(
  seconds,
  go,
  { first = 64, goMsMin = GO_MS_MIN, warmUpShare = WARM_UP_SHARE, otherCpuUs = async () => 0 } = {},
) {
  let count = first;
  const warmEnd = performance.now() + seconds * 1000 * warmUpShare;
  for (;;) {
    const start = performance.now();
    await go(count);
    const now = performance.now();
    if (now >= warmEnd) break;
    if (now - start < goMsMin) count *= 2;
  }
  const cpuStart = process.cpuUsage();
  const otherStart = await otherCpuUs();
  const start = performance.now();
  let operations = 0;
  let elapsedMs = 0;
  do {
    await go(count);
    operations += count;
    elapsedMs = performance.now() - start;
  } while (elapsedMs < seconds * 1000);
  const cpu = process.cpuUsage(cpuStart); // of all threads: on a busy machine the fairer figure
  const cpuSeconds = (cpu.user + cpu.system + (await otherCpuUs()) - otherStart) / 1e6;
  return { perSecond: operations / (elapsedMs / 1000), perCpuSecond: operations / cpuSeconds };
}

/** Times `once()` again and again for `seconds`. @returns p50 and p99 in microseconds. */
export async function latency(seconds, once) {
  const warmEnd = performance.now() + seconds * 1000 * ASK_WARM_UP_SHARE;
  while (performance.now() < warmEnd) await once();
  const samplesUs = [];
  const end = performance.now() + seconds * 1000;
  let now = performance.now();
  while (now < end) {
    const start = now;
    await once();
    now = performance.now();
    samplesUs.push((now - start) * 1000);
  }
  samplesUs.sort((a, b) => a - b);
  const at = (share) => samplesUs[Math.min(samplesUs.length - 1, Math.floor(samplesUs.length * share))];
  return { p50Us: at(0.5), p99Us: at(0.99) };
}

/** The last line of every side. `others`: values of peers that were measured in the same process. */
export function print(values, version, others) {
  process.stdout.write(`${JSON.stringify({ values, version, others })}\n`);
}
