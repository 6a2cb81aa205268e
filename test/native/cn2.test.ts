// CN2 on every path against the published vectors; the four final hashes against NIST's; the paths against each
// other on any input; the search over nonces against single hashes; its end by count, capacity, abort and close.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { blake256 } from "@noble/hashes/blake1.js";
import { afterAll, describe, expect, test } from "vitest";
import { digest, openDevice, type Device, type DigestName } from "../../src/device/device.js";
import { seeded } from "./reference.js";

const read = (name: string) => JSON.parse(readFileSync(new URL(name, import.meta.url), "utf8"));
const hex = (b: Uint8Array) => Buffer.from(b).toString("hex");
const bytes = (text: string) => Uint8Array.from(Buffer.from(text, "hex"));
const devices: Device[] = [];
for (const isa of ["scalar", "avx2", "avx512"] as const)
  try { devices.push(openDevice({ backend: "cpu", isa, threads: isa === "avx2" ? 2 : 1 })); } catch { /* absent here */ }
afterAll(() => { for (const d of devices) d.close(); });
const fastest = devices.at(-1)!;
const random = seeded(8);
const randomBytes = (n: number) => Uint8Array.from({ length: n }, () => Math.floor(random() * 256));
const NONE = new Uint8Array(32), ALL = new Uint8Array(32).fill(255);
const scan = { nonceOffset: 39, nonceBytes: 4, nonceStart: 0n, count: 1n, target: ALL };

describe("the final hashes", () => {
  test.each(read("finalists-vectors.json").vectors as Record<string, string>[])("NIST's vector %#", ({ input, ...hashes }) => {
    for (const [name, hash] of Object.entries(hashes)) expect(hex(digest(name as DigestName, bytes(input!))), name).toBe(hash);
  });

  test("BLAKE-256 of every length around its blocks, as @noble/hashes has it", () => {
    for (let n = 0; n < 260; n++) {
      const data = randomBytes(n);
      expect(hex(digest("blake256", data)), `${n}`).toBe(hex(blake256(data)));
    }
  });

  test("wrong names and data", () => {
    expect(() => digest("md5" as never, NONE)).toThrow(/name must be blake256/);
    expect(() => digest("jh256", "00" as never)).toThrow(/typed array/);
  });
});

describe("one hash", () => {
  const { vectors, sqrt } = read("cn2-vectors.json") as { vectors: { input: string; hash: string }[]; sqrt: { cases: [string, string][] } };

  test("the published vectors, on every path", () => {
    for (const [i, { input, hash }] of vectors.entries())
      for (const d of i < 4 ? devices : devices.slice(-1)) expect(hex(d.cn2Hash(bytes(input))), d.isa).toBe(hash);
  });

  test("all paths agree on any input", () => {
    for (const n of [0, 76, 136, 300]) {
      const data = randomBytes(n), want = hex(devices[0]!.cn2Hash(data));
      for (const d of devices) expect(hex(d.cn2Hash(data)), `${n} bytes, ${d.isa}`).toBe(want);
    }
  });

  // Compiled apart: the addon shows no such inside, and a wrong root in 2^-20 of the steps may spare ten vectors.
  test("the integer square root at its published edges, and on both sides of every result's own", () => {
    const folder = mkdtempSync(join(tmpdir(), "tesra-cn2-"));
    writeFileSync(join(folder, "root.cc"), `
#include <cstdio>
#include <cstdlib>
#include "native/cpu/cn2/cn2.h"
using U = unsigned __int128;
int main(int count, char** list) {
  for (int i = 1; i < count; ++i) std::printf("%llu\\n", (unsigned long long)tesra::cn2_integer_root(std::strtoull(list[i], nullptr, 10)));
  uint64_t x = 88172645463325252u;
  for (int i = 0; i < 2000000; ++i) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    const uint64_t r = x % 3558067407u + 1;  // the least n with root r: r (r + 2^34) / 4, rounded up
    const uint64_t n = uint64_t((U(r) * (r + (U(1) << 34)) + 3) / 4);
    if (tesra::cn2_integer_root(n) != r || tesra::cn2_integer_root(n - 1) != r - 1) return std::printf("wrong at %llu\\n", (unsigned long long)n), 1;
  }
}`);
    execFileSync(process.env.CXX ?? "g++", ["-std=c++17", "-O1", "-fno-math-errno", "-I", join(import.meta.dirname, "../.."), join(folder, "root.cc"), "-o", join(folder, "root")]);
    const out = execFileSync(join(folder, "root"), sqrt.cases.map(([n]) => n), { encoding: "utf8" });
    rmSync(folder, { recursive: true });
    expect(out.trim().split("\n")).toEqual(sqrt.cases.map(([, root]) => root));
  });

  test("views, shared and detached buffers, sizes over the limit", () => {
    const data = randomBytes(60), shared = new Uint8Array(new SharedArrayBuffer(100), 7, 60);
    shared.set(data);
    expect(hex(fastest.cn2Hash(shared))).toBe(hex(fastest.cn2Hash(data)));
    const moved = new Uint8Array(10);
    structuredClone(moved.buffer, { transfer: [moved.buffer] });
    expect(hex(fastest.cn2Hash(moved))).toBe(hex(fastest.cn2Hash(new Uint8Array(0))));
    expect(() => fastest.cn2Hash(new Uint8Array(2 ** 20 + 1))).toThrow(expect.objectContaining({ code: "shape" }));
    for (const bad of [undefined, null, 1, "00", new Int8Array(4), [1]])
      expect(() => fastest.cn2Hash(bad as never)).toThrow(expect.objectContaining({ code: "argument" }));
  });
});

