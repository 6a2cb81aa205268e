// The wire against hostile bytes: every input either decodes within the limits or throws WireError.
import fc from "fast-check";
import { Packr } from "msgpackr";
import { describe, expect, test } from "vitest";
import { silentLogger } from "../../src/runtime/index.js";
import { createNodeHost } from "../../src/runtime/host/node-host.js";
import { LaneReceiver } from "../../src/runtime/remote/lane-receiver.js";
import { LaneSender } from "../../src/runtime/remote/lane-sender.js";
import { Link } from "../../src/runtime/remote/link.js";
import { readRecord } from "../../src/runtime/remote/record.js";
import type { Channel } from "../../src/runtime/remote/transport.js";
import { BufferPool } from "../../src/runtime/wire/buffer-pool.js";
import { attachTensors, Codec, tensorSizes, WireError } from "../../src/runtime/wire/codec.js";
import { createFrame, FrameKind, HEADER_BYTES, splitRecords } from "../../src/runtime/wire/frame.js";
import { DEPTH_MAX, FRAME_OVERHEAD_BYTES, MESSAGE_WINDOW_BYTES } from "../../src/runtime/wire/limits.js";
import { isSafeMsgpack } from "../../src/runtime/wire/msgpack-guard.js";

const host = createNodeHost("wire", { logger: silentLogger });

function roundTrip(codec: Codec, payload: unknown): unknown {
  const { body, tensors } = codec.encode([1, payload, null]);
  const record = codec.decode(Uint8Array.from(body));
  expect(tensorSizes(record[2])).toEqual(tensors.map((t) => t.length));
  attachTensors(record, tensors);
  return record[1];
}

const plain = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 5 },
    fc.integer(), fc.double({ noNaN: true }).map((n) => n + 0), fc.string(), fc.boolean(), fc.constant(null),
    fc.bigInt({ min: -(2n ** 120n), max: 2n ** 120n }),
    fc.uint8Array({ maxLength: 3000 }),
    fc.float32Array({ maxLength: 600, noNaN: true }),
    fc.int32Array({ maxLength: 10 }),
    fc.bigUint64Array({ maxLength: 5 }),
    fc.array(tie("value"), { maxLength: 5 }),
    fc.dictionary(fc.string().filter((k) => k !== "__proto__"), tie("value"), { maxKeys: 5, noNullPrototype: true }),
  ),
})).value;

describe("lane sender", () => {
  test("takes credit for the frame whose send has not been seen to resolve yet, and no more than that", async () => {
    let finish!: (outcome: "sent") => void;
    const channel = { id: "x", send: () => new Promise((resolve) => { finish = resolve; }), close: () => undefined } as unknown as Channel;
    const sender = new LaneSender(
      { windowBytes: 1 << 20, outboxBytesMax: 1 << 20, chunkBytes: 1 << 20, onGone: () => undefined },
      { channel, clock: host.clock, tasks: host.tasks },
    );
    sender.pushControl(FrameKind.ping, 0, 0);
    const costBytes = HEADER_BYTES + FRAME_OVERHEAD_BYTES;
    expect(sender.acknowledge(costBytes + 1)).toBe(false);
    expect(sender.acknowledge(costBytes)).toBe(true);
    finish("sent");
    await sender.whenEmpty();
    expect(sender.sentBytes).toBe(costBytes);
    expect(sender.acknowledge(costBytes - 1)).toBe(false);
  });
});

