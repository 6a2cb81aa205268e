import { describe, expect, it } from "vitest";
import { decodeCertificate, encodeCertificate } from "../../../src/chain/certificate/certificate.js";
import { TARGET_MAX } from "../../../src/chain/certificate/difficulty.js";
import { keyedHash } from "../../../src/chain/certificate/hash.js";
import { createMiner, type CertificateDevice } from "../../../src/chain/certificate/miner.js";
import { gatherTile, tileCount, tileTranscript } from "../../../src/chain/certificate/tile.js";
import { certificateTicket, verifyCertificate } from "../../../src/chain/certificate/verify.js";

const dims = { m: 64, n: 64, k: 2_048 };
const privateKey = new Uint8Array(32).fill(7);
const tip = new Uint8Array(32).fill(1);
const chainId = 7_357n;
const request = { height: 3, tip, target: 2n ** 252n, nonceStart: 1n, maxNonces: 6 };

/** The reference behind the face of a device. */
const referenceDevice: CertificateDevice = {
  blake3: (data, key) => keyedHash(data, key!),
  crmTile: tileTranscript,
  async crmScanAsync(a, bT, shape, key, boundBytes) {
    const bound = Buffer.from(boundBytes).reverse();
    const tickets = [];
    for (let tile = 0; tile < tileCount(shape); tile += 1) {
      const { aRows, bColumns } = gatherTile(a, bT, tile, shape);
      const ticket = keyedHash(tileTranscript(aRows, bColumns, shape.k), key);
      if (Buffer.compare(Buffer.from(ticket).reverse(), bound) <= 0) tickets.push({ tile, ticket });
    }
    return { tickets };
  },
};

describe("the miner", () => {
  it("returns certificates that verify after the wire, the same with and without a device", async () => {
    const plain = await createMiner({ chainId, privateKey, dims }).mine(request);
    const device = await createMiner({ chainId, privateKey, dims, device: referenceDevice })
      .mine(request);
    expect(plain.certificates.length).toBeGreaterThan(0);
    expect(device).toEqual(plain);
    expect(plain.noncesTried).toBe(6);
    expect(plain.multiplyAdds).toBe(6n * 64n * 64n * 2_048n);
    for (const certificate of plain.certificates) {
      const read = decodeCertificate(encodeCertificate(certificate));
      const rules = { chainId, dims, target: request.target };
      const verdict = verifyCertificate(read, rules);
      expect(verdict).toMatchObject({ ok: true });
      expect(verifyCertificate(read, rules, referenceDevice)).toEqual(verdict);
    }
  });

  it("finds every winning tile: at the easiest target all of them, in order", async () => {
    const miner = createMiner({ chainId, privateKey, dims });
    const { certificates } = await miner.mine({ ...request, target: TARGET_MAX, maxNonces: 1 });
    // k = 2048 halves the bound, so about half the tiles win; the rest must not be below it.
    const wins = new Set(certificates.map((c) => c.tile));
    for (let tile = 0; tile < 32; tile += 1) {
      const ticket = certificateTicket({ ...certificates[0]!, tile });
      expect(wins.has(tile)).toBe(ticket[31]! < 128);
    }
    const tiles = certificates.map((c) => c.tile);
    expect(tiles).toEqual([...tiles].sort((x, y) => x - y));
  });

  it("stops between nonces when it is aborted, and keeps what it found", async () => {
    const stop = new AbortController();
    let turns = 0;
    const pause = async () => {
      turns += 1;
      if (turns === 10) stop.abort();
    };
    const miner = createMiner({ chainId, privateKey, dims, pause });
    const result = await miner.mine({ ...request, maxNonces: 1_000, signal: stop.signal });
    expect(result.noncesTried).toBeGreaterThan(0);
    expect(result.noncesTried).toBeLessThan(10);
    const aborted = await miner.mine({ ...request, signal: AbortSignal.abort() });
    expect(aborted).toEqual({ certificates: [], noncesTried: 0, multiplyAdds: 0n });
  });

  it("stops at the certificates asked for, and at the last nonce", async () => {
    const miner = createMiner({ chainId, privateKey, dims });
    const one = await miner.mine({ ...request, target: TARGET_MAX, maxNonces: 9, maxCertificates: 1 });
    expect(one.noncesTried).toBe(1);
    const end = await miner.mine({ ...request, nonceStart: 2n ** 64n - 2n });
    expect(end.noncesTried).toBe(2);
  });

  it("will not sign what a faulty device reports, and can be used again after", async () => {
    let faulty = true;
    const device: CertificateDevice = {
      ...referenceDevice,
      crmScanAsync: async (...args) => faulty
        ? { tickets: [{ tile: 0, ticket: new Uint8Array(32) }] }
        : referenceDevice.crmScanAsync(...args),
    };
    const miner = createMiner({ chainId, privateKey, dims, device });
    await expect(miner.mine(request)).rejects.toMatchObject({ code: "device-mismatch" });
    faulty = false;
    expect((await miner.mine(request)).noncesTried).toBe(6);
  });

  it("refuses two searches at once, bad keys, shapes and requests", async () => {
    const miner = createMiner({ chainId, privateKey, dims });
    const first = miner.mine({ ...request, maxNonces: 1 });
    await expect(miner.mine(request)).rejects.toThrow(/at work/);
    await first;
    expect(() => createMiner({ chainId, privateKey: new Uint8Array(32), dims })).toThrow(/32 bytes/);
    expect(() => createMiner({ chainId, privateKey, dims: { ...dims, k: 100 } })).toThrow(/k must/);
    await expect(miner.mine({ ...request, tip: tip.subarray(1) })).rejects.toThrow(/tip/);
    await expect(miner.mine({ ...request, nonceStart: 2n ** 64n })).rejects.toThrow(/nonce/);
  });
});
