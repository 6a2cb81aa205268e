// Owns the messages that a master takes: joining, quotes, shard relay, task submission, work units.
import { z } from "zod";
import { defineProtocol } from "../../runtime/index.js";
import { AddressSchema, ROLES } from "../node/config.js";
import { JobText, ProgressSchema } from "../parameter-server/protocol.js";

const bytes = z.instanceof(Uint8Array);
const count = z.number().int().min(0);
const amount = z.string().regex(/^\d+$/); // smallest unit, decimal

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
  taskId: z.string(), state: z.string(), unitsDone: count, unitsTotal: count,
  workers: z.array(z.object({ address: z.string(), name: z.string(), alive: z.boolean(), multiplyAdds: amount })),
  progress: ProgressSchema.optional(),
});

export const MasterProtocol = defineProtocol("tesra.master", 1, {
  call: {
    /** A node names itself and where it listens; the reply holds the addresses of the chain nodes to dial. */
    join: {
      request: z.object({
        role: z.enum(ROLES), name: z.string().max(64), address: z.string(), listen: AddressSchema,
        genesisHash: bytes.optional(), sealingKey: bytes.optional(), memoryBytes: z.number().optional(),
      }),
      reply: z.object({ chainNodes: z.array(AddressSchema), master: z.string() }),
    },
    quote: { request: TaskRequestSchema.omit({ manifest: true }).extend({ samples: count, storedBytes: count }), reply: QuoteSchema },
    putShard: { request: z.object({ hash: z.string().length(64), bytes }), reply: z.object({}) },
    getShard: { request: z.object({ hash: z.string().length(64) }), reply: z.object({ bytes }) },
    /** Starts a task that its client has opened and funded on chain. */
    submit: { request: TaskRequestSchema.extend({ taskId: z.string() }), reply: z.object({}) },
    nextUnit: {
      request: z.object({ taskId: z.string(), worker: z.string() }),
      reply: z.object({
        status: z.enum(["unit", "wait", "done"]),
        unit: count.optional(), epoch: count.optional(), shard: count.optional(),
      }),
    },
    /** The signed work receipt of a finished unit. */
    completeUnit: {
      request: z.object({ taskId: z.string(), worker: z.string(), unit: count, receipt: bytes }),
      reply: z.object({}),
    },
    cancel: { request: z.object({ taskId: z.string() }), reply: z.object({}) },
    task: { request: z.object({ taskId: z.string() }), reply: TaskStatusSchema },
    tasks: { request: z.object({}), reply: z.object({ tasks: z.array(TaskStatusSchema) }) },
    nodes: {
      request: z.object({}),
      reply: z.object({ nodes: z.array(z.object({
        name: z.string(), role: z.enum(ROLES), address: z.string(), gflops: z.number().optional(), grade: z.string().optional(),
      })) }),
    },
  },
  cast: {},
});

export const MASTER_ACTOR = "master";
