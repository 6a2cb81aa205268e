/**
 * Owns the way from a command to a chain node: a viem client, and one sentence for each way that
 * it can fail.
 */
import { createPublicClient, http, type Chain, type PublicClient } from "viem";
import { OperationalError, oneLine, UserError } from "./errors.js";

/** A node answers in milliseconds; a command should not hang on a dead address. */
const ANSWER_MS_MAX = 10_000;
/** 1 TSR = 10^18 of its smallest unit, as Ethereum tools expect. */
export const DECIMALS = 18;

/** Reads and tesra_* calls of one node. */
export interface ChainClient {
  readonly url: string;
  readonly viem: PublicClient;
  /** Any JSON-RPC method. Throws OperationalError with the node's own words. */
  call<T>(method: string, params?: readonly unknown[]): Promise<T>;
}

export function connectRpc(url: string): ChainClient {
  const viem = createPublicClient({ transport: transport(url) });
  return {
    url,
    viem,
    async call<T>(method: string, params: readonly unknown[] = []) {
      return guard(url, () => viem.request({ method, params } as never)) as Promise<T>;
    },
  };
}

export const transport = (url: string) => http(url, { timeout: ANSWER_MS_MAX, retryCount: 0 });

/** The chain as viem wants it, for signing. */
export function chainOf(id: number): Chain {
  return {
    id, name: `tesra-${id}`,
    nativeCurrency: { name: "Tesra", symbol: "TSR", decimals: DECIMALS },
    rpcUrls: { default: { http: [] } },
  };
}

/** Runs a call and turns its failure into one sentence. */
export async function guard<T>(url: string, call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    if (error instanceof OperationalError || error instanceof UserError) throw error;
    throw new OperationalError(explain(url, error), { cause: error });
  }
}

function explain(url: string, error: unknown): string {
  for (let at = error; at instanceof Error; at = at.cause) {
    if (at.name === "TimeoutError") return `${url} did not answer within ${ANSWER_MS_MAX / 1_000} s`;
    if (at.name === "HttpRequestError") {
      const { status } = at as { status?: number };
      if (status !== undefined) return `${url} answered with HTTP status ${status}, not JSON-RPC`;
      return `no node answers at ${url}: start one (\`supernet up\`) or give --rpc URL`;
    }
    if (at.name === "MethodNotFoundRpcError" || (at as { code?: number }).code === -32601) {
      return `the node at ${url} does not know this method: it is older or of another kind`;
    }
  }
  const { details, shortMessage, message } = error as Record<string, string | undefined>;
  return `the node at ${url} refused: ${oneLine(details || shortMessage || message || String(error))}`;
}
