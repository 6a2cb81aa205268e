/** Shards, keys, leases and the store: round trips, damage, wrong keys, hostile input. */
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createHash as nodeHash } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { deletionReceiptDigest } from "../../src/data/deletion-receipt.js";
import { createHash } from "../../src/data/hash.js";
import { KeyLeaseBook, KeyRing } from "../../src/data/key-lease.js";
import { createWrapKeyPair, unwrapKey, wrapKey } from "../../src/data/key-wrap.js";
import { encodeManifest, merkleRoot, parseManifest, type Manifest } from "../../src/data/manifest.js";
import { cutDataset, openShard, type CutDataset } from "../../src/data/shard.js";
import { ShardStore } from "../../src/data/shard-store.js";

const hash = createHash();
/** Deterministic bytes: a counter under SHA-256. */
function seeded(seed = "t"): (bytes: number) => Uint8Array {
  let counter = 0;
  return (bytes) => {
    const blocks = Array.from({ length: Math.ceil(bytes / 32) }, () => nodeHash("sha256").update(`${seed}${counter++}`).digest());
    return new Uint8Array(Buffer.concat(blocks).subarray(0, bytes));
  };
}
const images = Uint8Array.from({ length: 103 * 49 }, (_, i) => (i * i) >> 3);
const labels = Uint8Array.from({ length: 103 }, (_, i) => i % 10);
const cut = (shardCount = 4): Promise<CutDataset> => cutDataset(images, labels, { name: "set", shardCount, random: seeded() });

describe("shards", () => {
  it("cover every row once, open to the same bytes, and reveal nothing in the clear", async () => {
    for (const shardCount of [1, 2, 4, 7, 103]) {
      const { manifest, shards, keys } = await cut(shardCount);
      const parts = await Promise.all(shards.map((shard, i) => openShard(shard, keys[i]!, manifest, i)));
      expect(Buffer.concat(parts.map((part) => part.images))).toEqual(Buffer.from(images));
      expect(Buffer.concat(parts.map((part) => part.labels))).toEqual(Buffer.from(labels));
      expect(Math.max(...manifest.shards.map((s) => s.rows)) - Math.min(...manifest.shards.map((s) => s.rows))).toBeLessThanOrEqual(1);
      expect(new Set(keys.map((key) => Buffer.from(key).toString("hex"))).size).toBe(shardCount);
      expect(parseManifest(encodeManifest(manifest), hash)).toEqual(manifest);
    }
  });

  it("a flipped bit anywhere, a cut or a foreign place is refused", async () => {
    const { manifest, shards, keys } = await cut();
    await fc.assert(fc.asyncProperty(fc.nat(3), fc.double({ min: 0, max: 0.999, noNaN: true }), fc.boolean(), async (i, at, truncate) => {
      const position = Math.floor(at * shards[i]!.length);
      const damaged = truncate ? shards[i]!.slice(0, position) : shards[i]!.slice();
      if (!truncate) damaged[position]! ^= 0x10;
      await expect(openShard(damaged, keys[i]!, manifest, i)).rejects.toMatchObject({ code: truncate ? "shard" : "hash-mismatch" });
      // Even where the address is re-made to fit, the seal does not open.
      if (truncate && position < 28) return;
      const forged: Manifest = { ...manifest, shards: [...manifest.shards] };
      forged.shards[i] = { ...forged.shards[i]!, hash: Buffer.from(hash(damaged)).toString("hex"), sizeBytes: damaged.length };
      await expect(openShard(damaged, keys[i]!, forged, i)).rejects.toMatchObject({ code: "key" });
    }), { numRuns: 40 });
    await expect(openShard(shards[0]!, keys[1]!, manifest, 0)).rejects.toMatchObject({ code: "key" });
    const swapped = { ...manifest, shards: [manifest.shards[1]!, manifest.shards[0]!, ...manifest.shards.slice(2)] };
    await expect(openShard(shards[0]!, keys[0]!, swapped, 1)).rejects.toMatchObject({ code: "key" });
    await expect(openShard(shards[0]!, keys[0]!, manifest, 9)).rejects.toMatchObject({ code: "shard" });
    await expect(cutDataset(images, labels.subarray(1), { name: "set", shardCount: 2, random: seeded() })).rejects.toMatchObject({ code: "option" });
    await expect(cutDataset(images, labels, { name: "../x", shardCount: 2, random: seeded() })).rejects.toMatchObject({ code: "option" });
    await expect(cut(104)).rejects.toMatchObject({ code: "option" });
  });
});

