// Tensors by shared memory: two systems and a real link, and what a hostile peer may say about segments.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { pack } from "msgpackr";
import { z } from "zod";
import { openSharedMemory, type NativeSharedMemory } from "../../src/device/shared-memory.js";
import {
  behavior, createNodeHost, createSystem, curveKeys, defineProtocol, releaseTensors, silentLogger,
  type Peer, type SharedMemory, type SharedReport, type System,
} from "../../src/runtime/index.js";
import { createFrame, FrameKind, readHeader } from "../../src/runtime/wire/frame.js";
import { Link, type LinkEnd } from "../../src/runtime/remote/link.js";
import { encodeOffer, encodeSegmentHeader, encodeShared } from "../../src/runtime/remote/shared-frames.js";
import { sizeClass } from "../../src/runtime/remote/shared-outgoing.js";
import { Lane } from "../../src/runtime/remote/transport.js";
import { SHARED_BYTES_MIN, SHARED_POOL_BYTES_MAX, SHARED_SEGMENTS_MAX } from "../../src/runtime/wire/limits.js";

const directory = mkdtempSync(join(tmpdir(), "shared-links-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
const systems: System[] = [];
let sockets = 0;
afterEach(async () => {
  for (const each of systems.splice(0)) await each.shutdown({ deadlineMs: 500 });
});
async function until(test: () => boolean): Promise<void> {
  const end = performance.now() + 20_000;
  while (!test()) {
    if (performance.now() > end) throw new Error("condition not reached in time");
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

const floats = z.custom<Float32Array>((value) => value instanceof Float32Array);
const Store = defineProtocol("store", 1, {
  call: {
    echo: { request: z.object({ x: floats }), reply: z.object({ x: floats }) },
    keep: { request: z.object({ x: floats, y: floats.optional() }), reply: z.number() },
    sum: { request: z.object({ x: floats }), reply: z.number() },
  },
  cast: { put: z.object({ i: z.number(), x: floats }), note: z.object({ i: z.number() }) },
});
const LENGTH = SHARED_BYTES_MIN / 4;
const kept: Float32Array[] = [];
const order: number[] = [];
afterEach(() => {
  kept.length = 0;
  order.length = 0;
});
const store = behavior(Store, () => ({
  call: {
    echo: ({ x }) => ({ x }),
    keep: ({ x, y }) => kept.push(...(y === undefined ? [x] : [x, y])),
    sum: ({ x }) => {
      const total = x.reduce((sum, each) => sum + each, 0);
      releaseTensors({ deep: [{ x }] });
      return total;
    },
  },
  cast: {
    put: ({ i, x }) => {
      order.push(x[0] === i ? i : -1);
      releaseTensors(x);
    },
    note: ({ i }) => void order.push(i),
  },
}));

async function pair(
  memories: readonly [SharedMemory | undefined, SharedMemory | undefined],
  endpoint = `ipc://${join(directory, `s${++sockets}`)}`,
): Promise<{ peer: Peer; back: Peer; server: System; client: System }> {
  const [server, client] = memories.map((memory, i) => {
    const made = createSystem({ name: `s${i}`, logger: silentLogger, ...(memory === undefined ? {} : { sharedMemory: memory }) });
    systems.push(made);
    made.spawn(store, { name: "store" });
    return made;
  }) as [System, System];
  const [serverKeys, clientKeys] = [curveKeys(), curveKeys()];
  const listener = await server.listen({ endpoint, keys: serverKeys, allow: "any" });
  const peer = await client.connect({ endpoint: listener.endpoint, serverKey: serverKeys.publicKey, keys: clientKeys, timeoutMs: 10_000 });
  return { server, client, peer, back: server.peer(clientKeys.publicKey)! };
}
const shared = (system: System): SharedReport => system.links()[0]!.shared!;
/** Sends until a segment of that size has been agreed on. */
async function warm(system: System, peer: Peer, length = LENGTH): Promise<void> {
  const before = shared(system).sentTransfers;
  await untilAsync(async () => {
    const answer = await peer.ref(Store, "store").call("sum", { x: new Float32Array(length) });
    if (!answer.ok) throw new Error(answer.error.message);
    return shared(system).sentTransfers > before;
  });
}
async function untilAsync(test: () => Promise<boolean>): Promise<void> {
  for (let i = 0; i < 1000; i++) {
    if (await test()) return;
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  throw new Error("condition not reached");
}

describe.skipIf(process.platform !== "linux")("tensors by shared memory", () => {
  let memory: NativeSharedMemory;
  beforeAll(() => {
    memory = openSharedMemory()!;
    expect(memory).toBeDefined();
  });

  test.each(["ipc", "tcp"])("over %s, both ways, bit-equal, with the ordinary call", async (kind) => {
    const { server, client, peer, back } = await pair([memory, memory], kind === "tcp" ? "tcp://127.0.0.1:0" : undefined);
    await warm(client, peer);
    await warm(server, back);
    for (const length of [LENGTH, LENGTH + 1, 3 * LENGTH]) {
      const bits = new Uint32Array(length).map((_, i) => Math.imul(i, 2654435761));
      await warm(client, peer, length);
      const [sent, received] = [shared(client).sentTransfers, shared(client).receivedTransfers];
      await untilAsync(async () => {
        const answer = await peer.ref(Store, "store").call("echo", { x: new Float32Array(bits.buffer) });
        if (!answer.ok) throw new Error(answer.error.message);
        const { x } = answer.value;
        expect(Buffer.compare(Buffer.from(x.buffer, x.byteOffset, x.byteLength), Buffer.from(bits.buffer))).toBe(0);
        releaseTensors(answer);
        return shared(client).sentTransfers > sent && shared(client).receivedTransfers > received;
      });
    }
  });

  test("several arrays of a message, empty and small ones too", async () => {
    const { client, peer } = await pair([memory, memory]);
    await warm(client, peer, 2 * LENGTH);
    const before = shared(client).sentTransfers;
    const x = new Float32Array(LENGTH + 3).fill(1);
    const y = new Float32Array(LENGTH - 5).fill(2);
    await untilAsync(async () => {
      expect(await peer.ref(Store, "store").call("keep", { x, y })).toMatchObject({ ok: true });
      return shared(client).sentTransfers > before;
    });
    const [a, b] = kept.slice(-2);
    expect([a, b]).toEqual([x, y]);
    expect(a!.buffer).toBe(b!.buffer);
    releaseTensors({ a });
    expect([a!.length, b!.length]).toEqual([0, 0]);
    expect(await peer.ref(Store, "store").call("keep", { x, y: new Float32Array(0) })).toMatchObject({ ok: true });
    expect(kept.at(-1)).toEqual(new Float32Array(0));
  });

  test("changing an array after it was sent changes nothing at the receiver", async () => {
    const { client, peer } = await pair([memory, memory]);
    await warm(client, peer);
    const x = new Float32Array(LENGTH).fill(3);
    const answer = peer.ref(Store, "store").call("sum", { x });
    x.fill(100);
    expect(await answer).toEqual({ ok: true, value: 3 * LENGTH });
  });

  test("order among messages that go by shared memory and by the bulk lane is that of sending", async () => {
    const { client, peer } = await pair([memory, memory]);
    await warm(client, peer);
    const ref = peer.ref(Store, "store");
    const before = shared(client);
    const count = 300;
    for (let i = 0; i < count; i++) {
      expect(ref.cast("put", { i, x: new Float32Array(i % 3 === 0 ? LENGTH / 2 : LENGTH).fill(i) })).toBe("accepted");
      if (i % 16 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    await until(() => order.length === count);
    expect(order).toEqual([...Array(count).keys()]);
    expect(shared(client).sentTransfers).toBeGreaterThan(before.sentTransfers);
    expect(shared(client).misses).toBeGreaterThan(before.misses); // more at once than there were segments
  });

  test("a tensor made for the peer is handed over: empty here afterwards, nothing copied", async () => {
    const { client, peer } = await pair([memory, memory]);
    await warm(client, peer);
    // An array made before the peer has agreed on its segment is copied like any other: until then again.
    await untilAsync(async () => {
      const x = peer.createTensor(Float32Array, LENGTH).fill(2);
      expect(await peer.ref(Store, "store").call("sum", { x: new Float32Array(1) })).toMatchObject({ ok: true });
      const before = shared(client).sentTransfers;
      const answer = peer.ref(Store, "store").call("sum", { x });
      const isHandedOver = x.length === 0;
      expect(await answer).toEqual({ ok: true, value: 2 * LENGTH });
      if (isHandedOver) expect(shared(client).sentTransfers).toBe(before + 1);
      return isHandedOver;
    });
    // Twice in one message: only one of them can be handed over.
    const y = peer.createTensor(Float32Array, LENGTH).fill(4);
    expect(await peer.ref(Store, "store").call("keep", { x: y, y })).toMatchObject({ ok: true });
    expect(kept.slice(-2).map((each) => each.reduce((sum, value) => sum + value, 0))).toEqual([4 * LENGTH, 4 * LENGTH]);
    expect(peer.createTensor(Uint8Array, 10).length).toBe(10);
  });

  test("a tensor made for one peer may go to another, or to an actor of this system", async () => {
    const first = await pair([memory, memory]);
    const second = await pair([memory, memory]);
    await warm(first.client, first.peer);
    const x = first.peer.createTensor(Float32Array, LENGTH).fill(1);
    expect(await second.peer.ref(Store, "store").call("sum", { x })).toEqual({ ok: true, value: LENGTH });
    expect(x.length).toBe(LENGTH);
    expect(await first.peer.ref(Store, "store").call("sum", { x })).toEqual({ ok: true, value: LENGTH });
  });

  test("without it on either side, or without sight of the other's, the lanes carry all", async () => {
    const blind: SharedMemory = { create: (size, header) => memory.create(size, header), open: () => undefined };
    const poor: SharedMemory = { create: () => undefined, open: (locator, size) => memory.open(locator, size) };
    for (const memories of [[undefined, memory], [memory, undefined], [blind, memory], [memory, blind], [poor, memory], [memory, poor]] as const) {
      const { client, server, peer, back } = await pair(memories);
      for (const each of [peer, back]) {
        const x = each.createTensor(Float32Array, LENGTH).fill(1);
        for (let i = 0; i < 3; i++) {
          expect(await each.ref(Store, "store").call("sum", { x: x.slice() })).toEqual({ ok: true, value: LENGTH });
        }
      }
      expect([client, server].every((each) => each.links().length === 1)).toBe(true);
    }
    expect(memory.usedBytes).toBeGreaterThanOrEqual(0);
  });

  test("a peer that is not there any more: its tensors stay readable, this end's memory is given up", async () => {
    const { client, server, peer } = await pair([memory, memory]);
    await warm(client, peer);
    const before = shared(client).sentTransfers;
    await untilAsync(async () => {
      await peer.ref(Store, "store").call("keep", { x: new Float32Array(LENGTH).fill(7) });
      return shared(client).sentTransfers > before;
    });
    const draft = peer.createTensor(Float32Array, LENGTH).fill(1);
    await client.shutdown({ deadlineMs: 500 });
    await until(() => server.links().length === 0);
    expect(kept.at(-1)!.every((each) => each === 7)).toBe(true);
    expect(draft.every((each) => each === 1)).toBe(true);
    releaseTensors(kept);
    expect(kept.at(-1)!.length).toBe(0);
    await server.shutdown({ deadlineMs: 500 });
    expect(memory.usedBytes).toBe(0);
  });
});

// --- hostile peers -----------------------------------------------------------------------------------------------

interface Side {
  readonly link: Link;
  /** Control frames that the link has sent: [kind, count, value, body]. */
  readonly sent: { kind: number; count: number; value: number; body: Uint8Array }[];
  readonly ends: [LinkEnd, string][];
  readonly records: unknown[][];
  control(kind: FrameKind, count: number, value: number, body?: Uint8Array): void;
  bulk(kind: FrameKind, count: number, value: number, body?: Uint8Array): void;
}

/** A link whose other end is this test: what it sends is kept, what it hears is made up. */
function alone(memory: SharedMemory | undefined, isDialer = false, isSharing = false): Side {
  const sent: Side["sent"] = [];
  const ends: Side["ends"] = [];
  const records: unknown[][] = [];
  const sequences = [0, 0, 0];
  const host = createNodeHost("alone", { logger: silentLogger, ...(memory === undefined ? {} : { sharedMemory: memory }) });
  const link = new Link(
    { nodeId: "0".repeat(64), incarnation: "0".repeat(16), endpoint: "ipc:///x", chunkBytes: 65536, isDialer, isSharing },
    {
      host,
      channels: [0, 1, 2].map((lane) => ({
        send: async ([frame]: readonly Uint8Array[]) => {
          const { kind, count, value } = readHeader(frame);
          if (lane === Lane.control) sent.push({ kind, count, value, body: frame!.slice(16) });
          return "sent" as const;
        },
        close: () => undefined,
      })),
      events: { onRecord: (record) => void records.push(record), onEnd: (end, message) => void ends.push([end, message]) },
    },
  );
  const feed = (lane: number) => (kind: FrameKind, count: number, value: number, body?: Uint8Array): void =>
    link.receive(lane, [createFrame(kind, count, sequences[lane]!++, value, body)]);
  return { link, sent, ends, records, control: feed(Lane.control), bulk: feed(Lane.bulk) };
}

describe.skipIf(process.platform !== "linux")("a hostile peer's word about shared memory", () => {
  let memory: NativeSharedMemory;
  beforeAll(() => void (memory = openSharedMemory()!));
  const challenge = new Uint8Array(16).fill(1);
  const response = new Uint8Array(16).fill(2);
  const SIZE = 2 * SHARED_BYTES_MIN;
  const segment = (isDialer = true, sizeBytes = SIZE) => memory.create(sizeBytes, encodeSegmentHeader(isDialer, { challenge, response }))!;
  const answers = ({ sent }: Side): [number, number, number][] =>
    sent.filter(({ kind }) => kind === FrameKind.sharedAnswer).map(({ count, value, body }) => [count, value, body.length]);
  /** A peer that dials, with one segment agreed on. */
  function agreed(): Side & { own: NonNullable<ReturnType<typeof segment>> } {
    const side = alone(memory);
    const own = segment();
    side.control(FrameKind.sharedOffer, 0, 0, encodeOffer({ sizeBytes: SIZE, challenge, locator: own.locator }));
    expect(side.ends).toEqual([]);
    return Object.assign(side, { own });
  }
  const record = (sizes: readonly number[]): Uint8Array =>
    Uint8Array.from(pack([1, { list: sizes.map(() => null) }, sizes.map((size, i) => [["list", i], 0, size])]));

  test("an offer that names nothing, or a stranger's memory, is answered with no, and tells nothing about it", async () => {
    const side = alone(memory);
    const stranger = segment(true);
    const own = segment(false);
    const offers = [
      { sizeBytes: SIZE, challenge, locator: `${process.pid}/0` },
      { sizeBytes: SIZE, challenge, locator: "4194304/5" },
      { sizeBytes: SIZE, challenge, locator: "x" },
      { sizeBytes: SIZE / 2, challenge, locator: stranger.locator },
      { sizeBytes: SIZE, challenge: new Uint8Array(16), locator: stranger.locator }, // knows not what is in it
      { sizeBytes: SIZE, challenge, locator: own.locator }, // sends this end's own offer back
    ];
    for (const [i, offer] of offers.entries()) side.control(FrameKind.sharedOffer, 0, i, encodeOffer(offer));
    await until(() => answers(side).length === offers.length);
    expect(answers(side)).toEqual(offers.map((_, i) => [0, i, 0]));
    expect(side.ends).toEqual([]);
    expect(side.link.report().shared!.mappedBytes).toBe(0);
    stranger.close();
    own.close();
  });

  test("offers beyond the bounds end the link", () => {
    const many = alone(memory);
    const own = segment(true, 4096);
    const offer = encodeOffer({ sizeBytes: 4096, challenge, locator: own.locator });
    for (let i = 0; i < SHARED_SEGMENTS_MAX; i++) many.control(FrameKind.sharedOffer, 0, i, offer);
    expect(many.ends).toEqual([]);
    many.control(FrameKind.sharedOffer, 0, SHARED_SEGMENTS_MAX, offer);
    expect(many.ends).toMatchObject([["violation", expect.stringContaining("more shared memory")]]);
    const bad: [number, Uint8Array][] = [
      [0, encodeOffer({ sizeBytes: SHARED_POOL_BYTES_MAX + 4096, challenge, locator: own.locator })],
      [0, encodeOffer({ sizeBytes: 0xffff_f000, challenge, locator: own.locator })],
      [0, encodeOffer({ sizeBytes: 4097, challenge, locator: own.locator })],
      [0, new Uint8Array(0)], [0, new Uint8Array(20)], [0, new Uint8Array(1000)],
      [-1, offer], [0.5, offer], [NaN, offer], [2 ** 32, offer], [Infinity, offer],
    ];
    for (const [id, body] of bad) {
      const side = alone(memory);
      side.control(FrameKind.sharedOffer, 0, id, body);
      expect([id, body.length, side.ends[0]?.[0]]).toEqual([id, body.length, "violation"]);
    }
    const again = alone(memory);
    again.control(FrameKind.sharedOffer, 0, 3, offer);
    again.control(FrameKind.sharedOffer, 0, 3, offer);
    expect(again.ends[0]?.[0]).toBe("violation");
    own.close();
  });

  test("transfers outside of what was agreed end the link; a correct one does not", () => {
    const at = (offset: number, id = 0) => ({ segment: id, offset });
    const frame = (sizes: number[], placed: { segment: number; offset: number }[]): [number, number, Uint8Array] =>
      [placed.length, sizes.reduce((sum, size) => sum + size, 0), encodeShared(placed, record(sizes))];
    const good = agreed();
    good.bulk(FrameKind.shared, ...frame([64, 100], [at(0), at(64)]));
    expect(good.ends).toEqual([]);
    expect((good.records[0]![1] as { list: Uint8Array[] }).list.map(({ length }) => length)).toEqual([64, 100]);
    good.bulk(FrameKind.shared, ...frame([64], [at(0)])); // not given back yet
    expect(good.ends[0]).toMatchObject(["violation", expect.stringContaining("not free")]);
    const cases: [string, [number, number, Uint8Array]][] = [
      ["unknown segment", frame([64], [at(0, 1)])],
      ["beyond the end", frame([SIZE + 64], [at(0)])],
      ["offset beyond", frame([64], [at(SIZE)])],
      ["offset near 2^32", frame([64], [at(0xffff_ffff)])],
      ["overlap", frame([64, 64], [at(0), at(63)])],
      ["the same twice", frame([64, 64], [at(0), at(0)])],
      ["one inside another", frame([256, 64, 64], [at(0), at(512), at(128)])],
      ["fewer placements", [1, 128, encodeShared([at(0)], record([64, 64]))]],
      ["no placements", [0, 64, record([64])]],
      ["placements that end early", [4000, 64, new Uint8Array(100)]],
      ["another total", [1, 65, encodeShared([at(0)], record([64]))]],
      ["nothing", [1, 0, encodeShared([at(0)], record([0]))]],
      ["no record", [1, 64, encodeShared([at(0)], new Uint8Array(0))]],
    ];
    for (const [what, args] of cases) {
      const side = agreed();
      side.bulk(FrameKind.shared, ...args);
      expect([what, side.ends[0]?.[0], side.records.length]).toEqual([what, "violation", 0]);
      side.own.close();
    }
    const lanes = agreed();
    lanes.control(FrameKind.shared, ...frame([64], [at(0)]));
    expect(lanes.ends[0]?.[0]).toBe("violation");
    const none = alone(undefined);
    none.bulk(FrameKind.shared, ...frame([64], [at(0)]));
    expect(none.ends[0]?.[0]).toBe("violation");
    const offer = alone(undefined);
    offer.control(FrameKind.sharedOffer, 0, 0, encodeOffer({ sizeBytes: 4096, challenge, locator: "1/1" }));
    expect([offer.ends, answers(offer)]).toEqual([[], [[0, 0, 0]]]);
    offer.control(FrameKind.sharedRelease, 0, 0);
    expect(offer.ends[0]?.[0]).toBe("violation");
    good.own.close();
    lanes.own.close();
  });

  test("an end to a segment in use, a return of what was not sent and a false proof end the link", async () => {
    const held = agreed();
    held.bulk(FrameKind.shared, 1, 64, encodeShared([{ segment: 0, offset: 0 }], record([64])));
    held.control(FrameKind.sharedRetire, 0, 0);
    expect(held.ends[0]).toMatchObject(["violation", expect.stringContaining("not free")]);
    expect((held.records[0]![1] as { list: Uint8Array[] }).list[0]!.length).toBe(64);
    held.own.close();
    const free = agreed();
    free.control(FrameKind.sharedRetire, 0, 0);
    expect([free.ends.length, free.link.report().shared!.mappedBytes]).toEqual([0, 0]);
    free.control(FrameKind.sharedRetire, 0, 0);
    expect(free.ends[0]?.[0]).toBe("violation");
    free.own.close();

    const spoken: [FrameKind, number, number, Uint8Array?][] = [
      [FrameKind.sharedRelease, 0, 0], [FrameKind.sharedRelease, 0, 77], [FrameKind.sharedRelease, 0, NaN],
      [FrameKind.sharedAnswer, 1, 0, new Uint8Array(16)], [FrameKind.sharedAnswer, 1, 0], [FrameKind.sharedAnswer, 1, 9, response],
      [FrameKind.sharedRelease, 0, 0, new Uint8Array(1)],
    ];
    for (const args of spoken) {
      const dialer = alone(memory, true, true);
      await until(() => dialer.sent.some(({ kind }) => kind === FrameKind.sharedOffer));
      dialer.control(...args);
      expect([args, dialer.ends[0]?.[0]]).toEqual([args, "violation"]);
    }
    expect(memory.usedBytes).toBe(0); // whatever was said, nothing of this end is left
  });
});

test("sizes come in few classes, each a whole number of pages and never more than a quarter too large", () => {
  const classes = new Set<number>();
  for (let size = SHARED_BYTES_MIN; size < 80_000_000; size += 98_765) {
    const each = sizeClass(size);
    expect(each % 4096).toBe(0);
    expect(each).toBeGreaterThanOrEqual(size);
    expect(each).toBeLessThanOrEqual(size * 1.25);
    classes.add(each);
  }
  expect(classes.size).toBeLessThan(40);
  expect(sizeClass(64 * 1024 * 1024)).toBe(64 * 1024 * 1024);
});
