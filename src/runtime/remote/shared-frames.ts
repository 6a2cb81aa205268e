// Owns: the bytes by which two ends of a link agree on shared memory: a segment's header, the offer of one, its answer
// and the placements of a transfer. Invariant: every reader takes any bytes and returns checked values or throws.
//
// How an end knows that both mean the same memory: the header holds two random numbers. The offer tells the first, so
// that who opens the segment knows that the offerer knows what is in it, and nobody can make this process map a
// stranger's memory. The answer tells the second, which only a reader of the segment can know. The dialer's and the
// acceptor's headers differ, so that an offer cannot be sent back to where it came from.
import { SEGMENT_HEADER_BYTES, SEGMENT_PAGE_BYTES } from "../host/shared-memory.js";
import { WireError, type Placement } from "../wire/codec.js";
import { SHARED_POOL_BYTES_MAX } from "../wire/limits.js";

export const CHALLENGE_BYTES = 16;
const MAGIC = Buffer.from("TESRASM1", "latin1");
const ROLE_AT = 8;
const CHALLENGE_AT = 16;
const RESPONSE_AT = 32;
/** [size u32][challenge 16 B][locator] */
const OFFER_BYTES_MIN = 4 + CHALLENGE_BYTES;
const LOCATOR_LENGTH_MAX = 64;
/** [segment u32][offset u32] for each array of a transfer. */
const PLACEMENT_BYTES = 8;

export interface SegmentSecret {
  readonly challenge: Uint8Array;
  readonly response: Uint8Array;
}

export function encodeSegmentHeader(isDialer: boolean, { challenge, response }: SegmentSecret): Uint8Array {
  const header = new Uint8Array(SEGMENT_HEADER_BYTES);
  header.set(MAGIC);
  header[ROLE_AT] = isDialer ? 1 : 2;
  header.set(challenge, CHALLENGE_AT);
  header.set(response, RESPONSE_AT);
  return header;
}

/** @returns what to answer, or undefined when the segment is not the one that this peer offered. */
export function readSegmentHeader(header: Uint8Array, isDialer: boolean, challenge: Uint8Array): Uint8Array | undefined {
  const expected = encodeSegmentHeader(isDialer, { challenge, response: header.subarray(RESPONSE_AT, RESPONSE_AT + CHALLENGE_BYTES) });
  return isEqual(header, expected) ? header.slice(RESPONSE_AT, RESPONSE_AT + CHALLENGE_BYTES) : undefined;
}

export interface Offer {
  readonly sizeBytes: number;
  readonly challenge: Uint8Array;
  readonly locator: string;
}

export function encodeOffer({ sizeBytes, challenge, locator }: Offer): Uint8Array {
  const body = Buffer.alloc(OFFER_BYTES_MIN + locator.length);
  body.writeUInt32LE(sizeBytes, 0);
  body.set(challenge, 4);
  body.write(locator, OFFER_BYTES_MIN, "latin1");
  return body;
}

export function decodeOffer(body: Uint8Array): Offer {
  if (body.length <= OFFER_BYTES_MIN || body.length > OFFER_BYTES_MIN + LOCATOR_LENGTH_MAX) {
    throw new WireError("malformed", "an offer of shared memory with a bad length");
  }
  const sizeBytes = new DataView(body.buffer, body.byteOffset).getUint32(0, true);
  if (sizeBytes % SEGMENT_PAGE_BYTES !== 0 || sizeBytes > SHARED_POOL_BYTES_MAX) {
    throw new WireError("malformed", `an offer of ${sizeBytes} bytes of shared memory`);
  }
  return {
    sizeBytes,
    challenge: body.slice(4, OFFER_BYTES_MIN),
    locator: Buffer.from(body.subarray(OFFER_BYTES_MIN)).toString("latin1"),
  };
}

/** Placements, then the record. */
export function encodeShared(placed: readonly Placement[], record: Uint8Array): Uint8Array {
  const body = Buffer.allocUnsafe(placed.length * PLACEMENT_BYTES + record.length);
  let at = 0;
  for (const { segment, offset } of placed) {
    body.writeUInt32LE(segment, at);
    body.writeUInt32LE(offset, at + 4);
    at += PLACEMENT_BYTES;
  }
  body.set(record, at);
  return body;
}

export function decodeShared(body: Uint8Array, count: number): { readonly placed: Placement[]; readonly record: Uint8Array } {
  if (count === 0 || count * PLACEMENT_BYTES > body.length) throw new WireError("malformed", "placements that end early");
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  const placed = Array.from({ length: count }, (_, i) => ({
    segment: view.getUint32(i * PLACEMENT_BYTES, true),
    offset: view.getUint32(i * PLACEMENT_BYTES + 4, true),
  }));
  return { placed, record: body.subarray(count * PLACEMENT_BYTES) };
}

export function isEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
