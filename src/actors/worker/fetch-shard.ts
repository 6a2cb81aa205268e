// Owns how a worker gets a shard's ciphertext from its master.
// Invariant: a link that is down for a moment, as while the master restarts, is waited for: it costs no task.
import type { Ref } from "../../runtime/index.js";
import type { MasterProtocol } from "../master/protocol.js";

const CALL_TIMEOUT_MS = 15_000;
/** A master that restarts is back within seconds; after this the task is given up. */
const PATIENCE_MS = 60_000;
const RETRY_MS = 250;

/** @param masterRef the master's actor while it is linked; looked up anew for each attempt. */
export function createShardFetch(
  masterRef: () => Ref<typeof MasterProtocol> | undefined, isEnding: () => boolean,
  { now, sleep }: { now: () => number; sleep: (ms: number) => Promise<void> },
): (hash: string) => Promise<Uint8Array> {
  return async (hash) => {
    const untilMs = now() + PATIENCE_MS;
    for (;;) {
      const result = await masterRef()?.call("getShard", { hash }, { timeoutMs: CALL_TIMEOUT_MS });
      if (result?.ok) return result.value.bytes;
      const isPassing = result === undefined || result.error.code === "unreachable" || result.error.code === "timeout";
      if (!isPassing || isEnding() || now() > untilMs) {
        throw new Error(`shard ${hash} cannot be fetched: ${result?.error.message ?? "the master is not linked"}`);
      }
      await sleep(RETRY_MS);
    }
  };
}
