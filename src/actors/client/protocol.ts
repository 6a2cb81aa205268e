// Owns the messages that a client's session takes from its master: key leases to grant, events of its task.
import { z } from "zod";
import { defineProtocol } from "../../runtime/index.js";
import { AddressSchema } from "../node/config.js";
import { LeaseSchema } from "../worker/protocol.js";

export const TaskEventSchema = z.discriminatedUnion("type", [
  z.object({ type: z.literal("matched"), workers: z.array(z.object({ address: z.string(), name: z.string(), gflops: z.number() })) }),
  z.object({ type: z.literal("running"), parameterServer: AddressSchema }),
  z.object({ type: z.literal("unit"), done: z.number(), total: z.number(), worker: z.string(), multiplyAdds: z.string(), cost: z.string() }),
  z.object({ type: z.literal("worker-lost"), worker: z.string(), samplesLeft: z.number() }),
  z.object({ type: z.literal("trained"), parametersHash: z.string(), version: z.number() }),
  z.object({ type: z.literal("settled"), transaction: z.string() }),
  z.object({ type: z.literal("ended"), outcome: z.string(), reason: z.string() }),
]);
export type TaskEvent = z.infer<typeof TaskEventSchema>;

export const ClientProtocol = defineProtocol("tesra.client", 1, {
  call: {
    /**
     * Wraps the keys of the named shards for one worker, under the transport key that the chain has for it;
     * refused unless the chain says that this worker has accepted the task. The master never sees a key.
     */
    grant: {
      request: z.object({
        taskId: z.string(), worker: z.string(),
        shards: z.array(z.number().int().min(0)).max(65_536),
      }),
      reply: z.object({ leases: z.array(LeaseSchema) }),
    },
    event: { request: z.object({ taskId: z.string(), event: TaskEventSchema }), reply: z.object({}) },
  },
  cast: {},
});

export const CLIENT_ACTOR = "session";
