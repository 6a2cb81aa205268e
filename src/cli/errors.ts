/**
 * Owns how commands fail: which errors are the user's to mend, which are the world's, and what is
 * printed for each.
 * Invariant: an error becomes one sentence on stderr; a stack appears only with --debug.
 */

/** What the user gave cannot be used. The message says what was expected, what came, what to do. */
export class UserError extends Error {
  readonly code = "user-input";
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "UserError";
  }
}

/** The command was right but could not be done: no answer, no space, refused by the chain. */
export class OperationalError extends Error {
  readonly code = "operation";
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "OperationalError";
  }
}

export const EXIT_OK = 0;
export const EXIT_FAILURE = 1;
export const EXIT_USAGE = 2;
/** 128 + SIGINT, as shells expect. */
export const EXIT_INTERRUPTED = 130;

/** The sentence and exit code of an error that reached the top. */
export function describeFailure(error: unknown): { message: string; exitCode: number } {
  if (error instanceof UserError) return { message: error.message, exitCode: EXIT_USAGE };
  if (error instanceof OperationalError) return { message: error.message, exitCode: EXIT_FAILURE };
  if (error instanceof Error && error.name === "AbortError") {
    return { message: "interrupted", exitCode: EXIT_INTERRUPTED };
  }
  const message = error instanceof Error ? error.message : String(error);
  return {
    message: `${oneLine(message) || "unknown failure"} (run again with --debug for the stack)`,
    exitCode: EXIT_FAILURE,
  };
}

/** Folds a message into one line. */
export function oneLine(text: string): string {
  return text.replace(/\s+/g, " ").trim();
}

/** The sentence for a file that cannot be read or written. */
export function fileFault(doing: string, path: string, error: unknown): UserError {
  const code = (error as NodeJS.ErrnoException).code;
  const why: Record<string, string> = {
    ENOENT: "it does not exist",
    EACCES: "permission is denied",
    EISDIR: "it is a folder, a file was expected",
    ENOTDIR: "a part of its path is a file, a folder was expected",
    ENOSPC: "the disk is full",
    EROFS: "the file system is read-only",
    EEXIST: "it exists already",
  };
  const reason = (code !== undefined && why[code]) || oneLine((error as Error).message);
  return new UserError(`cannot ${doing} ${path}: ${reason}`, { cause: error });
}
