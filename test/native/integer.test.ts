// BLAKE3 against an independent implementation and official vectors; int8 products and the proof of
// work's tiles against plain integer loops; all instruction sets alike.
import { blake3 as reference } from "@noble/hashes/blake3.js";
import { afterAll, describe, expect, test } from "vitest";
import { openDevice, type Device } from "../../src/device/device.js";
import { seeded } from "./reference.js";

const devices: Device[] = [];
for (const isa of ["scalar", "avx2", "avx512", "amx"] as const)
  try { devices.push(openDevice({ backend: "cpu", isa, threads: isa === "avx2" ? 3 : 1 })); } catch { /* absent here */ }
afterAll(() => { for (const d of devices) d.close(); });
const random = seeded(99);
const below = (n: number) => Math.floor(random() * n);
const hex = (b: Uint8Array) => Buffer.from(b).toString("hex");

describe("blake3", () => {
  const pattern = (n: number) => Uint8Array.from({ length: n }, (_, i) => i % 251);

  // github.com/BLAKE3-team/BLAKE3/test_vectors/test_vectors.json, first 32 bytes
  const officialKey = new TextEncoder().encode("whats the Elvish word for friend");
  test.each([
    [0, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262", "92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26"],
    [1, "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213", "6d7878dfff2f485635d39013278ae14f1454b8c0a3a2d34bc1ab38228a80c95b"],
    [1024, "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7", "75c46f6f3d9eb4f55ecaaee480db732e6c2105546f1e675003687c31719c7ba4"],
    [1025, "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444", "357dc55de0c7e382c900fd6e320acc04146be01db6a8ce7210b7189bd664ea69"],
  ])("official vector of %d bytes", (n, plain, keyed) => {
    for (const d of devices) {
      expect(hex(d.blake3(pattern(n)))).toBe(plain);
      expect(hex(d.blake3(pattern(n), officialKey))).toBe(keyed);
    }
  });

  // The other lengths of the official vectors, whose input is this pattern too, and trees of many tasks.
  test.each([0, 2, 3, 4, 5, 6, 7, 8, 63, 64, 65, 127, 128, 129, 1023, 2048, 2049, 3072, 3073, 4096, 4097, 5120, 5121, 6144, 6145, 7168, 7169, 8192, 8193, 16384, 31744, 102_400,
    262_144, 262_145, 263_168, 264_192, 525_312, 1_048_576, 1_100_801])("the official pattern of %d bytes", (n) => {
    const data = pattern(n), want = hex(reference(data));
    for (const d of devices) expect(hex(d.blake3(data)), d.isa).toBe(want);
  });

  test("every length around blocks, chunks, lanes and tree shapes", () => {
    const lengths = [2, 63, 64, 65, 127, 128, 129, 1023, 2047, 2048, 2049, 3072, 4096, 5121, 7168, 8192, 8193, 15 * 1024, 16384, 16385, 17 * 1024 + 1, 31744, 33 * 1024, 64 * 1024, 65 * 1024 + 7, 100_000, 200_001, 1 << 19];
    for (let i = 0; i < 20; i++) lengths.push(below(70_000));
    for (const n of lengths) {
      const data = Uint8Array.from({ length: n }, () => below(256)), key = Uint8Array.from({ length: 32 }, () => below(256));
      const want = hex(reference(data)), wantKeyed = hex(reference(data, { key }));
      for (const d of devices) {
        expect(hex(d.blake3(data)), `${n} bytes, ${d.isa}`).toBe(want);
        expect(hex(d.blake3(data, key)), `${n} bytes keyed, ${d.isa}`).toBe(wantKeyed);
      }
    }
  });

  test("views into larger and shared buffers", () => {
    const shared = new Uint8Array(new SharedArrayBuffer(5000), 3, 4000).fill(9);
    for (const d of devices) expect(hex(d.blake3(shared))).toBe(hex(reference(new Uint8Array(4000).fill(9))));
  });
});

describe("int8 product", () => {
  test.each([[1, 1, 1], [8, 32, 128], [7, 31, 127], [9, 33, 129], [64, 65, 130], [3, 100, 5], [0, 4, 4], [4, 0, 4], [4, 4, 0], [20, 40, 3000]])("%d x %d x %d", (m, n, k) => {
    const a = Int8Array.from({ length: m * k }, () => below(256) - 128), bT = Int8Array.from({ length: n * k }, () => below(256) - 128);
    const want = new Int32Array(m * n);
    for (let i = 0; i < m; i++) for (let j = 0; j < n; j++) { let s = 0; for (let l = 0; l < k; l++) s += a[i * k + l]! * bT[j * k + l]!; want[i * n + j] = s; }
    for (const d of devices) expect(Buffer.compare(Buffer.from(d.int8Gemm(a, bT, { m, n, k }).buffer), Buffer.from(want.buffer)), d.isa).toBe(0);
  });

  test("a given output is filled and returned; a wrong length or an overlap is refused", () => {
    const dims = { m: 3, n: 4, k: 5 };
    const a = new Int8Array(15).fill(2), bT = new Int8Array(20).fill(-3), out = new Int32Array(12);
    for (const d of devices) {
      expect(d.int8Gemm(a, bT, dims, out.fill(7))).toBe(out);
      expect(out.every((x) => x === -30), d.isa).toBe(true);
      expect(() => d.int8Gemm(a, bT, dims, new Int32Array(11))).toThrow(/out/);
      expect(() => d.int8Gemm(new Int8Array(out.buffer, 0, 15), bT, dims, out)).toThrow(/overlaps/);
      expect(() => d.int8Gemm(a, bT, dims, new Float32Array(12) as unknown as Int32Array)).toThrow(/out/);
    }
  });

  test("extremes at the largest k do not overflow", () => {
    const k = 65536;
    for (const [x, y] of [[-128, -128], [127, 127], [-128, 127], [127, -128]] as const)
      for (const d of devices) expect(d.int8Gemm(new Int8Array(k).fill(x), new Int8Array(k).fill(y), { m: 1, n: 1, k })[0]).toBe(x * y * k);
  });
});

const rotl = (x: number, n: number) => ((x << n) | (x >>> (32 - n))) >>> 0;

/** The 16 words of one tile, straight from the definition. */
function transcript(rows: Int8Array[], columns: Int8Array[], k: number): Uint8Array {
  const acc = rows.map(() => columns.map(() => 0)), j = new Uint32Array(16);
  for (let s = 0; s * 128 < k; s++) {
    let x = 0;
    rows.forEach((row, r) => columns.forEach((column, c) => {
      for (let i = s * 128; i < (s + 1) * 128; i++) acc[r]![c]! += Math.imul(row[i]!, column[i]!);
      x ^= acc[r]![c]! | 0;
    }));
    j[s % 16] = (rotl(j[s % 16]!, 13) ^ x) >>> 0;
  }
  return new Uint8Array(j.buffer);
}

describe("matrix proof of work", () => {
  const concat = (parts: Int8Array[]) => { const out = new Int8Array(parts.reduce((p, a) => p + a.length, 0)); let at = 0; for (const p of parts) { out.set(p, at); at += p.length; } return out; };

  test.each([["random", 384], ["random", 4096], ["all 127", 2304], ["all -127", 2304], ["127 against -127", 2304], ["-128", 256]])("tile of %s operands, k = %d", (kind, k) => {
    const make = (side: number) => Int8Array.from({ length: k }, () => kind === "random" ? below(255) - 127 : kind === "all 127" ? 127 : kind === "all -127" ? -127 : kind === "-128" ? -128 : side ? -127 : 127);
    const rows = Array.from({ length: 8 }, () => make(0)), columns = Array.from({ length: 16 }, () => make(1));
    const want = hex(transcript(rows, columns, k));
    for (const d of devices) expect(hex(d.crmTile(concat(rows), concat(columns), k)), d.isa).toBe(want);
  });

  test("the scan finds exactly the tiles whose tickets meet the target", async () => {
    const [m, n, k] = [128, 192, 2176];
    const a = Int8Array.from({ length: m * k }, () => below(255) - 127), bT = Int8Array.from({ length: n * k }, () => below(255) - 127);
    const key = Uint8Array.from({ length: 32 }, () => below(256));
    const all: { tile: number; ticket: string; value: bigint }[] = [];
    for (let tile = 0; tile < (m * n) / 128; tile++) {
      const lane = tile % 32, block = Math.floor(tile / 32), c = block % (n / 64), b = Math.floor(block / (n / 64));
      const g = lane >> 2, t = lane & 3;
      const rows = Array.from({ length: 8 }, (_, i) => 64 * b + g + 8 * i).map((r) => a.subarray(r * k, (r + 1) * k));
      const columns = Array.from({ length: 16 }, (_, i) => 64 * c + 2 * t + 8 * (i >> 1) + (i & 1)).map((q) => bT.subarray(q * k, (q + 1) * k));
      const transcript = devices[0]!.crmTile(concat(rows), concat(columns), k);
      const ticket = reference(transcript, { key });
      all.push({ tile, ticket: hex(ticket), value: BigInt(`0x${hex(ticket.slice().reverse())}`) });
    }
    const little = (v: bigint) => Uint8Array.from(Buffer.from(v.toString(16).padStart(64, "0"), "hex").reverse());
    const sorted = all.map((x) => x.value).sort((p, q) => (p < q ? -1 : 1));
    for (const target of [(1n << 256n) - 1n, sorted[20]!, sorted[20]! - 1n, 0n]) {
      const want = all.filter((x) => x.value <= target).map(({ tile, ticket }) => ({ tile, ticket }));
      for (const d of devices) {
        const got = d.crmScan(a, bT, { m, n, k }, key, little(target));
        expect(got.tickets.map((x) => ({ tile: x.tile, ticket: hex(x.ticket) })), d.isa).toEqual(want);
        const copyA = a.slice(), copyB = bT.slice();
        const promise = d.crmScanAsync(copyA, copyB, { m, n, k }, key, little(target));
        copyA.fill(1); copyB.fill(1);
        expect((await promise).tickets.map((x) => x.tile)).toEqual(want.map((x) => x.tile));
      }
    }
  });

  test("more winners than the first guess has room for", () => {
    const [m, n, k] = [512, 512, 128];
    const a = new Int8Array(m * k).fill(3), bT = new Int8Array(n * k).fill(-5);
    for (const d of devices) {
      const { tickets } = d.crmScan(a, bT, { m, n, k }, new Uint8Array(32), new Uint8Array(32).fill(255));
      expect(tickets.length).toBe((m * n) / 128);
      expect(tickets.every((t, i) => t.tile === i)).toBe(true);
    }
  });
});
