// Overload: one process sends ten times what an actor of another process can handle, once with each overflow policy.
// Reports the consumer's memory, the control lane's round trip and where the messages went; every message must be accounted for.
// Run: node bench/runtime/overload.mjs [--seconds 5] [--policies reject,wait] [--json]
import { fork } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { behavior, createSystem, curveKeys, defineProtocol, silentLogger } from "../../dist/runtime/index.js";

const Sink = defineProtocol("sink", 1, {
  cast: { take: z.object({ key: z.number(), data: z.instanceof(Uint8Array) }) },
});
const POLICIES = ["reject", "drop-oldest", "drop-newest", "conflate", "wait"];
/** One message costs the consumer this much, so it can handle 2,000 a second at the very most. */
const HANDLER_MS = 0.5;
const SENT_PER_SECOND = 10 * (1000 / HANDLER_MS);
const PAYLOAD_BYTES = 1024;
const CAPACITY = 1000;
const KEYS = 64;
const TICK_MS = 5;
const SAMPLE_MS = 20;
const DRAIN_MS_MAX = 60_000;
/** A consumer that has not reached its level by then has none. */
const WARM_UP_SHARE = 0.4;

if (process.argv[2] === "consumer") await consume();
else await main();

async function consume() {
  const { endpoint, keys, policy } = await new Promise((resolve) => process.once("message", resolve));
  const system = createSystem({ name: "consumer", logger: silentLogger });
  const overflow = policy === "conflate" ? { conflate: (_name, { key }) => String(key) } : policy;
  let handlerMs = HANDLER_MS;
  const take = () => {
    const endMs = performance.now() + handlerMs;
    while (performance.now() < endMs) {
      /* the work */
    }
  };
  system.spawn(
    behavior(Sink, () => ({ cast: { take } })),
    { name: "sink", mailbox: { capacity: CAPACITY, overflow } },
  );
  await system.listen({ endpoint, keys, allow: "any" });
  process.on("message", (question) => {
    if (question === "end") return void system.shutdown().then(() => process.disconnect());
    if (question === "hurry") return void (handlerMs = 0);
    const [sink] = system.tree();
    process.send({
      depth: sink.queueDepth,
      processed: sink.processed,
      deadLetters: system.deadLetters.counts(),
      rssBytes: process.memoryUsage().rss,
    });
  });
  process.send("ready");
}

async function main() {
  const args = process.argv.slice(2);
  const value = (name) => (args.includes(name) ? args[args.indexOf(name) + 1] : undefined);
  const seconds = Number(value("--seconds") ?? 5);
  const policies = (value("--policies") ?? POLICIES.join()).split(",");
  const isHelp = args.includes("--help") || args.includes("-h");
  if (isHelp || !(seconds > 0 && seconds <= 3600) || policies.some((each) => !POLICIES.includes(each))) {
    (isHelp ? console.log : console.error)(
      `Usage: node bench/runtime/overload.mjs [--seconds 1..3600] [--policies ${POLICIES.join()}]\n` +
        "Progress on stderr, the last line of stdout is JSON.",
    );
    process.exit(isHelp ? 0 : 2);
  }
  const results = [];
  for (const policy of policies) {
    const result = await overload(policy, seconds);
    results.push(result);
    const { ratio, controlP99Ms, rssMiB, rssGrowthMiB, depthMax, sent, refused, handled, dropped, lost } = result;
    console.error(
      `${policy.padEnd(12)} ${ratio.toFixed(1)}x  control p99 ${controlP99Ms.toFixed(1)} ms  RSS ${rssMiB.join(" ")} MiB ` +
        `(growth ${rssGrowthMiB.toFixed(1)})  deepest queue ${depthMax}  sent ${sent} = refused at the sender ${refused} + handled ${handled} + ` +
        `dropped ${JSON.stringify(dropped)} + lost ${lost}`,
    );
  }
  console.log(JSON.stringify({ seconds, loadAverage: loadavg()[0], results }));
}

