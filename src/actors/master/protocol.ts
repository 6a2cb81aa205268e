// Owns the messages that a master takes: joining, quotes, shard relay, task submission, work units.
import { z } from "zod";
import { defineProtocol } from "../../runtime/index.js";
import { amount, bytes, count } from "../fields.js";
import { AddressSchema, ROLES } from "../node/config.js";
import { JobText, ProgressSchema } from "../parameter-server/protocol.js";


/** A ciphertext shard beyond this is refused before it is buffered. */
export const SHARD_BYTES_MAX = 64 << 20;

export const TaskRequestSchema = z.object({
  job: JobText,
  manifest: z.string().max(16 << 20),
  workers: z.number().int().min(1).max(1_024),
});
export type TaskRequest = z.infer<typeof TaskRequestSchema>;

export const QuoteSchema = z.object({
  /** Account of the master that will schedule the task, and the terms to open it with. */
  master: z.string(),
  quotedMultiplyAdds: amount, computeMicroUsd: amount, storageMicroUsd: amount,
  rangeBps: count, expectedSeconds: count, deadlineSeconds: count, acceptSeconds: count, minGrade: count,
  /** What opening takes now, and what each miner pledges, in the smallest unit. */
  collateral: amount, minerCollateral: amount, microUsdPerTsr: amount,
});
export type QuoteReply = z.infer<typeof QuoteSchema>;

export const TaskStatusSchema = z.object({
  taskId: z.string(), state: z.string(), samplesDone: count, samplesTotal: count,
  workers: z.array(z.object({ address: z.string(), name: z.string(), alive: z.boolean(), multiplyAdds: amount })),
  progress: ProgressSchema.optional(),
});

export const MasterProtocol = defineProtocol("tesra.master", 1, {
  call: {
    /** A node names itself and where it listens; the reply holds the addresses of the chain nodes to dial. */
    join: {
      request: z.object({
        role: z.enum(ROLES), name: z.string().max(64), account: z.string(), listen: AddressSchema,
        memoryBytes: z.number().optional(),
      }),
      reply: z.object({ chainNodes: z.array(AddressSchema) }),
    },
    quote: { request: TaskRequestSchema.omit({ manifest: true }).extend({ samples: count, storedBytes: count }), reply: QuoteSchema },
    putShard: { request: z.object({ hash: z.string().length(64), bytes }), reply: z.object({}) },
    getShard: { request: z.object({ hash: z.string().length(64) }), reply: z.object({ bytes }) },
    /** Starts a task that its client has opened and funded on chain. */
    submit: { request: TaskRequestSchema.extend({ taskId: z.string() }), reply: z.object({}) },
    /** A worker's signed work receipt (scheduler/metering.ts) for the samples of its unit. */
    receipt: {
      request: z.object({ taskId: z.string(), receipt: bytes, signature: bytes }),
      reply: z.object({}),
    },
    /** A worker cannot go on with a task: its samples go to others at once instead of at the deadline. */
    abandon: { request: z.object({ taskId: z.string(), reason: z.string().max(1_024) }), reply: z.object({}) },
    cancel: { request: z.object({ taskId: z.string() }), reply: z.object({}) },
    task: { request: z.object({ taskId: z.string() }), reply: TaskStatusSchema },
    tasks: { request: z.object({}), reply: z.object({ tasks: z.array(TaskStatusSchema) }) },
    nodes: {
      request: z.object({}),
      reply: z.object({ nodes: z.array(z.object({
        name: z.string(), role: z.enum(ROLES), address: z.string(), online: z.boolean(),
        gflops: z.number().optional(), grade: z.number().optional(),
      })) }),
    },
  },
  cast: {},
});

export const MASTER_ACTOR = "node/master";
