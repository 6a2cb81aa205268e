/**
 * Owns: the manifest of a cut data set: what shards there are, in order, and the Merkle root that
 * goes on chain. Invariant: a parsed manifest is within the limits, lists each shard once, adds up,
 * and has the root it states.
 */
import { DataError } from "./errors.js";
import { bytesToHex, hexToBytes, isHexHash, type Hash } from "./hash.js";

export interface ShardEntry {
  /** Hex BLAKE3 of the ciphertext: its address. */
  hash: string;
  sizeBytes: number;
  rows: number;
}

export interface Manifest {
  format: "tesra-dataset/1";
  name: string;
  /** Bytes of one image. */
  rowBytes: number;
  rows: number;
  shards: ShardEntry[];
  /** Hex Merkle root over (hash, size, rows) of the shards in order. */
  root: string;
}

export const MANIFEST_FORMAT = "tesra-dataset/1";
/** 64 Ki shards of 1 GiB are 64 TiB; the manifest then has 8 MB. */
export const SHARDS_MAX = 65_536;
export const SHARD_BYTES_MAX = 2 ** 30;
export const ROW_BYTES_MAX = 2 ** 26;
const TEXT_BYTES_MAX = 16 * 2 ** 20;
const NAME = /^[A-Za-z0-9][A-Za-z0-9_. -]{0,99}$/;

export function isDatasetName(name: unknown): name is string {
  return typeof name === "string" && NAME.test(name);
}

/** RFC 6962's shape: leaves and nodes hash under different prefixes, an odd node moves up alone. */
export function merkleRoot(shards: readonly ShardEntry[], hash: Hash): string {
  let level = shards.map((shard) => {
    const leaf = new Uint8Array(1 + 32 + 16);
    leaf[0] = 0;
    leaf.set(hexToBytes(shard.hash), 1);
    const view = new DataView(leaf.buffer);
    view.setBigUint64(33, BigInt(shard.sizeBytes), true);
    view.setBigUint64(41, BigInt(shard.rows), true);
    return hash(leaf);
  });
  while (level.length > 1) {
    const above: Uint8Array[] = [];
    for (let i = 0; i < level.length; i += 2) {
      const right = level[i + 1];
      if (right === undefined) above.push(level[i]!);
      else {
        const node = new Uint8Array(65);
        node[0] = 1;
        node.set(level[i]!, 1);
        node.set(right, 33);
        above.push(hash(node));
      }
    }
    level = above;
  }
  return bytesToHex(level[0] ?? new Uint8Array(32));
}

/** Reads a manifest that came from a stranger; throws DataError. */
export function parseManifest(text: string, hash: Hash): Manifest {
  const fail = (message: string, fields: { expected?: string | number; actual?: string | number } = {}): never => {
    throw new DataError("manifest", `the manifest is refused: ${message}`, fields);
  };
  if (Buffer.byteLength(text) > TEXT_BYTES_MAX) fail(`it is larger than ${TEXT_BYTES_MAX} bytes`);
  let raw: unknown;
  try {
    raw = JSON.parse(text);
  } catch (error) {
    fail(`it is not JSON (${(error as Error).message})`);
  }
  const record = (value: unknown, what: string, keys: string[]): Record<string, unknown> => {
    if (typeof value !== "object" || value === null || Array.isArray(value)) return fail(`${what} must be an object`);
    const names = Object.keys(value);
    if (names.length !== keys.length || !keys.every((key) => Object.hasOwn(value, key))) {
      fail(`${what} must have exactly the fields ${keys.join(", ")}; it has ${names.slice(0, 10).join(", ")}`);
    }
    return value as Record<string, unknown>;
  };
  const integer = (value: unknown, what: string, max: number): number =>
    Number.isSafeInteger(value) && (value as number) >= 1 && (value as number) <= max
      ? (value as number) : fail(`${what} must be an integer from 1 to ${max}, got ${JSON.stringify(value)?.slice(0, 40)}`);
  const top = record(raw, "it", ["format", "name", "rowBytes", "rows", "shards", "root"]);
  if (top.format !== MANIFEST_FORMAT) fail(`the format must be "${MANIFEST_FORMAT}"`);
  if (!isDatasetName(top.name)) fail("the name must be 1 to 100 letters, digits, _ . - or spaces");
  const rowBytes = integer(top.rowBytes, "rowBytes", ROW_BYTES_MAX);
  const rows = integer(top.rows, "rows", Number.MAX_SAFE_INTEGER);
  if (!Array.isArray(top.shards) || top.shards.length < 1 || top.shards.length > SHARDS_MAX) {
    fail(`it must list 1 to ${SHARDS_MAX} shards`);
  }
  const seen = new Set<string>();
  const shards = (top.shards as unknown[]).map((value, i): ShardEntry => {
    const entry = record(value, `shard ${i}`, ["hash", "sizeBytes", "rows"]);
    if (!isHexHash(entry.hash)) return fail(`shard ${i} has no valid hash (64 lower-case hex digits)`);
    if (seen.has(entry.hash)) fail(`shard ${i} is listed twice`);
    seen.add(entry.hash);
    return {
      hash: entry.hash,
      sizeBytes: integer(entry.sizeBytes, `shard ${i}: sizeBytes`, SHARD_BYTES_MAX),
      rows: integer(entry.rows, `shard ${i}: rows`, Math.floor(SHARD_BYTES_MAX / rowBytes)),
    };
  });
  const sum = shards.reduce((total, shard) => total + shard.rows, 0);
  if (sum !== rows) fail(`its shards have ${sum} rows together, it states ${rows}`, { expected: rows, actual: sum });
  const root = merkleRoot(shards, hash);
  if (top.root !== root) fail(`its Merkle root is ${root}, it states ${String(top.root).slice(0, 64)}`,
    { expected: String(top.root).slice(0, 64), actual: root });
  return { format: MANIFEST_FORMAT, name: top.name as string, rowBytes, rows, shards, root };
}

/** One text per manifest. */
export function encodeManifest(manifest: Manifest): string {
  const { format, name, rowBytes, rows, shards, root } = manifest;
  return JSON.stringify({
    format, name, rowBytes, rows, root,
    shards: shards.map(({ hash, sizeBytes, rows: count }) => ({ hash, sizeBytes, rows: count })),
  });
}