describe("the search", () => {
  test("tries each nonce once, interleaved or not, and finds what single hashes find", async () => {
    const data = randomBytes(76);
    const nonceStart = 0xfffffffdn, count = 5n;
    const want = Array.from({ length: Number(count) }, (_, i) => {
      const own = data.slice();
      new DataView(own.buffer).setUint32(3, Number((nonceStart + BigInt(i)) & 0xffffffffn), true);
      own[7] = Number((nonceStart + BigInt(i)) >> 32n);
      return { nonce: nonceStart + BigInt(i), hash: hex(fastest.cn2Hash(own)) };
    });
    for (const d of devices.slice(-2)) {
      const all = await d.cn2Scan(data, { nonceOffset: 3, nonceBytes: 5, nonceStart, count, target: ALL, capacity: 10 });
      expect(all.tried).toBe(count);
      expect(all.found.map(({ nonce, hash }) => ({ nonce, hash: hex(hash) })), d.isa).toEqual(want);
      expect(["reserved", "transparent", "small"]).toContain(all.pages);
      // At one hash's own value that one wins, and those below it.
      const value = (hash: string) => BigInt(`0x${Buffer.from(hash, "hex").reverse().toString("hex")}`);
      const least = want.filter(({ hash }) => value(hash) <= value(want[3]!.hash)).map(({ nonce }) => nonce);
      const some = await d.cn2Scan(data, { nonceOffset: 3, nonceBytes: 5, nonceStart, count, target: bytes(want[3]!.hash), capacity: 10 });
      expect(some.found.map(({ nonce }) => nonce)).toEqual(least);
    }
  });

  test("ends at its capacity, and lists all winners of what it says was tried", async () => {
    for (const d of devices.slice(-2)) {
      const { found, tried } = await d.cn2Scan(new Uint8Array(50), { ...scan, nonceOffset: 40, count: 1000n, capacity: 3 });
      expect(found.map(({ nonce }) => nonce)).toEqual([0n, 1n, 2n]);
      expect(tried >= 3n && tried < 20n).toBe(true);
    }
  });

  test("an abort ends it, before or amid", async () => {
    expect((await fastest.cn2Scan(new Uint8Array(50), { ...scan, count: 1n << 30n, target: NONE, signal: AbortSignal.abort() })).tried).toBe(0n);
    const stop = new AbortController();
    const searching = fastest.cn2Scan(new Uint8Array(50), { ...scan, count: 1n << 30n, target: NONE, signal: stop.signal });
    setTimeout(() => stop.abort(), 50);
    const { found, tried } = await searching;
    expect([found.length, tried > 0n && tried < 1000n]).toEqual([0, true]);
  });

  test("closing the device ends it too, and what waits is told", async () => {
    const own = openDevice({ backend: "cpu", threads: 1 });
    const searching = own.cn2Scan(new Uint8Array(50), { ...scan, count: 1n << 30n, target: NONE });
    const waiting = own.cn2Scan(new Uint8Array(50), { ...scan, target: NONE });
    await new Promise((turn) => { setTimeout(turn, 20); });
    own.close();
    expect((await searching).tried < 1000n).toBe(true);
    await expect(waiting).rejects.toMatchObject({ code: "unavailable" });
    await expect(own.cn2Scan(new Uint8Array(50), scan)).rejects.toMatchObject({ code: "closed" });
  });

  test.each([
    [{ nonceOffset: 47 }, "shape"], [{ nonceOffset: -1 }, "argument"], [{ nonceOffset: 2 ** 40 }, "argument"], [{ nonceOffset: 1.5 }, "argument"],
    [{ nonceBytes: 0 }, "argument"], [{ nonceBytes: 9 }, "argument"], [{ nonceStart: -1n }, "argument"], [{ nonceStart: 1n << 32n }, "argument"],
    [{ nonceStart: 0xffffffffn, count: 2n }, "argument"], [{ count: 0n }, "argument"], [{ count: 1n << 64n }, "argument"], [{ count: 0.5 }, "argument"],
    [{ count: undefined }, "argument"], [{ target: new Uint8Array(31) }, "shape"], [{ target: undefined }, "argument"],
    [{ capacity: 0 }, "argument"], [{ capacity: 4097 }, "argument"], [{ get target() { throw new Error("trap"); } }, undefined],
  ])("refuses %#", async (change, code) => {
    const options = Object.defineProperties({ ...scan }, Object.getOwnPropertyDescriptors(change));
    await expect(fastest.cn2Scan(new Uint8Array(50), options as never)).rejects.toMatchObject(code === undefined ? { message: "trap" } : { code });
  });

  test("data that a getter takes away is not read", async () => {
    const data = new Uint8Array(50);
    const options = { ...scan, get target() { structuredClone(data.buffer, { transfer: [data.buffer] }); return ALL; } };
    await expect(fastest.cn2Scan(data, options)).rejects.toMatchObject({ code: "shape" });
  });
});
