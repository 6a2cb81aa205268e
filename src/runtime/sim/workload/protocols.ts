// Owns: the messages of the simulated workload. They exercise every protocol of the runtime and mean nothing else.
import { z } from "zod";
import { defineProtocol } from "../../core/protocol.js";

const sent = { id: z.string(), from: z.string(), stream: z.string(), n: z.number().int() };
/** What a handler does with its message. */
const how = z.enum(["quick", "slow", "throw"]);
export type How = z.infer<typeof how>;

export const SinkProtocol = defineProtocol("sim.sink", 2, {
  compatibleFrom: 1,
  call: {
    ask: {
      request: z.object({ id: z.string(), mode: z.enum(["echo", "slow", "later", "refuse", "throw", "hang", "relay"]) }),
      reply: z.object({ id: z.string() }),
    },
    tensor: {
      request: z.object({ id: z.string(), x: z.custom<Float32Array>((value) => value instanceof Float32Array) }),
      reply: z.object({ id: z.string(), sum: z.number(), x: z.custom<Float32Array>((value) => value instanceof Float32Array) }),
    },
  },
  cast: {
    note: z.object({ ...sent, how, key: z.string() }),
    tensor: z.object({ ...sent, how, x: z.custom<Float32Array>((value) => value instanceof Float32Array) }),
  },
});

export const KeeperProtocol = defineProtocol("sim.keeper", 1, {});
export const DriverProtocol = defineProtocol("sim.driver", 1, {});
