// A worker actor inside an HTTP service that was there before: the service keeps its routes, its signals and its port.
// Run: node examples/runtime/hono-service.mjs (it asks itself a few questions, then ends itself as Kubernetes would)
import { serve } from "@hono/node-server";
import { Hono } from "hono";
import { z } from "zod";
import { behavior, createSystem, defineProtocol, MetricsRegistry, Refusal } from "tesra-supernet/runtime";

const Resizer = defineProtocol("resizer", 1, {
  call: { resize: { request: z.object({ width: z.number() }), reply: z.object({ pixels: z.number() }) } },
});
const resizer = behavior(Resizer, () => ({
  call: {
    resize: async ({ width }) => {
      if (width > 4096) throw new Refusal("too-wide", "at most 4096 pixels");
      await new Promise((resolve) => setTimeout(resolve, 2)); // the work
      return { pixels: width * width };
    },
  },
}));

const metrics = new MetricsRegistry();
const system = createSystem({ name: "images", metrics });
const worker = system.spawn(resizer, { name: "resizer", mailbox: { capacity: 100, overflow: "reject" } });
const STATUS = { refused: 422, full: 503, stopped: 503, timeout: 504 };

const app = new Hono();
app.post("/resize", async (c) => {
  const request = Resizer.call.resize.request.safeParse(await c.req.json());
  if (!request.success) return c.json({ error: "bad-request" }, 400);
  const answer = await worker.call("resize", request.data, { timeoutMs: 1000, signal: c.req.raw.signal });
  return answer.ok ? c.json(answer.value) : c.json({ error: answer.error.reason ?? answer.error.code }, STATUS[answer.error.code] ?? 500);
});
app.get("/health", (c) => {
  const { actors, isShuttingDown } = system.inspect();
  const isHealthy = !isShuttingDown && actors.every((actor) => actor.state === "running");
  return c.json({ actors: actors.map(({ path, state, queueDepth, restarts }) => ({ path, state, queueDepth, restarts })) }, isHealthy ? 200 : 503);
});
app.get("/metrics", (c) => c.text(metrics.prometheusText(), 200, { "content-type": "text/plain; version=0.0.4" }));

const { server, port } = await new Promise((resolve) => {
  const server = serve({ fetch: app.fetch, port: 0, hostname: "127.0.0.1" }, ({ port }) => resolve({ server, port }));
});
// The server's last answers leave before the actors behind them stop; the signal stays the service's own.
system.onShutdown("refuse-input", "http", () => new Promise((resolve) => server.close(resolve)));
process.once("SIGTERM", async () => console.log("shut down:", await system.shutdown({ deadlineMs: 5000 })));

const url = `http://127.0.0.1:${port}`;
const post = async (width) => {
  const response = await fetch(`${url}/resize`, { method: "POST", body: JSON.stringify({ width }) });
  return [response.status, await response.json()];
};
console.log("resize:", await post(640), await post(9999), await post("wide"));
const burst = await Promise.all(Array.from({ length: 300 }, () => post(8)));
console.log("a burst of 300:", burst.filter(([status]) => status === 200).length > 0, burst.every(([status]) => status === 200 || status === 503));
console.log("health:", await (await fetch(`${url}/health`)).json());
console.log("metrics:", (await (await fetch(`${url}/metrics`)).text()).match(/runtime_actor_messages_total.*resizer.*/)[0]);
process.kill(process.pid, "SIGTERM");
