// The memory of received arrays: freed or handed to the next message, never under somebody's hands.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { z } from "zod";
import {
  behavior, createSystem, curveKeys, defineProtocol, handOver, releaseTensors, silentLogger, type Peer, type System,
} from "../../src/runtime/index.js";
import { LaneReceiver } from "../../src/runtime/remote/lane-receiver.js";
import { freeMemory, moveMemory } from "../../src/runtime/wire/array-memory.js";
import { Codec } from "../../src/runtime/wire/codec.js";
import { createFrame, FrameKind } from "../../src/runtime/wire/frame.js";
import { BULK_BYTES_MIN, BULK_WINDOW_BYTES } from "../../src/runtime/wire/limits.js";
import { onRelease, release } from "../../src/runtime/wire/releasable.js";

const MIB = 1024 * 1024;
const directory = mkdtempSync(join(tmpdir(), "memory-"));
const open: System[] = [];
let sockets = 0;
afterEach(async () => {
  for (const each of open.splice(0)) await each.shutdown({ deadlineMs: 500 });
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const Sink = defineProtocol("sink", 1, { call: { take: { request: z.object({ x: z.instanceof(Uint8Array) }), reply: z.number() } } });

/** Two systems of this process; `take` is the receiver's handler. */
async function link(take: (x: Uint8Array) => number): Promise<Peer> {
  const keys = curveKeys();
  const [server, client] = ["server", "client"].map((name) => createSystem({ name, logger: silentLogger })) as [System, System];
  open.push(client, server);
  server.spawn(behavior(Sink, () => ({ call: { take: ({ x }) => take(x) } })), { name: "sink" });
  const { endpoint } = await server.listen({ endpoint: `ipc://${join(directory, `s${++sockets}`)}`, keys, allow: () => true, plain: true });
  return client.connect({ endpoint, serverKey: keys.publicKey, keys: curveKeys(), plain: true });
}

async function send(peer: Peer, x: Uint8Array): Promise<number> {
  const reply = await peer.ref(Sink, "sink").call("take", { x }, { timeoutMs: 20_000 });
  if (!reply.ok) throw new Error(reply.error.code);
  return reply.value;
}

const isFilled = (x: Uint8Array, value: number): boolean => Buffer.compare(x, Buffer.alloc(x.length, value)) === 0;

describe("the memory of an ArrayBuffer", () => {
  test("freed: views are empty", () => {
    const bytes = new Uint8Array(100).fill(7);
    freeMemory(bytes.buffer);
    expect([bytes.length, bytes.buffer.byteLength]).toEqual([0, 0]);
  });

  test("moved: the old views are empty, the new buffer holds what they held", () => {
    const bytes = new Uint8Array(1000).map((_, i) => i);
    const moved = moveMemory(bytes.buffer);
    expect(bytes.length).toBe(0);
    expect(new Uint8Array(moved)).toEqual(new Uint8Array(1000).map((_, i) => i));
  });

  test("given back once, and not at all after it was handed over", () => {
    let given = 0;
    const [plain, kept] = [new Float32Array(10), new Float32Array(10)];
    for (const { buffer } of [plain, kept]) onRelease(buffer, () => void (given += 1));
    release(plain.buffer);
    release(plain.buffer);
    expect(given).toBe(1);
    handOver(kept.subarray(2)); // a view of the same memory is enough
    releaseTensors({ kept });
    expect(given).toBe(1);
  });
});

describe("received tensors", () => {
  test("of one in chunks each chunk is given back once it is copied", () => {
    const codec = new Codec();
    const x = new Uint8Array(3 * BULK_BYTES_MIN).map((_, i) => i % 251);
    const { body, tensorBytes } = codec.encode([0, { x: handOver(x) }, null]);
    const records: unknown[][] = [];
    const receiver = new LaneReceiver(BULK_WINDOW_BYTES, codec, {
      onRecord: (record) => void records.push(record),
      onControl: () => expect.unreachable(),
      onShared: () => expect.unreachable(),
      onCredit: () => undefined,
    });
    receiver.accept([createFrame(FrameKind.bulk, 1, 0, tensorBytes, body)]);
    for (let i = 0; i < 3; i++) {
      const chunk = x.slice(i * BULK_BYTES_MIN, (i + 1) * BULK_BYTES_MIN);
      onRelease(chunk.buffer, freeMemory);
      receiver.accept([createFrame(FrameKind.chunk, 0, i + 1, 0), chunk]);
      expect(chunk.length).toBe(0);
    }
    expect(records.length).toBe(1);
    expect(Buffer.compare((records[0]![1] as { x: Uint8Array }).x, x)).toBe(0);
  });

  for (const sizeBytes of [MIB / 4, 9 * MIB]) {
    test(`${sizeBytes} bytes, handed on: still there after releaseTensors`, async () => {
      const kept: Uint8Array[] = [];
      const peer = await link((x) => {
        kept.push(handOver(x));
        releaseTensors({ x });
        return x.length;
      });
      for (let i = 1; i <= 3; i++) expect(await send(peer, new Uint8Array(sizeBytes).fill(i))).toBe(sizeBytes);
      expect(kept.map((x, i) => x.length === sizeBytes && isFilled(x, i + 1))).toEqual([true, true, true]);
    });

    test(`${sizeBytes} bytes, released: empty at once, and the next message is whole`, async () => {
      let sent = 0;
      const peer = await link((x) => {
        const isWhole = x.length === sizeBytes && isFilled(x, ++sent);
        releaseTensors({ x });
        return isWhole && x.length === 0 ? 1 : 0;
      });
      for (let i = 1; i <= 3; i++) expect(await send(peer, new Uint8Array(sizeBytes).fill(i))).toBe(1);
    });
  }
});
