// The reliable tier over real links that are cut again and again, cancelled calls, held-back senders, old peers.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { z } from "zod";
import {
  behavior, createSystem, curveKeys, defineProtocol, releaseTensors, seededRandom, silentLogger,
  type CurveKeys, type Listener, type MailboxOptions, type Peer, type System,
} from "../../src/runtime/index.js";
import { createCuttingProxy, type CuttingProxy } from "./cutting-proxy.js";

const directory = mkdtempSync(join(tmpdir(), "delivery-"));
const open: System[] = [];
const proxies: CuttingProxy[] = [];
let sockets = 0;
const ipc = (): string => `ipc://${join(directory, `s${++sockets}`)}`;
function system(name: string): System {
  const made = createSystem({ name, logger: silentLogger });
  open.push(made);
  return made;
}
afterEach(async () => {
  for (const each of open.splice(0)) await each.shutdown({ deadlineMs: 500 });
  for (const each of proxies.splice(0)) await each.close();
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

async function until(test: () => boolean, limitMs = 20_000): Promise<void> {
  const end = performance.now() + limitMs;
  while (!test()) {
    if (performance.now() > end) throw new Error("condition not reached in time");
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

const floats = z.custom<Float32Array>((value) => value instanceof Float32Array);
const Sink = defineProtocol("sink", 1, {
  call: { slow: { request: z.null(), reply: z.number() }, count: { request: z.null(), reply: z.number() } },
  cast: { note: z.object({ i: z.number(), x: floats.optional() }) },
});
interface Gate {
  seen: number[];
  cancelled: number;
  slowRuns: number;
  /** Handlers wait for it. */
  open: Promise<void> | undefined;
}
const gate = (): Gate => ({ seen: [], cancelled: 0, slowRuns: 0, open: undefined });
const sink = (state: Gate) =>
  behavior(Sink, () => ({
    call: {
      slow: (_m, meta) =>
        new Promise<number>((resolve) => {
          state.slowRuns += 1;
          meta.signal!.addEventListener("abort", () => {
            state.cancelled += 1;
            resolve(0);
          });
        }),
      count: () => state.seen.length,
    },
    cast: {
      note: ({ i }) => {
        if (state.open === undefined) {
          state.seen.push(i);
          return undefined;
        }
        return state.open.then(() => void state.seen.push(i));
      },
    },
  }));

interface Pair {
  server: System;
  client: System;
  serverKeys: CurveKeys;
  clientKeys: CurveKeys;
  listener: Listener;
  peer: Peer;
}
interface PairOptions {
  readonly endpoint?: string;
  readonly proxied?: (proxy: CuttingProxy) => void;
  readonly linkVersionMax?: number;
}
async function pair({ endpoint = ipc(), proxied, linkVersionMax }: PairOptions = {}): Promise<Pair> {
  const [server, client] = [system("server"), system("client")];
  const [serverKeys, clientKeys] = [curveKeys(), curveKeys()];
  const version = linkVersionMax === undefined ? {} : { linkVersionMax };
  const listener = await server.listen({ endpoint, keys: serverKeys, allow: (k) => k === clientKeys.publicKey });
  let to = listener.endpoint;
  if (proxied !== undefined) {
    const proxy = await createCuttingProxy(Number(/:(\d+)$/.exec(listener.endpoint)![1]));
    proxies.push(proxy);
    proxied(proxy);
    to = `tcp://127.0.0.1:${proxy.port}`;
  }
  const peer = await client.connect({
    endpoint: to, serverKey: serverKeys.publicKey, keys: clientKeys, timeoutMs: 20_000, ...version,
  });
  return { server, client, serverKeys, clientKeys, listener, peer };
}

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** Each lost link is three cuts; after a few the pauses between attempts grow to seconds. */
const CUTS_MAX = 12;

describe("reliable casts", () => {
  test.each([
    { seed: 1, capacity: 8192, tensors: false },
    { seed: 2, capacity: 8, tensors: false },
    { seed: 3, capacity: 64, tensors: true },
  ])("over a link that is cut again and again: in order, once, nothing lost ($seed)", async ({ seed, capacity, tensors }) => {
    const random = seededRandom(seed);
    const unit = (): number => Buffer.from(random(4)).readUInt32LE(0) / 2 ** 32;
    let proxy!: CuttingProxy;
    const { server, client, peer, clientKeys } = await pair({
      endpoint: "tcp://127.0.0.1:0",
      proxied: (made) => {
        proxy = made;
      },
    });
    const incarnation = peer.incarnation;
    const states = [gate(), gate()];
    states.forEach((state, i) => server.spawn(sink(state), { name: `sink${i}`, mailbox: { capacity } }));
    const refs = states.map((_, i) => peer.ref(Sink, `sink${i}`));
    const count = tensors ? 600 : 4000;
    const next = [0, 0];
    // Cut within a handshake, a batch or a transfer.
    proxy.nextCutBytes = () => 500 + Math.floor(unit() * (tensors ? 600_000 : 300_000));
    proxy.cutAll();
    let accepted = 0;
    while (next.some((n) => n < count)) {
      for (const [k, ref] of refs.entries()) {
        for (let burst = Math.ceil(unit() * 200); burst > 0 && next[k]! < count; burst--) {
          const x = tensors && unit() < 0.3 ? { x: new Float32Array(unit() < 0.5 ? 400 : 20_000).fill(next[k]!) } : {};
          if (ref.cast("note", { i: next[k]!, ...x }, { delivery: "reliable" }) !== "accepted") break;
          next[k]! += 1;
          accepted += 1;
        }
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
    await until(() => proxy.cuts >= CUTS_MAX || states.every((state) => state.seen.length >= count), 60_000);
    proxy.nextCutBytes = () => Number.POSITIVE_INFINITY; // whatever is open is still cut once
    await until(() => states.every((state) => state.seen.length >= count), 60_000);
    await until(() => peer.reliableReport().waitingMessages === 0);
    expect(accepted).toBe(2 * count);
    for (const state of states) expect(state.seen).toEqual(range(count));
    expect(proxy.cuts).toBeGreaterThanOrEqual(6); // two lost links of three channels at least
    expect(peer.incarnation).toBe(incarnation);
    expect(peer.reliableReport().resent).toBeGreaterThan(0);
    expect(server.peer(clientKeys.publicKey)!.reliableReport()).toMatchObject({ waitingMessages: 0 });
    expect(client.deadLetters.total).toBe(0);
    expect(server.deadLetters.total).toBe(0);
  }, 120_000);

  test("a full mailbox holds the stream back, the window bounds what is under way, and nothing is dropped", async () => {
    const { server, client, peer } = await pair();
    const state = gate();
    let release!: () => void;
    state.open = new Promise((resolve) => (release = resolve));
    server.spawn(sink(state), { name: "sink", mailbox: { capacity: 4 } });
    const ref = peer.ref(Sink, "sink");
    let accepted = 0;
    await until(() => {
      while (ref.cast("note", { i: accepted }, { delivery: "reliable" }) === "accepted") accepted += 1;
      return accepted > 1024;
    });
    // Five were taken (one by the handler, four wait in its mailbox); the window holds 1024 more.
    await until(() => peer.reliableReport().waitingMessages === 1024);
    expect(ref.cast("note", { i: -1 }, { delivery: "reliable" })).toBe("full");
    expect(state.seen).toEqual([]);
    release();
    await until(() => state.seen.length === accepted);
    expect(state.seen).toEqual(range(accepted));
    expect([client.deadLetters.total, server.deadLetters.total]).toEqual([0, 0]);
  });

  test("a replaced incarnation, a missing actor and one that stops: the rest are counted dead letters", async () => {
    const serverKeys = curveKeys();
    const clientKeys = curveKeys();
    const endpoint = ipc();
    const client = system("client");
    const start = async (): Promise<{ server: System; state: Gate }> => {
      const server = system("server");
      await server.listen({ endpoint, keys: serverKeys, allow: "any" });
      const state = gate();
      server.spawn(sink(state), { name: "sink" });
      return { server, state };
    };
    const first = await start();
    const peer = await client.connect({ endpoint, serverKey: serverKeys.publicKey, keys: clientKeys, timeoutMs: 10_000 });
    const ref = peer.ref(Sink, "sink");
    expect(ref.cast("note", { i: 0 }, { delivery: "reliable" })).toBe("accepted");
    await until(() => peer.reliableReport().waitingMessages === 0);

    const missing = peer.ref(Sink, "missing");
    for (let i = 0; i < 3; i++) expect(missing.cast("note", { i }, { delivery: "reliable" })).toBe("accepted");
    await until(() => client.deadLetters.counts().undeliverable === 3);

    await first.server.shutdown({ deadlineMs: 500 });
    await until(() => !peer.isUp);
    for (let i = 1; i < 6; i++) expect(ref.cast("note", { i }, { delivery: "reliable" })).toBe("accepted");
    expect(peer.reliableReport().waitingMessages).toBe(5);
    const second = await start();
    await until(() => peer.state === "replaced");
    expect(client.deadLetters.counts().undeliverable).toBe(8);
    expect(ref.cast("note", { i: 6 }, { delivery: "reliable" })).toBe("stopped");
    expect(first.state.seen).toEqual([0]);

    const again = client.peer(serverKeys.publicKey)!.ref(Sink, "sink");
    let release!: () => void;
    second.state.open = new Promise((resolve) => (release = resolve));
    const held = second.server.spawn(sink(second.state), { name: "held", mailbox: { capacity: 1 } });
    const heldRef = client.peer(serverKeys.publicKey)!.ref(Sink, "held");
    for (let i = 0; i < 5; i++) expect(heldRef.cast("note", { i }, { delivery: "reliable" })).toBe("accepted");
    await until(() => client.peer(serverKeys.publicKey)!.reliableReport().waitingMessages === 3);
    const stopped = second.server.stop(held);
    release();
    await stopped;
    await until(() => client.deadLetters.counts().undeliverable === 11);
    second.state.open = undefined;
    expect(again.cast("note", { i: 100 }, { delivery: "reliable" })).toBe("accepted");
    await until(() => second.state.seen.includes(100));
  });

  test("what was accepted leaves before the system that sent it ends", async () => {
    const { server, client, peer } = await pair();
    const state = gate();
    server.spawn(sink(state), { name: "sink" });
    for (let i = 0; i < 500; i++) peer.ref(Sink, "sink").cast("note", { i }, { delivery: "reliable" });
    await client.shutdown({ deadlineMs: 5000 });
    expect(state.seen).toEqual(range(500));
    expect(client.deadLetters.total).toBe(0);
  });
});

describe("received memory", () => {
  test("that was released is empty for its user and whole again for the next message", async () => {
    const { server, peer } = await pair({ endpoint: "tcp://127.0.0.1:0" });
    const lengths: number[] = [];
    const sums: number[] = [];
    const memories = new Set<ArrayBufferLike>();
    server.spawn(
      behavior(Sink, () => ({
        call: { slow: () => 0, count: () => sums.length },
        cast: {
          note: ({ x }) => {
            sums.push(x!.reduce((sum, each) => sum + each, 0));
            memories.add(x!.buffer);
            releaseTensors({ deep: [x] });
            lengths.push(x!.length);
            releaseTensors(x); // a second time: nothing left to give
          },
        },
      })),
      { name: "sink" },
    );
    for (let i = 1; i <= 5; i++) {
      expect(peer.ref(Sink, "sink").cast("note", { i, x: new Float32Array(200_000).fill(i) })).toBe("accepted");
      await until(() => sums.length === i);
    }
    expect(sums).toEqual([200_000, 400_000, 600_000, 800_000, 1_000_000]);
    expect(lengths).toEqual([0, 0, 0, 0, 0]);
    expect(memories.size).toBe(5); // never the same ArrayBuffer: whoever kept the old one sees nothing of the new
  });
});

describe("calls given up", () => {
  test("a timeout and an abort reach the callee: its signal fires, a queued call never runs", async () => {
    const { server, peer } = await pair();
    const state = gate();
    server.spawn(sink(state), { name: "sink" });
    const ref = peer.ref(Sink, "sink");
    const abort = new AbortController();
    const running = ref.call("slow", null, { timeoutMs: 60_000, signal: abort.signal });
    await until(() => state.slowRuns === 1);
    const queued = new AbortController();
    const waiting = ref.call("slow", null, { timeoutMs: 60_000, signal: queued.signal });
    queued.abort();
    expect(await waiting).toMatchObject({ error: { code: "aborted" } });
    abort.abort();
    expect(await running).toMatchObject({ error: { code: "aborted" } });
    await until(() => state.cancelled === 1);
    await until(() => server.deadLetters.counts().expired === 1);
    expect(state.slowRuns).toBe(1);
    expect(await ref.call("slow", null, { timeoutMs: 40 })).toMatchObject({ error: { code: "timeout" } });
    await until(() => state.cancelled === 2);
    expect(await ref.call("count", null)).toEqual({ ok: true, value: 0 });
  });

  test("the signal fires when the caller's link goes", async () => {
    const { server, client, peer } = await pair();
    const state = gate();
    server.spawn(sink(state), { name: "sink" });
    const hung = peer.ref(Sink, "sink").call("slow", null, { timeoutMs: 60_000 });
    await until(() => state.slowRuns === 1);
    client.disconnect(peer.nodeId);
    expect(await hung).toMatchObject({ error: { code: "unreachable" } });
    await until(() => state.cancelled === 1);
  });
});

describe("a mailbox that waits", () => {
  test("holds its remote senders by their credit: nothing dropped, order kept, memory bounded, others go on", async () => {
    const { server, client, peer } = await pair();
    const [state, other] = [gate(), gate()];
    let release!: () => void;
    state.open = new Promise((resolve) => (release = resolve));
    const mailbox: MailboxOptions = { capacity: 4, overflow: "wait" };
    server.spawn(sink(state), { name: "sink", mailbox });
    server.spawn(sink(other), { name: "other" });
    const ref = peer.ref(Sink, "sink");
    let accepted = 0;
    for (; accepted < 1000; accepted++) expect(ref.cast("note", { i: accepted })).toBe("accepted");
    peer.ref(Sink, "other").cast("note", { i: 0 });
    await until(() => other.seen.length === 1); // the window is not used up: others are served
    const payload = new Float32Array(10_000);
    await until(() => {
      let isFull = false;
      for (let i = 0; i < 200 && !isFull; i++) {
        if (ref.cast("note", { i: accepted, x: payload }) === "accepted") accepted += 1;
        else isFull = true;
      }
      return isFull;
    });
    const { lanes } = server.links()[0]!;
    expect(lanes[1]!.receivedBytes).toBeLessThan(8 * 1024 * 1024); // its window and the frame that overshoots it
    expect(state.seen).toEqual([]);
    release();
    await until(() => state.seen.length === accepted);
    expect(state.seen).toEqual(range(accepted));
    expect([client.deadLetters.total, server.deadLetters.total]).toEqual([0, 0]);
  });

  test("what was held goes, counted, with its link", async () => {
    const { server, client, peer } = await pair();
    const state = gate();
    let release!: () => void;
    state.open = new Promise((resolve) => (release = resolve));
    server.spawn(sink(state), { name: "sink", mailbox: { capacity: 2, overflow: "wait" } });
    for (let i = 0; i < 10; i++) peer.ref(Sink, "sink").cast("note", { i });
    const later = peer.ref(Sink, "sink").call("count", null, { timeoutMs: 10_000 });
    await until(() => server.links()[0]!.lanes[1]!.recordsReceived === 11);
    client.disconnect(peer.nodeId);
    expect(await later).toMatchObject({ error: { code: "unreachable" } });
    await until(() => server.deadLetters.counts().undeliverable === 8); // seven casts and the call behind them
    release();
    await until(() => state.seen.length === 3);
    expect(state.seen).toEqual([0, 1, 2]);
  });
});

describe("link versions", () => {
  test("an old peer keeps working: calls and casts go, reliable casts say so and are counted", async () => {
    const { server, client, peer } = await pair({ linkVersionMax: 1 });
    const state = gate();
    server.spawn(sink(state), { name: "sink" });
    const ref = peer.ref(Sink, "sink");
    expect(client.links()[0]!.version).toBe(1);
    expect(server.links()[0]!.version).toBe(1);
    expect(ref.cast("note", { i: 7 })).toBe("accepted");
    expect(await ref.call("count", null)).toEqual({ ok: true, value: 1 });
    expect(await ref.call("slow", null, { timeoutMs: 30 })).toMatchObject({ error: { code: "timeout" } });
    expect(ref.cast("note", { i: 8 }, { delivery: "reliable" })).toBe("stopped");
    expect(client.deadLetters.counts().undeliverable).toBe(1);
    await until(() => state.cancelled === 1); // by its deadline: an old link carries no cancellation
  });

  test("two new ones speak the new version, and a version that does not exist is refused", async () => {
    const { client } = await pair();
    expect(client.links()[0]!.version).toBe(3);
    const options = { endpoint: ipc(), serverKey: curveKeys().publicKey, keys: curveKeys() };
    await expect(client.connect({ ...options, linkVersionMax: 4 })).rejects.toMatchObject({ code: "bad-option" });
  });
});

describe("two links to one node", () => {
  test("calls under way on the one that is lost fail at once; the other goes on", async () => {
    let proxy!: CuttingProxy;
    const { server, client, serverKeys, clientKeys, peer } = await pair({ endpoint: "tcp://127.0.0.1:0", proxied: (made) => void (proxy = made) });
    const back = await client.listen({ endpoint: ipc(), keys: clientKeys, allow: (key) => key === serverKeys.publicKey });
    await server.connect({ endpoint: back.endpoint, serverKey: clientKeys.publicKey, keys: serverKeys });
    await until(() => client.links().length === 2);
    const state = gate();
    server.spawn(sink(state), { name: "sink" });
    const ref = peer.ref(Sink, "sink");
    const lost = ref.call("slow", null, { timeoutMs: 60_000 });
    await until(() => state.slowRuns === 1);
    proxy.nextCutBytes = () => 0;
    proxy.cutAll();
    expect(await lost).toMatchObject({ error: { code: "unreachable" } });
    expect(peer.isUp).toBe(true);
    expect(await ref.call("count", null)).toEqual({ ok: true, value: 0 });
  });
});
