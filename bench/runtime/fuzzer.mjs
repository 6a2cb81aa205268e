// Owns: a seeded fuzzer for everything that reads bytes from the network. Every case comes from (seed, case number) and the
// corpus alone. Invariants it checks: hostile bytes end in plain data within the limits or in WireError and nothing else;
// no prototype changes; no case leaves state behind for the next frame; no case takes longer than CASE_MS_MAX.
import { Packr } from "msgpackr";
import { silentLogger } from "../../dist/runtime/index.js";
import { createNodeHost } from "../../dist/runtime/host/node-host.js";
import { SystemCore } from "../../dist/runtime/core/system.js";
import { Acceptor } from "../../dist/runtime/remote/acceptor.js";
import { curveKeys } from "../../dist/runtime/remote/keys.js";
import { decodeChallenge, decodeHello, encodeHello, splitMac } from "../../dist/runtime/remote/handshake.js";
import { LaneReceiver } from "../../dist/runtime/remote/lane-receiver.js";
import { Link } from "../../dist/runtime/remote/link.js";
import { encodeOffer, encodeSegmentHeader, encodeShared } from "../../dist/runtime/remote/shared-frames.js";
import { readRecord } from "../../dist/runtime/remote/record.js";
import { attachTensors, Codec, tensorSizes, WireError } from "../../dist/runtime/wire/codec.js";
import { createFrame, FrameKind, HEADER_BYTES, readHeader, splitRecords } from "../../dist/runtime/wire/frame.js";
import { BATCH_RECORDS_MAX, DEPTH_MAX, MESSAGE_WINDOW_BYTES } from "../../dist/runtime/wire/limits.js";
import { isSafeMsgpack } from "../../dist/runtime/wire/msgpack-guard.js";
import { samplePayloads } from "./fuzz-corpus.mjs";

/** Inputs here are at most a few tens of KiB: ordinary ones take microseconds, and a machine under load some milliseconds. */
const CASE_MS_MAX = 500;
const CANARY_EVERY = 1024;
const PROTOTYPES_EVERY = 8192;
/** Tensor memory handed to attachTensors; what a table may ask for beyond that is LaneReceiver's affair. */
const TENSOR_BYTES_MAX = 64 * 1024;
const INPUT_BYTES_MAX = 64 * 1024;

/** Uniform 32-bit numbers (xorshift-multiply over a counter), started anew for each case. */
class Random {
  #state = 0;
  start(seed, number) {
    this.#state =
      (Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) ^
        Math.imul(number + 1, 0xc2b2ae35) ^
        Math.floor(number / 2 ** 32)) >>>
      0;
  }
  u32() {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  }
  below(n) {
    return this.u32() % n;
  }
  chance(oneIn) {
    return this.u32() % oneIn === 0;
  }
  pick(list) {
    return list[this.u32() % list.length];
  }
}

const INTERESTING_U8 = [
  0, 1, 0x0f, 0x10, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc4, 0xc7, 0xd4, 0xd8, 0xd9, 0xdc, 0xdd,
  0xde, 0xdf, 0xff,
];
const INTERESTING_U32 = [
  0, 1, 7, 8, 255, 256, 257, 0x7fff, 0xffff, 0x10000, 0x400000, 0x7fffffff, 0x80000000, 0xfffffff8, 0xffffffff,
];
const INTERESTING_F64 = [0, -0, 1, -1, 0.5, NaN, Infinity, -Infinity, 2 ** 31, 2 ** 32, 2 ** 53, 2 ** 53 + 2, 1e308];
const KEYS = [
  "__proto__",
  "constructor",
  "prototype",
  "toString",
  "length",
  "hasOwnProperty",
  "__defineGetter__",
  "then",
  "0",
  "-1",
  "4294967295",
  "",
  "a",
];