describe("manifests from strangers", () => {
  it("are refused with a reason, whatever they hold", async () => {
    const { manifest } = await cut();
    const changed = (change: (copy: Record<string, any>) => void): string => {
      const copy = JSON.parse(encodeManifest(manifest)) as Record<string, any>;
      change(copy);
      return JSON.stringify(copy);
    };
    const cases: [string, RegExp][] = [
      ["{", /not JSON/], ["[]", /object/], ["null", /object/], [`{"a":1}`, /exactly the fields/],
      [changed((m) => { m.extra = 1; }), /exactly the fields/],
      [changed((m) => { m.format = "x"; }), /format/],
      [changed((m) => { m.name = "../../etc/passwd"; }), /name/],
      [changed((m) => { m.rows = 1e15; }), /rows together/],
      [changed((m) => { m.rows = -1; }), /integer/],
      [changed((m) => { m.rowBytes = 2 ** 40; }), /integer/],
      [changed((m) => { m.shards = []; }), /1 to 65536/],
      [changed((m) => { m.shards = new Array(65_537).fill(m.shards[0]); }), /1 to 65536/],
      [changed((m) => { m.shards[1] = m.shards[0]; }), /twice/],
      [changed((m) => { m.shards[1].hash = "../../x"; }), /hash/],
      [changed((m) => { m.shards[1].hash = m.shards[1].hash.toUpperCase(); }), /hash/],
      [changed((m) => { m.shards[1].sizeBytes += 1; }), /Merkle root/],
      [changed((m) => { m.shards.reverse(); m.shards.sort((a: any, b: any) => b.rows - a.rows); }), /Merkle root/],
      [changed((m) => { m.shards[0].rows += 1; m.rows += 1; }), /Merkle root/],
      [changed((m) => { m.root = "00".repeat(32); }), /Merkle root/],
      [`{"__proto__":{},"name":1}`, /exactly the fields/],
    ];
    for (const [text, reason] of cases) {
      expect(() => parseManifest(text, hash), text.slice(0, 60)).toThrow(expect.objectContaining({ code: "manifest", message: expect.stringMatching(reason) }));
    }
    fc.assert(fc.property(fc.jsonValue(), (value) => {
      expect(() => parseManifest(JSON.stringify(value), hash)).toThrow(expect.objectContaining({ code: "manifest" }));
    }));
  });
  it("a Merkle root separates leaves from nodes and depends on order", async () => {
    const { manifest: { shards } } = await cut(3);
    const roots = [shards, shards.slice(0, 2), [...shards].reverse(), shards.slice(0, 1)].map((list) => merkleRoot(list, hash));
    expect(new Set(roots).size).toBe(4);
  });
});

