// Owns the field types that several protocols share.
import { z } from "zod";

export const bytes = z.custom<Uint8Array>((value) => value instanceof Uint8Array, "expected bytes");
/** A flat fp32 vector: travels as a side frame. */
export const vector = z.custom<Float32Array>((value) => value instanceof Float32Array, "expected a fp32 vector");
export const count = z.number().int().min(0);
/** Smallest unit, decimal digits: exact over any codec. */
export const amount = z.string().regex(/^\d{1,78}$/, "expected decimal digits");
