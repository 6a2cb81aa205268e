// Owns the messages that a worker takes from the master: capability challenge, offer, assignment, leases, end.
import { z } from "zod";
import { defineProtocol } from "../../runtime/index.js";
import { AddressSchema } from "../node/config.js";
import { JobText } from "../parameter-server/protocol.js";

const bytes = z.instanceof(Uint8Array);
const count = z.number().int().min(0);

/** A shard of the task's data set: its place in the manifest and its key, wrapped for one worker. */
export const LeaseSchema = z.object({ id: z.string(), shard: count, expiresMs: z.number(), wrappedKey: bytes });
export type Lease = z.infer<typeof LeaseSchema>;

export const WorkerProtocol = defineProtocol("tesra.worker", 1, {
  call: {
    /** Multiplies seeded int8 matrices `repeats` times; the master recomputes the tile. */
    challenge: {
      request: z.object({ seed: bytes, m: count, n: count, k: count, tile: count, repeats: z.number().int().min(1).max(64) }),
      reply: z.object({ transcript: bytes, trainingGflops: z.number() }),
    },
    /** Offers a task; the worker pledges its collateral on chain before it says yes. */
    offer: {
      request: z.object({ taskId: z.string(), job: JobText, collateral: z.string() }),
      reply: z.object({ accepted: z.boolean(), reason: z.string().optional() }),
    },
    assign: {
      request: z.object({
        taskId: z.string(), fence: count, job: JobText,
        manifest: z.string(), parameterServer: AddressSchema, leases: z.array(LeaseSchema).max(65_536),
      }),
      reply: z.object({}),
    },
    /** More shards, after another worker was lost. */
    lease: {
      request: z.object({ taskId: z.string(), leases: z.array(LeaseSchema).max(65_536) }),
      reply: z.object({}),
    },
    /** Ends the task: keys and shards are destroyed, a deletion receipt goes on chain. */
    finish: {
      request: z.object({ taskId: z.string() }),
      reply: z.object({ deletedShards: count, digest: z.string(), transaction: z.string().optional() }),
    },
  },
  cast: {},
});

export const WORKER_ACTOR = "worker";
