// Real processes and threads. Needs dist/ (`npm run build`): children run the built package.
import { spawn, type ChildProcess } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { z } from "zod";
import {
  behavior, createPool, createSystem, createThread, curveKeys, defineProtocol, resolveThreadEntry, silentLogger,
  type Peer, type StopReason, type System,
} from "../../src/runtime/index.js";

const child = (name: string): URL => new URL(`./children/${name}`, import.meta.url);
const directory = mkdtempSync(join(tmpdir(), "processes-"));
const systems: System[] = [];
const children: ChildProcess[] = [];
afterEach(async () => {
  for (const each of systems.splice(0)) await each.shutdown({ deadlineMs: 500 });
  for (const each of children.splice(0)) if (each.exitCode === null) each.kill("SIGKILL");
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const Target = defineProtocol("target", 1, {
  call: { ping: { request: z.number(), reply: z.number() }, hang: { request: z.null(), reply: z.null() } },
  cast: { quit: z.null() },
});

let number = 0;
async function start(mode = "serve"): Promise<{ process: ChildProcess; peer: () => Promise<Peer>; system: System; path: string }> {
  const keys = curveKeys();
  const path = join(directory, `c${++number}`);
  const made = spawn(process.execPath, [fileURLToPath(child("server.mjs")), `ipc://${path}`, keys.publicKey, mode], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  children.push(made);
  const line = await new Promise<string>((resolve, reject) => {
    createInterface({ input: made.stdout! }).once("line", resolve);
    made.once("exit", (code) => reject(new Error(`the child ended with ${code}; is dist/ built?`)));
  });
  const { endpoint, key } = JSON.parse(line) as { endpoint: string; key: string };
  const system = createSystem({ name: "parent", logger: silentLogger });
  systems.push(system);
  return { process: made, system, path, peer: () => system.connect({ endpoint, serverKey: key, keys, timeoutMs: 10_000, reconnect: false }) };
}
const exited = (each: ChildProcess): Promise<number | null> =>
  new Promise((resolve) => (each.exitCode !== null ? resolve(each.exitCode) : each.once("exit", resolve)));

describe("processes", () => {
  test("kill -9 of a peer fires each watch once and fails its calls, long before the pings run out", async () => {
    const { process: victim, peer: connect, system } = await start();
    const peer = await connect();
    const ref = peer.ref(Target, "target");
    expect(await ref.call("ping", 1)).toEqual({ ok: true, value: 2 });
    const outside: StopReason[] = [];
    ref.watch((reason) => outside.push(reason));
    const inside: StopReason[] = [];
    const W = defineProtocol("w", 1, { cast: { nothing: z.null() } });
    const fired = new Promise<void>((resolve) => {
      system.spawn(
        behavior(W, (ctx) => {
          ctx.watch(ref, (reason) => {
            inside.push(reason);
            resolve();
          });
          return { cast: { nothing: () => undefined } };
        }),
      );
    });
    const hung = ref.call("hang", null, { timeoutMs: 60_000 });
    await ref.call("ping", 1, { timeoutMs: 200 }); // the target is held by `hang`; this only orders the frames
    const killedAt = performance.now();
    victim.kill("SIGKILL");
    expect(await hung).toMatchObject({ ok: false, error: { code: "unreachable" } });
    await fired;
    expect(performance.now() - killedAt).toBeLessThan(2500);
    expect(outside).toMatchObject([{ code: "unreachable" }]);
    expect(inside).toMatchObject([{ code: "unreachable" }]);
    expect(ref.cast("quit", null)).toBe("stopped");
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(outside).toHaveLength(1);
    expect(inside).toHaveLength(1);
  });

  test("after shutdown a process with links exits by itself and leaves no ipc file", async () => {
    const { process: made, peer: connect, path } = await start();
    const peer = await connect();
    expect(existsSync(path)).toBe(true);
    peer.ref(Target, "target").cast("quit", null);
    expect(await exited(made)).toBe(0);
    expect(existsSync(path)).toBe(false);
  });

  test("a process that listened and shut down at once exits by itself", async () => {
    const { process: made } = await start("short");
    expect(await exited(made)).toBe(0);
  });
});

describe("threads", () => {
  test("a thread keeps state, shares memory, reports failures, and rejects what is under way when it ends", async () => {
    interface Api {
      add(n: number): number;
      fill(shared: SharedArrayBuffer, value: number): void;
      fail(): void;
      hang(): void;
      die(): void;
    }
    const thread = createThread<Api>({ entry: child("thread.mjs") });
    expect(await thread.api.add(2)).toBe(2);
    expect(await thread.api.add(3)).toBe(5);
    const shared = new SharedArrayBuffer(16);
    await thread.api.fill(shared, 1.5);
    expect(new Float32Array(shared)).toEqual(new Float32Array([1.5, 1.5, 1.5, 1.5]));
    await expect(thread.api.fail()).rejects.toThrow("failed inside");
    const hung = thread.api.hang();
    const rejected = expect(hung).rejects.toMatchObject({ code: "thread-failed" });
    await thread.close();
    await rejected;
    await expect(thread.api.add(1)).rejects.toMatchObject({ code: "thread-failed" });

    const dying = createThread<Api>({ entry: child("thread.mjs") });
    await expect(dying.api.die()).rejects.toThrow(/thread dies/);
    expect(await dying.ended).toMatchObject({ code: "thread-failed" });
    await dying.close();
  });

  test("a pool runs default and named tasks and closes", async () => {
    const pool = createPool({ entry: child("pool.mjs"), threads: 1 });
    expect(await Promise.all([1, 2, 3].map((n) => pool.run<number>(n)))).toEqual([1, 4, 9]);
    expect(await pool.run(new Float64Array([1, 2, 3.5]), { name: "sum" })).toBe(6.5);
    await pool.close();
  });

  test("an entry in src/ means the built file, and a missing one says what to do", () => {
    const inSource = new URL("../../src/runtime/index.js", import.meta.url);
    expect(resolveThreadEntry(inSource).pathname).toMatch(/\/dist\/runtime\/index\.js$/);
    expect(() => resolveThreadEntry(new URL("../../src/runtime/none.js", import.meta.url))).toThrow(/npm run build/);
  });
});
