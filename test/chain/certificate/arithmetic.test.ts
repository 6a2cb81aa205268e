import { chacha20 } from "@noble/ciphers/chacha.js";
import { blake3 } from "@noble/hashes/blake3.js";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { hashFields } from "../../../src/chain/certificate/hash.js";
import {
  challengeRow, challengeRows, fillChallengeRows, MATRIX_A, MATRIX_B_TRANSPOSED,
} from "../../../src/chain/certificate/matrices.js";
import {
  expectedMultiplyAdds, TARGET_MAX, targetForMultiplyAdds, ticketBound, winProbability,
} from "../../../src/chain/certificate/difficulty.js";
import {
  dimsFault, gatherTile, ticketOf, tileCells, tileCount, tileTranscript,
} from "../../../src/chain/certificate/tile.js";

const same = (x: Int8Array, y: Int8Array) =>
  Buffer.from(x.buffer, x.byteOffset, x.length)
    .equals(Buffer.from(y.buffer, y.byteOffset, y.length));
const bytes32 = fc.uint8Array({ minLength: 32, maxLength: 32 });

describe("challenge rows", () => {
  it("are the keystream of an independent ChaCha20 without its 0x80 bytes", () => {
    const sizes = fc.constantFrom(2_048, 2_176, 4_096);
    const matrices = fc.constantFrom(MATRIX_A, MATRIX_B_TRANSPOSED);
    fc.assert(fc.property(bytes32, matrices, fc.nat(65_535), sizes, (seed, which, row, k) => {
      const nonce = new Uint8Array(12);
      new DataView(nonce.buffer).setUint32(0, which, true);
      new DataView(nonce.buffer).setUint32(4, row, true);
      const stream = chacha20(seed, nonce, new Uint8Array(k + 512));
      const want = stream.filter((byte) => byte !== 0x80).subarray(0, k);
      const got = new Uint8Array(k);
      challengeRow(seed, which, row, got);
      expect(Buffer.compare(got, want)).toBe(0);
    }), { numRuns: 40 });
  });

  it("are the same one by one and in a whole matrix", () => {
    const seed = new Uint8Array(32).fill(9);
    const k = 2_048;
    const whole = new Int8Array(64 * k);
    fillChallengeRows(seed, MATRIX_A, whole, k, 0, 30);
    fillChallengeRows(seed, MATRIX_A, whole, k, 30, 64);
    const some = challengeRows(seed, MATRIX_A, [63, 0, 31], k);
    [63, 0, 31].forEach((row, i) => {
      const want = whole.subarray(row * k, (row + 1) * k);
      expect(same(some.subarray(i * k, (i + 1) * k), want)).toBe(true);
    });
  });

  it("are uniform in [-127, 127] and never -128", () => {
    const k = 65_536;
    const counts = new Array<number>(256).fill(0);
    for (let row = 0; row < 16; row += 1) {
      for (const value of challengeRows(new Uint8Array(32), MATRIX_A, [row], k)) {
        counts[value + 128]! += 1;
      }
    }
    expect(counts[0]).toBe(0);
    const expected = (16 * k) / 255;
    const chi = counts.slice(1).reduce((sum, n) => sum + (n - expected) ** 2 / expected, 0);
    expect(chi).toBeLessThan(254 + 6 * Math.sqrt(2 * 254)); // 254 degrees of freedom, 6 deviations
  });

  it("differ between the matrices, the rows and the seeds", () => {
    const seed = new Uint8Array(32).fill(1);
    const rows = [
      challengeRows(seed, MATRIX_A, [0], 2_048), challengeRows(seed, MATRIX_A, [1], 2_048),
      challengeRows(seed, MATRIX_B_TRANSPOSED, [0], 2_048),
      challengeRows(new Uint8Array(32).fill(2), MATRIX_A, [0], 2_048),
    ].map((row) => Buffer.from(row.buffer).toString("hex"));
    expect(new Set(rows).size).toBe(4);
  });
});

