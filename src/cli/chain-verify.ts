/**
 * Owns the replay behind `supernet chain verify`: every canonical block of a store is executed again
 * on a fresh state, by the same rules that a peer's block meets, and the roots are compared.
 * Invariant: the verified store is only read; the replay writes to a folder of its own that is
 * removed at the end.
 */
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { decodeBlock } from "../chain/block/block.js";
import { Chain } from "../chain/chain.js";
import { StoreError } from "../chain/errors.js";
import { checkGenesis, type Genesis } from "../chain/genesis.js";
import { openRocksStore } from "../chain/store/rocks-store.js";
import { table, type Store } from "../chain/store/store.js";
import { fileFault, oneLine, OperationalError, UserError } from "./errors.js";
import type { Progress } from "./output.js";

export interface VerifyRequest {
  readonly folder: string;
  readonly genesisFile: string;
  readonly signal: AbortSignal;
  /** Opens a progress display for this many blocks. */
  readonly progress: (total: number) => Progress;
}

export interface VerifyResult {
  readonly ok: boolean;
  /** Blocks above genesis that were executed and agree. */
  readonly blocks: number;
  readonly head: string;
  readonly stateRoot: string;
  /** The first thing that does not agree. */
  readonly reason?: string;
}

/** Throws UserError for files that cannot be read; a chain that does not verify is a result. */
export async function verifyStore(request: VerifyRequest): Promise<VerifyResult> {
  const genesis = await readGenesis(request.genesisFile);
  // Opening makes a database where there is none, so look first.
  if (!existsSync(join(request.folder, "CURRENT"))) {
    throw new UserError(`${request.folder} holds no chain store: expected the folder of a RocksDB`);
  }
  const source = await open(request.folder);
  const scratch = await mkdtemp(join(tmpdir(), "tesra-verify-"));
  try {
    const target = await open(join(scratch, "store"));
    try {
      return await replay(source, target, genesis, request);
    } finally {
      await target.close();
    }
  } finally {
    await source.close();
    await rm(scratch, { recursive: true, force: true });
  }
}

async function replay(
  source: Store, target: Store, genesis: Genesis, { folder, signal, progress }: VerifyRequest,
): Promise<VerifyResult> {
  const chain = await Chain.open({ store: target, genesis });
  let blocks = 0;
  const result = (reason?: string): VerifyResult => ({
    ok: reason === undefined, blocks, head: hex(chain.head.hash),
    stateRoot: hex(chain.head.stateRoot), ...(reason === undefined ? {} : { reason }),
  });

  const origin = source.get(table.canonical(0));
  if (!origin) throw new UserError(`${folder} holds no chain: it has no block 0`);
  if (!same(origin, chain.genesisHash)) {
    throw new UserError(`the store begins with block ${hex(origin)}, the genesis file gives `
      + `${hex(chain.genesisHash)}: this is the genesis of another network`);
  }
  const total = canonicalHeight(source);
  const shown = progress(total);
  try {
    for (let number = 1; number <= total; number += 1) {
      signal.throwIfAborted();
      const hash = source.get(table.canonical(number))!;
      const encoded = source.get(table.block(hash));
      if (!encoded) return result(`block ${number} (${hex(hash)}) is missing from the store`);
      const reason = await importOne(chain, encoded, number, hash);
      if (reason !== undefined) return result(reason);
      blocks += 1;
      shown.update(number, `block ${number} of ${total}`);
    }
  } finally {
    shown.stop();
  }
  const head = source.get(table.head);
  if (head && !same(head, chain.head.hash)) {
    return result(`the store's head is ${hex(head)}, the replay ends at ${hex(chain.head.hash)}`);
  }
  return result();
}

/** Executes one block. Returns what does not agree. */
async function importOne(
  chain: Chain, encoded: Uint8Array, number: number, hash: Uint8Array,
): Promise<string | undefined> {
  try {
    const { header } = decodeBlock(encoded);
    if (header.number !== number || !same(header.hash, hash)) {
      return `block ${number} is filed as ${hex(hash)}, but it is block ${header.number}, `
        + hex(header.hash);
    }
    // Its own time as "now": that it does not lie in the future was judged when it arrived.
    const { status, reason } = await chain.importBlock(encoded, header.timestampMs);
    if (status !== "imported") return `block ${number} is ${status}: ${oneLine(reason ?? "no reason")}`;
    if (!same(chain.head.hash, hash)) return `block ${number} does not become the head`;
    return undefined;
  } catch (error) {
    return `block ${number} cannot be read: ${oneLine((error as Error).message)}`;
  }
}

/** The highest canonical block: numbers are dense, so a doubling search finds the end. */
function canonicalHeight(store: Store): number {
  const has = (number: number) => store.get(table.canonical(number)) !== undefined;
  let above = 1;
  while (has(above)) above *= 2;
  let below = Math.floor(above / 2); // has(below), not has(above)
  while (above - below > 1) {
    const middle = Math.floor((above + below) / 2);
    if (has(middle)) below = middle;
    else above = middle;
  }
  return below;
}

async function readGenesis(path: string): Promise<Genesis> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    throw fileFault("read the genesis file", path, error);
  }
  try {
    const genesis = JSON.parse(text) as Genesis;
    checkGenesis(genesis);
    return genesis;
  } catch (error) {
    throw new UserError(`${path} is no genesis file: ${oneLine((error as Error).message)}`);
  }
}

async function open(folder: string): Promise<Store> {
  try {
    return await openRocksStore(folder);
  } catch (error) {
    if (error instanceof StoreError) throw new OperationalError(oneLine(error.message), { cause: error });
    throw error;
  }
}

const hex = (bytes: Uint8Array) => `0x${Buffer.from(bytes).toString("hex")}`;
const same = (a: Uint8Array, b: Uint8Array) => Buffer.compare(a, b) === 0;
