// A short run of bench/runtime/fuzz.mjs, and the bound that keeps a record from unfolding into hundreds of MiB.
import { execFile } from "node:child_process";
import { resolve } from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { Codec } from "../../src/runtime/wire/codec.js";
import { DEPTH_MAX, RECORD_BYTES_MAX, VALUES_PER_RECORD_MAX } from "../../src/runtime/wire/limits.js";
import { isSafeMsgpack } from "../../src/runtime/wire/msgpack-guard.js";

const root = resolve(import.meta.dirname, "../..");

describe("fuzzing", () => {
  test("40,000 hostile inputs end in plain data or WireError", { timeout: 120_000 }, async () => {
    // Another process: a decoder that crashes or hangs must not take the test runner along.
    const { stdout } = await promisify(execFile)(
      process.execPath, ["--expose-gc", "bench/runtime/fuzz.mjs", "--cases", "40000", "--seed", "20"], { cwd: root, timeout: 110_000 },
    );
    const report = JSON.parse(stdout) as { cases: number; decoded: number; refused: number; findings: number };
    expect(report).toMatchObject({ cases: 40_000, findings: 0 });
    // Both sides of the fence are visited: a fuzzer whose inputs all fail at the first byte tests nothing.
    expect(report.decoded).toBeGreaterThan(2000);
    expect(report.refused).toBeGreaterThan(2000);
  });
});

describe("values in a record", () => {
  const wide = (type: number, count: number, value: number[]): Buffer => {
    const head = Buffer.from([0x93, 1, type, 0, 0, 0, 0]);
    head.writeUInt32BE(count, 3);
    const children = type === 0xdf ? count * 2 : count;
    return Buffer.concat([head, Buffer.alloc(children * value.length, Buffer.from(value)), Buffer.from([0xc0])]);
  };

  test.each([
    ["empty lists", 0xdd, [0x90]], ["empty maps", 0xdd, [0x80]], ["empty byte strings", 0xdd, [0xc4, 0]], ["nils", 0xdd, [0xc0]],
    ["map entries", 0xdf, [0xc0]],
  ])("%s past the bound are refused before they are decoded", (_name, type, value) => {
    const count = type === 0xdf ? VALUES_PER_RECORD_MAX / 2 : VALUES_PER_RECORD_MAX;
    const hostile = wide(type, count, value);
    expect(hostile.length).toBeLessThan(RECORD_BYTES_MAX);
    expect(isSafeMsgpack(hostile)).toBe(false);
    expect(isSafeMsgpack(wide(type, count - 10, value))).toBe(true);
  });

  test("nesting does not get around it", () => {
    const inner = Buffer.concat([Buffer.from([0xdc, 0xff, 0xff]), Buffer.alloc(0xffff, 0xc0)]);
    const record = Buffer.concat([Buffer.from([0x93, 1, 0x95]), inner, inner, inner, inner, inner, Buffer.from([0xc0])]);
    expect(isSafeMsgpack(record)).toBe(false);
    expect(DEPTH_MAX).toBeGreaterThan(2);
  });

  test("the sender says so, and what it lets through is taken", () => {
    const codec = new Codec();
    const list = (length: number): number[] => Array<number>(length).fill(1);
    expect(() => codec.encode([1, list(VALUES_PER_RECORD_MAX), null])).toThrow(/typed arrays/);
    expect(() => codec.encode([1, Object.fromEntries(list(VALUES_PER_RECORD_MAX / 2).map((_, i) => [`k${i}`, i])), null])).toThrow(/too-large|values/);
    const most = codec.encode([1, list(VALUES_PER_RECORD_MAX - 1024), null, ...list(60)]);
    expect((codec.decode(Uint8Array.from(most.body))[1] as number[]).length).toBe(VALUES_PER_RECORD_MAX - 1024);
  });
});
