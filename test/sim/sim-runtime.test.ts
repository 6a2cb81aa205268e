// The simulator itself: same seed, same events; order, cuts, crashes, torn disks; nothing left at the end.
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { behavior, defineProtocol, MIXED_FAULTS, SimDisk, simRuntime, type SimRuntime } from "../../src/runtime/index.js";
import { SimRandom } from "../../src/runtime/sim/random.js";

const Counter = defineProtocol("sim.counter", 1, {
  call: { total: { request: z.null(), reply: z.number() } },
  cast: { add: z.object({ i: z.number() }) },
});

interface Seen { casts: number[]; answers: number; failures: number }

function twoNodes(seed: number, seen: Seen): SimRuntime {
  const sim = simRuntime({ seed, faults: MIXED_FAULTS });
  const server = sim.node("server", async ({ createSystem, endpoint, keys }) => {
    const system = createSystem();
    let total = 0;
    system.spawn(behavior(Counter, () => ({
      call: { total: () => total },
      cast: { add: ({ i }) => { total += 1; seen.casts.push(i); } },
    })), { name: "counter" });
    await system.listen({ endpoint, keys, allow: "any" });
  });
  sim.node("client", async ({ createSystem, keys, sleep }) => {
    const system = createSystem();
    const first = await system.connect({ endpoint: server.endpoint, serverKey: server.keys.publicKey, keys, timeoutMs: 600_000 });
    for (let i = 0; i < 500; i += 1) {
      const ref = (system.peer(first.nodeId) ?? first).ref(Counter, "counter");
      ref.cast("add", { i });
      const answer = await ref.call("total", null, { timeoutMs: 500 });
      if (answer.ok) seen.answers += 1;
      else seen.failures += 1;
      await sleep(20);
    }
  });
  return sim;
}

async function runOnce(seed: number): Promise<{ hash: string; seen: Seen; left: string[] }> {
  const seen: Seen = { casts: [], answers: 0, failures: 0 };
  const sim = twoNodes(seed, seen);
  sim.startFaults();
  await sim.run(20_000);
  sim.heal();
  await sim.run(5_000);
  await sim.shutdown();
  return { hash: sim.hash, seen, left: sim.leftovers() };
}

describe("simRuntime", () => {
  it("gives the same events for the same seed and others for another", async () => {
    const hashes = new Set<string>();
    for (let seed = 1; seed <= 8; seed += 1) {
      const first = await runOnce(seed);
      const second = await runOnce(seed);
      expect(second).toEqual(first);
      expect(first.left).toEqual([]);
      expect(first.seen.answers).toBeGreaterThan(50);
      hashes.add(first.hash);
    }
    expect(hashes.size).toBe(8);
  });

  it("costs no real time for virtual time", async () => {
    const sim = simRuntime({ seed: 1 });
    let isOver = false;
    sim.node("sleeper", async ({ sleep }) => {
      await sleep(365 * 24 * 3_600_000);
      isOver = true;
    });
    await sim.run(366 * 24 * 3_600_000);
    expect(isOver).toBe(true);
  });

  it("stops at what simulated code throws past everything", async () => {
    const sim = simRuntime({ seed: 1 });
    sim.node("bad", ({ sim: { scheduler } }) => {
      scheduler.fail(new Error("past everything"));
    });
    await expect(sim.run(10)).rejects.toThrow("past everything");
  });
});

describe("SimDisk", () => {
  const key = (i: number): Uint8Array => Uint8Array.of(107, i);

  it("keeps synced batches and a prefix of the others over a crash", () => {
    const kept = new Set<number>();
    for (let seed = 0; seed < 50; seed += 1) {
      const disk = new SimDisk(new SimRandom(seed));
      const store = disk.openStore("s");
      for (let i = 0; i < 5; i += 1) store.write([{ key: key(i), value: Uint8Array.of(i) }], { sync: i === 1 });
      expect(store.scan(Uint8Array.of(107))).toHaveLength(5);
      disk.crash();
      expect(() => store.get(key(0))).toThrow("closed");
      const found = disk.openStore("s").scan(Uint8Array.of(107)).map((entry) => entry.value[0]);
      expect(found).toEqual([0, 1, 2, 3, 4].slice(0, found.length));
      expect(found.length).toBeGreaterThanOrEqual(2);
      kept.add(found.length);
    }
    expect([...kept].sort()).toEqual([2, 3, 4, 5]);
  });

  it("cuts and corrupts only the unsynced end of a file", () => {
    let cut = 0;
    let corrupt = 0;
    for (let seed = 0; seed < 50; seed += 1) {
      const disk = new SimDisk(new SimRandom(seed));
      const file = disk.openFile("f");
      file.append(new Uint8Array(700).fill(1));
      file.sync();
      file.append(new Uint8Array(700).fill(2));
      disk.crash();
      const bytes = disk.openFile("f").read();
      expect(bytes.subarray(0, 700).every((byte) => byte === 1)).toBe(true);
      if (bytes.length < 1_400) cut += 1;
      if (bytes.subarray(700).some((byte) => byte !== 2)) corrupt += 1;
    }
    expect(cut).toBeGreaterThan(40);
    expect(corrupt).toBeGreaterThan(10);
  });
});
