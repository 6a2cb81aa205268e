// Owns: a walk over msgpack bytes that proves them safe to decode. Invariant: bytes that pass hold exactly one value,
// nest at most DEPTH_MAX deep, hold at most VALUES_PER_RECORD_MAX values, stay inside the buffer and use no extension
// that builds code, classes or references.
import { DEPTH_MAX, VALUES_PER_RECORD_MAX } from "./limits.js";

const EXT_UNDEFINED = 0x00;
const EXT_BIGINT = 0x42;
const EXT_TIMESTAMP = 0xff;

/** @returns true when the decoder may see `bytes`. */
export function isSafeMsgpack(bytes: Uint8Array): boolean {
  const end = bytes.length;
  let at = 0;
  // Values still to come at each open level; level 0 is the one outer value.
  const left = new Array<number>(DEPTH_MAX + 1).fill(0);
  let depth = 0;
  let values = 1;
  left[0] = 1;
  const u16 = (): number => (bytes[at]! << 8) | bytes[at + 1]!;
  const u32 = (): number => ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;

  for (;;) {
    while (left[depth] === 0) {
      if (depth === 0) return at === end;
      depth -= 1;
    }
    left[depth]! -= 1;
    if (at >= end) return false;
    const type = bytes[at]!;
    at += 1;
    let skip = 0;
    let children = 0;
    if (type <= 0x7f || type >= 0xe0) continue; // fixint
    if (type <= 0x8f) children = (type & 0x0f) * 2;
    else if (type <= 0x9f) children = type & 0x0f;
    else if (type <= 0xbf) skip = type & 0x1f;
    else {
      switch (type) {
        case 0xc0: case 0xc2: case 0xc3:
          continue;
        case 0xc4: case 0xd9: // bin8, str8
          if (at + 1 > end) return false;
          skip = 1 + bytes[at]!;
          break;
        case 0xc5: case 0xda:
          if (at + 2 > end) return false;
          skip = 2 + u16();
          break;
        case 0xc6: case 0xdb:
          if (at + 4 > end) return false;
          skip = 4 + u32();
          break;
        case 0xca: case 0xce: case 0xd2:
          skip = 4;
          break;
        case 0xcb: case 0xcf: case 0xd3:
          skip = 8;
          break;
        case 0xcc: case 0xd0:
          skip = 1;
          break;
        case 0xcd: case 0xd1:
          skip = 2;
          break;
        case 0xdc: case 0xde:
          if (at + 2 > end) return false;
          children = u16() * (type === 0xde ? 2 : 1);
          at += 2;
          break;
        case 0xdd: case 0xdf:
          if (at + 4 > end) return false;
          children = u32() * (type === 0xdf ? 2 : 1);
          at += 4;
          break;
        case 0xd4: case 0xd5: case 0xd6: case 0xd7: case 0xd8: // fixext
          if (at >= end || !isAllowedExt(bytes[at]!)) return false;
          skip = 1 + (1 << (type - 0xd4));
          break;
        case 0xc7: // ext8
          if (at + 2 > end || !isAllowedExt(bytes[at + 1]!)) return false;
          skip = 2 + bytes[at]!;
          break;
        default:
          return false; // 0xc1 and the longer extensions, which nothing here writes
      }
    }
    if (skip > 0) {
      at += skip;
      if (at > end) return false;
    }
    if (children > 0) {
      if (children > end - at || depth === DEPTH_MAX) return false; // every child takes a byte at least
      values += children;
      if (values > VALUES_PER_RECORD_MAX) return false;
      depth += 1;
      left[depth] = children;
    }
  }
}

function isAllowedExt(type: number): boolean {
  return type === EXT_UNDEFINED || type === EXT_BIGINT || type === EXT_TIMESTAMP;
}
