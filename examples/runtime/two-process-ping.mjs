// Two processes, one encrypted link: calls, a tensor, and a watch that fires when the other process is killed.
// Run: node examples/runtime/two-process-ping.mjs
import { fork } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { behavior, createSystem, curveKeys, defineProtocol } from "tesra-supernet/runtime";

const Ping = defineProtocol("ping", 1, {
  call: {
    ping: { request: z.object({ n: z.number() }), reply: z.number() },
    scale: { request: z.object({ x: z.instanceof(Float32Array), by: z.number() }), reply: z.instanceof(Float32Array) },
  },
});

if (process.argv[2] === "child") {
  const [endpoint, allowed] = process.argv.slice(3);
  const system = createSystem({ name: "child" });
  system.spawn(
    behavior(Ping, () => ({ call: { ping: ({ n }) => n + 1, scale: ({ x, by }) => x.map((value) => value * by) } })),
    { name: "ping" },
  );
  const keys = curveKeys();
  await system.listen({ endpoint, keys, allow: (key) => key === allowed });
  process.send(keys.publicKey);
  process.disconnect();
} else {
  const directory = mkdtempSync(join(tmpdir(), "ping-"));
  const endpoint = `ipc://${join(directory, "child")}`;
  const keys = curveKeys();
  const child = fork(fileURLToPath(import.meta.url), ["child", endpoint, keys.publicKey]);
  const serverKey = await new Promise((resolve) => child.once("message", resolve));

  const system = createSystem({ name: "parent" });
  const peer = await system.connect({ endpoint, serverKey, keys, timeoutMs: 5000, reconnect: false });
  const ping = peer.ref(Ping, "ping");
  console.log("ping 41:", await ping.call("ping", { n: 41 }, { timeoutMs: 1000 }));
  const startMs = performance.now();
  const rounds = 2000;
  for (let n = 0; n < rounds; n++) await ping.call("ping", { n });
  console.log(`${rounds} calls, ${(((performance.now() - startMs) / rounds) * 1000).toFixed(0)} us each`);
  const scaled = await ping.call("scale", { x: new Float32Array(500_000).fill(1.5), by: 2 });
  console.log("2 MB there and back:", scaled.ok && scaled.value.every((value) => value === 3));

  const gone = new Promise((resolve) => ping.watch(resolve));
  child.kill("SIGKILL");
  console.log("killed:", await gone);
  await system.shutdown();
  rmSync(directory, { recursive: true });
}
