// Owns the HTTP door of the JSON-RPC: body limits, CORS, one listener (WebSocket upgrades go to websocket.ts).
// Invariant: a request that is too large or no JSON is answered and costs no more than its bytes.
import type { Server } from "node:http";
import { serve, type ServerType } from "@hono/node-server";
import { Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import { cors } from "hono/cors";
import type { JsonRpc } from "../../chain/index.js";
import { serveWebSocket, type WebSocketLimits } from "./websocket.js";

/** A raw transaction has at most 128 KiB and a batch some hundred of them. */
const BODY_BYTES_MAX = 16 << 20;

export class PortTaken extends Error {
  readonly code = "port-taken";
  constructor(readonly host: string, readonly port: number) {
    super(`JSON-RPC cannot listen on ${host}:${port}: the port is taken; choose another (--rpc-port) or 0 for any free one`);
  }
}

/** Serves JSON-RPC by HTTP and WebSocket. Throws PortTaken. @returns the URL and the way to stop. */
export async function serveJsonRpc(
  jsonRpc: JsonRpc, options: { host: string; port: number }, limits: Partial<WebSocketLimits> = {},
): Promise<{ url: string; close: () => Promise<void> }> {
  const app = new Hono();
  app.use(cors());
  app.use(bodyLimit({ maxSize: BODY_BYTES_MAX }));
  app.post("/", async (context) => {
    let request: unknown;
    try {
      request = await context.req.json();
    } catch {
      return context.json({ jsonrpc: "2.0", id: null, error: { code: -32700, message: "the body is not JSON" } }, 400);
    }
    const response = await jsonRpc.handle(request);
    return response === undefined ? context.body(null, 204) : context.json(response as object);
  });
  app.get("/", (context) => context.text("JSON-RPC 2.0 is at POST / and by WebSocket\n"));
  const server = await new Promise<ServerType>((resolve, reject) => {
    const starting = serve({ fetch: app.fetch, hostname: options.host, port: options.port }, () => resolve(starting));
    starting.once("error", (error: NodeJS.ErrnoException) => reject(
      error.code === "EADDRINUSE" ? new PortTaken(options.host, options.port) : error));
  });
  const webSocket = serveWebSocket(jsonRpc, server as Server, limits);
  const address = server.address();
  const port = typeof address === "object" && address ? address.port : options.port;
  return {
    url: `http://${options.host}:${port}`,
    close: () => new Promise((resolve) => {
      webSocket.close();
      server.close(() => resolve());
      if ("closeAllConnections" in server) server.closeAllConnections();
    }),
  };
}
