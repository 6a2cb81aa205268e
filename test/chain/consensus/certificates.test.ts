// Real certificates, mined by the reference: pool, inclusion, pay, window, nullifier, forks and difficulty.
import { beforeAll, describe, expect, it } from "vitest";
import { encodeCertificate, type Certificate } from "../../../src/chain/certificate/certificate.js";
import { createMiner } from "../../../src/chain/certificate/miner.js";
import { keyOf, toHex } from "../../../src/chain/bytes.js";
import type { Chain } from "../../../src/chain/chain.js";
import { orderedTrieRoot } from "../../../src/chain/block/trie-root.js";
import { nextPowTarget, blockWeight, WEIGHT_UNIT } from "../../../src/chain/consensus/difficulty.js";
import { nextModifier } from "../../../src/chain/consensus/leader.js";
import { SUPPLY_WEI } from "../../../src/chain/genesis.js";
import type { Header } from "../../../src/chain/block/header.js";
import { CHAIN_ID, forge, genesisFor, GENESIS_MS, openChain, party, produceNext } from "../devnet.js";

const v1 = party("v1");
const v2 = party("v2");
const miner = party("miner");
// every second ticket wins (K = 2,048 halves the bound), so that the plain reference finds some at once
const easy = `0x${((1n << 256n) - 1n).toString(16)}` as const;
const genesis = genesisFor([v1, v2], { certificates: { m: 64, n: 64, k: 2_048, target: easy, targetLimit: easy } });
const dims = { m: 64, n: 64, k: 2_048 };

async function mine(tip: Header, count: number, nonceStart = 1n): Promise<Certificate[]> {
  const { mine } = createMiner({ chainId: BigInt(CHAIN_ID), privateKey: miner.privateKey, dims });
  const { certificates } = await mine({
    height: tip.number, tip: tip.hash, target: tip.powTarget, nonceStart, maxNonces: 4, maxCertificates: count,
    signal: new AbortController().signal,
  });
  return certificates.slice(0, count);
}

