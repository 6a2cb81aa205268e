// Hostile peers over real sockets: each harms nobody but itself. In every test an honest peer calls without a pause while
// the attack runs, and each of its calls must succeed.
import { mkdtempSync, rmSync } from "node:fs";
import { createConnection, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import * as zmq from "zeromq";
import { z } from "zod";
import {
  behavior, createSystem, curveKeys, defineProtocol, silentLogger, VirtualClock,
  type CurveKeys, type Peer, type Ref, type System,
} from "../../src/runtime/index.js";
import { createNodeHost, MetricsRegistry } from "../../src/runtime/host/node-host.js";
import { PenaltyBox } from "../../src/runtime/remote/penalty-box.js";
import { toZ85 } from "../../src/runtime/remote/keys.js";
import { Link } from "../../src/runtime/remote/link.js";
import { RecordKind } from "../../src/runtime/remote/record.js";
import type { Channel } from "../../src/runtime/remote/transport.js";
import { createFrame, FrameKind } from "../../src/runtime/wire/frame.js";
import { CAST_RUN_MAX, FRAME_BYTES_MAX, MESSAGE_OUTBOX_BYTES_MAX } from "../../src/runtime/wire/limits.js";
import { RawPeer, type RawPeerOptions } from "./raw-peer.js";

const directory = mkdtempSync(join(tmpdir(), "hostile-"));
const systems: System[] = [];
const raw: { close(): void }[] = [];
let number = 0;
afterEach(async () => {
  for (const each of raw.splice(0)) each.close();
  for (const each of systems.splice(0)) await each.shutdown({ deadlineMs: 500 });
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const Echo = defineProtocol("echo", 1, {
  call: {
    twice: { request: z.number(), reply: z.number() },
    hang: { request: z.null(), reply: z.null() },
    fill: { request: z.number(), reply: z.string() },
  },
  cast: { note: z.number() },
});
const echo = behavior(Echo, () => ({
  call: { twice: (n) => n * 2, hang: () => new Promise<null>(() => undefined), fill: (sizeBytes) => "x".repeat(sizeBytes) },
  cast: { note: () => undefined },
}));

interface Arena {
  readonly server: System;
  readonly endpoint: string;
  readonly serverKeys: CurveKeys;
  readonly echo: Ref<typeof Echo>;
  readonly peer: Peer;
  metric(name: string): number;
  attacker(options?: Partial<RawPeerOptions>): Promise<RawPeer>;
  /** Honest calls run while `attack` does; fails when one of them does not succeed. */
  during(attack: () => Promise<void>): Promise<void>;
}

async function arena({ plain = false, tcp = false, allow = "any" as "any" | "honest" } = {}): Promise<Arena> {
  const metrics = new MetricsRegistry();
  const server = createSystem({ name: "server", logger: silentLogger, metrics });
  const client = createSystem({ name: "client", logger: silentLogger });
  systems.push(client, server);
  const [serverKeys, clientKeys] = [curveKeys(), curveKeys()];
  server.spawn(echo, { name: "echo" });
  server.spawn(echo, { name: "victim", mailbox: { capacity: 100 } });
  const listener = await server.listen({
    endpoint: tcp ? "tcp://127.0.0.1:0" : `ipc://${join(directory, `s${++number}`)}`,
    keys: serverKeys, plain, allow: allow === "any" ? "any" : (key) => key === clientKeys.publicKey,
  });
  const peer = await client.connect({ endpoint: listener.endpoint, serverKey: serverKeys.publicKey, keys: clientKeys, plain });
  const ref = peer.ref(Echo, "echo");
  return {
    server, serverKeys, peer, endpoint: listener.endpoint, echo: ref,
    metric: (name) => metrics.collect().filter((sample) => sample.name === name).reduce((sum, each) => sum + each.value, 0),
    attacker: async (options = {}) => {
      const made = await RawPeer.open({ endpoint: listener.endpoint, serverKey: serverKeys.publicKey, plain, ...options });
      raw.push(made);
      return made;
    },
    during: async (attack) => {
      let isOver = false;
      let calls = 0;
      const failures: unknown[] = [];
      const honest = (async () => {
        do {
          const answer = await ref.call("twice", calls, { timeoutMs: 20_000 });
          if (!answer.ok || answer.value !== calls * 2) failures.push(answer);
          calls += 1;
        } while (!isOver && failures.length === 0);
      })();
      try {
        await attack();
      } finally {
        isOver = true;
        await honest;
      }
      expect(failures).toEqual([]);
      expect(peer.isUp).toBe(true);
    },
  };
}

async function until(test: () => boolean, what: string, limitMs = 15_000): Promise<void> {
  const endMs = performance.now() + limitMs;
  while (!test()) {
    if (performance.now() > endMs) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

const address = (target: string, name: string): unknown[] => [target, "echo", 1, 1, name];
const call = (id: number, target: string, name: string, payload: unknown, timeoutMs = 60_000): unknown[] =>
  [RecordKind.call, payload, null, id, timeoutMs, null, ...address(target, name)];

describe("before the link", () => {
  test("keys that are not allowed, wrong server keys, plain clients and foreign bytes never get past the door, and count", async () => {
    const field = await arena({ tcp: true, allow: "honest" });
    const { hostname, port } = new URL(field.endpoint.replace("tcp:", "http:"));
    await field.during(async () => {
      const stranger = (serverKey: string): zmq.Dealer => {
        const keys = curveKeys();
        return new zmq.Dealer({
          linger: 0, curveServerKey: toZ85(serverKey), curvePublicKey: toZ85(keys.publicKey), curveSecretKey: toZ85(keys.secretKey),
        });
      };
      const dealers = [
        ...Array.from({ length: 20 }, () => stranger(field.serverKeys.publicKey)),
        ...Array.from({ length: 5 }, () => stranger(curveKeys().publicKey)),
        ...Array.from({ length: 5 }, () => new zmq.Dealer({ linger: 0 })),
      ];
      raw.push(...dealers);
      for (const dealer of dealers) {
        dealer.connect(field.endpoint);
        await dealer.send(createFrame(FrameKind.hello, 0, 0, 0));
      }
      await until(() => field.metric("runtime_connections_rejected_total") >= dealers.length, "each was turned away");
      const ended: Promise<void>[] = [];
      for (const bytes of [Buffer.from("GET / HTTP/1.1\r\n\r\n"), Buffer.alloc(64), Buffer.alloc(5000, 0xff), Buffer.from("ff00000000000000017f", "hex")]) {
        const socket = createConnection({ host: hostname, port: Number(port) });
        raw.push({ close: () => socket.destroy() });
        socket.on("error", () => undefined).resume();
        ended.push(new Promise((resolve) => socket.once("close", () => resolve())));
        socket.end(bytes);
      }
      await Promise.all(ended);
    });
    expect(field.server.peers()).toHaveLength(1);
    expect(field.metric("runtime_handshakes_refused_total")).toBe(0);
  });

  test("connections that say nothing are cut off by the handshake's time limit", async () => {
    const field = await arena({ tcp: true });
    const { hostname, port } = new URL(field.endpoint.replace("tcp:", "http:"));
    await field.during(async () => {
      const silent = Array.from({ length: 50 }, (): Socket => {
        const socket = createConnection({ host: hostname, port: Number(port) });
        raw.push({ close: () => socket.destroy() });
        return socket.on("error", () => undefined).resume();
      });
      await Promise.all(silent.map((socket) => new Promise((resolve) => socket.once("close", resolve))));
    });
  }, 30_000);

  test("a flood of handshakes that are never finished keeps no honest peer out", async () => {
    const field = await arena({ plain: true });
    const late = createSystem({ name: "late", logger: silentLogger });
    systems.push(late);
    await field.during(async () => {
      // More than may be pending at once; each holds its place as long as it can.
      for (let i = 0; i < 100; i++) {
        const peer = new RawPeer({ endpoint: field.endpoint, serverKey: field.serverKeys.publicKey, plain: true });
        raw.push(peer);
        for (const dealer of peer.dealers) {
          const lanes = [0, 1].map(() => curveKeys().publicKey.slice(0, 16)).map((text) => Buffer.from(text));
          const { encodeHello } = await import("../../src/runtime/remote/handshake.js");
          const hello = encodeHello({
            versionMin: 1, versionMax: 1, nodeId: peer.keys.publicKey, serverId: field.serverKeys.publicKey,
            incarnation: "00".repeat(8), nonce: new Uint8Array(32), lanes: [lanes[0]!, lanes[1]!],
          });
          await dealer.send(createFrame(FrameKind.hello, 0, 0, 0, hello));
        }
      }
      const connected = await late.connect({
        endpoint: field.endpoint, serverKey: field.serverKeys.publicKey, keys: curveKeys(), plain: true,
      });
      expect(await connected.ref(Echo, "echo").call("twice", 4)).toEqual({ ok: true, value: 8 });
    });
    expect(field.metric("runtime_handshakes_refused_total")).toBeGreaterThanOrEqual(300 - 256);
  });

  test("a replayed handshake opens nothing, nor do taken channels, the server's own id, or a key of low order", async () => {
    const field = await arena({ plain: true });
    const victim = await field.attacker();
    const open = { endpoint: field.endpoint, serverKey: field.serverKeys.publicKey, plain: true };
    await field.during(async () => {
      victim.close();
      await until(() => field.server.peer(victim.keys.publicKey)?.isUp === false, "the victim's link is down");
      const replay = new RawPeer({ ...open, ids: victim.ids });
      raw.push(replay);
      for (const { lane, frame } of victim.sentHandshake) await replay.sendRaw(lane, Buffer.from(frame));
      await until(() => field.metric("runtime_handshakes_refused_total") > 0, "the replay was refused");
      expect(field.server.peer(victim.keys.publicKey)!.isUp).toBe(false);

      const other = await field.attacker();
      const thief = new RawPeer({ ...open, ids: [Buffer.from("thief-control"), other.ids[1]!, other.ids[2]!] });
      raw.push(thief);
      const before = field.metric("runtime_handshakes_refused_total");
      await thief.sendRaw(0, createFrame(FrameKind.hello, 0, 0, 0, thief.hello()));
      await until(() => field.metric("runtime_handshakes_refused_total") > before, "taken channels are refused");

      for (const keys of [field.serverKeys, { ...curveKeys(), publicKey: "00".repeat(32) }]) {
        const liar = new RawPeer({ ...open, keys });
        raw.push(liar);
        const refusedBefore = field.metric("runtime_handshakes_refused_total");
        await liar.sendRaw(0, createFrame(FrameKind.hello, 0, 0, 0, liar.hello()));
        await until(() => field.metric("runtime_handshakes_refused_total") > refusedBefore, "a false id is refused");
      }
      expect(other.received[0]).not.toContain(FrameKind.bye);
    });
  });

  test("a routing id that another peer has is not handed over", async () => {
    const field = await arena({ plain: true });
    const owner = await field.attacker();
    await field.during(async () => {
      const thief = new RawPeer({ endpoint: field.endpoint, serverKey: field.serverKeys.publicKey, plain: true, ids: owner.ids });
      raw.push(thief);
      for (let lane = 0; lane < 3; lane++) await thief.send(lane, FrameKind.bye, { sequence: 0 });
      await owner.send(0, FrameKind.ping);
      await owner.until(0, FrameKind.pong);
    });
    expect(field.server.peer(owner.keys.publicKey)!.isUp).toBe(true);
    expect(field.metric("runtime_link_violations_total")).toBe(0);
  });
});

/** What a peer with a link does wrong; each costs it the link. */
const VIOLATIONS: [name: string, attack: (peer: RawPeer) => Promise<void>][] = [
  ["replays a frame", async (peer) => {
    await peer.sendRecords([RecordKind.cast, 1, null, ...address("echo", "note")]);
    await peer.send(1, FrameKind.records, { sequence: 0 });
  }],
  ["skips a frame", (peer) => peer.send(1, FrameKind.records, { sequence: 7 })],
  ["grants credit for bytes that it never got", (peer) => peer.send(0, FrameKind.credit, { count: 1, value: 1e12 })],
  ["grants credit that is no number", (peer) => peer.send(0, FrameKind.credit, { count: 2, value: NaN })],
  ["grants credit to a lane that does not exist", (peer) => peer.send(0, FrameKind.credit, { count: 9, value: 0 })],
  ["sends a frame of an unknown kind", (peer) => peer.send(0, 99)],
  ["sends a frame without a header", async (peer) => void (await peer.dealers[1]!.send(Buffer.from([1, 2, 3])))],
  ["sends records on the control lane", async (peer) => {
    await peer.send(0, FrameKind.records, { count: 1, body: Buffer.from([3, 0, 0, 0, 0, 0, 0, 0, 0x93, 1, 2]) });
  }],
  ["sends more parts than a frame has", (peer) => peer.send(1, FrameKind.ping, { extra: [Buffer.alloc(1), Buffer.alloc(1)] })],
  ["sends a chunk of no transfer", (peer) => peer.send(2, FrameKind.chunk, { extra: [Buffer.alloc(10)] })],
  ["lies about the lengths in a batch", (peer) => peer.send(1, FrameKind.records, { count: 1, body: Buffer.from([255, 255, 255, 255, 0, 0, 0, 0, 1]) })],
  ["sends bytes that are no msgpack", (peer) => peer.send(1, FrameKind.records, { count: 1, body: Buffer.from([2, 0, 0, 0, 0, 0, 0, 0, 0xc1, 0xc1]) })],
  ["sends a record of no known kind", (peer) => peer.sendRecords([77, null, null])],
  ["watches without end", async (peer) => {
    for (let id = 0; id < 70_000; id += 250) {
      await peer.sendRecords(...Array.from({ length: 250 }, (_, i) => [RecordKind.watch, null, null, id + i, "echo"]));
    }
  }],
  ["sends messages that fit no protocol", async (peer) => {
    await peer.sendRecords(...Array.from({ length: 200 }, () => [RecordKind.cast, "no number", null, ...address("echo", "note")]));
  }],
  ["sends messages in a row that fit no protocol", (peer) => (
    peer.sendRecords([RecordKind.casts, Array.from({ length: 400 }, () => "no number"), null, ...address("echo", "note")])
  )],
  ["sends no message in a row", (peer) => peer.sendRecords([RecordKind.casts, [], null, ...address("echo", "note")])],
  ["sends more messages in a row than there may be", (peer) => (
    peer.sendRecords([RecordKind.casts, Array.from({ length: CAST_RUN_MAX + 1 }, () => 1), null, ...address("echo", "note")])
  )],
  ["sends a row that is no list", (peer) => peer.sendRecords([RecordKind.casts, { length: 3 }, null, ...address("echo", "note")])],
  ["sends a row with a trace", (peer) => peer.sendRecords([RecordKind.casts, [1], null, ...address("echo", "note"), "00-"])],
  ["sends reliable casts past their window to an actor that takes none", async (peer) => {
    await peer.sendRecords(call(1, "victim", "hang", null));
    const reliable = (sequence: number): unknown[] => [RecordKind.reliable, sequence, null, 1, sequence, ...address("victim", "note")];
    for (let first = 1; first < 1500; first += 250) await peer.sendRecords(...Array.from({ length: 250 }, (_, i) => reliable(first + i)));
  }],
  ["numbers a reliable cast with what is no number", (peer) => peer.sendRecords([RecordKind.reliable, 1, null, 1, -1, ...address("echo", "note")])],
  ["acknowledges with what is no number", (peer) => peer.sendRecords([RecordKind.ack, null, null, 1, "all", false])],
  ["floods pings", async (peer) => {
    for (let i = 0; i < 20_000; i++) await peer.send(0, FrameKind.ping);
  }],
];

describe("on the link", () => {
  test.each(VIOLATIONS)("a peer that %s loses its link, is counted and barred; the others never notice", async (_name, attack) => {
    const field = await arena();
    const attacker = await field.attacker();
    const honest = field.server.peers().length;
    await field.during(async () => {
      await attack(attacker);
      await until(() => field.metric("runtime_link_violations_total") === 1, "the violation is counted");
    });
    expect(field.server.peer(attacker.keys.publicKey)!.isUp).toBe(false);
    expect(field.server.links()).toHaveLength(honest - 1);
    expect(field.metric("runtime_peers_barred")).toBe(1);
    // What still comes on the old connection is dropped at the door.
    const before = field.metric("runtime_handshakes_refused_total");
    for (let i = 0; i < 50; i++) await attacker.send(0, FrameKind.ping);
    await until(() => field.metric("runtime_handshakes_refused_total") >= before + 50, "frames of the closed link are dropped");
    expect(await field.echo.call("twice", 5)).toEqual({ ok: true, value: 10 });
  });

  test("a frame over the limit is cut off before it is stored", async () => {
    const field = await arena();
    const attacker = await field.attacker();
    await field.during(async () => {
      await attacker.dealers[1]!.send(Buffer.alloc(FRAME_BYTES_MAX + 1));
      await until(() => field.server.peer(attacker.keys.publicKey)!.isUp === false, "the connection is gone");
    });
  });

  test("calls without end fill one mailbox and nothing else", async () => {
    const field = await arena();
    const attacker = await field.attacker();
    await field.during(async () => {
      let id = 0;
      for (let round = 0; round < 200; round++) {
        await attacker.sendRecords(...Array.from({ length: 250 }, () => call(++id, "victim", "hang", null)));
      }
      await until(() => attacker.received[1]!.length > 0, "calls that found no room are answered");
    });
    const victim = field.server.tree().find((each) => each.path === "victim")!;
    expect(victim.queueDepth).toBeLessThanOrEqual(100);
    expect(field.metric("runtime_link_violations_total")).toBe(0);
  });

  test("a peer that asks for much and reads nothing holds a bounded outbox", async () => {
    const field = await arena();
    const attacker = await field.attacker({ isDeaf: true });
    let queuedBytesMax = 0;
    await field.during(async () => {
      let id = 0;
      for (let round = 0; round < 50; round++) {
        await attacker.sendRecords(...Array.from({ length: 20 }, () => call(++id, "echo", "fill", 1024 * 1024)));
      }
      await until(() => {
        const link = field.server.links().find((each) => each.nodeId === attacker.keys.publicKey);
        queuedBytesMax = Math.max(queuedBytesMax, link?.lanes[1]!.queuedBytes ?? 0);
        return field.server.tree().find((each) => each.path === "echo")!.processed >= 1000;
      }, "all are answered or dropped");
    });
    expect(queuedBytesMax).toBeGreaterThan(0);
    expect(queuedBytesMax).toBeLessThanOrEqual(2 * MESSAGE_OUTBOX_BYTES_MAX);
    expect(field.metric("runtime_dead_letters_total")).toBeGreaterThan(0);
  });

  test("a peer that opens links without end keeps a handful", async () => {
    const field = await arena({ plain: true });
    const keys = curveKeys();
    await field.during(async () => {
      for (let i = 0; i < 20; i++) await field.attacker({ keys });
    });
    expect(field.server.links().filter((each) => each.nodeId === keys.publicKey)).toHaveLength(8);
  });

  test("a barred node is told to wait, and let in again when its time is over", async () => {
    const field = await arena();
    const attacker = await field.attacker();
    await attacker.send(0, 99);
    await until(() => field.metric("runtime_peers_barred") === 1, "the violator is barred");
    const again = new RawPeer({ endpoint: field.endpoint, serverKey: field.serverKeys.publicKey, keys: attacker.keys });
    raw.push(again);
    expect(await again.handshake()).toEqual({ kind: FrameKind.refuse, text: "busy" });
    await until(() => field.metric("runtime_peers_barred") === 0, "the bar ends");
    await field.attacker({ keys: attacker.keys });
  });
});

describe("bounds without a network", () => {
  test("a peer that takes no control frames loses its link before its answers pile up", () => {
    const clock = new VirtualClock();
    const ends: string[] = [];
    const channel: Channel = { send: () => Promise.resolve("sent"), close: () => undefined };
    const link = new Link(
      { nodeId: "00", incarnation: "00", endpoint: "ipc:///x", chunkBytes: 1000, isDialer: false },
      {
        host: createNodeHost("link", { clock, logger: silentLogger, tasks: { micro: queueMicrotask, macro: setImmediate } }),
        channels: [channel, channel, channel],
        events: { onRecord: () => undefined, onEnd: (end, message) => ends.push(`${end}: ${message}`) },
      },
    );
    // Nothing is awaited: as if ZeroMQ took no frame at all.
    for (let i = 0; i < 900; i++) link.receive(0, [createFrame(FrameKind.ping, 0, i, 0)]);
    expect(link.isOpen).toBe(true);
    for (let i = 900; i < 6000 && link.isOpen; i++) {
      if (i % 900 === 0) void clock.advance(1000);
      link.probe();
    }
    expect(ends).toEqual(["violation: the peer takes no control frames"]);
    expect(link.report().lanes[0]!.queuedBytes).toBe(0);
  });

  test("the bar doubles with each violation up to ten seconds, and ends", async () => {
    const clock = new VirtualClock();
    const box = new PenaltyBox(clock);
    const lasts: number[] = [];
    for (let strike = 1; strike <= 6; strike++) {
      box.add("a");
      let ms = 0;
      for (; box.holds("a"); ms += 500) await clock.advance(500);
      lasts.push(ms);
    }
    expect(lasts).toEqual([1000, 2000, 4000, 8000, 10_000, 10_000]);
    await clock.advance(60_000);
    box.add("a");
    await clock.advance(1000);
    expect(box.holds("a")).toBe(false);
    for (let i = 0; i < 5000; i++) box.add(`n${i}`);
    expect(box.size).toBe(4096);
    expect(box.holds("n0")).toBe(false);
    expect(box.holds("n4999")).toBe(true);
  });
});
