// The durable tier: stores, group commit, order and redelivery, rejection, the inbox; and real processes under kill -9.
import { spawn, type ChildProcess } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, rmSync, statSync, truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { z } from "zod";
import {
  behavior, createInbox, createMemoryStore, createOutbox, createSystem, curveKeys, defineProtocol, MetricsRegistry,
  openRocksStore, Refusal, silentLogger,
  type Delivery, type Outbox, type OutboxOptions, type RejectedMessage, type Store, type System,
} from "../../src/runtime/index.js";

const directory = mkdtempSync(join(tmpdir(), "durable-"));
const open: System[] = [];
const stores: Store[] = [];
const children: ChildProcess[] = [];
let paths = 0;
const path = (): string => join(directory, `p${++paths}`);
function system(name: string, metrics = new MetricsRegistry()): System {
  const made = createSystem({ name, logger: silentLogger, metrics });
  open.push(made);
  return made;
}
afterEach(async () => {
  for (const each of children.splice(0)) each.kill("SIGKILL");
  for (const each of open.splice(0)) await each.shutdown({ deadlineMs: 500 });
  for (const each of stores.splice(0)) await each.close();
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

async function until(test: () => boolean, limitMs = 20_000): Promise<void> {
  const end = performance.now() + limitMs;
  while (!test()) {
    if (performance.now() > end) throw new Error("condition not reached in time");
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
const range = (count: number, from = 0): number[] => Array.from({ length: count }, (_, i) => from + i);

const floats = z.custom<Float32Array>((value) => value instanceof Float32Array);
const Ledger = defineProtocol("ledger", 1, { cast: { add: z.object({ i: z.number(), x: floats.optional() }) } });
interface Book {
  readonly seen: number[];
  readonly deliveries: Delivery[];
  /** Runs before a message counts as handled; may throw. */
  check: (i: number, x: Float32Array | undefined) => void | Promise<void>;
}
const book = (check: Book["check"] = () => undefined): Book => ({ seen: [], deliveries: [], check });
const ledger = (state: Book) =>
  behavior(Ledger, () => ({
    cast: {
      add: async ({ i, x }, { delivery }) => {
        state.deliveries.push(delivery!);
        await state.check(i, x);
        state.seen.push(i);
      },
    },
  }));
const quick = { initialMs: 2, maxMs: 20 };
const forgiving = { supervision: { maxRestarts: 1000, backoff: { initialMs: 1, maxMs: 2 } } };

/** Counts what is written, and fails while `isFull`. */
function observed(store: Store): { store: Store; syncs: number; isFull: boolean } {
  const seen = {
    syncs: 0,
    isFull: false,
    store: {
      get: (key: Uint8Array) => store.get(key),
      scan: (prefix: Uint8Array, limit?: number) => store.scan(prefix, limit),
      write: (operations: Parameters<Store["write"]>[0], options?: { readonly sync?: boolean }) => {
        if (seen.isFull) throw new Error("no space left");
        if (options?.sync === true) seen.syncs += 1;
        store.write(operations, options);
      },
      close: () => store.close(),
    },
  };
  return seen;
}

interface Linked {
  readonly server: System;
  readonly client: System;
  readonly outbox: Outbox;
  readonly target: { nodeId: string; path: string; protocol: typeof Ledger };
  readonly connect: () => Promise<unknown>;
  readonly metrics: MetricsRegistry;
}
async function linked(options: Partial<OutboxOptions> = {}): Promise<Linked> {
  const metrics = new MetricsRegistry();
  const [server, client] = [system("server"), system("client", metrics)];
  const [serverKeys, clientKeys] = [curveKeys(), curveKeys()];
  const endpoint = `ipc://${path()}`;
  await server.listen({ endpoint, keys: serverKeys, allow: "any" });
  const outbox = createOutbox(client, { name: "orders", store: createMemoryStore(), retry: quick, ...options });
  return {
    server, client, outbox, metrics,
    target: { nodeId: serverKeys.publicKey, path: "ledger", protocol: Ledger },
    connect: () => client.connect({ endpoint, serverKey: serverKeys.publicKey, keys: clientKeys, timeoutMs: 10_000 }),
  };
}

describe.each([
  ["memory", async () => createMemoryStore()],
  ["RocksDB", async () => openRocksStore(path())],
] as const)("a store in %s", (_name, make) => {
  test("reads what was written, in order, by prefix and with a limit", async () => {
    const store = await make();
    stores.push(store);
    const bytes = (text: string): Uint8Array => Buffer.from(text);
    store.write([..."badc"].map((letter) => ({ key: bytes(`k/${letter}`), value: bytes(letter) })), { sync: true });
    store.write([{ key: bytes("l"), value: bytes("other") }, { key: bytes("k/b"), value: undefined }]);
    const keys = (limit?: number): string[] => store.scan(bytes("k/"), limit).map(({ key }) => Buffer.from(key).toString());
    expect(keys()).toEqual(["k/a", "k/c", "k/d"]);
    expect(keys(2)).toEqual(["k/a", "k/c"]);
    expect(Buffer.from(store.get(bytes("k/a"))!).toString()).toBe("a");
    expect(store.get(bytes("k/b"))).toBeUndefined();
  });
});

describe("RocksDB", () => {
  test("a second owner is told so, and a closed store refuses instead of crashing", async () => {
    const where = path();
    const store = await openRocksStore(where);
    await expect(openRocksStore(where)).rejects.toMatchObject({ code: "store-locked" });
    await store.close();
    expect(() => store.get(Buffer.from("k"))).toThrow(/closed/);
  });
});

describe("an outbox", () => {
  test("delivers in order when its node is linked, one synced write a burst, and forgets what is confirmed", async () => {
    const seen = observed(createMemoryStore());
    const { server, outbox, target, connect, metrics } = await linked({ store: seen.store });
    const state = book();
    server.spawn(ledger(state), { name: "ledger" });
    const before = seen.syncs;
    await Promise.all(range(500).map((i) => outbox.send(target, "add", { i, ...(i % 100 === 0 ? { x: new Float32Array([i]) } : {}) })));
    expect(seen.syncs - before).toBe(1);
    expect(outbox.report()).toMatchObject({ waitingMessages: 500, confirmed: 0 });
    expect(metrics.prometheusText()).toMatch(/runtime_outbox_depth_messages\{[^}]*outbox="orders"[^}]*\} 500/);
    await connect();
    await outbox.whenEmpty();
    expect(state.seen).toEqual(range(500));
    expect(state.deliveries.map(({ sequence }) => sequence)).toEqual(range(500, 1));
    expect(new Set(state.deliveries.map(({ outbox: name }) => name)).size).toBe(1);
    expect(outbox.report()).toMatchObject({ waitingMessages: 0, confirmed: 500, redelivered: 0, rejected: 0, oldestAgeSeconds: 0 });
    expect(seen.store.scan(Buffer.from("o/orders/q/"))).toEqual([]);
  });

  test("a handler that throws gets its message again before any later one, over restarts of its actor", async () => {
    const { server, client, outbox, target, connect } = await linked();
    const failures = new Map([[3, 2], [7, 1], [20, 3]]);
    const handled: number[] = [];
    const state = book((i) => {
      handled.push(i);
      const left = failures.get(i) ?? 0;
      failures.set(i, left - 1);
      if (left > 0) throw new Error(`not yet ${i}`);
    });
    server.spawn(ledger(state), { name: "ledger", ...forgiving });
    await connect();
    await Promise.all(range(40).map((i) => outbox.send(target, "add", { i })));
    await outbox.whenEmpty();
    expect(state.seen).toEqual(range(40));
    expect(handled.filter((i) => i === 20)).toHaveLength(4);
    expect(outbox.report().redelivered).toBeGreaterThanOrEqual(6);
    expect(client.inspect().outboxes).toMatchObject([{ name: "orders", confirmed: 40 }]);
  });

  test("what is refused or of no known protocol is put aside, told and counted; the rest goes on", async () => {
    const told: RejectedMessage[] = [];
    const { server, outbox, target, connect } = await linked({
      onRejected: (each) => told.push(each), retry: { ...quick, faultsMax: 3 },
    });
    const state = book((i) => {
      if (i === 2) throw new Refusal("closed", "the account is closed");
      if (i === 5) throw new Error("broken for good");
    });
    server.spawn(ledger(state), { name: "ledger", ...forgiving });
    await connect();
    const sends = range(6).map((i) => outbox.send(target, "add", { i }));
    sends.push(outbox.send(target, "add", { i: "six" as unknown as number }), outbox.send(target, "add", { i: 7 }));
    await Promise.all(sends);
    await outbox.whenEmpty();
    expect(state.seen).toEqual([0, 1, 3, 4, 7]);
    expect(told.map(({ error }) => error.code).sort()).toEqual(["fault", "protocol", "refused"]);
    const rejected = outbox.rejected();
    expect(rejected.map(({ sequence }) => sequence)).toEqual([3, 6, 7]);
    expect(rejected[0]).toMatchObject({ name: "add", message: { i: 2 }, target: { path: "ledger" }, error: { code: "refused" } });
    expect(outbox.report().rejected).toBe(3);
    outbox.removeRejected(rejected[0]!);
    await until(() => outbox.rejected().length === 2);
  });

  test("a lost link, a missing actor and a full mailbox only delay", async () => {
    const { server, client, outbox, target, connect } = await linked({ window: 16 });
    await connect();
    const state = book(() => new Promise((resolve) => setTimeout(resolve, 1)));
    await Promise.all(range(20).map((i) => outbox.send(target, "add", { i })));
    server.spawn(ledger(state), { name: "ledger", mailbox: { capacity: 1 } });
    await until(() => state.seen.length >= 5);
    client.disconnect(target.nodeId);
    await Promise.all(range(20, 20).map((i) => outbox.send(target, "add", { i })));
    await connect();
    await outbox.whenEmpty();
    // What was being handled when the link went may be answered by the memory of the receiver instead of again.
    expect([...new Set(state.seen)]).toEqual(range(40));
    expect(state.seen.length).toBe(40);
  });

  test("an actor of the same system is a target too", async () => {
    const local = system("local");
    const state = book();
    const ref = local.spawn(ledger(state), { name: "ledger" });
    const outbox = createOutbox(local, { name: "self", store: createMemoryStore(), retry: quick });
    await Promise.all(range(30).map((i) => outbox.send(ref, "add", { i })));
    await outbox.whenEmpty();
    expect(state.seen).toEqual(range(30));
  });

  test("a full disk rejects the send and loses nothing else; a full outbox says so; bad options are refused", async () => {
    const seen = observed(createMemoryStore());
    const { server, outbox, target, connect } = await linked({ store: seen.store, capacity: 3 });
    const state = book();
    server.spawn(ledger(state), { name: "ledger" });
    seen.isFull = true;
    await expect(outbox.send(target, "add", { i: -1 })).rejects.toThrow(/no space/);
    seen.isFull = false;
    await Promise.all(range(2).map((i) => outbox.send(target, "add", { i })));
    await expect(outbox.send(target, "add", { i: (() => 1) as unknown as number })).rejects.toMatchObject({ code: "unsupported" });
    await connect();
    await outbox.whenEmpty();
    expect(state.seen).toEqual([0, 1]);
    await server.shutdown({ deadlineMs: 500 });
    await Promise.all(range(3, 2).map((i) => outbox.send(target, "add", { i })));
    await expect(outbox.send(target, "add", { i: 9 })).rejects.toMatchObject({ code: "outbox-full" });
    expect(() => createOutbox(open[1]!, { name: "a/b", store: createMemoryStore() })).toThrow(/name must match/);
    expect(() => createOutbox(open[1]!, { name: "a", window: 0, store: createMemoryStore() })).toThrow(/window must be/);
  });

  test("an inbox makes repeats harmless: marks and effects are one write", () => {
    const store = createMemoryStore();
    const inbox = createInbox({ name: "ledger", store });
    const delivery = (sequence: number, outbox = "a"): Delivery => ({ outbox, sequence });
    const key = Buffer.from("sum");
    inbox.commit(delivery(1), [{ key, value: Buffer.from("10") }]);
    expect(inbox.isDuplicate(delivery(1))).toBe(true);
    expect(inbox.isDuplicate(delivery(2))).toBe(false);
    expect(inbox.isDuplicate(delivery(1, "b"))).toBe(false);
    expect(inbox.isDuplicate(undefined)).toBe(false);
    expect(Buffer.from(store.get(key)!).toString()).toBe("10");
    expect(createInbox({ name: "ledger", store }).isDuplicate(delivery(1))).toBe(true);
  });

  test("a torn tail of RocksDB's log costs at most what was not synced", async () => {
    const where = path();
    const store = await openRocksStore(where);
    stores.push(store);
    const sender = system("sender");
    const target = { nodeId: curveKeys().publicKey, path: "ledger", protocol: Ledger };
    const outbox = createOutbox(sender, { name: "orders", store });
    for (const i of range(20)) await outbox.send(target, "add", { i });
    const torn = path();
    cpSync(where, torn, { recursive: true }); // as a crash leaves it: nothing was closed
    const log = readdirSync(torn).filter((name) => name.endsWith(".log")).map((name) => join(torn, name)).at(-1)!;
    truncateSync(log, statSync(log).size - 7); // in the midst of the last batch
    rmSync(join(torn, "LOCK"), { force: true });
    const after = await openRocksStore(torn);
    stores.push(after);
    const again = createOutbox(system("again"), { name: "orders", store: after });
    expect(again.identity).toBe(outbox.identity);
    expect(again.size).toBe(19);
    await again.send(target, "add", { i: 20 });
    expect(again.size).toBe(20);
  });
});

describe("processes", () => {
  interface Child {
    readonly lines: string[];
    readonly process: ChildProcess;
    kill(): Promise<void>;
  }
  function start(name: string, argument: object): Child {
    const made = spawn(process.execPath, [fileURLToPath(new URL(`./children/${name}`, import.meta.url)), JSON.stringify(argument)], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    children.push(made);
    const lines: string[] = [];
    createInterface({ input: made.stdout! }).on("line", (line) => lines.push(line));
    return {
      lines,
      process: made,
      kill: () =>
        new Promise((resolve) => {
          made.once("exit", () => resolve());
          made.kill("SIGKILL");
        }),
    };
  }
  const numbersOf = (lines: readonly string[], word: string): number[] =>
    lines.filter((line) => line.startsWith(`${word} `)).map((line) => Number(line.split(" ")[1]));

  test("kill -9 of the sender: every message whose send had resolved is delivered, in order, repeats can be told", async () => {
    const [serverKeys, keys] = [curveKeys(), curveKeys()];
    const common = { directory: path(), endpoint: `ipc://${path()}`, serverKey: serverKeys.publicKey, keys };
    // Killed with everything on disk and nothing delivered: nobody listens yet.
    const first = start("durable-sender.mjs", { ...common, from: 0, count: 50 });
    await until(() => first.lines.includes("sent 49"));
    await first.kill();

    const server = system("server");
    const state = book(() => new Promise((resolve) => setTimeout(resolve, 1)));
    server.spawn(ledger(state), { name: "ledger" });
    await server.listen({ endpoint: common.endpoint, keys: serverKeys, allow: "any" });
    // Killed in the midst of sending and delivering, twice.
    const resolved = [...range(50)];
    let from = 50;
    for (let round = 0; round < 2; round++) {
      const seenBefore = state.seen.length;
      const child = start("durable-sender.mjs", { ...common, from, count: 500 });
      await until(() => state.seen.length > seenBefore + 30 && numbersOf(child.lines, "sent").length > 20);
      await child.kill();
      await new Promise((resolve) => setImmediate(resolve)); // the last lines are read
      const sent = numbersOf(child.lines, "sent");
      resolved.push(...sent);
      from = sent.at(-1)! + 2; // the one after the last may be on disk without having said so
    }
    const last = start("durable-sender.mjs", { ...common, from, count: 1 });
    await until(() => last.lines.includes("empty"), 30_000);
    expect(resolved.filter((i) => !state.seen.includes(i))).toEqual([]);
    const inOrder = [...new Set(state.seen)];
    expect(inOrder).toEqual([...inOrder].sort((a, b) => a - b));
    // A repeat carries the number of the first delivery, so that it can be told; no two messages share one.
    const bySequence = new Map<number, number>();
    state.deliveries.forEach(({ sequence }, k) => {
      if (k < state.seen.length) expect(bySequence.get(sequence) ?? state.seen[k]).toBe(state.seen[k]);
      bySequence.set(sequence, state.seen[k]!);
    });
  }, 120_000);

  test("kill -9 of the receiver in the midst of a handler: nothing lost, and with an inbox nothing twice", async () => {
    const [serverKeys, keys] = [curveKeys(), curveKeys()];
    const argument = { directory: path(), endpoint: `ipc://${path()}`, keys: serverKeys };
    const client = system("client");
    const outbox = createOutbox(client, { name: "orders", store: createMemoryStore(), retry: quick });
    const target = { nodeId: serverKeys.publicKey, path: "ledger", protocol: Ledger };
    let child = start("durable-receiver.mjs", argument);
    await until(() => child.lines.includes("ready"));
    await client.connect({ endpoint: argument.endpoint, serverKey: serverKeys.publicKey, keys, timeoutMs: 20_000 });
    await Promise.all(range(200, 1).map((i) => outbox.send(target, "add", { i })));
    const begun: number[] = [];
    for (let round = 0; round < 3; round++) {
      await until(() => numbersOf(child.lines, "done").length >= 15);
      await child.kill();
      begun.push(...numbersOf(child.lines, "begin"));
      child = start("durable-receiver.mjs", argument);
    }
    await outbox.whenEmpty();
    begun.push(...numbersOf(child.lines, "begin"));
    expect(child.lines.filter((line) => line.startsWith("done")).at(-1)).toBe(`done 200 ${(200 * 201) / 2}`);
    const once = [...new Set(begun)];
    expect(once).toEqual(range(200, 1));
    expect(outbox.report().redelivered).toBeGreaterThan(0);
    expect(outbox.report()).toMatchObject({ confirmed: 200, waitingMessages: 0 });
  }, 120_000);
});
