// Owns: a node's disk: it outlives the node's processes, and a crash takes back what was not synced.
// Invariant: after a crash a store holds everything up to its last synced write and a prefix of what came after, in
// whole batches; a file holds its synced bytes and a prefix of the rest, whose last block may be garbage.
import type { SimRandom } from "./random.js";

export interface SimStoreOperation {
  readonly key: Uint8Array;
  /** undefined deletes the key. */
  readonly value: Uint8Array | undefined;
}

/** A disk writes in blocks of this size; a torn write leaves a wrong one. */
const BLOCK_BYTES = 512;

interface StoreImage {
  durable: Map<string, Uint8Array>;
  /** Batches since the last sync, oldest first. */
  unsynced: (readonly SimStoreOperation[])[];
  current: Map<string, Uint8Array>;
  owner: SimStore | undefined;
}

interface FileImage {
  bytes: Buffer;
  syncedBytes: number;
  owner: SimFile | undefined;
}

export class SimDisk {
  readonly #random: SimRandom;
  readonly #stores = new Map<string, StoreImage>();
  readonly #files = new Map<string, FileImage>();
  /** Share of writes that fail as on a full disk. */
  failChance = 0;
  syncs = 0;
  writes = 0;
  tornBatches = 0;

  constructor(random: SimRandom) {
    this.#random = random;
  }

  /** One owner at a time, as RocksDB's LOCK file demands. */
  openStore(name: string): SimStore {
    let image = this.#stores.get(name);
    if (image === undefined) this.#stores.set(name, (image = { durable: new Map(), unsynced: [], current: new Map(), owner: undefined }));
    if (image.owner !== undefined) throw new Error(`the store ${name} is open already`);
    const store: SimStore = new SimStore(name, {
      read: () => image.current,
      write: (operations, isSynced) => {
        this.#assertWritable(name);
        apply(image.current, operations);
        image.unsynced.push(operations);
        if (!isSynced) return;
        this.syncs += 1;
        for (const batch of image.unsynced.splice(0)) apply(image.durable, batch);
      },
      close: () => {
        image.owner = undefined;
      },
    });
    image.owner = store;
    return store;
  }

  /** A log file: appended, synced, read whole. */
  openFile(name: string): SimFile {
    let image = this.#files.get(name);
    if (image === undefined) this.#files.set(name, (image = { bytes: Buffer.alloc(0), syncedBytes: 0, owner: undefined }));
    if (image.owner !== undefined) throw new Error(`the file ${name} is open already`);
    const file = new SimFile(name, image, () => this.#assertWritable(name));
    image.owner = file;
    return file;
  }

  /** The processes are gone: what they had open is closed, what they had not synced is torn. */
  crash(): void {
    for (const image of this.#stores.values()) {
      image.owner?.abandon();
      image.owner = undefined;
      const kept = this.#random.below(image.unsynced.length + 1);
      this.tornBatches += image.unsynced.length - kept;
      for (const batch of image.unsynced.splice(0).slice(0, kept)) apply(image.durable, batch);
      image.current = new Map(image.durable);
    }
    for (const image of this.#files.values()) {
      image.owner?.abandon();
      image.owner = undefined;
      this.#tear(image);
    }
  }

  #tear(image: FileImage): void {
    const unsyncedBytes = image.bytes.length - image.syncedBytes;
    const bytes = Buffer.from(image.bytes.subarray(0, image.syncedBytes + this.#random.below(unsyncedBytes + 1)));
    if (bytes.length > image.syncedBytes && this.#random.chance(0.5)) {
      const from = Math.max(image.syncedBytes, bytes.length - 1 - this.#random.below(BLOCK_BYTES));
      bytes.set(this.#random.bytes(bytes.length - from), from);
    }
    image.bytes = bytes;
    image.syncedBytes = bytes.length;
  }

  #assertWritable(name: string): void {
    this.writes += 1;
    if (this.#random.chance(this.failChance)) throw new Error(`the disk that holds ${name} is full`);
  }
}

interface StoreImageDoor {
  read(): Map<string, Uint8Array>;
  write(operations: readonly SimStoreOperation[], isSynced: boolean): void;
  close(): void;
}

/** Store of the runtime (host/store.ts) and of the chain alike. */
export class SimStore {
  readonly location: string;
  readonly #door: StoreImageDoor;
  #isOpen = true;

  constructor(location: string, door: StoreImageDoor) {
    this.location = location;
    this.#door = door;
  }

  get(key: Uint8Array): Uint8Array | undefined {
    this.#assertOpen();
    return this.#door.read().get(keyText(key));
  }

  scan(prefix: Uint8Array, limit = Number.MAX_SAFE_INTEGER): { key: Uint8Array; value: Uint8Array }[] {
    this.#assertOpen();
    const start = keyText(prefix);
    const entries = this.#door.read();
    const keys = [...entries.keys()].filter((key) => key.startsWith(start)).sort().slice(0, limit);
    return keys.map((key) => ({ key: new Uint8Array(Buffer.from(key, "latin1")), value: entries.get(key)! }));
  }

  write(operations: readonly SimStoreOperation[], options: { readonly sync?: boolean } = {}): void {
    this.#assertOpen();
    const copies = operations.map(({ key, value }) => ({ key: Uint8Array.from(key), value: value && Uint8Array.from(value) }));
    this.#door.write(copies, options.sync === true);
  }

  close(): Promise<void> {
    if (this.#isOpen) this.#door.close();
    this.#isOpen = false;
    return Promise.resolve();
  }

  /** Its process has crashed. */
  abandon(): void {
    this.#isOpen = false;
  }

  #assertOpen(): void {
    if (!this.#isOpen) throw new Error(`the store ${this.location} is closed; open it again before use`);
  }
}

export class SimFile {
  readonly #name: string;
  readonly #image: FileImage;
  readonly #assertWritable: () => void;
  #isOpen = true;

  constructor(name: string, image: FileImage, assertWritable: () => void) {
    this.#name = name;
    this.#image = image;
    this.#assertWritable = assertWritable;
  }

  read(): Uint8Array {
    this.#assertOpen();
    return Uint8Array.from(this.#image.bytes);
  }

  append(bytes: Uint8Array): void {
    this.#assertOpen();
    this.#assertWritable();
    this.#image.bytes = Buffer.concat([this.#image.bytes, bytes]);
  }

  truncate(sizeBytes: number): void {
    this.#assertOpen();
    this.#image.bytes = Buffer.from(this.#image.bytes.subarray(0, sizeBytes));
    this.#image.syncedBytes = Math.min(this.#image.syncedBytes, this.#image.bytes.length);
  }

  sync(): void {
    this.#assertOpen();
    this.#image.syncedBytes = this.#image.bytes.length;
  }

  close(): void {
    if (this.#isOpen) this.#image.owner = undefined;
    this.#isOpen = false;
  }

  abandon(): void {
    this.#isOpen = false;
  }

  #assertOpen(): void {
    if (!this.#isOpen) throw new Error(`the file ${this.#name} is closed; open it again before use`);
  }
}

/** latin1: one character a byte, so that text order is byte order. */
function keyText(key: Uint8Array): string {
  return Buffer.from(key.buffer, key.byteOffset, key.byteLength).toString("latin1");
}

function apply(entries: Map<string, Uint8Array>, operations: readonly SimStoreOperation[]): void {
  for (const { key, value } of operations) {
    if (value === undefined) entries.delete(keyText(key));
    else entries.set(keyText(key), value);
  }
}
