// Owns: the store on RocksDB: one owner per directory (its LOCK file). Invariants: every call is guarded by the open
// state, because the native binding crashes the process when used before open or after close; RocksDB is loaded only
// when a store is opened; a write-ahead log whose tail a crash has torn opens with all that was synced.
import { mkdir } from "node:fs/promises";
import { describeError, RuntimeError } from "../core/failure.js";
import type { Store, StoreEntry, StoreOperation } from "./store.js";

// The binding ships no types; this is the part that is used, as in its index.js and chained-batch.js (12.2.12).
interface Batch {
  _put(key: Uint8Array, value: Uint8Array): void;
  _del(key: Uint8Array): void;
  _writeSync(options: { readonly sync: boolean }): void;
  _closeSync(): void;
}
interface Database {
  open(): Promise<void>;
  close(): Promise<void>;
  _getManySync(keys: readonly Uint8Array[], options: object): (Buffer | undefined | null)[];
  _chainedBatch(): Batch;
  querySync(options: object): { readonly rows: (Buffer | undefined)[] };
}
type DatabaseConstructor = new (location: string, options: object) => Database;

const AS_BUFFERS = Object.freeze({ keyEncoding: "buffer", valueEncoding: "buffer" });
/** A queue is read once, soon after it was written, from the memory table: a small cache is enough. */
const CACHE_BYTES = 8 * 1024 * 1024;

/** Opens or creates the store in `directory`. @throws RuntimeError "store-locked" when another process holds it. */
export async function openRocksStore(directory: string): Promise<Store> {
  try {
    await mkdir(directory, { recursive: true });
    const { RocksLevel } = (await import("rocksdb")).default as unknown as { RocksLevel: DatabaseConstructor };
    const database = new RocksLevel(directory, { createIfMissing: true, cacheSize: CACHE_BYTES, parallelism: 1, ...AS_BUFFERS });
    await database.open();
    return new RocksStore(directory, database);
  } catch (error) {
    throw translate((error as { cause?: unknown }).cause ?? error, directory);
  }
}

class RocksStore implements Store {
  readonly #directory: string;
  readonly #database: Database;
  #closing: Promise<void> | undefined;

  constructor(directory: string, database: Database) {
    this.#directory = directory;
    this.#database = database;
  }

  get(key: Uint8Array): Uint8Array | undefined {
    return this.#guarded(() => this.#database._getManySync([key], { valueEncoding: "buffer" })[0] ?? undefined);
  }

  scan(prefix: Uint8Array, limit = -1): StoreEntry[] {
    return this.#guarded(() => {
      const { rows } = this.#database.querySync({ gte: Buffer.from(prefix), lt: endOf(prefix), limit, ...AS_BUFFERS });
      const entries: StoreEntry[] = [];
      for (let i = 0; i + 1 < rows.length; i += 2) entries.push({ key: rows[i]!, value: rows[i + 1]! });
      return entries;
    });
  }

  write(operations: readonly StoreOperation[], { sync = false }: { readonly sync?: boolean } = {}): void {
    this.#guarded(() => {
      const batch = this.#database._chainedBatch();
      for (const { key, value } of operations) {
        if (value === undefined) batch._del(key);
        else batch._put(key, value);
      }
      batch._writeSync({ sync });
      batch._closeSync();
    });
  }

  close(): Promise<void> {
    this.#closing ??= this.#database.close();
    return this.#closing;
  }

  #guarded<T>(run: () => T): T {
    if (this.#closing !== undefined) {
      throw new RuntimeError("store-failed", `the store at ${this.#directory} is closed`, "close outboxes before their store");
    }
    try {
      return run();
    } catch (error) {
      throw translate(error, this.#directory);
    }
  }
}

/** The first key after all that start with `prefix`. */
function endOf(prefix: Uint8Array): Buffer {
  const end = Buffer.from(prefix);
  for (let at = end.length - 1; at >= 0; at--) {
    if (end[at] === 0xff) continue;
    end[at]! += 1;
    return end.subarray(0, at + 1);
  }
  throw new RuntimeError("bad-option", "a scan needs a prefix with a byte below 255");
}

function translate(error: unknown, directory: string): RuntimeError {
  if (error instanceof RuntimeError) return error;
  const message = describeError(error);
  const cause = { cause: error };
  if (/lock/i.test(message)) {
    return new RuntimeError(
      "store-locked", `the store at ${directory} is in use by another process`, "stop it or use another directory", cause,
    );
  }
  const hint = /no space|ENOSPC|quota/i.test(message)
    ? "free space on its disk; what was synced is intact"
    : "check that the directory exists, is writable and its disk is healthy";
  return new RuntimeError("store-failed", `the store at ${directory} failed: ${message}`, hint, cause);
}
