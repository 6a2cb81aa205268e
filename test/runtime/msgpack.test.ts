// The quick reader and writer of records against the full ones: whatever they do not leave alone, they do alike.
import fc from "fast-check";
import { Packr } from "msgpackr";
import { describe, expect, test } from "vitest";
import { isSafeMsgpack } from "../../src/runtime/wire/msgpack-guard.js";
import { MsgpackReader } from "../../src/runtime/wire/msgpack-reader.js";
import { MsgpackWriter } from "../../src/runtime/wire/msgpack-writer.js";

// As the codec sets it.
const packr = new Packr({
  useRecords: false, mapsAsObjects: true, useBigIntExtension: true, copyBuffers: true, moreTypes: false,
} as object);
const full = (bytes: Uint8Array): unknown => packr.unpack(new Uint8Array(bytes) as Buffer);

const word = fc.string({ unit: fc.constantFrom(..."abcdefghij_-/."), maxLength: 40 });
const leaf = fc.oneof(
  fc.constantFrom(null, true, false, 0, -1, 127, 128, 255, 256, 65_535, 65_536, 2 ** 31, 2 ** 32 - 1, 2 ** 32, -32, -33, -128,
    -32_769, -(2 ** 31), NaN, Infinity, 0.1, Number.MAX_SAFE_INTEGER, 1e300),
  fc.integer(), fc.double(), word, fc.string({ maxLength: 300 }), fc.uint8Array({ maxLength: 300 }),
);
const { value: plain } = fc.letrec((tie) => ({
  value: fc.oneof({ depthSize: "small" }, leaf, fc.array(tie("value"), { maxLength: 20 }), fc.dictionary(word, tie("value"), { maxKeys: 20 })),
}));
const strange = fc.constantFrom<unknown>(undefined, 1n, new Date(0), "ümlaut", "\u{1f600}", { __proto__: null, a: 1 });

describe("quick msgpack", () => {
  const [reader, writer] = [new MsgpackReader(), new MsgpackWriter()];

  test("what is written reads alike, quickly and fully", () => {
    let quick = 0;
    fc.assert(fc.property(fc.array(plain, { maxLength: 8 }), (list) => {
      const bytes = writer.write(list);
      if (bytes === undefined) return;
      quick += 1;
      const expected = full(packr.pack(list));
      expect(isSafeMsgpack(bytes)).toBe(true);
      expect(full(bytes)).toEqual(expected);
      expect(reader.readList(bytes)).toEqual(expected);
    }), { numRuns: 500 });
    expect(quick).toBeGreaterThan(25);
  });

  test("what the full encoder writes is read alike or left alone", () => {
    let quick = 0;
    fc.assert(fc.property(fc.array(fc.oneof({ weight: 20, arbitrary: plain }, strange), { maxLength: 8 }), (list) => {
      const bytes = packr.pack(list);
      const read = reader.readList(bytes);
      if (read === undefined) return;
      quick += 1;
      expect(read).toStrictEqual(full(bytes));
    }), { numRuns: 500 });
    expect(quick).toBeGreaterThan(25);
  });

  test("of changed and cut bytes it accepts only what the guard accepts, and reads it alike", () => {
    let quick = 0;
    const change = fc.record({ at: fc.nat(400), byte: fc.nat(255) });
    fc.assert(fc.property(fc.array(plain, { maxLength: 6 }), fc.array(change, { maxLength: 3 }), fc.nat(3), (list, changes, cut) => {
      const bytes = new Uint8Array(writer.write(list) ?? packr.pack(list));
      for (const { at, byte } of changes) if (at < bytes.length) bytes[at] = byte;
      const hostile = bytes.subarray(0, Math.max(0, bytes.length - cut));
      const read = reader.readList(hostile);
      if (read === undefined) return;
      quick += 1;
      expect(isSafeMsgpack(hostile)).toBe(true);
      expect(read).toStrictEqual(full(hostile));
    }), { numRuns: 500 });
    expect(quick).toBeGreaterThan(25);
  });

  test("a key that would reach the prototype is left to the full decoder", () => {
    const bytes = Uint8Array.of(0x91, 0x81, 0xa9, ...Buffer.from("__proto__"), 0x01);
    expect(reader.readList(bytes)).toBeUndefined();
    expect(writer.write([JSON.parse('{"__proto__":1}')])).toBeUndefined();
  });

  test("written records stay as they are while more are written", () => {
    const list = [1, "path", new Uint8Array(1000).fill(7), Buffer.from("bytes")];
    const records = Array.from({ length: 80 }, () => writer.write(list)!);
    const expected = full(packr.pack(list));
    for (const record of records) expect(full(record)).toEqual(expected);
  });

  test("nesting and value counts are bounded as in the guard", () => {
    const deep = new Uint8Array(64).fill(0x91);
    deep[63] = 0x01;
    expect(isSafeMsgpack(deep)).toBe(false);
    expect(reader.readList(deep)).toBeUndefined();
    expect(reader.readList(Uint8Array.of(0xdc, 0xff, 0xff, 0x01))).toBeUndefined();
  });
});
