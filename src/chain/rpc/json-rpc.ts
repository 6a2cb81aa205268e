// Owns JSON-RPC 2.0: single requests, batches, notifications and errors. A pure function of the chain; HTTP,
// WebSocket and actor links carry it. Invariant: every request gets exactly one well-formed answer, never a throw.
import { ChainError, messageOf } from "../errors.js";
import type { Chain } from "../chain.js";
import { RpcError, rpcCode } from "./errors.js";
import { createMethods, type RpcContext, type RpcMethod } from "./methods.js";
import { Subscriptions, type Notification } from "./subscriptions.js";

export interface JsonRpc {
  /** Takes the parsed request; returns the response, or undefined when only notifications came. */
  handle(request: unknown): Promise<unknown>;
  /** The same for a connection that can be written to at any time: eth_subscribe works on it. */
  connect(notify: (notification: Notification) => void): JsonRpcConnection;
}

export interface JsonRpcConnection {
  handle(request: unknown): Promise<unknown>;
  /** Ends the connection's subscriptions. */
  close(): void;
}

/** ethers sends at most 100 in a batch by default. */
const BATCH_MAX = 200;

interface Response {
  jsonrpc: "2.0";
  id: string | number | null;
  result?: unknown;
  error?: { code: number; message: string; data?: unknown };
}

export function createJsonRpc(chain: Chain, context: RpcContext = {}): JsonRpc {
  const shared = new Map(Object.entries(createMethods(chain, context)));
  const overHttp: RpcMethod = () => {
    throw new RpcError(rpcCode.methodNotFound, "subscriptions need a connection: use WebSocket");
  };
  return {
    ...createHandler(new Map([...shared, ["eth_subscribe", overHttp], ["eth_unsubscribe", overHttp]])),
    connect: (notify) => {
      const subscriptions = new Subscriptions(chain, notify);
      const handler = createHandler(new Map([...shared, ...Object.entries(subscriptions.methods())]));
      return { ...handler, close: () => subscriptions.close() };
    },
  };
}

function createHandler(methods: ReadonlyMap<string, RpcMethod>): Pick<JsonRpc, "handle"> {
  const answer = async (request: unknown): Promise<Response | undefined> => {
    const { id, method, params } = (request ?? {}) as { id?: unknown; method?: unknown; params?: unknown };
    const isNotification = typeof request === "object" && request !== null && !("id" in request);
    const known = typeof id === "string" || typeof id === "number" ? id : null;
    try {
      if (typeof method !== "string") throw new RpcError(rpcCode.invalidRequest, "invalid request: method must be a string");
      if (params !== undefined && params !== null && !Array.isArray(params)) {
        throw new RpcError(rpcCode.invalidParams, "invalid params: an array is expected");
      }
      const run = methods.get(method);
      if (!run) throw new RpcError(rpcCode.methodNotFound, `the method ${method.slice(0, 80)} does not exist/is not available`);
      const result = await run((params as unknown[] | undefined | null) ?? []);
      return isNotification ? undefined : { jsonrpc: "2.0", id: known, result: result ?? null };
    } catch (error) {
      return isNotification && typeof method === "string" ? undefined : { jsonrpc: "2.0", id: known, error: errorOf(error) };
    }
  };

  return {
    async handle(request) {
      if (!Array.isArray(request)) return answer(request);
      if (request.length === 0) return invalid("an empty batch");
      if (request.length > BATCH_MAX) return invalid(`a batch of ${request.length}, at most ${BATCH_MAX} are taken`);
      const responses: Response[] = [];
      for (const each of request) {
        const response = await answer(each);
        if (response) responses.push(response);
      }
      return responses.length > 0 ? responses : undefined;
    },
  };
}

function invalid(what: string): Response {
  return { jsonrpc: "2.0", id: null, error: { code: rpcCode.invalidRequest, message: `invalid request: ${what}` } };
}

function errorOf(error: unknown): { code: number; message: string; data?: unknown } {
  if (error instanceof RpcError) {
    return { code: error.code, message: error.message, ...(error.data === undefined ? {} : { data: error.data }) };
  }
  if (error instanceof ChainError) return { code: rpcCode.server, message: error.message };
  return { code: rpcCode.internal, message: messageOf(error) };
}
