// Casts in a row: as one record they say what each would have said alone, in order, beside whatever else is sent.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { z } from "zod";
import { behavior, createSystem, curveKeys, defineProtocol, silentLogger, type Peer, type System } from "../../src/runtime/index.js";
import { RecordKind } from "../../src/runtime/remote/record.js";
import { CastRun, encodeTail } from "../../src/runtime/wire/cast-run.js";
import { Codec } from "../../src/runtime/wire/codec.js";
import { BATCH_BYTES_MAX, CAST_RUN_MAX } from "../../src/runtime/wire/limits.js";

const ADDRESS = ["sink", "sink", 1, 1, "note"];

describe("a run", () => {
  const codec = new Codec();
  const run = new CastRun(RecordKind.casts);
  const tail = encodeTail([null, ...ADDRESS])!;

  test("decodes as the record that the full encoder makes of the same messages", () => {
    const bytes = fc.uint8Array({ maxLength: 700 });
    const leaf = fc.oneof(fc.integer(), fc.double({ noNaN: true }), fc.boolean(), fc.constant(null), bytes, fc.string({ unit: "binary-ascii", maxLength: 80 }));
    const message = fc.oneof(leaf, fc.array(leaf, { maxLength: 6 }), fc.record({ i: fc.integer(), data: bytes }));
    fc.assert(fc.property(fc.array(message, { minLength: 1, maxLength: 40 }), (messages) => {
      const taken: unknown[] = [];
      run.begin(tail);
      for (const each of messages) if (run.isOpenFor(tail) && run.append(each) > 0) taken.push(each);
      expect(run.count).toBe(taken.length);
      if (taken.length === 0) return;
      const body = run.end();
      expect(body.length).toBeLessThanOrEqual(BATCH_BYTES_MAX);
      const wide = codec.encode([RecordKind.casts, taken, null, ...ADDRESS]);
      expect(codec.decode(new Uint8Array(body))).toEqual(wide.tensors.length > 0 ? undefined : codec.decode(wide.body));
    }), { numRuns: 300 });
  });

  test("byte strings are copies of the frame, apart from one another", () => {
    run.begin(tail);
    for (let i = 0; i < 300; i++) run.append(new Uint8Array(64).fill(i));
    const frame = new Uint8Array(run.end());
    const [, messages] = codec.decode(frame) as [number, Uint8Array[]];
    frame.fill(0);
    messages[7]!.fill(255);
    messages.forEach((each, i) => expect([each.constructor, each.length, each[0], each[63]]).toEqual([Uint8Array, 64, i === 7 ? 255 : i & 255, i === 7 ? 255 : i & 255]));
    // One that is kept must not keep much more than itself, nor take its neighbours away when it is moved to a thread.
    expect(messages[0]!.buffer.byteLength).toBeLessThanOrEqual(8192);
    const moved = ((): number => {
      try {
        structuredClone(messages[0], { transfer: [messages[0]!.buffer] });
      } catch {
        // Node 21 and later refuse; 20 copies.
      }
      return messages[1]!.length;
    })();
    expect(moved).toBe(64);
  });

  test("is closed by its number of messages and by its bytes", () => {
    run.begin(tail);
    while (run.isOpenFor(tail)) run.append(1);
    expect(run.count).toBe(CAST_RUN_MAX);
    expect(run.end().length).toBeLessThan(4096);
    run.begin(tail);
    while (run.isOpenFor(tail)) run.append(new Uint8Array(1000));
    expect(run.count).toBeLessThan(CAST_RUN_MAX);
    expect(run.end().length).toBeLessThanOrEqual(BATCH_BYTES_MAX);
  });

  test("leaves alone what the full encoder has to write", () => {
    run.begin(tail);
    for (const each of [undefined, 1n, "ümlaut", new Date(0), new Float32Array(2), new Uint8Array(1025), { f: new Float64Array(1) }]) {
      expect(run.append(each)).toBe(0);
    }
    expect(run.count).toBe(0);
    expect(run.append("plain")).toBe(6);
    expect(codec.decode(new Uint8Array(run.end()))[1]).toEqual(["plain"]);
    expect(encodeTail([null, "päth"])).toBeUndefined();
  });
});

