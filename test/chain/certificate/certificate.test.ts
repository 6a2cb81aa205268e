import { RLP } from "@ethereumjs/rlp";
import { privateKeyToAccount } from "viem/accounts";
import { bytesToHex } from "viem";
import { beforeAll, describe, expect, it } from "vitest";
import {
  CertificateError, certificateHash, certificateMiner, certificateNullifier, decodeCertificate,
  encodeCertificate, signCertificate, type Certificate,
} from "../../../src/chain/certificate/certificate.js";
import { createMiner } from "../../../src/chain/certificate/miner.js";
import { publicKeyOf } from "../../../src/chain/certificate/secp256k1.js";
import { certificateTicket, verifyCertificate } from "../../../src/chain/certificate/verify.js";
import { fromLittleEndian } from "../../../src/chain/certificate/hash.js";

const dims = { m: 64, n: 64, k: 2_048 };
const privateKey = new Uint8Array(32).fill(7);
const otherKey = new Uint8Array(32).fill(8);
const tip = new Uint8Array(32).map((_, i) => 3 * i);
const ORDER = 0xffffffff_ffffffff_ffffffff_fffffffe_baaedce6_af48a03b_bfd25e8c_d0364141n;
/** One ticket in 64 at k = 2048: a product of 32 tiles wins about every second nonce. */
const rules = { chainId: 7_357n, dims, target: 2n ** 251n };

let won: Certificate;
beforeAll(async () => {
  const miner = createMiner({ chainId: rules.chainId, privateKey, dims });
  const result = await miner.mine({
    height: 12, tip, target: rules.target, nonceStart: 1n, maxNonces: 50, maxCertificates: 1,
  });
  won = result.certificates[0]!;
});

const resign = (change: Partial<Certificate>, key = privateKey): Certificate =>
  signCertificate({ ...won, ...change }, key);
const reason = (certificate: Certificate, against = rules) => {
  const verdict = verifyCertificate(certificate, against);
  return verdict.ok ? "ok" : verdict.reason;
};

describe("encoding", () => {
  it("comes back the same, in about 170 bytes", () => {
    const bytes = encodeCertificate(won);
    expect(decodeCertificate(bytes)).toEqual(won);
    expect(bytes.length).toBeGreaterThan(140);
    expect(bytes.length).toBeLessThan(200);
  });

  it("every single flipped bit is refused or invalid", () => {
    const bytes = encodeCertificate(won);
    for (let bit = 0; bit < bytes.length * 8; bit += 1) {
      const changed = Uint8Array.from(bytes);
      changed[bit >> 3]! ^= 1 << (bit & 7);
      let certificate: Certificate;
      try {
        certificate = decodeCertificate(changed);
      } catch (error) {
        expect(error).toBeInstanceOf(CertificateError);
        continue;
      }
      expect(verifyCertificate(certificate, rules).ok, `bit ${bit}`).toBe(false);
    }
  });

  it("every truncation and every trailing byte is refused", () => {
    const bytes = encodeCertificate(won);
    for (let length = 0; length < bytes.length; length += 1) {
      expect(() => decodeCertificate(bytes.subarray(0, length))).toThrow(CertificateError);
    }
    for (const tail of [[0], [0x80], [0xc0], [1, 2, 3]]) {
      expect(() => decodeCertificate(Uint8Array.from([...bytes, ...tail]))).toThrow(CertificateError);
    }
    expect(() => decodeCertificate(new Uint8Array(1 << 20))).toThrow(/at most 256 bytes/);
  });

  it("integers with leading zeros and long-form lengths are refused", () => {
    const list = RLP.decode(encodeCertificate(won)) as Uint8Array[];
    for (const index of [0, 1, 2, 5, 6, 7, 8, 9]) {
      const padded = list.map((f, i) => (i === index ? Uint8Array.from([0, ...f]) : f));
      expect(() => decodeCertificate(RLP.encode(padded))).toThrow(CertificateError);
    }
    expect(() => decodeCertificate(RLP.encode([...list, new Uint8Array(0)]))).toThrow(/11 byte/);
    expect(() => decodeCertificate(RLP.encode([[list[0]!], ...list.slice(1)]))).toThrow(/11 byte/);
    const short = encodeCertificate(won); // 0xf8 LEN … -> 0xf9 00 LEN …
    const long = Uint8Array.from([0xf9, 0, ...short.subarray(1)]);
    expect(() => decodeCertificate(long)).toThrow(CertificateError);
  });

  it("a high s is refused, whichever recovery id goes with it", () => {
    const s = BigInt(`0x${Buffer.from(won.signature.subarray(32, 64)).toString("hex")}`);
    const high = Buffer.from((ORDER - s).toString(16).padStart(64, "0"), "hex");
    for (const recid of [0, 1, 2, 3]) {
      const signature = Uint8Array.from([...won.signature.subarray(0, 32), ...high, recid]);
      expect(reason({ ...won, signature })).toMatch(/high s/);
      expect(() => decodeCertificate(encodeCertificate({ ...won, signature }))).toThrow(/high s/);
    }
  });
});