describe("certificates", () => {
  let chain: Chain;
  let certificates: Certificate[];
  let encoded: Uint8Array[];
  beforeAll(async () => {
    chain = await openChain(genesis);
    certificates = await mine(chain.head, 12);
    encoded = certificates.map(encodeCertificate);
  });

  it("are pooled, included up to ten a block, paid and weighed", async () => {
    expect(encoded.length).toBe(12);
    for (const each of encoded) expect(await chain.addCertificate(each)).toEqual({ added: true });
    expect(await chain.addCertificate(encoded[0]!)).toHaveProperty("error");
    const { header, block } = await produceNext(chain, v1, GENESIS_MS);
    expect(block.certificates.length).toBe(10);
    expect(header.totalWeight).toBe(WEIGHT_UNIT * 12n);
    expect(header.powTarget).toBeLessThan(BigInt(easy));
    expect((await chain.account(miner.address)).balance).toBeGreaterThan(0n);
    expect(chain.usefulWork()).toMatchObject({ certificateCount: 10, useful: 0n });
    expect((await chain.ledger()).total).toBe(SUPPLY_WEI);
    expect(chain.certificates.size).toBe(2);
    const fresh = await openChain(genesis);
    expect((await fresh.importBlock(chain.encodedBlock(header.hash)!, header.timestampMs)).status).toBe("imported");
    expect(toHex(fresh.head.hash)).toBe(toHex(header.hash));
  });

  it("count once, in whatever later block, and only inside the window", async () => {
    const spent = chain.blockByNumber(1)!.certificates[0]!;
    expect(await chain.addCertificate(spent)).toMatchObject({ error: { message: expect.stringContaining("nullifier") } });
    const next = await produceNext(chain, v1);
    expect(next.block.certificates.length).toBe(2);
    for (let i = 0; i < 7; i++) await produceNext(chain, v1);
    expect(chain.head.number).toBe(9);
    const late = encodeCertificate((await mine(chain.index.canonicalHeader(1)!, 1))[0]!);
    expect(await chain.addCertificate(late)).toMatchObject({ error: { message: expect.stringContaining("outside") } });
  });

  it("of another branch, of the future or of a stolen key are refused", async () => {
    const tip = chain.head;
    const [good] = await mine(tip, 1);
    const refused = async (certificate: Certificate) =>
      expect(await chain.addCertificate(encodeCertificate(certificate))).toHaveProperty("error");
    await refused({ ...good!, tip: new Uint8Array(32).fill(7) });
    await refused({ ...good!, height: tip.number + 1 });
    await refused({ ...good!, tile: good!.tile ^ 1 });
    await refused({ ...good!, signature: good!.signature.map((byte, i) => (i === 5 ? byte ^ 1 : byte)) });
  });

  it("make a block invalid when one is repeated, spent, false or too many", async () => {
    const parent = chain.head;
    const [one, two] = (await mine(parent, 2)).map(encodeCertificate);
    const source = await openChain(genesis);
    for (let number = 1; number <= parent.number; number++) {
      await source.importBlock(chain.encodedBlock(chain.index.canonicalHash(number)!)!, Number.MAX_SAFE_INTEGER);
    }
    const honest = await produceNext(source, v1);
    const withCertificates = (list: Uint8Array[]) => {
      const certificatesRoot = orderedTrieRoot(list);
      return forge(honest.block, {
        certificatesRoot, modifier: nextModifier(parent.modifier, honest.header.vrfProof, certificatesRoot),
        powTarget: nextPowTarget(parent.powTarget, list.length, genesis.certificates),
        totalWeight: parent.totalWeight + blockWeight(list.map(() => parent.powTarget), genesis.certificates),
      }, v1, { certificates: list });
    };
    const broken = one!.slice();
    broken[broken.length - 3]! ^= 1;
    for (const list of [[one!, one!], [chain.blockByNumber(1)!.certificates[0]!], [broken], [two!, broken]]) {
      expect(await chain.importBlock(withCertificates(list), Number.MAX_SAFE_INTEGER)).toMatchObject({ status: "rejected", code: "certificate" });
    }
    const tooMany = Array.from({ length: 11 }, (_, i) => Uint8Array.of(0xc1, i));
    expect((await chain.importBlock(withCertificates(tooMany), Number.MAX_SAFE_INTEGER)).status).toBe("rejected");
  });

  it("decide between branches: the chain with the work wins over the longer one without", async () => {
    const [working, idle] = [await openChain(genesis), await openChain(genesis)];
    for (const certificate of await mine(working.head, 3)) await working.addCertificate(encodeCertificate(certificate));
    await produceNext(working, v1, GENESIS_MS); // one block, weight 4
    for (let i = 0; i < 3; i++) await produceNext(idle, v2, i === 0 ? GENESIS_MS : undefined); // three blocks, weight 3
    const withWork = keyOf(working.head.hash);
    for (const encodedBlock of idle.blocksAfter(working.ancestorsLocator(), 10)) {
      expect((await working.importBlock(encodedBlock, Number.MAX_SAFE_INTEGER)).status).toBe("imported");
    }
    expect(keyOf(working.head.hash)).toBe(withWork);
    await idle.importBlock(working.encodedBlock(working.head.hash)!, Number.MAX_SAFE_INTEGER);
    expect(keyOf(idle.head.hash)).toBe(withWork);
  });
});

describe("difficulty", () => {
  const params = { ...genesis.certificates, targetLimit: `0x${(1n << 255n).toString(16)}` as const };
  it("halves after a half-life of twice the goal and doubles after one of nothing", () => {
    const start = 1n << 240n;
    let hard = start;
    let soft = start;
    for (let i = 0; i < params.halfLifeBlocks; i++) {
      hard = nextPowTarget(hard, 2 * params.perBlockGoal, params);
      soft = nextPowTarget(soft, 0, params);
    }
    expect(Number((hard * 10_000n) / start) / 10_000).toBeCloseTo(0.5, 2);
    expect(Number((soft * 10_000n) / start) / 10_000).toBeCloseTo(2, 2);
    expect(nextPowTarget(start, params.perBlockGoal, params)).toBe(start);
    expect(nextPowTarget(BigInt(params.targetLimit), 0, params)).toBe(BigInt(params.targetLimit));
    expect(nextPowTarget(1n, 10, params)).toBe(1n);
  });
});
