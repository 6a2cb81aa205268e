// Owns the JSON-RPC of a light client (worker, parameter server, user) over its link to a chain node.
// Invariant: a link that is down for a moment is waited for, and a request that is asked again has one effect:
// a raw transaction is known by its hash.
import { keccak_256 } from "@noble/hashes/sha3.js";
import { bytesToHex, hexToBytes } from "@noble/hashes/utils.js";
import type { Ref } from "../../runtime/index.js";
import type { ChainProtocol } from "./protocol.js";
import type { RpcCall } from "./transactor.js";

const CALL_TIMEOUT_MS = 15_000;
/** A chain node that restarts is back within seconds; after this the caller hears that it is gone. */
const PATIENCE_MS = 30_000;
const RETRY_MS = 250;

interface Answer { error?: { message: string; data?: { code?: string } } }

/** @param chainRef the chain node's actor while it is linked; looked up anew for each attempt. */
export function createRemoteRpc(
  chainRef: () => Ref<typeof ChainProtocol> | undefined, isEnding: () => boolean,
  { now, sleep }: { now: () => number; sleep: (ms: number) => Promise<void> },
): RpcCall {
  return async (request) => {
    const untilMs = now() + PATIENCE_MS;
    for (let attempt = 0; ; attempt += 1) {
      const result = await chainRef()?.call("rpc", { request }, { timeoutMs: CALL_TIMEOUT_MS });
      if (result?.ok) {
        const sent = attempt > 0 ? sentBefore(request, result.value.response as Answer) : undefined;
        return sent === undefined ? result.value.response : { jsonrpc: "2.0", result: sent };
      }
      const isPassing = result === undefined || result.error.code === "unreachable" || result.error.code === "timeout";
      if (!isPassing || isEnding() || now() > untilMs) {
        throw new Error(`no chain node answers: ${result?.error.message ?? "the master is not linked"}`);
      }
      await sleep(RETRY_MS);
    }
  };
}

/** The hash of a transaction that an earlier attempt has brought in, its answer lost with the link. */
function sentBefore(request: unknown, { error }: Answer): string | undefined {
  const { method, params } = request as { method: string; params: unknown[] };
  if (method !== "eth_sendRawTransaction" || !error || !/already known|nonce too low/i.test(error.message)) return undefined;
  return `0x${bytesToHex(keccak_256(hexToBytes((params[0] as string).slice(2))))}`;
}
