/**
 * Owns: the typed errors of the training area. Every one carries `code` and the fields a program
 * needs to react; `message` says what was expected and what came.
 */

export type Shape = readonly number[];

export interface GraphErrorFields {
  /** The op's kind, as in "matmul". */
  op?: string;
  /** The node's name, or its position in a graph that came as data. */
  node?: string;
  shapes?: Shape[];
  /** "file:line:column" of the user's code that made the node. */
  at?: string;
}

export type GraphErrorCode = "shape" | "type" | "attribute" | "unsupported" | "name" | "device";

/** A graph that cannot be built: raised where the offending op is made. */
export class GraphError extends Error {
  override readonly name = "GraphError";
  readonly op?: string;
  readonly node?: string;
  readonly shapes?: Shape[];
  readonly at?: string;
  constructor(readonly code: GraphErrorCode, message: string, fields: GraphErrorFields = {}) {
    const where = fields.op === undefined ? "" : `${fields.op}${fields.node ? ` "${fields.node}"` : ""}: `;
    super(where + message + (fields.at === undefined ? "" : ` (made at ${fields.at})`));
    Object.assign(this, fields);
  }

  /** The same error with a position, unless it has one or there is none. */
  located(at: string | undefined): this {
    if (at === undefined || this.at !== undefined) return this;
    this.message += ` (made at ${at})`;
    return Object.assign(this, { at });
  }
}

export type JobErrorCode =
  | "too-large" | "not-json" | "format" | "unknown-op" | "cycle" | "limit" | "overflow" | "invalid-graph";

/** A job that came as data and is refused; nothing of it has been allocated or run. */
export class JobError extends Error {
  override readonly name = "JobError";
  constructor(
    readonly code: JobErrorCode,
    message: string,
    readonly fields: { path?: string; limit?: string; expected?: number; actual?: number } = {},
  ) {
    super(message);
  }
}

export type TrainingErrorCode =
  | "batch-size" | "length" | "label" | "busy" | "cluster" | "option" | "format" | "checkpoint" | "replay"
  | "uninitialized" | "variable" | "not-finite";

/** Wrong use of a compiled step, a store or a cluster description. */
export class TrainingError extends Error {
  override readonly name = "TrainingError";
  constructor(
    readonly code: TrainingErrorCode,
    message: string,
    readonly fields: Record<string, unknown> = {},
  ) {
    super(message);
  }
}

export type SessionErrorCode = "closed" | "busy" | "budget" | "protocol" | "aborted" | "remote" | "unreachable";

export class SessionError extends Error {
  override readonly name = "SessionError";
  constructor(readonly code: SessionErrorCode, message: string, readonly fields: Record<string, unknown> = {}) {
    super(message);
  }
}
