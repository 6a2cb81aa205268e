// Owns the error types of the chain. Invariant: every error carries a stable `code` that callers may branch on.

/** A block, transaction or certificate that breaks a rule. The code names the rule; the message says by how much. */
export class ChainError extends Error {
  constructor(readonly code: string, message: string) {
    super(message);
    this.name = "ChainError";
  }
}

export type StoreErrorCode = "locked" | "full" | "corrupt" | "closed" | "io";

/** The store refused. `hint` says what a person can do about it. */
export class StoreError extends Error {
  constructor(readonly code: StoreErrorCode, message: string, readonly hint: string, options?: { cause?: unknown }) {
    super(`${message} ${hint}`.trim(), options);
    this.name = "StoreError";
  }
}

export function reject(code: string, message: string): never {
  throw new ChainError(code, message);
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
