// Owns the messages that a worker takes from the master: capability challenge, offer, assignment, leases, end.
import { z } from "zod";
import { defineProtocol } from "../../runtime/index.js";
import { bytes, count } from "../fields.js";
import { AddressSchema } from "../node/config.js";
import { JobText } from "../parameter-server/protocol.js";

/** A challenge may not make a worker allocate without bound: 16384 x 16384 int8 is 256 MiB an operand. */
const dim = z.number().int().min(64).max(16_384);

/** A shard of the task's data set: its place in the manifest and its key, wrapped for one worker. */
export const LeaseSchema = z.object({ id: z.string(), shard: count, expiresMs: z.number(), wrappedKey: bytes });
export type Lease = z.infer<typeof LeaseSchema>;

/** Samples [from, to) of a shard in one epoch's order, leased to one worker. */
export const UnitSchema = z.object({ leaseId: count, epoch: count, shard: count, from: count, to: count });
export type Unit = z.infer<typeof UnitSchema>;

export const WorkerProtocol = defineProtocol("tesra.worker", 1, {
  call: {
    /** Two seeded products (scheduler/challenge.ts): int8 tiles, and fp32 for the training speed. */
    challenge: {
      request: z.object({ operandSeed: bytes, dims: z.object({ m: dim, n: dim, k: dim }) }),
      reply: z.object({ tickets: bytes }),
    },
    fp32Challenge: {
      request: z.object({ seed: bytes, size: z.number().int().min(1).max(4_096) }),
      reply: z.object({ rowHashes: bytes }),
    },
    /** Offers a task; the worker pledges its collateral on chain before it says yes. */
    offer: {
      request: z.object({ taskId: z.string(), job: JobText, collateral: z.string() }),
      reply: z.object({ accepted: z.boolean(), reason: z.string().optional() }),
    },
    /** The task itself; samples follow with `work`. */
    assign: {
      request: z.object({
        taskId: z.string(), fence: count, job: JobText, manifest: z.string(), parameterServer: AddressSchema,
      }),
      reply: z.object({}),
    },
    /** Samples to do next, with the keys of shards that this worker has not had yet. */
    work: {
      request: z.object({ taskId: z.string(), unit: UnitSchema, leases: z.array(LeaseSchema).max(1_024) }),
      reply: z.object({}),
    },
    stop: { request: z.object({ taskId: z.string() }), reply: z.object({}) },
    /** Ends the task: keys and shards are destroyed, a deletion receipt goes on chain. */
    finish: {
      request: z.object({ taskId: z.string() }),
      reply: z.object({ deletedShards: count, digest: z.string(), transaction: z.string().optional() }),
    },
  },
  cast: {},
});

export const WORKER_ACTOR = "node/worker";
