// Owns the RocksDB store: one owner per directory (RocksDB's LOCK file), every call guarded by the open state,
// because the native binding crashes the process when used before open or after close.
// Invariant: write() either applies the whole batch to the write-ahead log or throws StoreError.
import { mkdir } from "node:fs/promises";
import rocksdb from "rocksdb";
import { messageOf, StoreError } from "../errors.js";
import { STORE_FORMAT, table, type Store, type StoreOperation } from "./store.js";

// The binding ships no types; this is the part that is used, as in its index.js and chained-batch.js (12.2.12).
interface RocksBatch {
  _put(key: Uint8Array, value: Uint8Array, options?: object): void;
  _del(key: Uint8Array, options?: object): void;
  _writeSync(options: { sync?: boolean }): void;
  _closeSync(): void;
}
interface RocksDatabase {
  open(): Promise<void>;
  close(): Promise<void>;
  _getManySync(keys: Uint8Array[], options: object): (Buffer | undefined | null)[];
  _chainedBatch(): RocksBatch;
  querySync(options: object): { rows: (Buffer | undefined)[]; finished: boolean };
}
type RocksConstructor = new (location: string, options: object) => RocksDatabase;
const { RocksLevel } = rocksdb as unknown as { RocksLevel: RocksConstructor };

const READ = Object.freeze({ valueEncoding: "buffer" });

/** 64 MiB holds the upper trie levels of a million accounts; more only helps a full archive. */
const BLOCK_CACHE_BYTES = 64 * 1024 * 1024;

export class RocksStore implements Store {
  private state: "open" | "closing" | "closed" = "open";

  private constructor(readonly location: string, private readonly database: RocksDatabase) {}

  static async open(location: string): Promise<RocksStore> {
    try {
      await mkdir(location, { recursive: true });
    } catch (error) {
      throw translate(error, location);
    }
    const database = new RocksLevel(location, {
      createIfMissing: true, cacheSize: BLOCK_CACHE_BYTES, optimize: "point-lookup", parallelism: 1,
      keyEncoding: "buffer", valueEncoding: "buffer",
    });
    try {
      await database.open();
    } catch (error) {
      throw translate((error as { cause?: unknown }).cause ?? error, location);
    }
    const store = new RocksStore(location, database);
    try {
      store.checkFormat();
    } catch (error) {
      await store.close();
      throw error;
    }
    return store;
  }

  get(key: Uint8Array): Uint8Array | undefined {
    this.guard();
    try {
      return this.database._getManySync([key], READ)[0] ?? undefined;
    } catch (error) {
      throw translate(error, this.location);
    }
  }

  write(operations: readonly StoreOperation[], options: { sync?: boolean } = {}): void {
    this.guard();
    try {
      const batch = this.database._chainedBatch();
      for (const { key, value } of operations) {
        if (value === undefined) batch._del(key);
        else batch._put(key, value);
      }
      batch._writeSync({ sync: options.sync ?? false });
      batch._closeSync();
    } catch (error) {
      throw translate(error, this.location);
    }
  }

  scan(prefix: Uint8Array, limit: number): { key: Uint8Array; value: Uint8Array }[] {
    this.guard();
    const end = new Uint8Array(prefix);
    end[end.length - 1]! += 1; // prefixes are ASCII letters and hashes under them: the last byte never wraps
    try {
      const { rows } = this.database.querySync({
        gte: Buffer.from(prefix), lt: Buffer.from(end), limit, keyEncoding: "buffer", valueEncoding: "buffer",
      });
      const entries: { key: Uint8Array; value: Uint8Array }[] = [];
      for (let i = 0; i + 1 < rows.length; i += 2) entries.push({ key: rows[i]!, value: rows[i + 1]! });
      return entries;
    } catch (error) {
      throw translate(error, this.location);
    }
  }

  async close(): Promise<void> {
    if (this.state !== "open") return;
    this.state = "closing";
    await this.database.close();
    this.state = "closed";
  }

  private checkFormat(): void {
    const stored = this.get(table.format);
    if (stored === undefined) {
      this.write([{ key: table.format, value: Buffer.from(STORE_FORMAT) }], { sync: true });
      return;
    }
    const found = Buffer.from(stored).toString();
    if (found !== STORE_FORMAT) {
      throw new StoreError("corrupt", `The store at ${this.location} has format "${found}", this build reads "${STORE_FORMAT}".`,
        "Use the build that wrote it, or start from an empty directory and synchronise again.");
    }
  }

  private guard(): void {
    if (this.state !== "open") {
      throw new StoreError("closed", `The store at ${this.location} is ${this.state}.`, "Open it again before use.");
    }
  }
}

/** Opens or creates the store in a directory. Throws StoreError "locked" when another process holds it. */
export function openRocksStore(location: string): Promise<Store> {
  return RocksStore.open(location);
}

function translate(error: unknown, location: string): StoreError {
  if (error instanceof StoreError) return error;
  const message = messageOf(error);
  const cause = { cause: error };
  if (/lock/i.test(message) && /hold|unavailable|LOCK/i.test(message)) {
    return new StoreError("locked", `The store at ${location} is in use by another process.`,
      "Stop that node, or give this one its own data directory.", cause);
  }
  if (/no space|ENOSPC|quota/i.test(message)) {
    return new StoreError("full", `The disk that holds ${location} is full.`,
      "Free space and start again; the last committed block is intact.", cause);
  }
  if (/corrupt|checksum|bad (block|record)|CURRENT|MANIFEST/i.test(message)) {
    return new StoreError("corrupt", `The store at ${location} is damaged: ${message}.`,
      "Move the directory away and synchronise again.", cause);
  }
  return new StoreError("io", `The store at ${location} failed: ${message}.`,
    "Check that the directory exists, is writable and its disk is healthy.", cause);
}
