/**
 * Owns: a directory of ciphertexts addressed by hash. Invariant: a file under its hash's name was
 * complete and verified when it got the name; half-written ones have another name and are swept.
 * Names come from 64 hex digits alone, so nothing outside the directory can be reached.
 */
import { mkdir, open, readdir, readFile, rename, rm, stat, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { blake3 } from "@noble/hashes/blake3.js";
import { DataError, ioError } from "./errors.js";
import { bytesToHex, createHash, isHexHash, type Hash, type HashDevice } from "./hash.js";
import { SHARD_BYTES_MAX } from "./manifest.js";

const PARTIAL = /^\.[0-9a-f]{64}\.\d+\.partial$/;

export class ShardStore {
  private readonly hash: Hash;
  private attempts = 0;

  private constructor(private readonly directory: string, modules: { device?: HashDevice }) {
    this.hash = createHash(modules.device);
  }

  /** Creates the directory where needed and removes what an interrupted put left. */
  static async open(directory: string, modules: { device?: HashDevice } = {}): Promise<ShardStore> {
    try {
      await mkdir(directory, { recursive: true });
    } catch (error) {
      throw ioError(error, "cannot create the shard store", directory);
    }
    const store = new ShardStore(directory, modules);
    await store.sweep();
    return store;
  }

  /** Stores bytes or a stream of them; nothing remains unless they hash to `hash`. */
  async put(hash: string, content: Uint8Array | AsyncIterable<Uint8Array>, options: { sizeBytesMax?: number } = {}): Promise<void> {
    const path = this.pathOf(hash);
    const { sizeBytesMax = SHARD_BYTES_MAX } = options;
    const partial = join(this.directory, `.${hash}.${this.attempts++}.partial`);
    try {
      const file = await open(partial, "wx");
      let actual: string;
      try {
        actual = content instanceof Uint8Array
          ? await this.writeWhole(file, content, sizeBytesMax, hash)
          : await writeStream(file, content, sizeBytesMax, hash);
        if (actual === hash) await file.sync();
      } finally {
        await file.close();
      }
      if (actual !== hash) {
        throw new DataError("hash-mismatch", `the bytes hash to ${actual}, they were announced as ${hash}`,
          { file: hash, expected: hash, actual });
      }
      await rename(partial, path);
    } catch (error) {
      await rm(partial, { force: true }).catch(() => undefined);
      throw ioError(error, "cannot store a shard", path);
    }
  }

  /** The bytes, verified; a damaged file is removed and reported. */
  async get(hash: string): Promise<Uint8Array> {
    const path = this.pathOf(hash);
    let bytes: Uint8Array;
    try {
      const { size } = await stat(path);
      if (size > SHARD_BYTES_MAX) throw new DataError("shard", `${path} has ${size} bytes, a shard at most ${SHARD_BYTES_MAX}`);
      bytes = await readFile(path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") {
        throw new DataError("not-found", `shard ${hash} is not in the store`, { file: hash });
      }
      throw ioError(error, "cannot read a shard", path);
    }
    const actual = bytesToHex(this.hash(bytes));
    if (actual !== hash) {
      await rm(path, { force: true });
      throw new DataError("hash-mismatch", `stored shard ${hash} was damaged (its bytes hash to ${actual}) and has been removed`,
        { file: hash, expected: hash, actual });
    }
    return bytes;
  }

  async has(hash: string): Promise<boolean> {
    return stat(this.pathOf(hash)).then((entry) => entry.isFile(), () => false);
  }

  /** True where there was something to delete. */
  async delete(hash: string): Promise<boolean> {
    const path = this.pathOf(hash);
    if (!(await this.has(hash))) return false;
    await rm(path, { force: true }).catch((error: unknown) => { throw ioError(error, "cannot delete a shard", path); });
    return true;
  }

  async list(): Promise<string[]> {
    return (await readdir(this.directory)).filter(isHexHash).sort();
  }

  /** Deletes shards that no assignment needs, and leftovers of interrupted puts. */
  async sweep(keep?: ReadonlySet<string>): Promise<string[]> {
    const removed: string[] = [];
    for (const name of await readdir(this.directory)) {
      const leftover = PARTIAL.test(name);
      if (!leftover && !(keep !== undefined && isHexHash(name) && !keep.has(name))) continue;
      await rm(join(this.directory, name), { force: true });
      if (!leftover) removed.push(name);
    }
    return removed;
  }

  private pathOf(hash: string): string {
    if (!isHexHash(hash)) {
      throw new DataError("name", `a shard's name is 64 lower-case hex digits, got ${JSON.stringify(String(hash).slice(0, 80))}`);
    }
    return join(this.directory, hash);
  }

  private async writeWhole(file: FileHandle, bytes: Uint8Array, sizeBytesMax: number, hash: string): Promise<string> {
    checkSize(bytes.length, sizeBytesMax, hash);
    const actual = bytesToHex(this.hash(bytes));
    if (actual === hash) await file.writeFile(bytes);
    return actual;
  }
}

async function writeStream(file: FileHandle, chunks: AsyncIterable<Uint8Array>, sizeBytesMax: number, hash: string): Promise<string> {
  const hasher = blake3.create();
  let size = 0;
  for await (const chunk of chunks) {
    size += chunk.length;
    checkSize(size, sizeBytesMax, hash);
    hasher.update(chunk);
    let written = 0;
    while (written < chunk.length) written += (await file.write(chunk, written)).bytesWritten;
  }
  return bytesToHex(hasher.digest());
}

function checkSize(size: number, sizeBytesMax: number, hash: string): void {
  if (size <= sizeBytesMax) return;
  throw new DataError("shard", `shard ${hash} is larger than ${sizeBytesMax} bytes`, { file: hash, expected: sizeBytesMax, actual: size });
}
