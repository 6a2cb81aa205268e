// A test of one's own actor under faults, in virtual time: a ledger whose clients retry must count every payment once.
// Same seed, same events: a failing seed fails again. Run: node examples/runtime/simulated-test.mjs [seed]
import { z } from "zod";
import { behavior, defineProtocol, simRuntime } from "tesra-supernet/runtime";

const Ledger = defineProtocol("ledger", 1, {
  call: { pay: { request: z.object({ id: z.number(), coins: z.number() }), reply: z.number() } },
});
// The actor under test, as it would run in production.
const ledger = behavior(Ledger, () => {
  const seen = new Set();
  let total = 0;
  return {
    call: {
      pay: ({ id, coins }) => {
        if (!seen.has(id)) total += coins; // without this line's condition the test fails at the first lost answer
        seen.add(id);
        return total;
      },
    },
  };
});

async function run(seed, payments = 100) {
  const sim = simRuntime({ seed, faults: { cutEveryMs: 400, partitionEveryMs: 3000, partitionMs: [200, 2000], stallEveryMs: 2000, clogEveryMs: 500 } });
  const server = sim.node("server", async ({ createSystem, endpoint, keys }) => {
    const system = createSystem();
    system.spawn(ledger, { name: "ledger" });
    await system.listen({ endpoint, keys, allow: "any" });
  });
  let [total, tries] = [0, 0];
  const client = new Promise((resolve) => {
    sim.node("client", async ({ createSystem, keys, sleep }) => {
      const peer = await createSystem().connect({ endpoint: server.endpoint, serverKey: server.keys.publicKey, keys, timeoutMs: 60_000 });
      for (let id = 0; id < payments; id++) {
        for (let answer; answer?.ok !== true; tries++) {
          answer = await peer.ref(Ledger, "ledger").call("pay", { id, coins: 2 }, { timeoutMs: 300 });
          if (answer.ok) total = answer.value;
          await sleep(20);
        }
      }
      resolve();
    });
  });
  sim.startFaults();
  await sim.settle(client);
  sim.heal();
  await sim.shutdown();
  return { total, tries, seconds: Math.round(sim.nowMs / 1000), hash: sim.hash, left: sim.leftovers().length };
}

const seeds = process.argv[2] === undefined ? Array.from({ length: 10 }, (_, i) => i + 1) : [Number(process.argv[2])];
let retries = 0;
for (const seed of seeds) {
  const [first, second] = [await run(seed), await run(seed)];
  retries += first.tries - 100;
  if (first.total !== 200 || first.left > 0) throw new Error(`seed ${seed}: ${JSON.stringify(first)}; run again with: node examples/runtime/simulated-test.mjs ${seed}`);
  if (first.hash !== second.hash) throw new Error(`seed ${seed} is not deterministic`);
}
console.log(`${seeds.length} seeds, each run twice with the same events; every payment counted once over ${retries} retries`);
