// Owns strict RLP reading. Invariant: a value has one accepted encoding; anything else is refused before use.
import { RLP } from "@ethereumjs/rlp";
import { equals, fromBigInt, toBigInt } from "../bytes.js";
import { messageOf, reject } from "../errors.js";

export type Nested = Uint8Array | Nested[];

export function encodeRlp(value: Nested): Uint8Array {
  return RLP.encode(value);
}

/** Decodes and checks that encoding again gives the same bytes. */
export function decodeRlp(bytes: Uint8Array, what: string, maxBytes: number): Nested {
  if (bytes.length === 0 || bytes.length > maxBytes) {
    reject("encoding", `${what} has ${bytes.length} bytes; 1 to ${maxBytes} are allowed`);
  }
  let value: Nested;
  try {
    value = RLP.decode(bytes) as Nested;
  } catch (error) {
    return reject("encoding", `${what} is not RLP: ${messageOf(error)}`);
  }
  if (!equals(RLP.encode(value), bytes)) reject("encoding", `${what} is not in canonical RLP`);
  return value;
}

/** Reads the fields of an RLP list in order, each with its type; `end` checks that none is left. */
export class FieldReader {
  private index = 0;
  private readonly fields: Nested[];

  constructor(value: Nested, private readonly what: string) {
    if (value instanceof Uint8Array) reject("encoding", `${what} is not a list`);
    this.fields = value as Nested[];
  }

  next(name: string): Nested {
    const field = this.fields[this.index++];
    if (field === undefined) return reject("encoding", `${this.what} has no field ${name}`);
    return field;
  }

  bytes(name: string, length: number): Uint8Array {
    const field = this.upTo(name, length);
    if (field.length !== length) {
      reject("encoding", `${this.what}.${name} has ${field.length} bytes, expected ${length}`);
    }
    return field;
  }

  upTo(name: string, maxLength: number): Uint8Array {
    const field = this.next(name);
    if (!(field instanceof Uint8Array)) return reject("encoding", `${this.what}.${name} is a list`);
    if (field.length > maxLength) {
      reject("encoding", `${this.what}.${name} has ${field.length} bytes, at most ${maxLength} are allowed`);
    }
    return field;
  }

  integer(name: string, maxBytes: number): bigint {
    const field = this.upTo(name, maxBytes);
    if (field[0] === 0) reject("encoding", `${this.what}.${name} has a leading zero`);
    return toBigInt(field);
  }

  /** An integer that a JavaScript number holds exactly. */
  count(name: string): number {
    const value = this.integer(name, 7);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) reject("encoding", `${this.what}.${name} is over 2^53`);
    return Number(value);
  }

  list(name: string, maxLength: number): Nested[] {
    const field = this.next(name);
    if (field instanceof Uint8Array) return reject("encoding", `${this.what}.${name} is not a list`);
    if (field.length > maxLength) {
      reject("encoding", `${this.what}.${name} has ${field.length} entries, at most ${maxLength} are allowed`);
    }
    return field;
  }

  end(): void {
    if (this.index !== this.fields.length) {
      reject("encoding", `${this.what} has ${this.fields.length} fields, expected ${this.index}`);
    }
  }
}

export function integer(value: bigint | number): Uint8Array {
  return fromBigInt(BigInt(value));
}
