// Owns reading JSON-RPC parameters. Invariant: a value is checked before it is used; an error says which parameter
// was wrong, what was expected and what came.
import { fromHex } from "../bytes.js";
import { invalidParams } from "./errors.js";

const shown = (value: unknown): string => {
  const text = JSON.stringify(value);
  return text === undefined ? "nothing" : text.slice(0, 80);
};

export function bytesParam(value: unknown, name: string, length?: number): Uint8Array {
  if (typeof value !== "string" || !/^0x([0-9a-fA-F]{2})*$/.test(value)) {
    return invalidParams(`${name}: expected 0x-prefixed hex bytes, got ${shown(value)}`);
  }
  const bytes = fromHex(value);
  if (length !== undefined && bytes.length !== length) {
    return invalidParams(`${name}: expected ${length} bytes, got ${bytes.length}`);
  }
  return bytes;
}

export const addressParam = (value: unknown, name: string): Uint8Array => bytesParam(value, name, 20);
export const hashParam = (value: unknown, name: string): Uint8Array => bytesParam(value, name, 32);

/** A hex quantity such as "0x1f"; 2^256 - 1 at most. */
export function quantityParam(value: unknown, name: string): bigint {
  if (typeof value !== "string" || !/^0x[0-9a-fA-F]{1,64}$/.test(value)) {
    return invalidParams(`${name}: expected a hex quantity such as "0x1f", got ${shown(value)}`);
  }
  return BigInt(value);
}

export function countParam(value: unknown, name: string, max: number): number {
  const quantity = typeof value === "number" && Number.isSafeInteger(value) && value >= 0
    ? BigInt(value) : quantityParam(value, name);
  if (quantity > BigInt(max)) return invalidParams(`${name}: at most ${max}, got ${quantity}`);
  return Number(quantity);
}

/** A storage position: up to 32 bytes, short forms allowed. */
export function positionParam(value: unknown, name: string): Uint8Array {
  if (typeof value !== "string" || !/^0x[0-9a-fA-F]{0,64}$/.test(value)) {
    return invalidParams(`${name}: expected up to 32 hex bytes, got ${shown(value)}`);
  }
  return fromHex(value.slice(2).padStart(64, "0"));
}

export function objectParam(value: unknown, name: string): Record<string, unknown> {
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    return invalidParams(`${name}: expected an object, got ${shown(value)}`);
  }
  return value as Record<string, unknown>;
}
