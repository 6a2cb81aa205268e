/**
 * Owns: BLAKE3 for this area: the device's where one is given, else the portable one; the bits are
 * the same.
 */
import { blake3 } from "@noble/hashes/blake3.js";
import { bytesToHex, hexToBytes } from "@noble/hashes/utils.js";

export type Hash = (data: Uint8Array) => Uint8Array;

export interface HashDevice {
  blake3(data: Uint8Array): Uint8Array;
}

export function createHash(device?: HashDevice): Hash {
  return device === undefined ? (data) => blake3(data) : (data) => device.blake3(data);
}

const HEX_HASH = /^[0-9a-f]{64}$/;

/** Lower-case hex of 32 bytes and nothing else: also what makes it safe as a file name. */
export function isHexHash(value: unknown): value is string {
  return typeof value === "string" && HEX_HASH.test(value);
}

export { bytesToHex, hexToBytes };
