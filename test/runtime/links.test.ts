// Two systems and a real network between them, in one process: identity, calls, watches, tensors, hostile peers.
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import * as zmq from "zeromq";
import { z } from "zod";
import {
  behavior, createSystem, curveKeys, defineProtocol, Refusal, settle, silentLogger,
  type CurveKeys, type Listener, type Peer, type StopReason, type System,
} from "../../src/runtime/index.js";
import { toZ85 } from "../../src/runtime/remote/keys.js";
import { createFrame, FrameKind } from "../../src/runtime/wire/frame.js";

const directory = mkdtempSync(join(tmpdir(), "links-"));
const open: System[] = [];
let sockets = 0;
function system(name = "node"): System {
  const made = createSystem({ name, logger: silentLogger });
  open.push(made);
  return made;
}
const ipc = (): string => `ipc://${join(directory, `s${++sockets}`)}`;
afterEach(async () => {
  for (const each of open.splice(0)) await each.shutdown({ deadlineMs: 500 });
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const floats = z.custom<Float32Array>((value) => value instanceof Float32Array);
const Echo = defineProtocol("echo", 2, {
  compatibleFrom: 1,
  call: {
    twice: { request: z.object({ n: z.number() }), reply: z.number() },
    echo: { request: z.object({ x: floats }), reply: z.object({ x: floats }) },
    refuse: { request: z.null(), reply: z.null() },
    crash: { request: z.null(), reply: z.null() },
    hang: { request: z.null(), reply: z.null() },
    wrong: { request: z.null(), reply: z.number() },
    whoami: { request: z.null(), reply: z.string() },
    callBack: { request: z.object({ target: z.string() }), reply: z.string() },
  },
  cast: { note: z.object({ i: z.number() }), tensor: z.object({ i: z.number(), x: floats }) },
});
const notes: number[] = [];
const echo = (seen: number[] = notes) =>
  behavior(Echo, () => ({
    call: {
      twice: ({ n }) => n * 2,
      echo: ({ x }) => ({ x }),
      refuse: () => {
        throw new Refusal("busy", "come back later", { inMs: 5 });
      },
      crash: () => {
        throw new Error("crashed");
      },
      hang: () => new Promise<null>(() => undefined),
      wrong: () => "not a number" as unknown as number,
      whoami: (_m, meta) => meta.sender?.nodeId ?? "local",
      callBack: async ({ target }, meta) => {
        const back = (meta.sender!.link as Peer).ref(Echo, target);
        const answer = await back.call("twice", { n: 21 }, { timeoutMs: 2000 });
        return answer.ok ? String(answer.value) : answer.error.code;
      },
    },
    cast: { note: ({ i }) => void seen.push(i), tensor: ({ i }) => void seen.push(i) },
  }));

interface Pair {
  server: System;
  client: System;
  serverKeys: CurveKeys;
  clientKeys: CurveKeys;
  listener: Listener;
  peer: Peer;
}
async function pair(endpoint = ipc(), options: { plain?: boolean } = {}): Promise<Pair> {
  const [server, client] = [system("server"), system("client")];
  const [serverKeys, clientKeys] = [curveKeys(), curveKeys()];
  const listener = await server.listen({ endpoint, keys: serverKeys, allow: (k) => k === clientKeys.publicKey, ...options });
  const peer = await client.connect({
    endpoint: listener.endpoint, serverKey: serverKeys.publicKey, keys: clientKeys, timeoutMs: 5000, ...options,
  });
  return { server, client, serverKeys, clientKeys, listener, peer };
}
async function until(test: () => boolean, limitMs = 5000): Promise<void> {
  const end = performance.now() + limitMs;
  while (!test()) {
    if (performance.now() > end) throw new Error("condition not reached in time");
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

describe.each([
  ["ipc", () => ipc(), {}],
  ["tcp", () => "tcp://127.0.0.1:0", {}],
  ["plain ipc", () => ipc(), { plain: true }],
] as const)("over %s", (_name, endpoint, options) => {
  test("calls, refusals, faults, schema checks, call-back and identity", async () => {
    const { server, client, clientKeys, serverKeys, peer } = await pair(endpoint(), options);
    server.spawn(echo(), { name: "echo" });
    client.spawn(echo(), { name: "mine" });
    const ref = peer.ref(Echo, "echo");
    expect(peer.nodeId).toBe(serverKeys.publicKey);
    expect(await ref.call("twice", { n: 4 })).toEqual({ ok: true, value: 8 });
    expect(await ref.call("whoami", null)).toEqual({ ok: true, value: clientKeys.publicKey });
    expect(await ref.call("callBack", { target: "mine" })).toEqual({ ok: true, value: "42" });
    expect(await ref.call("refuse", null)).toEqual({
      ok: false, error: { code: "refused", reason: "busy", message: "come back later", data: { inMs: 5 } },
    });
    expect(await ref.call("crash", null)).toMatchObject({ ok: false, error: { code: "fault" } });
    expect(await ref.call("twice", { n: "x" as unknown as number })).toMatchObject({ ok: false, error: { code: "protocol" } });
    expect(await ref.call("wrong", null)).toMatchObject({ ok: false, error: { code: "protocol" } });
    expect(await ref.call("hang", null, { timeoutMs: 60 })).toMatchObject({ ok: false, error: { code: "timeout" } });
    expect(await peer.ref(Echo, "nobody").call("twice", { n: 1 })).toMatchObject({ error: { code: "stopped" } });
    expect(await ref.call("echo", { x: (() => 1) as unknown as Float32Array })).toMatchObject({ error: { code: "protocol" } });
    expect(server.peer(clientKeys.publicKey)!.isUp).toBe(true);
  });

  test("casts keep their order and tensors arrive bit-equal", async () => {
    const { server, peer } = await pair(endpoint(), options);
    const seen: number[] = [];
    server.spawn(echo(seen), { name: "echo", mailbox: { capacity: 100_000 } });
    const ref = peer.ref(Echo, "echo");
    for (let i = 0; i < 20_000; i++) expect(ref.cast("note", { i })).toBe("accepted");
    await until(() => seen.length === 20_000);
    expect(seen).toEqual([...seen.keys()]);

    for (const length of [0, 1, 300, 16_384, 1_000_003]) {
      const bits = new Uint32Array(length).map((_, i) => Math.imul(i, 2654435761));
      const answer = await ref.call("echo", { x: new Float32Array(bits.buffer) }, { timeoutMs: 20_000 });
      if (!answer.ok) throw new Error(answer.error.message);
      const { x } = answer.value;
      expect(Buffer.compare(Buffer.from(x.buffer, x.byteOffset, x.byteLength), Buffer.from(bits.buffer))).toBe(0);
    }
  });
});

describe("identity", () => {
  test("a key that is not allowed is refused, before it can send anything", async () => {
    const server = system();
    const keys = curveKeys();
    const asked: string[] = [];
    const listener = await server.listen({ endpoint: ipc(), keys, allow: (k) => (asked.push(k), false) });
    const mine = curveKeys();
    await expect(
      system().connect({ endpoint: listener.endpoint, serverKey: keys.publicKey, keys: mine, timeoutMs: 3000 }),
    ).rejects.toMatchObject({ code: "connect-refused", message: expect.stringContaining("allow-list") as string });
    expect(asked).toContain(mine.publicKey);
    expect(server.peers()).toEqual([]);
  });

  test("an allow-list that throws refuses", async () => {
    const server = system();
    const keys = curveKeys();
    const allow = (): boolean => {
      throw new Error("broken list");
    };
    const listener = await server.listen({ endpoint: ipc(), keys, allow });
    await expect(
      system().connect({ endpoint: listener.endpoint, serverKey: keys.publicKey, keys: curveKeys(), timeoutMs: 3000 }),
    ).rejects.toMatchObject({ code: "connect-refused" });
  });

  test("a wrong server key and a silent address time out with the reason", async () => {
    const server = system();
    const listener = await server.listen({ endpoint: ipc(), keys: curveKeys(), allow: "any" });
    const attempt = (endpoint: string): Promise<unknown> =>
      system().connect({ endpoint, serverKey: curveKeys().publicKey, keys: curveKeys(), timeoutMs: 1500 });
    await expect(attempt(listener.endpoint)).rejects.toMatchObject({
      code: "connect-timeout", message: expect.stringMatching(/server's key/) as string,
    });
    await expect(attempt(ipc())).rejects.toMatchObject({
      code: "connect-timeout", message: expect.stringMatching(/nobody listens/) as string,
    });
  });

  test("an allowed key cannot claim another node's id", async () => {
    // Plain link, so that only the proof stands between the liar and the name it claims.
    const server = system();
    const [keys, honest, liar] = [curveKeys(), curveKeys(), curveKeys()];
    const listener = await server.listen({ endpoint: ipc(), keys, allow: "any", plain: true });
    const forged = { publicKey: honest.publicKey, secretKey: liar.secretKey };
    await expect(
      system().connect({ endpoint: listener.endpoint, serverKey: keys.publicKey, keys: forged, plain: true }),
    ).rejects.toMatchObject({ code: "bad-key" });

    const { encodeHello } = await import("../../src/runtime/remote/handshake.js");
    const dealer = new zmq.Dealer({ linger: 0, routingId: "liar-control" });
    dealer.connect(listener.endpoint);
    const hello = encodeHello({
      versionMin: 1, versionMax: 1, nodeId: honest.publicKey, serverId: keys.publicKey, incarnation: "00".repeat(8),
      nonce: new Uint8Array(32), lanes: [Buffer.from("liar-message"), Buffer.from("liar-bulk")],
    });
    await dealer.send(createFrame(FrameKind.hello, 0, 0, 0, hello));
    const [challenge] = await dealer.receive();
    expect(challenge![1]).toBe(FrameKind.challenge);
    await dealer.send(createFrame(FrameKind.proof, 0, 0, 0, new Uint8Array(32)));
    await until(() => metric(server, "runtime_handshakes_refused_total") > 0);
    expect(server.peers()).toEqual([]);
    dealer.close();
  });

  test("plain is for loopback only, and keys are checked", async () => {
    const sys = system();
    const keys = curveKeys();
    await expect(sys.listen({ endpoint: "tcp://0.0.0.0:0", keys, allow: "any", plain: true })).rejects.toMatchObject({
      code: "insecure-endpoint",
    });
    await expect(sys.listen({ endpoint: "udp://x", keys, allow: "any" })).rejects.toMatchObject({ code: "bad-option" });
    await expect(sys.listen({ endpoint: ipc(), keys: { ...keys, publicKey: curveKeys().publicKey }, allow: "any" })).rejects
      .toMatchObject({ code: "bad-key" });
    await expect(sys.listen({ endpoint: `ipc:///tmp/${"x".repeat(120)}`, keys, allow: "any" })).rejects.toMatchObject({
      code: "listen-failed",
    });
  });

  test("an ipc path in use is not stolen", async () => {
    const endpoint = ipc();
    await system().listen({ endpoint, keys: curveKeys(), allow: "any" });
    await expect(system().listen({ endpoint, keys: curveKeys(), allow: "any" })).rejects.toMatchObject({ code: "listen-failed" });
  });
});

function metric(sys: System, name: string): number {
  const { metrics } = sys.host as unknown as { metrics: { collect(): { name: string; value: number }[] } };
  return metrics.collect().find((sample) => sample.name === name)?.value ?? Number.NaN;
}

describe("loss", () => {
  test("a remote watch fires once: on stop, on absence, on loss", async () => {
    const { server, client, clientKeys, serverKeys, peer } = await pair();
    const target = server.spawn(echo(), { name: "target" });
    server.spawn(echo(), { name: "other" });
    const reasons: Record<string, StopReason[]> = { target: [], none: [], other: [], late: [] };
    const watch = (name: string) => peer.ref(Echo, name).watch((reason) => reasons[name]!.push(reason));
    watch("target");
    watch("none");
    watch("other");
    const taken: StopReason[] = [];
    const end = peer.ref(Echo, "other").watch((reason) => taken.push(reason));
    end();
    await peer.ref(Echo, "other").call("twice", { n: 1 }); // the watches have arrived before this
    await server.stop(target);
    await until(() => reasons["target"]!.length > 0 && reasons["none"]!.length > 0);
    expect(reasons["none"]).toMatchObject([{ code: "not-found" }]);
    expect(reasons["target"]).toMatchObject([{ code: "normal" }]);
    const hung = peer.ref(Echo, "other").call("hang", null, { timeoutMs: 20_000 });
    const downs: string[] = [];
    peer.onDown((down) => downs.push(down.end));
    await settle();
    server.disconnect(clientKeys.publicKey);
    client.disconnect(serverKeys.publicKey);
    expect(await hung).toMatchObject({ ok: false, error: { code: "unreachable" } });
    await until(() => reasons["other"]!.length > 0);
    expect(reasons["other"]).toMatchObject([{ code: "unreachable" }]);
    expect(downs).toHaveLength(1);
    expect(taken).toEqual([]);
    expect(peer.ref(Echo, "other").cast("note", { i: 1 })).toBe("stopped");
    watch("late" as "other");
    await until(() => reasons["late"]!.length === 1);
    await settle();
    expect(reasons["target"]).toHaveLength(1);
  });

  test("a server that comes back is linked again; another incarnation ends the old refs", async () => {
    const { server, client, clientKeys, serverKeys, listener, peer } = await pair();
    server.spawn(echo(), { name: "echo" });
    const old = peer.ref(Echo, "echo");
    expect(await old.call("twice", { n: 1 })).toEqual({ ok: true, value: 2 });
    const reasons: StopReason[] = [];
    old.watch((reason) => reasons.push(reason));
    await old.call("twice", { n: 1 });
    const next = new Promise<Peer>((resolve) => client.onPeer(resolve));
    await server.shutdown({ deadlineMs: 500 });
    await until(() => reasons.length === 1);
    const reborn = system("server");
    reborn.spawn(echo(), { name: "echo" });
    await reborn.listen({ endpoint: listener.endpoint, keys: serverKeys, allow: (k) => k === clientKeys.publicKey });
    const fresh = await next;
    expect(fresh).not.toBe(peer);
    expect(peer.state).toBe("replaced");
    expect(await old.call("twice", { n: 1 })).toMatchObject({ ok: false, error: { code: "unreachable" } });
    expect(await fresh.ref(Echo, "echo").call("twice", { n: 3 })).toEqual({ ok: true, value: 6 });
    await settle();
    expect(reasons).toHaveLength(1);
  });

  test("a lost link of the same incarnation revives its refs", async () => {
    const { server, client, clientKeys, peer } = await pair();
    server.spawn(echo(), { name: "echo" });
    const back = new Promise<Peer>((resolve) => client.onPeer(resolve));
    server.disconnect(clientKeys.publicKey);
    await until(() => !peer.isUp);
    expect(await back).toBe(peer);
    expect(await peer.ref(Echo, "echo").call("twice", { n: 5 })).toEqual({ ok: true, value: 10 });
  });
});

describe("limits and versions", () => {
  test("an outbox that fills says full, and drains when the receiver works again", async () => {
    const { server, peer } = await pair(ipc(), { plain: true });
    const seen: number[] = [];
    server.spawn(echo(seen), { name: "echo", mailbox: { capacity: 10_000 } });
    const ref = peer.ref(Echo, "echo");
    const x = new Float32Array(4 * 1024 * 1024);
    let accepted = 0;
    while (accepted < 1000 && ref.cast("tensor", { i: accepted, x }) === "accepted") accepted += 1;
    expect(accepted).toBeGreaterThan(4);
    expect(accepted).toBeLessThan(30); // 256 MiB of outbox and 16 MiB under way
    expect(await ref.call("twice", { n: 2 }, { timeoutMs: 2000 })).toEqual({ ok: true, value: 4 }); // overtakes the bulk
    await until(() => seen.length === accepted, 20_000);
    expect(ref.cast("tensor", { i: accepted, x: new Float32Array(10) })).toBe("accepted");
  });

  test("a message over the limits is refused at the sender", async () => {
    const { server, peer } = await pair();
    server.spawn(echo(), { name: "echo" });
    const Big = defineProtocol("echo", 2, { call: { twice: { request: z.string(), reply: z.number() } } });
    const answer = await peer.ref(Big, "echo").call("twice", "x".repeat(5 * 1024 * 1024));
    expect(answer).toMatchObject({ ok: false, error: { code: "too-large" } });
  });

  test("versions overlap or the call says protocol; children and hidden actors are out of reach", async () => {
    const { server, peer } = await pair();
    server.spawn(echo(), { name: "echo" });
    server.spawn(echo(), { name: "hidden", remote: false });
    const shape = { call: { twice: { request: z.object({ n: z.number() }), reply: z.number() } } };
    const at = (version: number, compatibleFrom: number) =>
      peer.ref(defineProtocol("echo", version, { ...shape, compatibleFrom }), "echo").call("twice", { n: 1 });
    expect(await at(1, 1)).toEqual({ ok: true, value: 2 });
    expect(await at(3, 2)).toEqual({ ok: true, value: 2 });
    expect(await at(3, 3)).toMatchObject({ error: { code: "protocol" } });
    expect(await peer.ref(Echo, "hidden").call("twice", { n: 1 })).toMatchObject({ error: { code: "stopped" } });
  });

  test("a call cycle across nodes fails at once", async () => {
    const { server, client, clientKeys, peer } = await pair();
    const Ring = defineProtocol("ring", 1, { call: { go: { request: z.number(), reply: z.string() } } });
    const ring = (next: () => Peer, name: string) =>
      behavior(Ring, () => ({
        call: {
          go: async (left: number) => {
            const answer = await next().ref(Ring, name).call("go", left - 1, { timeoutMs: 20_000 });
            return answer.ok ? answer.value : answer.error.code;
          },
        },
      }));
    client.spawn(ring(() => peer, "b"), { name: "a" });
    server.spawn(ring(() => server.peer(clientKeys.publicKey)!, "a"), { name: "b" });
    const started = performance.now();
    expect(await peer.ref(Ring, "b").call("go", 9, { timeoutMs: 20_000 })).toEqual({ ok: true, value: "cycle" });
    expect(performance.now() - started).toBeLessThan(5000);
  });
});

describe("hostile peers on a real socket", () => {
  test("garbage before and inside the handshake is dropped, and honest links live on", async () => {
    const { server, serverKeys, listener, peer } = await pair(ipc(), { plain: true });
    server.spawn(echo(), { name: "echo" });
    const dealer = new zmq.Dealer({ linger: 0, sendTimeout: 1000 });
    dealer.connect(listener.endpoint);
    let seed = 1;
    const random = (n: number): number => (seed = (Math.imul(seed, 1103515245) + 12345) >>> 0) % n;
    for (let i = 0; i < 3000; i++) {
      const body = Buffer.from(Array.from({ length: random(80) }, () => random(256)));
      const kinds = Object.values(FrameKind);
      const frame = random(2) === 0 ? body : createFrame(kinds[random(kinds.length)]!, random(300), random(3), random(1000), body);
      await dealer.send(random(4) === 0 ? [frame, body] : frame);
    }
    expect(await peer.ref(Echo, "echo").call("twice", { n: 7 })).toEqual({ ok: true, value: 14 });
    await until(() => metric(server, "runtime_handshakes_refused_total") >= 3000);
    expect(server.peers()).toHaveLength(1);
    expect(serverKeys.publicKey).toBe(listener.nodeId);
    dealer.close();
  });

  test("without CURVE, or with a key that is not allowed, nothing reaches a CURVE listener", async () => {
    const { server, serverKeys, listener } = await pair();
    const plain = new zmq.Dealer({ linger: 0 });
    const stranger = curveKeys();
    const denied = new zmq.Dealer({
      linger: 0, curveServerKey: toZ85(serverKeys.publicKey), curvePublicKey: toZ85(stranger.publicKey),
      curveSecretKey: toZ85(stranger.secretKey),
    });
    for (const dealer of [plain, denied]) {
      const down = new Promise<string>((resolve) => {
        void (async () => {
          for (;;) {
            const event = await dealer.events.receive();
            if (event.type.startsWith("handshake:error") || event.type === "disconnect") return resolve(event.type);
          }
        })();
      });
      dealer.connect(listener.endpoint);
      await dealer.send(createFrame(FrameKind.hello, 0, 0, 0));
      await down;
      dealer.close();
    }
    expect(metric(server, "runtime_handshakes_refused_total")).toBe(0);
    expect(server.peers()).toHaveLength(1);
  });
});

test("shutdown removes the ipc file and closes every link", async () => {
  const { server, client, listener } = await pair();
  const path = listener.endpoint.slice("ipc://".length);
  expect(existsSync(path)).toBe(true);
  await server.shutdown();
  await client.shutdown();
  expect(existsSync(path)).toBe(false);
  expect(readdirSync(directory)).toEqual([]);
  await expect(client.connect({ endpoint: listener.endpoint, serverKey: curveKeys().publicKey, keys: curveKeys() })).rejects
    .toMatchObject({ code: "shut-down" });
});
