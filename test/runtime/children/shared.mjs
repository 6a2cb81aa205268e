// A child process with shared memory: takes tensors and keeps or releases them, or floods its caller with them.
import { z } from "zod";
import { openSharedMemory } from "../../../dist/device/shared-memory.js";
import { behavior, createSystem, curveKeys, defineProtocol, releaseTensors, silentLogger } from "../../../dist/runtime/index.js";

const [endpoint, allowed] = process.argv.slice(2);
const floats = z.custom((value) => value instanceof Float32Array);
const Inbox = defineProtocol("inbox", 1, { cast: { put: z.object({ i: z.number(), x: floats }) } });
const Child = defineProtocol("child", 1, {
  call: {
    sum: { request: z.object({ x: floats, keep: z.boolean() }), reply: z.number() },
    hang: { request: z.object({ x: floats }), reply: z.null() },
    flood: { request: z.object({ length: z.number() }), reply: z.null() },
  },
});
const kept = [];
const system = createSystem({ name: "child", logger: silentLogger, sharedMemory: openSharedMemory() });
system.spawn(
  behavior(Child, () => ({
    call: {
      sum: ({ x, keep }) => {
        const total = x.reduce((sum, each) => sum + each, 0);
        if (keep) kept.push(x);
        else releaseTensors(x);
        return total;
      },
      hang: ({ x }) => (kept.push(x), new Promise(() => undefined)),
      flood: ({ length }, meta) => {
        const inbox = meta.sender.link.ref(Inbox, "inbox");
        let i = 0;
        // As fast as the link takes them without queueing for long: what waits in line waits behind the lanes' chunks.
        const send = () => {
          const queued = system.links()[0]?.lanes[2].queuedBytes ?? 0;
          for (let burst = 0; queued === 0 && burst < 4; burst++) {
            if (inbox.cast("put", { i, x: new Float32Array(length).fill(i) }) === "accepted") i += 1;
          }
          setImmediate(send);
        };
        send();
        return null;
      },
    },
  })),
  { name: "child" },
);
const keys = curveKeys();
const listener = await system.listen({ endpoint, keys, allow: (key) => key === allowed });
process.stdout.write(`${JSON.stringify({ endpoint: listener.endpoint, key: keys.publicKey })}\n`);