describe("tiles", () => {
  it("partition the product", () => {
    for (const dims of [{ m: 64, n: 64, k: 2_048 }, { m: 192, n: 128, k: 2_048 }]) {
      const seen = new Uint8Array(dims.m * dims.n);
      for (let tile = 0; tile < tileCount(dims); tile += 1) {
        const { rows, columns } = tileCells(tile, dims);
        for (const row of rows) for (const column of columns) seen[row * dims.n + column]! += 1;
      }
      expect(seen.every((count) => count === 1)).toBe(true);
    }
  });

  it("have the transcript of a direct reading of the rule", () => {
    fc.assert(fc.property(fc.infiniteStream(fc.integer({ min: -127, max: 127 })), (stream) => {
      const k = 2_048 + 256; // 18 chunks: the words wrap round
      const next = () => stream.next().value as number;
      const a = Int8Array.from({ length: 8 * k }, next);
      const b = Int8Array.from({ length: 16 * k }, next);
      const words = new Array<bigint>(16).fill(0n);
      const sums = new Array<bigint>(128).fill(0n);
      for (let s = 0; s < k / 128; s += 1) {
        let x = 0n;
        for (let i = 0; i < 8; i += 1) {
          for (let j = 0; j < 16; j += 1) {
            let sum = 0;
            for (let e = s * 128; e < (s + 1) * 128; e += 1) sum += a[i * k + e]! * b[j * k + e]!;
            sums[i * 16 + j]! += BigInt(sum);
            x ^= BigInt.asUintN(32, sums[i * 16 + j]!);
          }
        }
        const w = words[s % 16]!;
        words[s % 16] = (((w << 13n) | (w >> 19n)) & 0xffffffffn) ^ x;
      }
      const want = Buffer.alloc(64);
      words.forEach((word, i) => want.writeUInt32LE(Number(word), 4 * i));
      expect(Buffer.from(tileTranscript(a, b, k)).equals(want)).toBe(true);
    }), { numRuns: 3 });
  });

  it("do not overflow at the extremes of k and of the operands", () => {
    const k = 65_536;
    const J = tileTranscript(new Int8Array(8 * k).fill(127), new Int8Array(16 * k).fill(-127), k);
    // All cells equal: every XOR of 128 equal sums is 0.
    expect(J.every((byte) => byte === 0)).toBe(true);
    const a = new Int8Array(8 * k);
    a.fill(127, 0, k);
    const b = new Int8Array(16 * k);
    b.fill(-127, 0, k);
    const view = new DataView(tileTranscript(a, b, k).buffer);
    const last = -16_129 * k; // one live cell, so the last chunk's word ends with its sum
    const before = (n: number) => -16_129 * 128 * n;
    let word = 0;
    for (let s = 15; s < 512; s += 16) word = ((word << 13) | (word >>> 19)) ^ before(s + 1);
    expect(before(512)).toBe(last);
    expect(view.getInt32(60, true)).toBe(word);
  });

  it("are read from whole matrices where the geometry says", () => {
    const dims = { m: 128, n: 192, k: 2_048 };
    const seed = new Uint8Array(32).fill(5);
    const a = new Int8Array(dims.m * dims.k);
    const bT = new Int8Array(dims.n * dims.k);
    fillChallengeRows(seed, MATRIX_A, a, dims.k, 0, dims.m);
    fillChallengeRows(seed, MATRIX_B_TRANSPOSED, bT, dims.k, 0, dims.n);
    for (const tile of [0, 37, 95, tileCount(dims) - 1]) {
      const { rows, columns } = tileCells(tile, dims);
      const got = gatherTile(a, bT, tile, dims);
      expect(same(got.aRows, challengeRows(seed, MATRIX_A, rows, dims.k))).toBe(true);
      const columnsWanted = challengeRows(seed, MATRIX_B_TRANSPOSED, columns, dims.k);
      expect(same(got.bColumns, columnsWanted)).toBe(true);
    }
  });

  it("give tickets that are the keyed BLAKE3 of the transcript", () => {
    const J = new Uint8Array(64).map((_, i) => i);
    const key = new Uint8Array(32).fill(3);
    expect(ticketOf(J, key)).toEqual(blake3(J, { key }));
  });

  it("refuse every shape outside the rule", () => {
    expect(dimsFault({ m: 64, n: 65_536, k: 2_048 })).toBeUndefined();
    for (const bad of [0, 32, 65, 65_600, -64, 64.5, Number.NaN, Infinity]) {
      expect(dimsFault({ m: bad, n: 64, k: 2_048 })).toMatch(/^m must/);
      expect(dimsFault({ m: 64, n: bad, k: 2_048 })).toMatch(/^n must/);
    }
    for (const bad of [0, 1_920, 2_047, 2_112, 65_664, -2_048, Number.NaN]) {
      expect(dimsFault({ m: 64, n: 64, k: bad })).toMatch(/^k must/);
    }
  });
});

describe("difficulty", () => {
  it("is stated per multiply-add: the same target, the same work, at any depth", () => {
    const target = 2n ** 244n;
    for (const k of [2_048, 4_096, 8_192, 65_536]) {
      expect(ticketBound(target, k)).toBe((target * BigInt(k)) / 4_096n);
      const work = expectedMultiplyAdds(target, k);
      expect(work).toBe(expectedMultiplyAdds(target, 4_096));
    }
  });

  it("stops at the last ticket there is", () => {
    expect(ticketBound(TARGET_MAX, 65_536)).toBe(TARGET_MAX);
    expect(expectedMultiplyAdds(TARGET_MAX, 4_096)).toBe(128n * 4_096n);
    expect(winProbability(TARGET_MAX, 4_096)).toBe(1);
    expect(() => ticketBound(-1n, 2_048)).toThrow(RangeError);
    expect(() => ticketBound(TARGET_MAX + 1n, 2_048)).toThrow(RangeError);
  });

  it("has an inverse from work to target", () => {
    fc.assert(fc.property(fc.bigInt({ min: 2n ** 20n, max: 2n ** 80n }), (work) => {
      const again = expectedMultiplyAdds(targetForMultiplyAdds(work), 4_096);
      const error = again > work ? again - work : work - again;
      expect(error * 1_000_000n <= work).toBe(true);
    }));
  });
});

describe("the hash of fields", () => {
  it("is injective in how the bytes are cut", () => {
    const a = Uint8Array.from([1, 2]);
    const hex = (parts: Uint8Array[], tag = "t") => Buffer.from(hashFields(tag, parts)).toString("hex");
    const names = [
      hex([a]), hex([a.subarray(0, 1), a.subarray(1)]), hex([a, new Uint8Array(0)]),
      hex([new Uint8Array(0), a]), hex([a], "u"),
    ];
    expect(new Set(names).size).toBe(names.length);
  });
});
