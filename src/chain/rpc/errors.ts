// Owns the JSON-RPC errors. Invariant: codes are those of JSON-RPC 2.0 and EIP-1474, which clients branch on.
export const rpcCode = {
  parse: -32700, invalidRequest: -32600, methodNotFound: -32601, invalidParams: -32602, internal: -32603,
  /** A transaction or call that the chain refuses. */
  server: -32000,
  /** Execution reverted; `data` holds the revert data (as geth answers). */
  reverted: 3,
} as const;

export class RpcError extends Error {
  constructor(readonly code: number, message: string, readonly data?: unknown) {
    super(message);
  }
}

export function invalidParams(message: string): never {
  throw new RpcError(rpcCode.invalidParams, message);
}
