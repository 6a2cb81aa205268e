// Owns: the check of payloads against a protocol's schemas, and what a payload that cannot be sent is answered with.
// Invariant: a schema that throws is a payload that does not fit, never an exception on the receive path.
import type { z } from "zod";
import { describeError, type CallError } from "../core/failure.js";
import { WireError } from "../wire/codec.js";

export type Parsed = { readonly ok: true; readonly value: unknown } | { readonly ok: false; readonly message: string };

export function parsePayload(schema: z.ZodType, payload: unknown): Parsed {
  try {
    const result = schema.safeParse(payload);
    if (result.success) return { ok: true, value: result.data };
    const issue = result.error.issues[0];
    return { ok: false, message: `${issue?.path.join(".") || "message"}: ${issue?.message ?? "invalid"}` };
  } catch (error) {
    return { ok: false, message: describeError(error) };
  }
}

export function unsendable(error: unknown): CallError {
  return {
    code: error instanceof WireError && error.code === "too-large" ? "too-large" : "protocol",
    message: describeError(error),
  };
}
