// Owns: how an outbox lies in its store. Invariants: a message and the counter that it moves are written in one
// batch, so a number is never given twice, also after a crash; keys sort in the order of the numbers.
//
//   o/<outbox>/i                     random number of this outbox, made once
//   o/<outbox>/t/<target>            [node id | null, path] of a target
//   o/<outbox>/n/<target>            the last number given to it
//   o/<outbox>/q/<target>/<number>   a message that is not confirmed
//   o/<outbox>/r/<target>/<number>   a message that was rejected for good
import type { CallError } from "../core/failure.js";
import { formatTraceparent, parseTraceparent, type TraceContext } from "../core/trace.js";
import type { Store, StoreOperation } from "../host/store.js";
import type { ProtocolTag } from "../remote/record.js";
import { Codec, WireError } from "../wire/codec.js";
import { seal, unseal } from "../wire/sealed.js";

export interface StoredTarget {
  readonly nodeId: string | undefined;
  readonly path: string;
}

export interface StoredMessage {
  readonly name: string;
  readonly protocol: ProtocolTag;
  readonly message: unknown;
  /** When it was sent, by the host's calendar. */
  readonly sentAtMs: number;
  readonly trace: TraceContext | undefined;
}

export interface RejectedMessage extends StoredMessage {
  readonly target: StoredTarget;
  readonly sequence: number;
  readonly error: CallError;
}

/** Room for 2^48 messages a target and 2^32 targets, in hex so that a dump of the store can be read. */
const SEQUENCE_DIGITS = 12;
const TARGET_DIGITS = 8;
const NUMBER_BYTES = 8;

export class OutboxStore {
  readonly #store: Store;
  readonly #prefix: string;
  readonly #codec = new Codec();

  constructor(store: Store, name: string) {
    this.#store = store;
    this.#prefix = `o/${name}/`;
  }

  /** Tells this outbox's messages from those of another that had its name once. */
  identity(make: () => string): string {
    const key = this.#key("i");
    const known = this.#store.get(key);
    if (known !== undefined) return Buffer.from(known).toString();
    const made = make();
    this.#store.write([{ key, value: Buffer.from(made) }], { sync: true });
    return made;
  }

  targets(): { readonly number: number; readonly target: StoredTarget }[] {
    const prefix = this.#key("t/");
    return this.#store.scan(prefix).map(({ key, value }) => {
      const [, payload] = unseal(this.#codec, value);
      const [nodeId, path] = payload as [string | null, string];
      return { number: tailOf(key, TARGET_DIGITS), target: { nodeId: nodeId ?? undefined, path } };
    });
  }

  addTarget(number: number, { nodeId, path }: StoredTarget): StoreOperation {
    return { key: this.#key(`t/${hex(number, TARGET_DIGITS)}`), value: seal(this.#codec, [0, [nodeId ?? null, path], null]) };
  }

  lastSequence(target: number): number {
    const value = this.#store.get(this.#counterKey(target));
    return value === undefined ? 0 : Number(Buffer.from(value).readBigUInt64BE(0));
  }

  /** The oldest message that is not confirmed. */
  firstSequence(target: number): number | undefined {
    const first = this.#store.scan(this.#key(`q/${hex(target, TARGET_DIGITS)}/`), 1)[0];
    return first === undefined ? undefined : tailOf(first.key, SEQUENCE_DIGITS);
  }

  /** @throws WireError when the message cannot be sent at all. */
  add(target: number, sequence: number, { name, protocol, message, sentAtMs, trace }: StoredMessage): StoreOperation[] {
    const header = trace === undefined ? null : formatTraceparent(trace);
    const fields = [name, protocol.name, protocol.version, protocol.compatibleFrom, sentAtMs, header, trace?.state ?? null];
    const counter = Buffer.alloc(NUMBER_BYTES);
    counter.writeBigUInt64BE(BigInt(sequence), 0);
    return [
      { key: this.#messageKey("q", target, sequence), value: seal(this.#codec, [0, message, null, ...fields]) },
      { key: this.#counterKey(target), value: counter },
    ];
  }

  read(target: number, sequence: number): StoredMessage | undefined {
    const value = this.#store.get(this.#messageKey("q", target, sequence));
    return value === undefined ? undefined : this.#decode(value).message;
  }

  remove(target: number, sequence: number): StoreOperation {
    return { key: this.#messageKey("q", target, sequence), value: undefined };
  }

  reject(target: number, sequence: number, stored: StoredMessage, { code, message }: CallError): StoreOperation[] {
    const { name, protocol, sentAtMs } = stored;
    const fields = [name, protocol.name, protocol.version, protocol.compatibleFrom, sentAtMs, null, null, code, message];
    return [
      this.remove(target, sequence),
      { key: this.#messageKey("r", target, sequence), value: seal(this.#codec, [0, stored.message, null, ...fields]) },
    ];
  }

  rejected(targets: ReadonlyMap<number, StoredTarget>, limit: number): RejectedMessage[] {
    return this.#store.scan(this.#key("r/"), limit).flatMap(({ key, value }) => {
      const number = tailOf(key.subarray(0, key.length - SEQUENCE_DIGITS - 1), TARGET_DIGITS);
      const target = targets.get(number);
      if (target === undefined) return [];
      const { message, rest } = this.#decode(value);
      const error = { code: rest[0] as CallError["code"], message: String(rest[1]) };
      return [{ ...message, target, sequence: tailOf(key, SEQUENCE_DIGITS), error }];
    });
  }

  removeRejected(target: number, sequence: number): StoreOperation {
    return { key: this.#messageKey("r", target, sequence), value: undefined };
  }

  write(operations: readonly StoreOperation[], sync: boolean): void {
    this.#store.write(operations, { sync });
  }

  #decode(value: Uint8Array): { readonly message: StoredMessage; readonly rest: readonly unknown[] } {
    const [, message, , name, protocol, version, compatibleFrom, sentAtMs, header, state, ...rest] = unseal(this.#codec, value);
    if (typeof name !== "string" || typeof protocol !== "string" || typeof sentAtMs !== "number") {
      throw new WireError("malformed", "a stored message of another form");
    }
    const tag = { name: protocol, version: Number(version), compatibleFrom: Number(compatibleFrom) };
    const trace = header === null ? undefined : parseTraceparent(header, state);
    return { message: { name, protocol: tag, message, sentAtMs, trace }, rest };
  }

  #messageKey(range: "q" | "r", target: number, sequence: number): Uint8Array {
    return this.#key(`${range}/${hex(target, TARGET_DIGITS)}/${hex(sequence, SEQUENCE_DIGITS)}`);
  }

  #counterKey(target: number): Uint8Array {
    return this.#key(`n/${hex(target, TARGET_DIGITS)}`);
  }

  #key(rest: string): Uint8Array {
    return Buffer.from(`${this.#prefix}${rest}`, "latin1");
  }
}

function hex(number: number, digits: number): string {
  return number.toString(16).padStart(digits, "0");
}

function tailOf(key: Uint8Array, digits: number): number {
  return Number.parseInt(Buffer.from(key.subarray(key.length - digits)).toString("latin1"), 16);
}