/** Everything that a mutation may do to bytes: flips, known edges, lies about lengths, cuts, splices, repeats. */
function mutate(random, input, corpus) {
  let bytes = Uint8Array.from(input);
  for (let rounds = 1 + random.below(4); rounds > 0; rounds--) {
    const at = bytes.length === 0 ? 0 : random.below(bytes.length);
    switch (random.below(10)) {
      case 0:
      case 1:
        if (bytes.length > 0) bytes[at] ^= 1 << random.below(8);
        break;
      case 2:
        if (bytes.length > 0) bytes[at] = random.pick(INTERESTING_U8);
        break;
      case 3:
        if (bytes.length > 0) bytes[at] = random.u32();
        break;
      case 4: {
        const value = random.pick(INTERESTING_U32);
        const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
        if (at + 4 <= bytes.length) view.setUint32(at, value, random.chance(2));
        break;
      }
      case 5:
        bytes = bytes.slice(0, at);
        break;
      case 6:
        bytes = join(bytes.subarray(0, at), bytes.subarray(Math.min(bytes.length, at + 1 + random.below(16))));
        break;
      case 7:
        bytes = join(bytes.subarray(0, at), bytes.subarray(at, at + 1 + random.below(64)), bytes.subarray(at));
        break;
      case 8: {
        const other = random.pick(corpus);
        bytes = join(bytes.subarray(0, at), other.subarray(other.length === 0 ? 0 : random.below(other.length)));
        break;
      }
      default: {
        const extra = Uint8Array.from({ length: random.below(9) }, () => random.u32());
        bytes = join(bytes.subarray(0, at), extra, bytes.subarray(at));
      }
    }
    if (bytes.length > INPUT_BYTES_MAX) bytes = bytes.slice(0, INPUT_BYTES_MAX);
  }
  return bytes;
}