const Sink = defineProtocol("sink", 1, {
  cast: { note: z.any(), other: z.any() },
  call: { seen: { request: z.null(), reply: z.array(z.any()) } },
});
const open: System[] = [];
const directory = mkdtempSync(join(tmpdir(), "runs-"));
afterEach(async () => {
  for (const each of open.splice(0)) await each.shutdown({ deadlineMs: 500 });
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

async function pair(linkVersionMax?: number): Promise<{ client: System; peer: Peer }> {
  const [server, client] = ["server", "client"].map((name) => createSystem({ name, logger: silentLogger })) as [System, System];
  open.push(server, client);
  for (const name of ["a", "b"]) {
    const seen: unknown[] = [];
    server.spawn(
      behavior(Sink, () => ({
        cast: { note: (m) => void seen.push(m), other: (m) => void seen.push(["other", m]) },
        call: { seen: () => seen.splice(0) },
      })),
      { name, mailbox: { capacity: 100_000 } },
    );
  }
  const keys = curveKeys();
  const { endpoint } = await server.listen({ endpoint: `ipc://${join(directory, `s${open.length}-${Math.random()}`)}`, keys, allow: () => true });
  const options = { endpoint, serverKey: keys.publicKey, keys: curveKeys() };
  return { client, peer: await client.connect(linkVersionMax === undefined ? options : { ...options, linkVersionMax }) };
}

describe("between two systems", () => {
  test.each([3, 2, 1])("every cast arrives once and in order, whatever stands between, with link version %d", async (version) => {
    const { client, peer } = await pair(version);
    expect(client.links()[0]!.version).toBe(version);
    const refs = { a: peer.ref(Sink, "a"), b: peer.ref(Sink, "b") };
    const expected: Record<"a" | "b", unknown[]> = { a: [], b: [] };
    const messages = [1, "x", "ümlaut", { i: 2, data: Uint8Array.of(1, 2) }, new Uint8Array(2000).fill(3), new Float32Array([1, 2]), null, [1, [2]], 2n ** 70n];
    let state = 12345;
    for (let i = 0; i < 3000; i++) {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      const to = state & 0x30000 ? "a" : "b";
      const message = messages[(state >>> 20) % (state & 0x40000 ? 2 : messages.length)];
      const isOther = (state >>> 19) % 8 === 0;
      expect(refs[to].cast(isOther ? "other" : "note", message)).toBe("accepted");
      expected[to].push(isOther ? ["other", message] : message);
      if (i % 700 === 699) {
        const reply = await refs[to].call("seen", null); // a call may not overtake what was cast before it
        expect(reply).toEqual({ ok: true, value: expected[to].splice(0) });
      }
    }
    for (const to of ["a", "b"] as const) expect(await refs[to].call("seen", null)).toEqual({ ok: true, value: expected[to] });
    const lane = client.links()[0]!.lanes[1]!;
    if (version === 3) expect(lane.framesSent).toBeLessThan(500);
    expect(lane.recordsSent).toBeGreaterThan(2500); // by messages; large arrays take another lane
  });

  test("what a getter sends while its message is written finds no room, and spoils nothing", async () => {
    const { peer } = await pair();
    const ref = peer.ref(Sink, "a");
    const results: unknown[] = [];
    const sly = (i: unknown) => ({
      get i() {
        results.push(ref.cast("note", "inner"), ref.cast("note", 1n));
        return i;
      },
    });
    for (const message of [0, sly(1), sly(2n), 3]) expect(ref.cast("note", message)).toBe("accepted");
    expect(await ref.call("seen", null)).toEqual({ ok: true, value: [0, { i: 1 }, { i: 2n }, 3] });
    expect(new Set(results)).toEqual(new Set(["full"]));
  });

  test("a getter that throws costs its own message", async () => {
    const { client, peer } = await pair();
    const ref = peer.ref(Sink, "a");
    ref.cast("note", 0);
    expect(ref.cast("note", { get i() { throw new Error("no"); } })).toBe("full");
    ref.cast("note", 2);
    expect(await ref.call("seen", null)).toEqual({ ok: true, value: [0, 2] });
    expect(client.deadLetters.counts().malformed).toBe(1);
  });
});