async function overload(policy, seconds) {
  const directory = mkdtempSync(join(tmpdir(), "overload-"));
  const endpoint = `ipc://${join(directory, "sink")}`;
  const [keys, consumerKeys] = [curveKeys(), curveKeys()];
  const consumer = fork(fileURLToPath(import.meta.url), ["consumer"]);
  consumer.send({ endpoint, keys: consumerKeys, policy });
  await new Promise((resolve) => consumer.once("message", resolve));
  let state;
  const ask = () =>
    new Promise((resolve) => {
      consumer.once("message", (answer) => resolve((state = answer)));
      consumer.send("state");
    });
  const system = createSystem({ name: "producer", logger: silentLogger });
  const peer = await system.connect({ endpoint, serverKey: consumerKeys.publicKey, keys });
  const sink = peer.ref(Sink, "sink");
  const link = () => system.links()[0];
  const data = new Uint8Array(PAYLOAD_BYTES);

  let [sent, refused, depthMax, outboxBytesMax] = [0, 0, 0, 0];
  const [roundTripsMs, rssBytes] = [[], []];
  const startMs = performance.now();
  const endMs = startMs + seconds * 1000;
  const sampling = (async () => {
    while (performance.now() < endMs) {
      peer.probe();
      await new Promise((resolve) => setTimeout(resolve, SAMPLE_MS));
      if (link().roundTripMs !== undefined) roundTripsMs.push(link().roundTripMs);
      outboxBytesMax = Math.max(outboxBytesMax, link().lanes[1].queuedBytes);
      await ask();
      depthMax = Math.max(depthMax, state.depth);
      rssBytes.push(state.rssBytes);
    }
  })();
  let due = startMs;
  while (performance.now() < endMs) {
    for (let now = performance.now(); due < now; due += 1000 / SENT_PER_SECOND) {
      sent += 1;
      if (sink.cast("take", { key: sent % KEYS, data }) !== "accepted") refused += 1;
    }
    await new Promise((resolve) => setTimeout(resolve, TICK_MS));
  }
  await sampling;
  const { processed } = state;
  const tookSeconds = (performance.now() - startMs) / 1000;

  const account = () => {
    const { overflow, conflated, undeliverable, malformed } = state.deadLetters;
    const dropped = { overflow, conflated, undeliverable, malformed };
    return { dropped, lost: sent - refused - state.processed - overflow - conflated - undeliverable - malformed };
  };
  consumer.send("hurry"); // the rest is only counted
  for (
    const limitMs = performance.now() + DRAIN_MS_MAX;
    performance.now() < limitMs;
    await new Promise((resolve) => setTimeout(resolve, 50))
  ) {
    await ask();
    if (account().lost === 0) break;
  }
  consumer.send("end");
  await system.shutdown();
  rmSync(directory, { recursive: true });

  const mib = (bytes) => Math.round(bytes / 2 ** 20);
  const warm = Math.ceil(rssBytes.length * WARM_UP_SHARE);
  return {
    policy,
    sent,
    refused,
    handled: state.processed,
    ...account(),
    depthMax,
    outboxBytesMax,
    samples: roundTripsMs.length,
    ratio: sent / tookSeconds / (processed / tookSeconds),
    controlP50Ms: quantile(roundTripsMs, 0.5),
    controlP99Ms: quantile(roundTripsMs, 0.99),
    rssMiB: [0, 0.25, 0.5, 0.75, 1].map((share) =>
      mib(rssBytes[Math.min(rssBytes.length - 1, Math.floor(share * rssBytes.length))]),
    ),
    /** Of the largest value after the warm-up over the largest during it. */
    rssGrowthMiB: (Math.max(...rssBytes.slice(warm)) - Math.max(...rssBytes.slice(0, warm))) / 2 ** 20,
  };
}

function quantile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}
