// A child process: a system that listens and prints its endpoint and key; `mode` says how it ends.
import { z } from "zod";
import { behavior, createSystem, curveKeys, defineProtocol, silentLogger } from "../../../dist/runtime/index.js";

const [endpoint, allowed, mode] = process.argv.slice(2);
const Target = defineProtocol("target", 1, {
  call: { ping: { request: z.number(), reply: z.number() }, hang: { request: z.null(), reply: z.null() } },
  cast: { quit: z.null() },
});
const system = createSystem({ name: "child", logger: silentLogger });
system.spawn(
  behavior(Target, () => ({
    call: { ping: (n) => n + 1, hang: () => new Promise(() => undefined) },
    cast: { quit: () => void system.shutdown({ deadlineMs: 1000 }) },
  })),
  { name: "target" },
);
const keys = curveKeys();
const listener = await system.listen({ endpoint, keys, allow: (key) => key === allowed });
process.stdout.write(`${JSON.stringify({ endpoint: listener.endpoint, key: keys.publicKey })}\n`);
if (mode === "short") await system.shutdown();