describe("codec", () => {
  test("plain data and typed arrays come back equal, each with its own memory", () => {
    const codec = new Codec();
    fc.assert(
      fc.property(plain, (value) => {
        expect(roundTrip(codec, value)).toEqual(value);
      }),
      { numRuns: 500 },
    );
  });

  test("a tensor is bit-equal, NaN payloads and signed zeros included", () => {
    const codec = new Codec();
    const bits = new Uint32Array([0x7fc00001, 0xffc12345, 0x80000000, 0x00000001, 0x7f800000, ...Array<number>(400).fill(7)]);
    const back = roundTrip(codec, { x: new Float32Array(bits.buffer) }) as { x: Float32Array };
    expect(new Uint32Array(back.x.buffer, back.x.byteOffset, back.x.length)).toEqual(bits);
  });

  test("changing an array after it was sent does not change what arrives", () => {
    const codec = new Codec();
    const array = new Float32Array(100_000).fill(1);
    const { tensors } = codec.encode([1, { array }, null]);
    array.fill(2);
    expect(new Float32Array(tensors[0]!.buffer, tensors[0]!.byteOffset, 3)).toEqual(new Float32Array([1, 1, 1]));
  });

  test("what cannot be sent says so", () => {
    const codec = new Codec();
    for (const value of [() => 1, Symbol("x"), new Map(), new Set(), /x/, new Error("x"), new (class A {})(), new DataView(new ArrayBuffer(1))]) {
      expect(() => codec.encode([1, { value }, null])).toThrow(WireError);
    }
    let deep: unknown = 1;
    for (let i = 0; i < 100; i++) deep = [deep];
    expect(() => codec.encode([1, deep, null])).toThrow(WireError);
  });

  test("bytes that decode into anything but plain data are refused", () => {
    const hostile = [
      new Packr({ moreTypes: true } as object).pack([1, new Set([1]), null]),
      new Packr({ moreTypes: true } as object).pack([1, /(a+)+$/, null]),
      new Packr({ moreTypes: true, structuredClone: true } as object).pack([1, new Error("x"), null]),
      new Packr({ useRecords: true }).pack([{ a: 1, b: 2 }, { a: 1, b: 2 }, null]), // shared structures build code
      Buffer.from([0xdd, 0xff, 0xff, 0xff, 0xff]),
      Buffer.from([0xdf, 0x7f, 0xff, 0xff, 0xff, 0x01]),
      Buffer.concat([Buffer.alloc(100_000, 0x91), Buffer.from([1])]),
      Buffer.from([0xc1]),
      Buffer.from([1, 1]),
      Buffer.alloc(0),
    ];
    for (const bytes of hostile) expect(() => new Codec().decode(bytes)).toThrow(WireError);
    let nested: unknown = 1;
    for (let i = 0; i < DEPTH_MAX + 1; i++) nested = [nested];
    expect(isSafeMsgpack(new Packr().pack(nested))).toBe(false);
  });

  test("a key named __proto__ pollutes nothing", () => {
    const bytes = new Packr({ useRecords: false }).pack([1, JSON.parse('{"__proto__": {"polluted": 1}}'), null]);
    const record = new Codec().decode(bytes);
    expect((record[1] as { polluted?: number }).polluted).toBeUndefined();
    expect(({} as { polluted?: number }).polluted).toBeUndefined();
    record[2] = [[["__proto__"], 0, 1]];
    expect(() => attachTensors(record, [new Uint8Array(1)])).toThrow(WireError);
  });

  test("random and mutated bytes throw WireError or decode; 20,000 cases", () => {
    const codec = new Codec();
    const valid = codec.encode([2, { a: [1, "x", { b: 2n ** 70n }], f: new Float32Array(300) }, null, 1, 2]).body;
    const check = (bytes: Uint8Array): void => {
      try {
        const record = codec.decode(bytes);
        const sizes = tensorSizes(record[2]);
        if (sizes.reduce((a, b) => a + b, 0) < 1e6) attachTensors(record, sizes.map((n) => new Uint8Array(n)));
        readRecord(record);
      } catch (error) {
        if (!(error instanceof WireError)) throw error;
      }
    };
    fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), check), { numRuns: 10_000 });
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { maxLength: 4 }), fc.nat(), (edits, cut) => {
        const bytes = Uint8Array.from(valid);
        for (const [at, value] of edits) bytes[at % bytes.length] = value;
        check(cut % 3 === 0 ? bytes.subarray(0, cut % bytes.length) : bytes);
      }),
      { numRuns: 10_000 },
    );
  });

  test("batches split only when every length fits; 5,000 cases", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 16, maxLength: 400 }), fc.integer({ min: 0, max: 400 }), (bytes, count) => {
        try {
          const slices = splitRecords(bytes, count);
          let at = 16;
          for (const { start, end, tensorsEnd } of slices) {
            expect(start).toBe(at + 8);
            expect(end).toBeGreaterThanOrEqual(start);
            expect(tensorsEnd).toBeGreaterThanOrEqual(end);
            at = tensorsEnd;
          }
          expect(at).toBe(bytes.length);
        } catch (error) {
          if (!(error instanceof WireError)) throw error;
        }
      }),
      { numRuns: 5000 },
    );
  });
});

class MemoryChannel implements Channel {
  readonly frames: Uint8Array[][] = [];
  outcome: "sent" | "busy" | "gone" = "sent";
  isClosed = false;
  send(parts: readonly Uint8Array[]): Promise<"sent" | "busy" | "gone"> {
    if (this.outcome === "sent") this.frames.push(parts.map((p) => Uint8Array.from(p)));
    return Promise.resolve(this.outcome);
  }
  close(): void {
    this.isClosed = true;
  }
}

const settled = () => new Promise((resolve) => setImmediate(resolve));

