/**
 * Owns: token shards: files of uint16 or uint32 ids, bare or with the header of llm.c (256 int32:
 * magic, version, count), and which windows of them make up which batch. Nothing but the windows of a
 * batch is ever in memory. Invariant: a batch is a pure function of (seed, batch number); over an
 * epoch every window appears once, a short rest being filled from the next epoch.
 */
import { TrainingError } from "../errors.js";
import { epochOrder } from "../sample-order.js";
import { bytesOfArray, type ByteSource } from "./byte-source.js";

/** magic -> (version, bytes of an id): GPT-2's shards and Llama 3's. */
const HEADERS: Readonly<Record<number, { version: number; idBytes: 2 | 4 }>> = {
  20240520: { version: 1, idBytes: 2 },
  20240801: { version: 7, idBytes: 4 },
};
const HEADER_BYTES = 1024;

export interface TokenShardOptions {
  /** Tokens of one row; a window holds one more, the last label. */
  length: number;
  batchSize: number;
  seed: number;
  /** The ids of files without a header. Default "uint16". */
  idType?: "uint16" | "uint32";
  /** Ids at or above it are refused, by shard and position. */
  vocabulary?: number;
}

export interface TokenBatch {
  index: number;
  /** Of the batch's first row. */
  epoch: number;
  /** batchSize x length. */
  tokens: Int32Array;
  /** The id that follows each. */
  labels: Int32Array;
}

interface Shard { source: ByteSource; startByte: number; idBytes: 2 | 4; tokens: number; windows: number }

export class TokenShards {
  readonly tokens: number;
  readonly windows: number;
  private readonly orders = new Map<number, Uint32Array>();

  private constructor(private readonly shards: readonly Shard[], private readonly options: TokenShardOptions) {
    this.tokens = shards.reduce((sum, shard) => sum + shard.tokens, 0);
    this.windows = shards.reduce((sum, shard) => sum + shard.windows, 0);
  }

  /** Reads the headers. The sources stay open until close(); their order is part of the data. */
  static async open(sources: readonly ByteSource[], options: TokenShardOptions): Promise<TokenShards> {
    const { length, batchSize } = options;
    if (![length, batchSize].every((n) => Number.isInteger(n) && n >= 1)) {
      throw new TrainingError("option", `length and batchSize must be positive integers, got ${length} and ${batchSize}`);
    }
    const shards = await Promise.all(sources.map((source, i) => openShard(source, i, options)));
    const opened = new TokenShards(shards, options);
    if (opened.windows === 0) {
      throw new TrainingError("format", `${opened.tokens} tokens in ${sources.length} shards make no row of ${length} and its label`);
    }
    return opened;
  }

  /** Batch `index` of the run, counted from 0 over all epochs. */
  async batch(index: number): Promise<TokenBatch> {
    const { batchSize, length } = this.options;
    const tokens = new Int32Array(batchSize * length), labels = new Int32Array(batchSize * length);
    const first = index * batchSize;
    await Promise.all(Array.from({ length: batchSize }, async (_, row) => {
      const window = first + row, epoch = Math.floor(window / this.windows);
      const ids = await this.window(this.order(epoch)[window % this.windows]!);
      tokens.set(ids.subarray(0, length), row * length);
      labels.set(ids.subarray(1), row * length);
    }));
    return { index, epoch: Math.floor(first / this.windows), tokens, labels };
  }

  async close(): Promise<void> {
    await Promise.all(this.shards.map(({ source }) => source.close()));
  }

  private async window(number: number): Promise<Int32Array> {
    let at = 0, rest = number;
    while (rest >= this.shards[at]!.windows) rest -= this.shards[at++]!.windows;
    const { source, startByte, idBytes } = this.shards[at]!, { length, vocabulary = 2 ** 31 } = this.options;
    const ids = idBytes === 2 ? new Uint16Array(length + 1) : new Uint32Array(length + 1);
    await source.read(startByte + rest * length * idBytes, bytesOfArray(ids));
    const unknown = ids.findIndex((id) => id >= vocabulary);
    if (unknown >= 0) {
      throw new TrainingError("label", `token ${ids[unknown]!} at position ${rest * length + unknown} of shard ${at} is not in 0..${vocabulary - 1}`,
        { shard: at, position: rest * length + unknown, token: ids[unknown]! });
    }
    return Int32Array.from(ids);
  }

  /** Of this epoch and, because a batch may cross, the one before or after. */
  private order(epoch: number): Uint32Array {
    let order = this.orders.get(epoch);
    if (order === undefined) {
      for (const known of this.orders.keys()) if (Math.abs(known - epoch) > 1) this.orders.delete(known);
      this.orders.set(epoch, order = epochOrder(this.options.seed, 0, epoch, this.windows));
    }
    return order;
  }
}

async function openShard(source: ByteSource, position: number, { length, idType = "uint16" }: TokenShardOptions): Promise<Shard> {
  const fail = (message: string): never => {
    throw new TrainingError("format", `token shard ${position}: ${message}`, { shard: position });
  };
  const header = new Int32Array(3);
  if (source.sizeBytes >= HEADER_BYTES) await source.read(0, bytesOfArray(header));
  const [magic, version, count] = header as unknown as [number, number, number];
  const known = HEADERS[magic], startByte = known === undefined ? 0 : HEADER_BYTES;
  const idBytes = known?.idBytes ?? (idType === "uint16" ? 2 : 4), dataBytes = source.sizeBytes - startByte;
  if (known !== undefined && version !== known.version) fail(`version ${version} of a header ${magic} is unknown, expected ${known.version}`);
  if (dataBytes % idBytes !== 0) fail(`${dataBytes} bytes are no whole number of ids of ${idBytes}`);
  const tokens = dataBytes / idBytes;
  if (known !== undefined && count !== tokens) fail(`the header counts ${count} tokens, the file has ${tokens}`);
  return { source, startByte, idBytes, tokens, windows: Math.max(0, Math.floor((tokens - 1) / length)) };
}

/** A shard with the header of llm.c: uint16 ids where all fit, else uint32. */
export function encodeTokenShard(ids: ArrayLike<number>): Uint8Array {
  let largest = 0;
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i]!;
    if (!Number.isInteger(id) || id < 0 || id > 0x7fffffff) throw new TrainingError("format", `token ${id} at position ${i} is no id`);
    largest = Math.max(largest, id);
  }
  const wide = largest > 0xffff, magic = wide ? 20240801 : 20240520;
  const file = new Uint8Array(HEADER_BYTES + ids.length * (wide ? 4 : 2));
  new Int32Array(file.buffer, 0, 3).set([magic, HEADERS[magic]!.version, ids.length]);
  const data = wide ? new Uint32Array(file.buffer, HEADER_BYTES) : new Uint16Array(file.buffer, HEADER_BYTES);
  for (let i = 0; i < ids.length; i++) data[i] = ids[i]!;
  return file;
}
