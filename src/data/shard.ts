/**
 * Owns: shards: cutting rows, compressing, encrypting, addressing, and the way back.
 * Form: nonce (12) | AES-256-GCM of raw DEFLATE of (images, labels) | tag (16). The name of the set,
 * the shard's number and its rows are authenticated, so a shard cannot pose as another one.
 * Invariant: each shard has its own random key, so a nonce never repeats under a key.
 */
import { createCipheriv, createDecipheriv } from "node:crypto";
import { promisify } from "node:util";
import { constants, deflateRaw, inflateRaw } from "node:zlib";
import { DataError } from "./errors.js";
import { bytesToHex, createHash, type Hash, type HashDevice } from "./hash.js";
import { isDatasetName, MANIFEST_FORMAT, merkleRoot, SHARD_BYTES_MAX, SHARDS_MAX, type Manifest, type ShardEntry } from "./manifest.js";

export const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

export type Random = (bytes: number) => Uint8Array;

export interface CutOptions {
  name: string;
  shardCount: number;
  random: Random;
  device?: HashDevice;
}

export interface CutDataset {
  manifest: Manifest;
  /** Ciphertexts, in the manifest's order. */
  shards: Uint8Array<ArrayBuffer>[];
  /** One key a shard: secret. */
  keys: Uint8Array[];
}

export interface OpenedShard {
  /** rows x rowBytes. */
  images: Uint8Array;
  labels: Uint8Array;
  rows: number;
}

function associatedData(name: string, index: number, rows: number, rowBytes: number): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(["tesra-shard/1", name, index, rows, rowBytes]));
}

/** Cuts rows into `shardCount` shards of nearly equal length, each under a key of its own. */
export async function cutDataset(images: Uint8Array, labels: Uint8Array, options: CutOptions): Promise<CutDataset> {
  const { name, shardCount, random } = options;
  const rows = labels.length;
  const invalid = (message: string): never => { throw new DataError("option", message); };
  if (!isDatasetName(name)) invalid(`"${name}" is no valid data set name (1 to 100 letters, digits, _ . - or spaces)`);
  if (rows === 0 || images.length === 0 || images.length % rows !== 0) {
    invalid(`${images.length} image bytes do not divide into ${rows} labelled rows`);
  }
  if (!Number.isInteger(shardCount) || shardCount < 1 || shardCount > Math.min(rows, SHARDS_MAX)) {
    invalid(`shardCount must be an integer from 1 to ${Math.min(rows, SHARDS_MAX)}, got ${shardCount}`);
  }
  const rowBytes = images.length / rows;
  if (Math.ceil(rows / shardCount) * (rowBytes + 1) > SHARD_BYTES_MAX - 2 ** 20) {
    invalid(`a shard would be larger than ${SHARD_BYTES_MAX} bytes; cut the data set into more shards`);
  }
  const hash = createHash(options.device);
  const bounds = (i: number): number => Math.floor((i * rows) / shardCount);
  const keys: Uint8Array[] = [], shards: Uint8Array<ArrayBuffer>[] = [], entries: ShardEntry[] = [];
  // zlib works on the thread pool; two at a time fill two cores and hold two shards in memory.
  for (let first = 0; first < shardCount; first += CUT_PARALLEL) {
    const cut = Array.from({ length: Math.min(CUT_PARALLEL, shardCount - first) }, (_, i) => {
      const begin = bounds(first + i), end = bounds(first + i + 1);
      return {
        key: random(KEY_BYTES), nonce: random(NONCE_BYTES), rows: end - begin,
        plain: joined(images.subarray(begin * rowBytes, end * rowBytes), labels.subarray(begin, end)),
      };
    });
    const compressed = await Promise.all(cut.map(({ plain }) =>
      promisify(deflateRaw)(plain, { level: constants.Z_BEST_SPEED })));
    cut.forEach((shard, i) => {
      const sealed = seal(compressed[i]!, shard.key, shard.nonce, associatedData(name, first + i, shard.rows, rowBytes));
      keys.push(shard.key);
      shards.push(sealed);
      entries.push({ hash: bytesToHex(hash(sealed)), sizeBytes: sealed.length, rows: shard.rows });
    });
  }
  const manifest: Manifest = {
    format: MANIFEST_FORMAT, name, rowBytes, rows, shards: entries, root: merkleRoot(entries, hash),
  };
  return { manifest, shards, keys };
}

