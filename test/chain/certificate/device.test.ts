import { randomBytes } from "node:crypto";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { keyedHash } from "../../../src/chain/certificate/hash.js";
import { createMiner, type CertificateDevice } from "../../../src/chain/certificate/miner.js";
import { tileTranscript } from "../../../src/chain/certificate/tile.js";
import { verifyCertificate } from "../../../src/chain/certificate/verify.js";
import { openTestDevice } from "./test-device.js";

/** Skipped only where the native kernels are not built; set-up builds them before the tests. */
const opened = await openTestDevice();

describe.skipIf(!opened)("the device equals the reference", () => {
  let device: CertificateDevice & { close(): void };
  beforeAll(() => { device = opened!; });
  afterAll(() => device.close());

  it("in the transcript of a tile, for any operands", () => {
    const depth = fc.constantFrom(2_048, 2_176, 4_096);
    const fill = fc.constantFrom("random", "low", "high", "mixed");
    fc.assert(fc.property(depth, fill, (k, kind) => {
      const make = (length: number) => {
        const bytes = randomBytes(length);
        return Int8Array.from(bytes, (byte, i) => kind === "low" ? -127 : kind === "high" ? 127
          : kind === "mixed" ? (i % 2 ? 127 : -127) : Math.max(-127, byte - 128));
      };
      const [a, b] = [make(8 * k), make(16 * k)];
      expect(Buffer.from(device.crmTile(a, b, k))).toEqual(Buffer.from(tileTranscript(a, b, k)));
    }), { numRuns: 24 });
  });

  it("in keyed BLAKE3", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 3_000 }), (data) => {
      const key = randomBytes(32);
      expect(Buffer.from(device.blake3(data, key))).toEqual(Buffer.from(keyedHash(data, key)));
    }), { numRuns: 40 });
  });

  it("in what it mines, for several shapes", async () => {
    const privateKey = new Uint8Array(32).fill(5);
    for (const dims of [
      { m: 64, n: 64, k: 2_048 }, { m: 128, n: 64, k: 2_176 }, { m: 64, n: 192, k: 4_096 },
    ]) {
      const request = {
        height: 1, tip: new Uint8Array(32).fill(2), target: 2n ** 252n, nonceStart: 1n, maxNonces: 3,
      };
      const options = { chainId: 1n, privateKey, dims };
      const plain = await createMiner(options).mine(request);
      expect(await createMiner({ ...options, device }).mine(request)).toEqual(plain);
      expect(plain.certificates.length).toBeGreaterThan(0);
      for (const certificate of plain.certificates) {
        for (const target of [request.target, 2n ** 247n, 0n]) {
          const rules = { chainId: 1n, dims, target };
          expect(verifyCertificate(certificate, rules, device))
            .toEqual(verifyCertificate(certificate, rules));
        }
      }
    }
  });
});
