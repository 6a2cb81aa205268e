/** Owns: the error of the scheduler; `code` is stable, the fields are typed by whoever throws. */
export type SchedulerErrorCode =
  | "bad-input" | "bad-encoding" | "bad-journal" | "bad-event" | "too-many";

export class SchedulerError extends Error {
  constructor(readonly code: SchedulerErrorCode, readonly field: string, message: string) {
    super(message);
    this.name = "SchedulerError";
  }
}

/** Throws when a value that a caller or a peer supplied is outside its range. */
export function requireInput(condition: boolean, field: string, message: string): asserts condition {
  if (!condition) throw new SchedulerError("bad-input", field, `${field}: ${message}`);
}
