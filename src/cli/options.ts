/**
 * Owns the reading of option values that several commands share.
 * Invariant: a value that cannot be used is a UserError that names the option, what was expected
 * and what came.
 */
import type { ModelName } from "../training/index.js";
import { UserError } from "./errors.js";

/** A whole number from..to. */
export function wholeNumber(option: string, text: string, from: number, to: number): number {
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (value >= from && value <= to) return value;
  throw new UserError(`${option}: expected a whole number from ${from} to ${to}, got "${text}"`);
}

/** Named here too, so that help and wrong use answer before the training library is loaded. */
const MODEL_NAMES: Record<ModelName, true> = { mlp: true, cnn: true, "cnn-wide": true };

export function modelNamed(option: string, name: string): ModelName {
  if (Object.hasOwn(MODEL_NAMES, name)) return name as ModelName;
  throw new UserError(`${option}: expected ${Object.keys(MODEL_NAMES).join(", ")}, got "${name}"`);
}

/** `length` bytes as hex, with or without 0x. */
export function hexBytes(option: string, text: string, length: number): Uint8Array {
  const digits = text.replace(/^0x/, "");
  if (/^[0-9a-fA-F]*$/.test(digits) && digits.length === 2 * length) {
    return Uint8Array.from(Buffer.from(digits, "hex"));
  }
  throw new UserError(`${option}: expected ${2 * length} hex digits, got "${text.slice(0, 80)}"`);
}
