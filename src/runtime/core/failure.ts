// Owns: the ways in which a call, an actor or a system can fail. Invariant: every failure is a plain
// `{code, message}` object, so that it means the same after a hop to another thread or node.

export type CallErrorCode =
  | "timeout" // no reply before the deadline; the message may have been handled
  | "aborted" // the caller's signal fired
  | "stopped" // the actor is not running any more, or never existed
  | "full" // its mailbox or the link's outbox had no room
  | "fault" // the handler threw; supervision deals with the actor
  | "refused" // the handler threw a Refusal: an answer, not a fault
  | "unreachable" // the peer is down
  | "cycle" // the actor waits, through others, for the very call that would ask it
  | "protocol" // names, versions or schemas do not match
  | "too-large"; // the message is past the wire's limits

export interface CallError {
  readonly code: CallErrorCode;
  readonly message: string;
  /** For "refused": the handler's own code and data. */
  readonly reason?: string;
  readonly data?: unknown;
}

export type CallResult<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly error: CallError };

/**
 * - `accepted`: in the mailbox, or in the link's outbox
 * - `full`: no room; nothing was kept
 * - `stopped`: the actor has stopped, or its peer is down
 */
export type CastResult = "accepted" | "full" | "stopped";

/** Thrown by a call handler to answer "no" without being at fault: the actor goes on, no restart. */
export class Refusal extends Error {
  readonly reason: string;
  readonly data: unknown;
  constructor(reason: string, message: string, data?: unknown) {
    super(message);
    this.name = "Refusal";
    this.reason = reason;
    this.data = data;
  }
}

export type StopCode =
  | "normal" // stopped itself, or was told to
  | "fault" // its supervisor decided to stop it
  | "restart-budget" // it failed more often than its budget allows
  | "restart" // only seen by `stopped` handlers: a new instance follows
  | "parent" // its parent stopped or restarted
  | "shutdown"
  | "abandoned" // still busy at the shutdown deadline
  | "unreachable" // remote: the peer is down
  | "replaced" // remote: the peer came back as a new incarnation
  | "not-found"; // remote: no such actor

export interface StopReason {
  readonly code: StopCode;
  readonly message: string;
}

export type RuntimeErrorCode =
  | "bad-name"
  | "name-taken"
  | "bad-option"
  | "shut-down"
  | "stopped"
  | "no-message"
  | "listen-failed"
  | "connect-timeout"
  | "connect-refused"
  | "insecure-endpoint"
  | "bad-key"
  | "thread-failed"
  | "store-locked"
  | "store-failed"
  | "outbox-full";

/** A wrong use of the runtime's API, or a failed start of a link. */
export class RuntimeError extends Error {
  readonly code: RuntimeErrorCode;
  readonly hint: string | undefined;
  constructor(code: RuntimeErrorCode, message: string, hint?: string, options?: ErrorOptions) {
    super(hint === undefined ? message : `${message}; ${hint}`, options);
    this.name = "RuntimeError";
    this.code = code;
    this.hint = hint;
  }
}

export function failed(code: CallErrorCode, message: string): { readonly ok: false; readonly error: CallError } {
  return { ok: false, error: { code, message } };
}

export function describeError(error: unknown): string {
  if (error instanceof Error) return error.message || error.name;
  try {
    return String(error);
  } catch {
    return "a thrown value that cannot be printed";
  }
}
