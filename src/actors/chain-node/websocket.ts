// Owns the WebSocket door of the JSON-RPC, on the port of the HTTP one: requests, and notifications of eth_subscribe.
// Invariants: one request of a connection is handled at a time and answered in order; a notification never overtakes
// the answer that gave its subscription's id; a reader that is too slow is closed, not buffered without bound.
import type { Server } from "node:http";
import { WebSocketServer, type WebSocket } from "ws";
import type { JsonRpc } from "../../chain/index.js";

export interface WebSocketLimits {
  connections: number;
  /** Of one message that comes in. */
  messageBytes: number;
  /** Requests of a connection that wait for their turn. */
  requests: number;
  /** Written but not yet taken by the other side. */
  unreadBytes: number;
}

export const DEFAULT_WEB_SOCKET_LIMITS: WebSocketLimits = {
  connections: 256,
  messageBytes: 16 << 20, // as HTTP bodies
  requests: 1_000,
  unreadBytes: 32 << 20, // the largest answers are log lists of some megabytes
};

/** RFC 6455, 7.4.1. */
const CLOSE = { badMessage: 1007, tooMuch: 1008, goingAway: 1001, tryLater: 1013 };

/** Takes the HTTP server's upgrades. @returns the way to stop; the HTTP server stays. */
export function serveWebSocket(jsonRpc: JsonRpc, server: Server, limits: Partial<WebSocketLimits> = {}): { close: () => void } {
  const all = { ...DEFAULT_WEB_SOCKET_LIMITS, ...limits };
  const door = new WebSocketServer({ server, maxPayload: all.messageBytes, perMessageDeflate: false });
  door.on("connection", (socket) => {
    if (door.clients.size > all.connections) socket.close(CLOSE.tryLater, "too many connections");
    else serveConnection(jsonRpc, socket, all);
  });
  door.on("error", () => undefined); // the HTTP server has the same error, and reports it
  return {
    close: () => {
      for (const socket of door.clients) socket.terminate();
      door.close();
    },
  };
}

function serveConnection(jsonRpc: JsonRpc, socket: WebSocket, limits: WebSocketLimits): void {
  const requests: string[] = [];
  let held: unknown[] = [];
  let isBusy = false;
  const send = (message: unknown): void => {
    if (socket.bufferedAmount > limits.unreadBytes) socket.close(CLOSE.tryLater, "the connection reads too slowly");
    else if (socket.readyState === socket.OPEN) socket.send(JSON.stringify(message));
  };
  const connection = jsonRpc.connect((notification) => {
    if (isBusy) held.push(notification);
    else send(notification);
  });
  const work = async (): Promise<void> => {
    if (isBusy) return;
    isBusy = true;
    for (let text = requests.shift(); text !== undefined && socket.readyState === socket.OPEN; text = requests.shift()) {
      let request: unknown;
      try {
        request = JSON.parse(text);
      } catch {
        send({ jsonrpc: "2.0", id: null, error: { code: -32700, message: "the message is not JSON" } });
        continue;
      }
      const response = await connection.handle(request);
      if (response !== undefined) send(response);
      const notifications = held;
      held = [];
      for (const notification of notifications) send(notification);
    }
    isBusy = false;
  };
  socket.on("message", (data, isBinary) => {
    if (isBinary) return socket.close(CLOSE.badMessage, "JSON text is expected");
    if (requests.length >= limits.requests) return socket.close(CLOSE.tooMuch, "too many requests are waiting");
    requests.push((data as Buffer).toString("utf8"));
    void work();
  });
  socket.on("error", () => undefined); // "close" follows
  socket.on("close", () => {
    requests.length = 0;
    connection.close();
  });
}