describe("names", () => {
  it("the miner is the Ethereum account of the key", () => {
    const account = privateKeyToAccount(bytesToHex(privateKey));
    expect(bytesToHex(certificateMiner(won))).toBe(account.address.toLowerCase());
    const noPoint = Uint8Array.from([2, ...new Uint8Array(32).fill(0xff)]);
    expect(() => certificateMiner({ publicKey: noPoint })).toThrow(CertificateError);
  });

  it("the hash covers all; the nullifier covers what was won", () => {
    const again = resign({ m: 128 });
    expect(certificateHash(again)).not.toEqual(certificateHash(won));
    expect(certificateNullifier(again)).toEqual(certificateNullifier(won));
    for (const change of [{ nonce: won.nonce + 1n }, { height: 13 }, { tile: won.tile + 1 }]) {
      expect(certificateNullifier({ ...won, ...change })).not.toEqual(certificateNullifier(won));
    }
  });
});

describe("verdicts", () => {
  it("a mined certificate is valid and counts its expected work", () => {
    const verdict = verifyCertificate(won, rules);
    expect(verdict).toMatchObject({ ok: true });
    // 128 * 2048 multiply-adds a ticket, one in 64 wins (bound 2^250: P = 2^-6 + 2^-256).
    if (verdict.ok) expect(verdict.multiplyAdds).toBe(128n * 2_048n * 64n - 1n);
  });

  it("another chain, shape, tile or key is refused before any arithmetic", () => {
    expect(reason(won, { ...rules, chainId: 1n })).toMatch(/chainId/);
    expect(reason(won, { ...rules, dims: { ...dims, m: 128 } })).toMatch(/shape/);
    expect(reason(resign({ m: 128 }))).toMatch(/shape/);
    expect(reason(resign({ k: 4_096 }))).toMatch(/shape/);
    expect(reason(resign({ m: 0, n: 0 }), { ...rules, dims: { m: 0, n: 0, k: 2_048 } })).toMatch(/m must/);
    expect(reason(resign({ tile: 32 }))).toMatch(/tile 32 is outside 0..31/);
    expect(reason(resign({ tile: 2 ** 40 }))).toMatch(/outside/);
    expect(reason({ ...won, tile: 0.5 })).toMatch(/tile/);
    expect(reason({ ...won, nonce: 0n })).toMatch(/nonce/);
    expect(reason({ ...won, nonce: 2n ** 64n })).toMatch(/nonce/);
    expect(reason({ ...won, tip: tip.subarray(1) })).toMatch(/tip/);
    expect(reason({ ...won, publicKey: publicKeyOf(otherKey) })).toMatch(/signature/);
    expect(reason({ ...won, signature: new Uint8Array(65) })).toMatch(/signature/);
    expect(reason({ ...won, signature: won.signature.map((b, i) => (i === 64 ? b ^ 1 : b)) }))
      .toMatch(/signature/);
  });

  it("a win is worth nothing to another key, at another tip, height, nonce or tile", () => {
    const copied = resign({ publicKey: publicKeyOf(otherKey) }, otherKey);
    const others = [
      copied, resign({ tip: new Uint8Array(32) }), resign({ height: won.height + 1 }),
      resign({ nonce: won.nonce + 1_000n }), resign({ tile: (won.tile + 1) % 32 }),
    ];
    const tickets = others.map((c) => Buffer.from(certificateTicket(c)).toString("hex"));
    expect(new Set([...tickets, Buffer.from(certificateTicket(won)).toString("hex")]).size).toBe(6);
    // At the exact difficulty of the real win, each of them is above the target.
    const exact = { ...rules, target: 2n * fromLittleEndian(certificateTicket(won)) + 1n };
    const hard = exact.target < 2n ** 246n ? exact : { ...rules, target: 2n ** 246n };
    for (const other of others) expect(reason(other, hard)).toMatch(/above the target/);
  });

  it("the bound is inclusive, to the last unit", () => {
    const ticket = fromLittleEndian(certificateTicket(won));
    // k = 2048: bound = floor(T / 2).
    expect(reason(won, { ...rules, target: 2n * ticket })).toBe("ok");
    expect(reason(won, { ...rules, target: 2n * ticket - 1n })).toMatch(/above the target/);
  });

  it("the worst bad certificate at the public shape costs a bounded time", () => {
    // All checks pass but the last; each names a block that was never seen, so nothing is memoised.
    const shape = { m: 8_192, n: 8_192, k: 4_096 };
    const nonce = 2n ** 64n - 1n;
    const worst = Array.from({ length: 12 }, (_, i) =>
      resign({ ...shape, nonce, tip: new Uint8Array(32).fill(100 + i) }));
    const times = worst.map((certificate) => {
      const started = performance.now();
      expect(reason(certificate, { ...rules, dims: shape, target: 0n })).toMatch(/above the target/);
      return performance.now() - started;
    });
    // About 4 ms on a quiet core; the bound leaves room for a busy machine.
    expect(times.sort((x, y) => x - y)[6]).toBeLessThan(60);
  });
});
