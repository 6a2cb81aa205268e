// Two processes, one encrypted link: calls, a tensor, a watch that fires when the other process is killed, and the new
// process found again after its restart. Run: node examples/runtime/two-process-ping.mjs
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
  const { endpoint, keys, allowed } = await new Promise((resolve) => process.once("message", resolve));
  const system = createSystem({ name: "child" });
  system.spawn(
    behavior(Ping, () => ({ call: { ping: ({ n }) => n + 1, scale: ({ x, by }) => x.map((value) => value * by) } })),
    { name: "ping" },
  );
  await system.listen({ endpoint, keys, allow: (key) => key === allowed });
  process.send("listening");
  process.disconnect();
} else {
  const directory = mkdtempSync(join(tmpdir(), "ping-"));
  const endpoint = `ipc://${join(directory, "child")}`;
  const [keys, childKeys] = [curveKeys(), curveKeys()];
  const start = async () => {
    const child = fork(fileURLToPath(import.meta.url), ["child"]);
    child.send({ endpoint, keys: childKeys, allowed: keys.publicKey });
    await new Promise((resolve) => child.once("message", resolve));
    return child;
  };
  const child = await start();

  const system = createSystem({ name: "parent" });
  const peer = await system.connect({ endpoint, serverKey: childKeys.publicKey, keys, timeoutMs: 5000 });
  const ping = peer.ref(Ping, "ping");
  console.log("ping 41:", await ping.call("ping", { n: 41 }, { timeoutMs: 1000 }));
  const startMs = performance.now();
  const rounds = 2000;
  for (let n = 0; n < rounds; n++) await ping.call("ping", { n });
  console.log(`${rounds} calls, ${(((performance.now() - startMs) / rounds) * 1000).toFixed(0)} us each`);
  const scaled = await ping.call("scale", { x: new Float32Array(500_000).fill(1.5), by: 2 });
  console.log("2 MB there and back:", scaled.ok && scaled.value.every((value) => value === 3));

  const gone = new Promise((resolve) => ping.watch(resolve));
  const back = new Promise((resolve) => system.onPeer(resolve));
  child.kill("SIGKILL");
  console.log("killed:", await gone);
  const second = await start(); // same key, same place; the link is dialed again by itself
  const fresh = await back;
  console.log("restarted, another incarnation:", fresh.incarnation !== peer.incarnation);
  console.log("the old ref:", (await ping.call("ping", { n: 1 })).error.code, "- a new one:", await fresh.ref(Ping, "ping").call("ping", { n: 1 }));
  second.kill("SIGTERM");
  await system.shutdown();
  rmSync(directory, { recursive: true });
}
