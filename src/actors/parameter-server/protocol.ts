// Owns the messages of a parameter server: hosting a task, pulls, pushes, progress, the end of a task.
// Gradients and parameters are flat fp32 vectors in the order of the compiled graph; they travel as side frames.
import { z } from "zod";
import { defineProtocol } from "../../runtime/index.js";
import { count, vector } from "../fields.js";


/** Canonical job text (graph, optimizer, run); parseJob checks it against the node's own limits. */
export const JobText = z.string().max(4 << 20);

export const ProgressSchema = z.object({
  version: count,
  samples: count,
  /** Exponential mean of the last batches' losses; null before the first push. */
  loss: z.number().nullable(),
  /** Share of right answers on the training batches, the same mean. */
  trainAccuracy: z.number().nullable(),
  maxStaleness: count,
  /** staleness[t] = pushes applied t versions after their base. */
  staleness: z.array(count),
  stalePushes: count,
  duplicatePushes: count,
  rejectedPushes: count,
});
export type Progress = z.infer<typeof ProgressSchema>;

export const ParameterServerProtocol = defineProtocol("tesra.parameter-server", 1, {
  call: {
    /** Master only: takes a task and initialises (or resumes) its parameters. */
    host: {
      request: z.object({
        taskId: z.string(), job: JobText,
        /** Node ids that may pull: the client. Workers are admitted with `admit`. */
        readers: z.array(z.string()).max(16),
      }),
      reply: z.object({ parameterCount: count, version: count }),
    },
    /** Master only: a worker may push under this fence; a higher fence shuts the lower one out. */
    admit: {
      request: z.object({ taskId: z.string(), worker: z.string(), nodeId: z.string(), fence: count }),
      reply: z.object({}),
    },
    /** Master only: refuses every later push of a worker. */
    expel: { request: z.object({ taskId: z.string(), worker: z.string() }), reply: z.object({}) },
    pull: {
      request: z.object({ taskId: z.string() }),
      reply: z.object({ version: count, parameters: vector }),
    },
    /**
     * Batches of a unit that are already applied, so that a successor skips them (each sample counts once).
     * Answered when a crash of this server could not take them back.
     */
    unitProgress: {
      request: z.object({ taskId: z.string(), unit: count }),
      reply: z.object({ appliedBatches: count }),
    },
    push: {
      request: z.object({
        taskId: z.string(), worker: z.string(), fence: count, unit: count, batch: count, sequence: count,
        baseVersion: count, samples: count, loss: z.number(), correct: count, gradient: vector,
        /** The unit ends with this batch: answered when a crash of this server could not take the unit back. */
        isLast: z.boolean(),
      }),
      reply: z.object({
        /** behind: this server lost later batches in a crash; go on from appliedBatches. */
        status: z.enum(["applied", "stale", "duplicate", "behind", "rejected"]),
        appliedBatches: count.optional(),
        version: count, reason: z.string().optional(),
        /** Fresh parameters, so that a push costs one round trip. */
        parameters: vector.optional(),
      }),
    },
    progress: { request: z.object({ taskId: z.string() }), reply: ProgressSchema },
    /** Master only: writes the last checkpoint and returns the hash of the parameters. */
    finish: {
      request: z.object({ taskId: z.string() }),
      reply: z.object({ version: count, parametersHash: z.string(), progress: ProgressSchema }),
    },
    /** Master only: forgets a task and removes its files. */
    drop: { request: z.object({ taskId: z.string() }), reply: z.object({}) },
  },
  cast: {},
});
export type ParameterServerCalls = typeof ParameterServerProtocol;

export const PARAMETER_SERVER_ACTOR = "node/parameter-server";