describe("lanes", () => {
  const makeSender = (channel: Channel, windowBytes: number, outboxBytesMax = 1 << 20, chunkBytes = 1000, pool = new BufferPool()) =>
    new LaneSender(
      { windowBytes, outboxBytesMax, chunkBytes, onGone: () => undefined },
      { channel, clock: host.clock, tasks: host.tasks, pool },
    );

  test("records and transfers arrive in order and whole through any window, and credit is never exceeded", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.oneof(fc.integer({ min: 0, max: 300 }), fc.integer({ min: 70_000, max: 90_000 })), { maxLength: 40 }),
        fc.integer({ min: 4000, max: 200_000 }),
        async (sizes, windowBytes) => {
          const pool = new BufferPool();
          const codec = new Codec(pool);
          const channel = new MemoryChannel();
          const sender = makeSender(channel, windowBytes, 1 << 24, 7000, pool);
          const got: number[] = [];
          let granted = 0;
          const receiver = new LaneReceiver(windowBytes, new Codec(), {
            onRecord: (record) => {
              const { bytes, i } = record[1] as { bytes: Uint8Array; i: number };
              got.push(bytes.every((byte) => byte === i) ? bytes.length : -1);
            },
            onControl: () => undefined,
            onCredit: (total) => void (granted = total),
          });
          for (const [i, size] of sizes.entries()) {
            if (i === sizes.length >> 1) {
              // Let some through, so that the rest is copied into memory that has come back to the pool.
              await settled();
              for (const frame of channel.frames.splice(0)) receiver.accept(frame);
              sender.acknowledge(granted);
            }
            const record = codec.encode([1, { i, bytes: new Uint8Array(size).fill(i) }, null]);
            if (record.tensorBytes >= 65_536) sender.pushTransfer(record);
            else sender.pushRecord(record);
          }
          for (let round = 0; round < 2000 && (got.length < sizes.length || channel.frames.length > 0); round++) {
            await settled();
            const largest = channel.frames.reduce((m, f) => Math.max(m, f.reduce((s, p) => s + p.length + 64, 0)), 0);
            expect(sender.creditBytes).toBeGreaterThanOrEqual(-largest);
            for (const frame of channel.frames.splice(0)) receiver.accept(frame);
            sender.acknowledge(granted);
          }
          expect(got).toEqual(sizes);
          expect(sender.queuedBytes).toBe(0);
          sender.close(false);
        },
      ),
      { numRuns: 40 },
    );
  });

  test("records of one microtask share a frame of at most 256", async () => {
    const codec = new Codec();
    const channel = new MemoryChannel();
    const sender = makeSender(channel, MESSAGE_WINDOW_BYTES);
    for (let i = 0; i < 600; i++) sender.pushRecord(codec.encode([1, i, null]));
    await settled();
    expect(channel.frames.map((f) => f[0]![2]! | (f[0]![3]! << 8))).toEqual([256, 256, 88]);
  });

  test("a sender beyond its credit or out of sequence is a violation", () => {
    const make = (windowBytes: number) =>
      new LaneReceiver(windowBytes, new Codec(), { onRecord: () => undefined, onControl: () => undefined, onCredit: () => undefined });
    expect(() => make(1000).accept([createFrame(FrameKind.ping, 0, 5, 0)])).toThrow(/where 0 was due/);
    expect(() => make(1000).accept([createFrame(FrameKind.chunk, 0, 0, 0), new Uint8Array(10)])).toThrow(/outside a transfer/);
    expect(() => make(1000).accept([])).toThrow(WireError);
  });

  test("a link takes any frames on any lane without throwing, and closes on the first bad one; 6,000 cases", () => {
    const codec = new Codec();
    const good = codec.encode([1, { n: 1 }, null, "a", "p", 1, 1, "x"]);
    const body = Buffer.alloc(8 + good.body.length);
    body.writeUInt32LE(good.body.length, 0);
    body.set(good.body, 8);
    const kinds = fc.constantFrom(...Object.values(FrameKind), 0, 99, 255);
    const frame = fc.record({
      lane: fc.integer({ min: 0, max: 2 }),
      kind: kinds,
      count: fc.integer({ min: 0, max: 300 }),
      sequence: fc.oneof(fc.constant(-1), fc.nat()),
      value: fc.oneof(fc.double(), fc.nat()),
      body: fc.oneof(fc.uint8Array({ maxLength: 100 }), fc.constant(new Uint8Array(0)), fc.constant(Uint8Array.from(body))),
      extra: fc.option(fc.uint8Array({ maxLength: 50 })),
      isRaw: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(frame, { minLength: 1, maxLength: 6 }), (frames) => {
        const ends: string[] = [];
        const channels = [0, 1, 2].map(() => new MemoryChannel());
        const link = new Link(
          { nodeId: "00", incarnation: "00", endpoint: "ipc:///x", chunkBytes: 1000, isDialer: false },
          { host, channels, events: { onRecord: (record) => void readRecord(record), onEnd: (end) => ends.push(end) } },
        );
        const next = [0, 0, 0];
        for (const each of frames) {
          const sequence = each.sequence === -1 ? next[each.lane]!++ : each.sequence >>> 0;
          const made = each.isRaw
            ? Buffer.from(each.body)
            : createFrame(each.kind as FrameKind, each.count, sequence, each.value, each.body);
          link.receive(each.lane, each.extra === null ? [made] : [made, each.extra]);
        }
        expect(ends.length).toBeLessThanOrEqual(1);
        if (ends.length === 1) expect(channels.every((c) => c.isClosed)).toBe(true);
        link.close("closed", "");
      }),
      { numRuns: 6000 },
    );
  });
});
