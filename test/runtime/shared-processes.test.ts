// Shared memory between real processes, and kill -9 of either in the middle of a transfer. Needs dist/.
import { spawn, type ChildProcess } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { z } from "zod";
import { openSharedMemory } from "../../src/device/shared-memory.js";
import {
  behavior, createSystem, curveKeys, defineProtocol, releaseTensors, silentLogger, type Peer, type System,
} from "../../src/runtime/index.js";

const directory = mkdtempSync(join(tmpdir(), "shared-processes-"));
const systems: System[] = [];
const children: ChildProcess[] = [];
afterEach(async () => {
  for (const each of systems.splice(0)) await each.shutdown({ deadlineMs: 500 });
  for (const each of children.splice(0)) if (each.exitCode === null) each.kill("SIGKILL");
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const floats = z.custom<Float32Array>((value) => value instanceof Float32Array);
const Inbox = defineProtocol("inbox", 1, { cast: { put: z.object({ i: z.number(), x: floats }) } });
const Child = defineProtocol("child", 1, {
  call: {
    sum: { request: z.object({ x: floats, keep: z.boolean() }), reply: z.number() },
    hang: { request: z.object({ x: floats }), reply: z.null() },
    flood: { request: z.object({ length: z.number() }), reply: z.null() },
  },
});
const LENGTH = 256 * 1024; // 1 MiB
const memory = openSharedMemory();
const mappings = (): number => readFileSync("/proc/self/maps", "utf8").split("memfd:tesra-supernet").length - 1;

let number = 0;
async function start(): Promise<{ child: ChildProcess; peer: Peer; system: System }> {
  const keys = curveKeys();
  const entry = fileURLToPath(new URL("./children/shared.mjs", import.meta.url));
  const child = spawn(process.execPath, [entry, `ipc://${join(directory, `c${++number}`)}`, keys.publicKey], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  children.push(child);
  const line = await new Promise<string>((resolve, reject) => {
    createInterface({ input: child.stdout! }).once("line", resolve);
    child.once("exit", (code) => reject(new Error(`the child ended with ${code}; is dist/ built?`)));
  });
  const { endpoint, key } = JSON.parse(line) as { endpoint: string; key: string };
  const system = createSystem({ name: "parent", logger: silentLogger, sharedMemory: memory! });
  systems.push(system);
  const peer = await system.connect({ endpoint, serverKey: key, keys, timeoutMs: 60_000, reconnect: false });
  return { child, peer, system };
}
async function until(test: () => boolean): Promise<void> {
  const end = performance.now() + 60_000;
  while (!test()) {
    if (performance.now() > end) throw new Error("condition not reached in time");
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
const down = (peer: Peer): Promise<void> => new Promise((resolve) => void peer.onDown(() => resolve()));
const shared = (system: System) => system.links()[0]!.shared!;

// Starting processes takes its time on a busy machine; nothing here asks how long.
describe.skipIf(process.platform !== "linux")("shared memory between processes", { timeout: 180_000 }, () => {
  test("tensors reach another process by it, and come back into use, released or collected", async () => {
    const { peer, system } = await start();
    const ref = peer.ref(Child, "child");
    for (let i = 0; shared(system).sentTransfers < 20; i++) {
      const answer = await ref.call("sum", { x: new Float32Array(LENGTH).fill(i % 7), keep: false });
      expect(answer).toEqual({ ok: true, value: (i % 7) * LENGTH });
      if (i > 2000) throw new Error("no transfer by shared memory");
    }
    expect(shared(system).ownSegments).toBeLessThan(8);
  });

  test("kill -9 of the sender in a flood: what has arrived stays whole, nothing of the rest is left", async () => {
    const before = mappings();
    const { child, peer, system } = await start();
    const kept: { i: number; x: Float32Array }[] = [];
    let wrong = 0;
    let seen = 0;
    system.spawn(
      behavior(Inbox, () => ({
        cast: {
          put: (message) => {
            seen += 1;
            if (message.x[0] !== message.i || message.x[LENGTH - 1] !== message.i) wrong += 1;
            if (kept.length < 10 && shared(system).receivedTransfers > kept.length) kept.push(message);
            else releaseTensors(message);
          },
        },
      })),
      { name: "inbox", mailbox: { capacity: 64 } },
    );
    expect(await peer.ref(Child, "child").call("flood", { length: LENGTH })).toEqual({ ok: true, value: null });
    await until(() => kept.length === 10 && seen > 40 && shared(system).receivedTransfers > 30);
    const isDown = down(peer);
    child.kill("SIGKILL");
    await isDown;
    expect(wrong).toBe(0);
    for (const { i, x } of kept) expect(x.every((each) => each === i)).toBe(true);
    releaseTensors(kept);
    kept.length = 0;
    await system.shutdown({ deadlineMs: 500 });
    await until(() => mappings() <= before);
  });

  test("kill -9 of the receiver with tensors in hand: calls fail, the memory is given up, a successor gets its own", async () => {
    const { child, peer, system } = await start();
    const ref = peer.ref(Child, "child");
    const x = new Float32Array(LENGTH).fill(2);
    while (shared(system).sentTransfers < 3) await ref.call("sum", { x, keep: true });
    const pending = Array.from({ length: 40 }, () => ref.call("hang", { x }, { timeoutMs: 60_000 }));
    const isDown = down(peer);
    child.kill("SIGKILL");
    for (const answer of await Promise.all(pending)) expect(answer).toMatchObject({ ok: false, error: { code: "unreachable" } });
    await isDown;
    await until(() => memory!.usedBytes === 0);
    expect(x.every((each) => each === 2)).toBe(true);
    const next = await start();
    while (shared(next.system).sentTransfers < 3) {
      expect(await next.peer.ref(Child, "child").call("sum", { x, keep: false })).toEqual({ ok: true, value: 2 * LENGTH });
    }
  });
});
