/**
 * Owns: the typed errors of the data area: `code`, the fields a program needs, and a sentence that
 * says what was expected, what came and, where a user can mend it, how.
 */
export type DataErrorCode =
  | "not-found" | "io" | "disk-full" | "idx-format" | "hash-mismatch" | "manifest" | "shard" | "key"
  | "lease-unknown" | "lease-expired" | "lease-revoked" | "name" | "option";

export interface DataErrorFields {
  file?: string;
  expected?: string | number;
  actual?: string | number;
}

export class DataError extends Error {
  override readonly name = "DataError";
  readonly file?: string;
  readonly expected?: string | number;
  readonly actual?: string | number;
  constructor(readonly code: DataErrorCode, message: string, fields: DataErrorFields = {}) {
    super(message);
    Object.assign(this, fields);
  }
}

/** A file system failure as a DataError: a full disk is told apart, because it can be mended. */
export function ioError(error: unknown, what: string, file: string): DataError {
  if (error instanceof DataError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  return code === "ENOSPC" || code === "EDQUOT"
    ? new DataError("disk-full", `no space left for ${what} (${file}); free some space or use another directory`, { file })
    : new DataError("io", `${what} (${file}): ${message}`, { file });
}