const CUT_PARALLEL = 2;

function joined(a: Uint8Array, b: Uint8Array): Uint8Array {
  const out = new Uint8Array(a.length + b.length);
  out.set(a);
  out.set(b, a.length);
  return out;
}

function seal(plain: Uint8Array, key: Uint8Array, nonce: Uint8Array, aad: Uint8Array): Uint8Array<ArrayBuffer> {
  if (key.length !== KEY_BYTES || nonce.length !== NONCE_BYTES) throw new DataError("key", "random() gave too few bytes");
  const cipher = createCipheriv("aes-256-gcm", key, nonce);
  cipher.setAAD(aad);
  const out = new Uint8Array(NONCE_BYTES + plain.length + TAG_BYTES);
  out.set(nonce);
  out.set(cipher.update(plain), NONCE_BYTES);
  cipher.final();
  out.set(cipher.getAuthTag(), NONCE_BYTES + plain.length);
  return out;
}

/** Checks a ciphertext against its address; throws DataError. */
export function verifyShard(bytes: Uint8Array, entry: ShardEntry, hash: Hash): void {
  if (bytes.length !== entry.sizeBytes) {
    throw new DataError("shard", `shard ${entry.hash} has ${bytes.length} bytes, the manifest says ${entry.sizeBytes}`,
      { file: entry.hash, expected: entry.sizeBytes, actual: bytes.length });
  }
  const actual = bytesToHex(hash(bytes));
  if (actual !== entry.hash) {
    throw new DataError("hash-mismatch", `shard ${entry.hash} was altered: its bytes hash to ${actual}`,
      { file: entry.hash, expected: entry.hash, actual });
  }
}

/** Verifies, decrypts and unpacks shard `index` of a manifest; throws DataError. */
export async function openShard(bytes: Uint8Array, key: Uint8Array, manifest: Manifest, index: number,
  options: { device?: HashDevice } = {}): Promise<OpenedShard> {
  const entry = manifest.shards[index];
  if (entry === undefined) throw new DataError("shard", `the data set has ${manifest.shards.length} shards, there is no shard ${index}`);
  verifyShard(bytes, entry, createHash(options.device));
  if (key.length !== KEY_BYTES) throw new DataError("key", `a shard key has ${KEY_BYTES} bytes, got ${key.length}`);
  if (bytes.length < NONCE_BYTES + TAG_BYTES) throw new DataError("shard", `shard ${entry.hash} is too short`);
  const { name, rowBytes } = manifest;
  const decipher = createDecipheriv("aes-256-gcm", key, bytes.subarray(0, NONCE_BYTES));
  decipher.setAAD(associatedData(name, index, entry.rows, rowBytes));
  decipher.setAuthTag(bytes.subarray(bytes.length - TAG_BYTES));
  let compressed: Uint8Array;
  try {
    compressed = decipher.update(bytes.subarray(NONCE_BYTES, bytes.length - TAG_BYTES));
    decipher.final();
  } catch {
    throw new DataError("key", `shard ${entry.hash} does not open with this key`, { file: entry.hash });
  }
  const expected = entry.rows * (rowBytes + 1);
  let plain: Uint8Array;
  try {
    plain = await promisify(inflateRaw)(compressed, { maxOutputLength: expected });
  } catch (error) {
    throw new DataError("shard", `shard ${entry.hash} does not unpack: ${(error as Error).message}`, { file: entry.hash });
  }
  if (plain.length !== expected) {
    throw new DataError("shard", `shard ${entry.hash} unpacks to ${plain.length} bytes, expected ${expected}`,
      { file: entry.hash, expected, actual: plain.length });
  }
  return {
    images: plain.subarray(0, entry.rows * rowBytes), labels: plain.subarray(entry.rows * rowBytes), rows: entry.rows,
  };
}