function join(...parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Writes msgpack that no encoder would: every type byte, lengths that lie, hostile keys, deep and wide nesting. */
class MsgpackWriter {
  #bytes = [];
  constructor(random) {
    this.random = random;
  }
  record() {
    this.#bytes = [];
    const { random } = this;
    if (random.chance(8)) this.value(0);
    else {
      // The outer list as a record has it: [kind, payload, table, ...rest].
      this.#bytes.push(0x90 | (3 + random.below(13)));
      this.#bytes.push(random.below(20)); // record kinds, and a few that are none
      this.value(1);
      if (random.chance(3)) this.table();
      else this.#bytes.push(0xc0);
      const rest = (this.#bytes[0] & 15) - 3;
      for (let i = 0; i < rest; i++) {
        if (random.chance(2)) this.text();
        else this.value(2);
      }
    }
    if (random.chance(16)) this.#bytes.push(random.u32() & 255);
    return Uint8Array.from(this.#bytes);
  }
  table() {
    const { random } = this;
    const count = random.below(4);
    this.#bytes.push(0x90 | count);
    for (let i = 0; i < count; i++) {
      this.#bytes.push(random.chance(12) ? 0x92 : 0x93);
      const depth = random.below(4);
      this.#bytes.push(0x90 | depth);
      for (let j = 0; j < depth; j++) {
        if (random.chance(2)) this.#bytes.push(random.below(3));
        else if (random.chance(4)) this.#bytes.push(0xa9, ...Buffer.from("__proto__"));
        else this.text();
      }
      this.#bytes.push(random.below(14));
      this.#bytes.push(0xcd, 0, random.below(5) * 8);
    }
  }
  text() {
    const text = Buffer.from(this.random.chance(2) ? this.random.pick(KEYS) : String(this.random.below(1000)));
    this.#bytes.push(0xa0 | text.length, ...text);
  }
  value(depth) {
    const { random } = this;
    const bytes = this.#bytes;
    if (bytes.length > 4000) return void bytes.push(0xc0);
    const isDeep = depth > DEPTH_MAX + 2;
    switch (isDeep ? random.below(4) : random.below(14)) {
      case 0:
        bytes.push(random.u32() & 0x7f);
        break;
      case 1:
        this.text();
        break;
      case 2:
        bytes.push(0xc0);
        break;
      case 3:
        bytes.push(0xcb, ...Array.from({ length: 8 }, () => random.u32() & 255));
        break;
      case 4:
      case 5: {
        const count = random.below(5);
        bytes.push(0x90 | (random.chance(20) ? 15 : count));
        for (let i = 0; i < count; i++) this.value(depth + 1);
        break;
      }
      case 6:
      case 7: {
        const count = random.below(4);
        bytes.push(0x80 | (random.chance(20) ? 15 : count));
        for (let i = 0; i < count; i++) {
          if (random.chance(6)) this.value(depth + 1);
          else this.text();
          this.value(depth + 1);
        }
        break;
      }
      case 8: {
        // a chain of single-element lists
        const length = random.below(2 * DEPTH_MAX);
        for (let i = 0; i < length; i++) bytes.push(0x91);
        bytes.push(1);
        break;
      }
      case 9: {
        // any extension
        bytes.push(random.pick([0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xc7, 0xc8, 0xc9]));
        bytes.push(random.pick([0, 0x42, 0xff, 0x72, 0x73, 0x65, 0x78, 0x74, 0x62, 4, random.u32() & 255]));
        for (let i = random.below(18); i > 0; i--) bytes.push(random.chance(3) ? 16 : random.u32() & 255);
        break;
      }
      case 10: {
        // a length of 1, 2 or 4 bytes that may lie
        const size = random.below(20);
        const width = random.pick([1, 2, 4]);
        const type = { 1: [0xc4, 0xd9], 2: [0xc5, 0xda, 0xdc, 0xde], 4: [0xc6, 0xdb, 0xdd, 0xdf] }[width];
        const claimed = random.chance(4) ? random.pick(INTERESTING_U32) : size;
        bytes.push(random.pick(type));
        for (let i = width - 1; i >= 0; i--) bytes.push((claimed >>> (8 * i)) & 255);
        for (let i = 0; i < size; i++) bytes.push(random.u32() & 255);
        break;
      }
      case 11:
        bytes.push(random.u32() & 255);
        break;
      case 12:
        bytes.push(0xd6, 0xff, 0, 0, 0, random.u32() & 255);
        break;
      default:
        bytes.push(random.pick([0xc2, 0xc3, 0xe0, 0xff]));
    }
  }
}

/** Throws when `value` holds anything but plain data: the promise that the codec makes to handlers. */
function assertPlain(value, depth = 0) {
  if (typeof value === "function" || typeof value === "symbol") throw new Error(`decoded into a ${typeof value}`);
  if (typeof value !== "object" || value === null) return;
  if (depth > DEPTH_MAX + 1) throw new Error("decoded deeper than DEPTH_MAX");
  if (ArrayBuffer.isView(value) || value instanceof Date) return;
  const prototype = Object.getPrototypeOf(value);
  if (Array.isArray(value) ? prototype !== Array.prototype : prototype !== Object.prototype && prototype !== null) {
    throw new Error("decoded into an object with a foreign prototype");
  }
  for (const key of Object.keys(value)) assertPlain(value[key], depth + 1);
}

const SEGMENT_SECRET = { challenge: new Uint8Array(16).fill(1), response: new Uint8Array(16).fill(2) };

/** Shared memory in which a peer's segments are what the peer says, and own ones cannot be had. */
function sharedMemory(isPeerDialer) {
  return {
    create: () => undefined,
    open: (locator, sizeBytes) => (locator !== "seen" ? undefined : {
      sizeBytes, header: () => encodeSegmentHeader(isPeerDialer, SEGMENT_SECRET), close: () => undefined, detach: () => undefined,
      lend: (lengthBytes) => new ArrayBuffer(lengthBytes),
    }),
  };
}

class MemoryChannel {
  send() {
    return Promise.resolve("sent");
  }
  close() {}
}

export class Fuzzer {
  #random = new Random();
  #codec = new Codec();
  #host = createNodeHost("fuzz", {
    logger: {
      ...silentLogger,
      error: (message, fields) => {
        throw new Error(`${message}: ${fields?.error?.stack ?? fields?.error}`);
      },
    },
  });
  #system = new SystemCore("fuzz", this.#host);
  #keys = curveKeys();
  #strangerId = curveKeys().publicKey;
  #openedByForgery = 0;
  #canaryBytes;
  #canaryText;
  #bodies;
  #frames;
  #prototypes = prototypeNames();
  #writer = new MsgpackWriter(this.#random);
  #input;
  outcomes = { decoded: 0, refused: 0 };
  slowestMs = 0;

  constructor(seed, corpus) {
    this.seed = seed;
    this.corpus = corpus;
    this.#frames = corpus.lanes.flat();
    const recorded = this.#frames
      .filter((parts) => parts[0][1] === FrameKind.records)
      .flatMap((parts) =>
        splitRecords(parts[0], readHeader(parts[0]).count).map(({ start, end }) => Uint8Array.from(parts[0].subarray(start, end))),
      );
    const packr = new Packr({ useRecords: false });
    this.#bodies = [
      ...recorded,
      ...samplePayloads().map((payload) => Uint8Array.from(this.#codec.encode([1, payload, null, "a"]).body)),
      // What other msgpack encoders may produce and this wire must refuse.
      Uint8Array.from(
        new Packr({ useRecords: true }).pack([
          1,
          [
            { a: 1, b: 2 },
            { a: 1, b: 2 },
          ],
          null,
        ]),
      ),
      Uint8Array.from(
        new Packr({ moreTypes: true, structuredClone: true }).pack([1, [new Set([1]), /x/, new Map([[1, 2]])], null]),
      ),
      Uint8Array.from(
        packr.pack([
          1,
          JSON.parse('{"__proto__": {"polluted": 1}, "constructor": {"prototype": {"polluted": 1}}}'),
          null,
        ]),
      ),
    ];
    const canary = [4, { text: "canary", list: [1, { a: null }], bytes: new Uint8Array([1, 2]) }, null, "x", 7];
    this.#canaryBytes = Uint8Array.from(this.#codec.encode(canary).body);
    this.#canaryText = JSON.stringify(this.#codec.decode(this.#canaryBytes));
    this.targets = [
      [5, "record", () => this.#record(mutate(this.#random, this.#random.pick(this.#bodies), this.#bodies))],
      [5, "structured", () => this.#record(this.#writer.record())],
      [3, "frame", () => this.#frame()],
      [2, "handshake", () => this.#handshake()],
      [4, "lane", () => this.#lane()],
      [1, "link", () => this.#link()],
    ];
    this.weights = this.targets.flatMap(([weight, ...rest], i) => Array(weight).fill(i));
  }

  /** @returns a finding, or undefined when every invariant held. */
  run(number) {
    const finding = this.#runOnce(number);
    // On a busy machine a case may just have had to wait: only what is slow each time is slow.
    return finding?.isSlow === true ? this.#runOnce(number) && this.#runOnce(number) : finding;
  }

  #runOnce(number) {
    this.#random.start(this.seed, number);
    // One in 2,048 cases costs a Diffie-Hellman exchange.
    const isAcceptor = this.#random.below(2048) === 0;
    const [, name, target] = isAcceptor
      ? [0, "acceptor", () => this.#acceptor()]
      : this.targets[this.#random.pick(this.weights)];
    this.#input = undefined;
    const startMs = performance.now();
    let problem;
    try {
      target();
      this.outcomes.decoded += 1;
    } catch (error) {
      if (error instanceof WireError) this.outcomes.refused += 1;
      else problem = error instanceof Error ? error.stack : String(error);
    }
    const ms = performance.now() - startMs;
    if (ms > this.slowestMs) this.slowestMs = ms;
    const isSlow = problem === undefined && ms > CASE_MS_MAX;
    if (isSlow) problem = `took ${ms.toFixed(0)} ms`;
    if (problem === undefined) problem = this.#check(number);
    if (problem === undefined) return undefined;
    const input = [this.#input]
      .flat(2)
      .map((part) => (part instanceof Uint8Array ? Buffer.from(part).toString("hex") : String(part)));
    return { case: number, seed: this.seed, target: name, problem, isSlow, input };
  }

  /** What a case may have left behind. */
  #check(number) {
    for (const key in {}) return `Object.prototype has got an enumerable ${key}`;
    if (number % CANARY_EVERY === 0 && JSON.stringify(this.#codec.decode(this.#canaryBytes)) !== this.#canaryText) {
      return "a good record decodes differently after hostile ones";
    }
    if (number % PROTOTYPES_EVERY === 0 && prototypeNames() !== this.#prototypes)
      return "a built-in prototype has changed";
    return undefined;
  }

  #record(body) {
    this.#input = body;
    const isSafe = isSafeMsgpack(body);
    const record = this.#codec.decode(body);
    if (!isSafe) throw new Error("decoded though the guard says no");
    assertPlain(record);
    const sizes = tensorSizes(record[2]);
    const total = sizes.reduce((sum, size) => sum + size, 0);
    if (total > TENSOR_BYTES_MAX) return;
    attachTensors(
      record,
      sizes.map((size) => new Uint8Array(size)),
    );
    assertPlain(record);
    readRecord(record);
  }

  #frame() {
    const random = this.#random;
    const source = random.chance(5)
      ? Uint8Array.from({ length: random.below(200) }, () => random.u32())
      : random.pick(this.#frames)[0];
    const frame = mutate(random, source, this.#bodies);
    this.#input = frame;
    const header = readHeader(frame);
    const slices = splitRecords(frame, random.chance(4) ? random.below(BATCH_RECORDS_MAX + 2) : header.count);
    const total = slices.reduce((sum, slice) => sum + 8 + slice.tensorsEnd - slice.start, HEADER_BYTES);
    if (total !== frame.length) throw new Error("slices that do not cover their frame");
    for (const { start, end } of slices) this.#record(frame.subarray(start, end));
  }

  #handshake() {
    const random = this.#random;
    const source = random.pick(this.corpus.handshake)[0].subarray(HEADER_BYTES);
    const body = random.chance(4) ? this.#writer.record() : mutate(random, source, this.#bodies);
    this.#input = body;
    if (random.chance(2)) decodeHello(body);
    else decodeChallenge(random.chance(2) ? splitMac(body).rest : body);
  }

  /** A run of frames as one peer might send them on one lane, mostly with the right sequence numbers. */
  #sequence(lengthMax) {
    const random = this.#random;
    const frames = [];
    const isNumbered = !random.chance(4);
    const lane = random.pick(this.corpus.lanes.filter((each) => each.length > 0));
    let at = random.below(lane.length);
    for (let length = 1 + random.below(lengthMax); length > 0; length--) {
      if (random.chance(6)) at = random.below(lane.length);
      let parts = random.chance(8) ? this.#sharedFrame() : random.chance(5) ? this.#transferFrame() : random.chance(6) ? this.#controlFrame() : lane[at++ % lane.length];
      if (random.chance(4)) parts = parts.map((part) => (random.chance(2) ? mutate(random, part, this.#bodies) : part));
      if (random.chance(40)) parts = [...parts, new Uint8Array(random.below(20))];
      if (random.chance(40)) parts = parts.slice(1);
      if (random.chance(30) && frames.length > 0) parts = random.pick(frames);
      parts = parts.map((part) => Uint8Array.from(part));
      if (isNumbered && parts[0]?.length >= HEADER_BYTES && !random.chance(20)) {
        new DataView(parts[0].buffer).setUint32(4, frames.length, true);
      }
      frames.push(parts);
    }
    this.#input = frames;
    return frames;
  }

  /** Offers, transfers, ends and returns of shared memory; all segments have the same known contents. */
  #sharedFrame() {
    const random = this.#random;
    const id = random.pick([0, 1, 2, 3, 2 ** 32 - 1, -1, 0.5]);
    const sizeBytes = random.pick([0, 4096, 8192, 4095, 0xfffff000]);
    switch (random.below(4)) {
      case 0:
        return [createFrame(FrameKind.sharedOffer, 0, 0, id, encodeOffer({ sizeBytes, challenge: SEGMENT_SECRET.challenge, locator: random.pick(["seen", "unseen"]) }))];
      case 1: {
        const arrays = Array.from({ length: 1 + random.below(3) }, () => new Float32Array(random.pick([0, 64, 400])));
        const { body, tensors, tensorBytes } = this.#codec.encode([1, arrays, null, "a", "p", 1, 1, "n"]);
        const placed = tensors.map(() => ({ segment: random.below(4), offset: random.pick([0, 64, 2048, 4096, 0xffffffff]) }));
        return [createFrame(FrameKind.shared, tensors.length, 0, tensorBytes, encodeShared(placed, body))];
      }
      case 2:
        return [createFrame(FrameKind.sharedAnswer, random.below(3), 0, id, random.chance(2) ? SEGMENT_SECRET.response : new Uint8Array(random.below(40)))];
      default:
        return [createFrame(random.pick([FrameKind.sharedRetire, FrameKind.sharedRelease]), 0, 0, id)];
    }
  }

  /** Pings, credit and goodbyes as a liar might send them. */
  #controlFrame() {
    const random = this.#random;
    const kind = random.pick([...Object.values(FrameKind), FrameKind.credit, FrameKind.credit, random.below(256)]);
    return [createFrame(kind, random.pick([0, 1, 2, 3, 255, 65535]), 0, random.chance(2) ? 0 : random.pick(INTERESTING_F64))];
  }

  /** The start of a transfer, or a chunk; small, so that whole transfers fit a case. */
  #transferFrame() {
    const random = this.#random;
    if (random.chance(2)) {
      return [createFrame(FrameKind.chunk, 0, 0, 0), new Uint8Array(random.pick([0, 1, 8, 100, 400, 1024, 4096]))];
    }
    const arrays = Array.from({ length: 1 + random.below(3) }, () => new Float32Array(random.pick([0, 1, 25, 100])));
    const { body, tensors, tensorBytes } = this.#codec.encode([1, arrays, null, "a", "p", 1, 1, "n"]);
    const value = random.chance(8) ? random.pick(INTERESTING_F64) : tensorBytes;
    return [createFrame(FrameKind.bulk, random.chance(8) ? random.below(5) : tensors.length, 0, value, body)];
  }

  #lane() {
    const windowBytes = this.#random.pick([MESSAGE_WINDOW_BYTES, 4096, 65536]);
    let granted = 0;
    const receiver = new LaneReceiver(windowBytes, this.#codec, {
      onRecord: (record) => {
        assertPlain(record);
        readRecord(record);
      },
      // As a link without shared memory.
      onShared: () => {
        throw new WireError("malformed", "a shared record where nothing is shared");
      },
      onControl: () => undefined,
      onShared: () => {
        throw new WireError("malformed", "no shared memory here");
      },
      onCredit: (total) => {
        if (!(total >= granted)) throw new Error("credit that goes back");
        granted = total;
      },
    });
    for (const parts of this.#sequence(20)) receiver.accept(parts);
  }

  #link() {
    const random = this.#random;
    let ends = 0;
    const isDialer = random.chance(2);
    const host = random.chance(2) ? this.#host : { ...this.#host, sharedMemory: sharedMemory(!isDialer) };
    const link = new Link(
      { nodeId: "00", incarnation: "00", endpoint: "ipc:///x", chunkBytes: 4096, isDialer, version: 1 + random.below(2), isSharing: isDialer },
      {
        host,
        channels: [new MemoryChannel(), new MemoryChannel(), new MemoryChannel()],
        events: { onRecord: (record) => void readRecord(record), onEnd: () => void (ends += 1) },
      },
    );
    for (const parts of this.#sequence(8)) link.receive(random.below(3), parts);
    link.close("closed", "");
    if (ends !== 1) throw new Error(`a link that ended ${ends} times`);
  }

  /** Handshake frames, replayed and altered: nobody without the secret key may open a link. */
  #acceptor() {
    const random = this.#random;
    const acceptor = new Acceptor(
      { keys: this.#keys, isAllowed: () => true, isBarred: () => false, linkVersionMax: 2 },
      { system: this.#system, host: this.#host, openLink: () => void (this.#openedByForgery += 1) },
    );
    acceptor.attach({ endpoint: "ipc:///x", channel: () => new MemoryChannel(), close: async () => undefined });
    const ids = [1, 2, 3].map((n) => new Uint8Array(17).fill(n));
    const hello = encodeHello({
      versionMin: 1, versionMax: 1 + random.below(3), nodeId: this.#strangerId, serverId: this.#keys.publicKey, incarnation: "ab".repeat(8),
      nonce: new Uint8Array(32), lanes: [ids[1], ids[2]],
    });
    const replayed = (kind) => this.corpus.handshake.find((parts) => parts[0][1] === kind);
    // A whole handshake whose proofs were recorded from another, with other frames and alterations in between.
    const inputs = [
      [0, [createFrame(FrameKind.hello, 0, 0, 0, hello)]], [0, replayed(FrameKind.proof)], [1, replayed(FrameKind.lane)], [2, replayed(FrameKind.lane)],
    ];
    for (let i = random.below(5); i > 0; i--) {
      const source = random.pick(this.corpus.handshake);
      inputs.splice(random.below(inputs.length + 1), 0, [random.below(3), random.chance(2) ? [mutate(random, source[0], this.#bodies)] : source]);
    }
    this.#input = inputs.map(([, parts]) => parts);
    for (const [lane, parts] of inputs) acceptor.onFrame(ids[lane], parts);
    acceptor.close();
    if (this.#openedByForgery > 0) throw new Error("a replayed or forged handshake opened a link");
  }
}

function prototypeNames() {
  return [Object, Array, Function, Date, Uint8Array, Float32Array, String, Number, Boolean, BigInt, Promise, Map, Set]
    .map((each) => `${Reflect.ownKeys(each.prototype).map(String)};${Reflect.ownKeys(each).map(String)}`)
    .join("|");
}
