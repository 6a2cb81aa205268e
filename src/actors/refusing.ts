// Owns the border between domain errors and the actor runtime: what a caller did wrong is an answer to the
// caller, not a fault of the actor, whose other work goes on.
import { Refusal } from "../runtime/index.js";

/** Runs `work`; an error of it becomes a Refusal with the error's code and message. */
export async function refusing<T>(work: () => T | Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof Refusal) throw error;
    const { code, message } = error as { code?: unknown; message: string };
    throw new Refusal(typeof code === "string" ? code : "failed", message);
  }
}
