// Owns: what the fuzzer starts from: the frames that two real systems exchange over a real socket, as they went out.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import {
  behavior,
  createSystem,
  curveKeys,
  defineProtocol,
  Refusal,
  silentLogger,
} from "../../dist/runtime/index.js";
import { createNodeHost } from "../../dist/runtime/host/node-host.js";
import { ZeroMqTransport } from "../../dist/runtime/remote/zeromq-transport.js";

const anything = z.any();
const Peer = defineProtocol("peer", 3, {
  compatibleFrom: 1,
  call: {
    echo: { request: anything, reply: anything },
    refuse: { request: anything, reply: anything },
    ring: { request: anything, reply: anything },
    hang: { request: anything, reply: anything },
  },
  cast: { note: anything, stop: anything },
});

/** Larger frames are left out: one mutation of a megabyte tests no more than one of a kilobyte. */
const CORPUS_FRAME_BYTES_MAX = 16 * 1024;

/** One payload of every kind that the wire knows. */
export function samplePayloads() {
  return [
    null,
    true,
    -1,
    2 ** 53 - 1,
    1.5e300,
    "",
    "ünïcode \u{1F600}",
    2n ** 64n,
    -(2n ** 100n),
    new Date(1.7e12),
    new Uint8Array([1, 2, 3]),
    [],
    {},
    [1, [2, [3, [4]]]],
    { a: { b: { c: { d: null } } } },
    {
      list: [
        { id: 1, name: "x" },
        { id: 2, name: "y" },
      ],
    },
    { f32: new Float32Array([1, NaN, -0]), i8: new Int8Array(2000), big: new BigInt64Array([1n, -1n]) },
    [new Float64Array(300), new Uint16Array(1), { deep: [new Uint8Array(1500)] }],
    "x".repeat(300),
    Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`key${i}`, i])),
  ];
}

/** @returns lists of frames (each a list of parts): `lanes[i]` in the order in which they went out, and `handshake`. */
export async function recordCorpus() {
  const directory = mkdtempSync(join(tmpdir(), "fuzz-"));
  const sent = [[], [], []];
  const recordingChannel = (channel, lane) => ({
    id: channel.id,
    send: (parts) => {
      sent[lane].push(parts.map((part) => Uint8Array.from(part)));
      return channel.send(parts);
    },
    close: (isGraceful) => channel.close(isGraceful),
  });
  const recording = (transport) => {
    let dialed = 0;
    const lanes = new Map();
    return {
      dial: (options) => recordingChannel(transport.dial(options), dialed++ % 3),
      bind: async (options) => {
        const socket = await transport.bind(options);
        const channel = (id) => {
          const key = Buffer.from(id).toString("hex");
          if (!lanes.has(key)) lanes.set(key, lanes.size % 3);
          return recordingChannel(socket.channel(id), lanes.get(key));
        };
        return { endpoint: socket.endpoint, channel, close: (isGraceful) => socket.close(isGraceful) };
      },
      close: () => transport.close(),
    };
  };
  const make = (name) =>
    createSystem({
      name,
      logger: silentLogger,
      transport: async () => recording(await ZeroMqTransport.create(createNodeHost(name, { logger: silentLogger }))),
    });
  const [server, client] = [make("server"), make("client")];
  try {
    const [serverKeys, clientKeys] = [curveKeys(), curveKeys()];
    const listener = await server.listen({
      endpoint: `ipc://${join(directory, "s")}`,
      keys: serverKeys,
      allow: "any",
      plain: true,
    });
    const connected = await client.connect({
      endpoint: listener.endpoint,
      serverKey: serverKeys.publicKey,
      keys: clientKeys,
      plain: true,
    });
    await exchange(server, client, connected, clientKeys.publicKey);
  } finally {
    await client.shutdown({ deadlineMs: 1000 });
    await server.shutdown({ deadlineMs: 1000 });
    rmSync(directory, { recursive: true, force: true });
  }
  const isSmall = (parts) => parts.reduce((sum, part) => sum + part.length, 0) <= CORPUS_FRAME_BYTES_MAX;
  const isHandshake = (parts) => parts[0][1] < 16;
  return {
    lanes: sent.map((frames) => frames.filter((parts) => isSmall(parts) && !isHandshake(parts))),
    handshake: sent.flat().filter(isHandshake),
  };
}

async function exchange(server, client, peer, clientId) {
  const actor = (next) =>
    behavior(Peer, () => ({
      call: {
        echo: (message) => message,
        refuse: () => {
          throw new Refusal("busy", "later", { inMs: 1 });
        },
        ring: async (left) =>
          left === 0
            ? "end"
            : (
                await next()
                  .ref(Peer, "peer")
                  .call("ring", left - 1)
              ).ok,
        hang: () => new Promise(() => undefined),
      },
      cast: { note: () => undefined, stop: () => undefined },
    }));
  const target = server.spawn(
    actor(() => server.peer(clientId)),
    { name: "peer" },
  );
  server.spawn(
    actor(() => server.peer(clientId)),
    { name: "held" },
  );
  client.spawn(
    actor(() => peer),
    { name: "peer" },
  );
  const ref = peer.ref(Peer, "peer");
  for (const payload of samplePayloads()) {
    ref.cast("note", payload);
    ref.cast("note", payload, { delivery: "reliable" });
    await ref.call("echo", payload);
  }
  await ref.call("refuse", null);
  await ref.call("ring", 4);
  await peer.ref(Peer, "nobody").call("echo", null);
  await peer.ref(Peer, "held").call("hang", null, { timeoutMs: 5 });
  const abort = new AbortController();
  const aborted = peer.ref(Peer, "held").call("hang", null, { signal: abort.signal });
  abort.abort();
  await aborted;
  peer.ref(Peer, "nobody").watch(() => undefined);
  ref.watch(() => undefined)();
  ref.watch(() => undefined);
  // Large enough for the bulk lane; its chunks are small enough for the corpus only when the array barely qualifies.
  await ref.call("echo", { x: Float32Array.from({ length: 200 }), pad: new Uint8Array(70 * 1024) });
  await server.stop(target);
  await peer.ref(Peer, "held").call("echo", 1, { timeoutMs: 5 });
}
