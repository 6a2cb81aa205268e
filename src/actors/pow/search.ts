// Owns the miner's door to the search for certificates, which runs in a thread of its own.
// Invariant: a search answers after the work is done; closing ends one that is under way.
import { createThread } from "../../runtime/host/threads.js";
import type { ProductDims } from "../../chain/certificate/tile.js";
import type { NodeConfig } from "../node/config.js";

export interface SearchThreadData {
  chainId: bigint;
  privateKey: Uint8Array;
  dims: ProductDims;
  compute: NodeConfig["compute"];
}

export interface SearchRequest {
  height: number;
  tip: Uint8Array;
  target: bigint;
  nonceStart: bigint;
  maxNonces: number;
}

export interface SearchResult {
  certificates: Uint8Array[];
  noncesTried: number;
  multiplyAdds: bigint;
  busyMs: number;
}

export interface SearchThread {
  search(request: SearchRequest): Promise<SearchResult>;
}

export interface ChallengeSearch extends SearchThread {
  close(): Promise<void>;
}

export function openSearchThread(data: SearchThreadData): Promise<ChallengeSearch> {
  const thread = createThread<SearchThread>({ entry: new URL("./search-thread.js", import.meta.url), workerData: data, name: "challenge-search" });
  return Promise.resolve({ search: (request) => thread.api.search(request), close: () => thread.close() });
}