describe("keys", () => {
  const context = { taskId: "task", shardHash: "ab".repeat(32) };
  it("unwrap for the recipient, the task and the shard alone", () => {
    const random = seeded("k");
    const worker = createWrapKeyPair(random), other = createWrapKeyPair(random), key = random(32);
    const wrapped = wrapKey(key, worker.publicKey, context, random);
    expect(unwrapKey(wrapped, worker, context)).toEqual(key);
    for (const attempt of [
      () => unwrapKey(wrapped, other, context),
      () => unwrapKey(wrapped, worker, { ...context, taskId: "other" }),
      () => unwrapKey(wrapped, worker, { ...context, shardHash: "cd".repeat(32) }),
      () => unwrapKey(wrapped.subarray(1), worker, context),
      () => wrapKey(key, new Uint8Array(32), context, random), // small order
      () => wrapKey(key.subarray(1), worker.publicKey, context, random),
    ]) expect(attempt).toThrow(expect.objectContaining({ code: "key" }));
    for (let i = 0; i < wrapped.length; i++) {
      const damaged = wrapped.slice();
      damaged[i]! ^= 1;
      expect(() => unwrapKey(damaged, worker, context), `byte ${i}`).toThrow(expect.objectContaining({ code: "key" }));
    }
  });
  it("have the public keys of RFC 7748, section 6.1", () => {
    const publicOf = (secret: string): string =>
      Buffer.from(createWrapKeyPair(() => new Uint8Array(Buffer.from(secret, "hex"))).publicKey).toString("hex");
    expect(publicOf("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"))
      .toBe("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
    expect(publicOf("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
      .toBe("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
  });
});

describe("leases", () => {
  it("are exclusive, end in time, and never come back once revoked", () => {
    const book = new KeyLeaseBook({ random: seeded("l") });
    const issue = (recipient: string, nowMs: number): string =>
      book.issue({ taskId: "t", shardHash: "aa", recipient, durationMs: 100 }, nowMs).id;
    const first = issue("alice", 0);
    expect(book.check(first, 99).recipient).toBe("alice");
    expect(() => book.check(first, 100)).toThrow(expect.objectContaining({ code: "lease-expired" }));
    expect(() => issue("bob", 50)).toThrow(/leased to another/);
    book.renew(first, 100, 90);
    expect(() => issue("bob", 150)).toThrow(/leased to another/);
    expect(book.revokeRecipient("t", "alice", 160)).toEqual(["aa"]);
    expect(() => book.check(first, 160)).toThrow(expect.objectContaining({ code: "lease-revoked" }));
    expect(() => book.renew(first, 100, 160)).toThrow(expect.objectContaining({ code: "lease-revoked" }));
    const second = issue("bob", 160);
    expect(book.active("t", 170)).toMatchObject([{ id: second, recipient: "bob" }]);
    expect(() => book.check("nothing", 0)).toThrow(expect.objectContaining({ code: "lease-unknown" }));
    book.closeTask("t");
    expect(() => book.check(second, 170)).toThrow(expect.objectContaining({ code: "lease-unknown" }));
  });
  it("a key ring overwrites keys that it forgets", () => {
    const ring = new KeyRing(), key = Buffer.alloc(32, 7);
    ring.put({ id: "x", taskId: "t", shardHash: "aa", recipient: "r", expiresMs: 10 }, key);
    const held = ring.get("aa", 9);
    expect(() => ring.get("aa", 10)).toThrow(expect.objectContaining({ code: "lease-expired" }));
    expect(held.every((byte) => byte === 0)).toBe(true);
    expect(key.every((byte) => byte === 7)).toBe(true);
    expect(() => ring.get("aa", 1)).toThrow(expect.objectContaining({ code: "lease-unknown" }));
  });
});

describe("the shard store", () => {
  let directory: string;
  beforeEach(async () => { directory = await mkdtemp(join(tmpdir(), "tesra-shards-")); });
  afterEach(async () => { await rm(directory, { recursive: true, force: true }); });
  const bytes = Uint8Array.from({ length: 1000 }, (_, i) => i);
  const address = Buffer.from(hash(bytes)).toString("hex");
  async function* stream(parts: Uint8Array[], failure?: Error): AsyncGenerator<Uint8Array> {
    yield* parts;
    if (failure) throw failure;
  }

  it("stores whole bytes and streams, and gives them back verified", async () => {
    const store = await ShardStore.open(directory);
    await store.put(address, stream([bytes.subarray(0, 10), bytes.subarray(10)]));
    expect(new Uint8Array(await store.get(address))).toEqual(bytes);
    await store.put(address, bytes); // again: the same content
    expect(await store.list()).toEqual([address]);
    expect([await store.delete(address), await store.delete(address), await store.has(address)]).toEqual([true, false, false]);
    await expect(store.get(address)).rejects.toMatchObject({ code: "not-found" });
  });

  it("leaves nothing behind when bytes are wrong, too many, or the source or disk fails", async () => {
    const store = await ShardStore.open(directory);
    const full = Object.assign(new Error("ENOSPC: no space left on device"), { code: "ENOSPC" });
    await expect(store.put(address, bytes.subarray(1))).rejects.toMatchObject({ code: "hash-mismatch" });
    await expect(store.put(address, stream([bytes, bytes]))).rejects.toMatchObject({ code: "hash-mismatch" });
    await expect(store.put(address, stream([bytes]), { sizeBytesMax: 999 })).rejects.toMatchObject({ code: "shard" });
    await expect(store.put(address, stream([bytes.subarray(5)], full))).rejects.toMatchObject({ code: "disk-full", message: expect.stringMatching(/free some space/) });
    expect(await readdir(directory)).toEqual([]);
  });

  it("cannot be led outside its directory", async () => {
    const store = await ShardStore.open(directory);
    for (const name of ["../x", "/etc/passwd", `${address}/../x`, address.toUpperCase(), `${address}\0`, "", "..", address.slice(1)]) {
      for (const attempt of [store.put(name, bytes), store.get(name), store.has(name), store.delete(name)]) {
        await expect(attempt).rejects.toMatchObject({ code: "name" });
      }
    }
  });

  it("detects damage on disk, removes it, and sweeps leftovers at start", async () => {
    const store = await ShardStore.open(directory);
    await store.put(address, bytes);
    await writeFile(join(directory, address), bytes.subarray(1));
    await expect(store.get(address)).rejects.toMatchObject({ code: "hash-mismatch" });
    expect(await store.has(address)).toBe(false);
    await store.put(address, bytes);
    await writeFile(join(directory, `.${address}.3.partial`), "half");
    await writeFile(join(directory, "notes.txt"), "kept");
    await mkdir(join(directory, "sub"));
    const again = await ShardStore.open(directory);
    expect((await readdir(directory)).sort()).toEqual([address, "notes.txt", "sub"].sort());
    expect(await again.sweep(new Set())).toEqual([address]);
    expect(await readFile(join(directory, "notes.txt"), "utf8")).toBe("kept");
  });
});

describe("deletion receipts", () => {
  it("bind task, worker, time and the set of shards", () => {
    const receipt = { taskId: "t", worker: "w", shardHashes: ["aa".repeat(32), "bb".repeat(32)], deletedMs: 5 };
    const digest = (change: object): string => Buffer.from(deletionReceiptDigest({ ...receipt, ...change }, hash)).toString("hex");
    expect(digest({ shardHashes: [...receipt.shardHashes].reverse() })).toBe(digest({}));
    expect(new Set([digest({}), digest({ taskId: "u" }), digest({ worker: "v" }), digest({ deletedMs: 6 }), digest({ shardHashes: [] })]).size).toBe(5);
    expect(() => digest({ shardHashes: ["../x"] })).toThrow(expect.objectContaining({ code: "name" }));
  });
});
