// Owns the messages between chain nodes, and between a light client (worker, parameter server, user) and
// the chain node that it asks. Blocks, transactions and certificates travel in their canonical encodings.
import { z } from "zod";
import { defineProtocol } from "../../runtime/index.js";
import { bytes } from "../fields.js";


/** A locator is exponentially spaced, so 64 hashes reach back past any chain; more is an attack. */
const LOCATOR_HASHES_MAX = 64;
/** Blocks a sync reply carries; 128 full blocks stay below the frame cap. */
export const SYNC_BLOCKS_MAX = 128;

export const ChainProtocol = defineProtocol("tesra.chain", 1, {
  call: {
    /** Compares genesis and heads; the heavier side is then asked for its blocks. */
    status: {
      request: z.object({}),
      reply: z.object({ genesisHash: bytes, headNumber: z.number(), headHash: bytes, totalWeight: z.string() }),
    },
    blocksAfter: {
      request: z.object({ locator: z.array(bytes).max(LOCATOR_HASHES_MAX), max: z.number().int().min(1).max(SYNC_BLOCKS_MAX) }),
      reply: z.object({ blocks: z.array(bytes).max(SYNC_BLOCKS_MAX) }),
    },
    /** JSON-RPC 2.0 over the link, for nodes that keep no chain of their own. */
    rpc: { request: z.object({ request: z.unknown() }), reply: z.object({ response: z.unknown() }) },
  },
  cast: {
    block: z.object({ block: bytes }),
    transaction: z.object({ raw: bytes }),
    certificate: z.object({ certificate: bytes }),
  },
});

export const CHAIN_ACTOR = "node/chain";
