// Owns: the records that links carry and how a received one is read. A record is a list:
// [kind, payload, tensor table, …rest]. Invariant: `readRecord` returns a fully checked value or throws WireError.
import { parseChain, type ChainNode } from "../core/chain.js";
import type { CallError, CallErrorCode, StopCode, StopReason } from "../core/failure.js";
import type { AnyProtocol } from "../core/protocol.js";
import { formatTraceparent, parseTraceparent, type TraceContext } from "../core/trace.js";
import { WireError } from "../wire/codec.js";
import { CAST_RUN_MAX } from "../wire/limits.js";

/** Kinds from 8 on need LINK_VERSION_DELIVERY, 12 LINK_VERSION_RUNS; the trace fields at the end of a record are left out before it. */
export const RecordKind = {
  cast: 1, call: 2, reply: 3, error: 4, watch: 5, unwatch: 6, down: 7, cancel: 8, reliable: 9, ack: 10, confirmed: 11, casts: 12,
} as const;

/** A path of names of at most 128 characters each, a few levels deep. */
const PATH_LENGTH_MAX = 512;
const NAME_LENGTH_MAX = 64;
const TEXT_LENGTH_MAX = 4096;
/** An outbox's name and its random number. */
const OUTBOX_LENGTH_MAX = 160;
/** A caller that waits longer than a day asks in another way. */
const TIMEOUT_MS_MAX = 86_400_000;

export interface Address {
  readonly target: string;
  readonly protocol: string;
  readonly version: number;
  readonly compatibleFrom: number;
  readonly name: string;
}

interface Addressed {
  readonly payload: unknown;
  readonly address: Address;
  readonly trace: TraceContext | undefined;
}

export interface CastRecord extends Addressed {
  readonly kind: "cast";
}

/** Casts in a row to one actor, all with the same name and without a trace. */
export interface CastsRecord {
  readonly kind: "casts";
  readonly payloads: readonly unknown[];
  readonly address: Address;
}

export interface CallRecord extends Addressed {
  readonly kind: "call";
  readonly id: number;
  readonly timeoutMs: number;
  readonly chain: ChainNode | undefined;
}

/** One message of a numbered stream to one actor; `stream` grows with each new stream of a sending system. */
export interface ReliableRecord extends Addressed {
  readonly kind: "reliable";
  readonly stream: number;
  readonly sequence: number;
}

/**
 * A cast of an outbox, answered when its handler has finished. A higher `run` takes the place of all lower ones;
 * `previous` is the number sent before this one in its run, 0 for the first: what a lost link took shows as a gap.
 */
export interface ConfirmedRecord extends Addressed {
  readonly kind: "confirmed";
  readonly id: number;
  readonly timeoutMs: number;
  readonly outbox: string;
  readonly sequence: number;
  readonly run: number;
  readonly previous: number;
}

export type WireRecord =
  | CastRecord
  | CastsRecord
  | CallRecord
  | ReliableRecord
  | ConfirmedRecord
  /** Everything up to `taken` of a stream is in its actor's mailbox; `isEnded`: the rest will never be. */
  | { readonly kind: "ack"; readonly stream: number; readonly taken: number; readonly isEnded: boolean }
  | { readonly kind: "cancel"; readonly id: number }
  | { readonly kind: "reply"; readonly payload: unknown; readonly id: number }
  | { readonly kind: "error"; readonly error: CallError; readonly id: number }
  | { readonly kind: "watch"; readonly id: number; readonly target: string }
  | { readonly kind: "unwatch"; readonly id: number }
  | { readonly kind: "down"; readonly id: number; readonly reason: StopReason };

/** What of a protocol stands on the wire. */
export type ProtocolTag = Pick<AnyProtocol, "name" | "version" | "compatibleFrom">;

export function addressFields(protocol: ProtocolTag, target: string, name: string): unknown[] {
  return [target, protocol.name, protocol.version, protocol.compatibleFrom, name];
}

const ADDRESS_FIELDS = 5;

/** The end of a record that carries a trace; nothing when there is none. */
export function traceFields(trace: TraceContext | undefined): unknown[] {
  if (trace === undefined) return [];
  const header = formatTraceparent(trace);
  return trace.state === undefined ? [header] : [header, trace.state];
}

/** How many messages a record that has not been checked yet seems to carry. */
export function messagesIn(record: readonly unknown[]): number {
  return record[0] === RecordKind.casts && Array.isArray(record[1]) ? record[1].length : 1;
}

export function readRecord(record: readonly unknown[]): WireRecord {
  const payload = record[1];
  switch (record[0]) {
    case RecordKind.cast:
      return { kind: "cast", payload, address: readAddress(record, 3), trace: readTrace(record, 3) };
    case RecordKind.casts: {
      const isRun = Array.isArray(payload) && payload.length > 0 && payload.length <= CAST_RUN_MAX;
      if (!isRun || record[2] !== null || record.length !== 3 + ADDRESS_FIELDS) throw bad("casts");
      return { kind: "casts", payloads: payload as unknown[], address: readAddress(record, 3) };
    }
    case RecordKind.call: {
      const id = record[3];
      const timeoutMs = record[4];
      const flat = record[5];
      const parsed = flat === null ? { chain: undefined } : parseChain(flat);
      if (!isId(id) || typeof timeoutMs !== "number" || !(timeoutMs >= 0) || parsed === undefined) throw bad("call");
      const bounded = Math.min(timeoutMs, TIMEOUT_MS_MAX);
      const { chain } = parsed;
      return { kind: "call", payload, id, timeoutMs: bounded, chain, address: readAddress(record, 6), trace: readTrace(record, 6) };
    }
    case RecordKind.reliable: {
      const [, , , stream, sequence] = record;
      if (!isId(stream) || !isId(sequence) || sequence === 0) throw bad("reliable");
      return { kind: "reliable", payload, stream, sequence, address: readAddress(record, 5), trace: readTrace(record, 5) };
    }
    case RecordKind.ack: {
      const [, , , stream, taken, isEnded] = record;
      if (!isId(stream) || !isId(taken) || typeof isEnded !== "boolean") throw bad("ack");
      return { kind: "ack", stream, taken, isEnded };
    }
    case RecordKind.confirmed: {
      const [, , , id, timeoutMs, outbox, sequence, run, previous] = record;
      if (
        !isId(id) || typeof timeoutMs !== "number" || !(timeoutMs >= 0) || !isText(outbox, OUTBOX_LENGTH_MAX) ||
        !isId(sequence) || !isId(run) || !isId(previous)
      ) {
        throw bad("confirmed");
      }
      const bounded = Math.min(timeoutMs, TIMEOUT_MS_MAX);
      const address = readAddress(record, 9);
      const trace = readTrace(record, 9);
      return { kind: "confirmed", payload, id, timeoutMs: bounded, outbox, sequence, run, previous, address, trace };
    }
    case RecordKind.cancel:
      if (!isId(record[3])) throw bad("cancel");
      return { kind: "cancel", id: record[3] };
    case RecordKind.reply:
      if (!isId(record[3])) throw bad("reply");
      return { kind: "reply", payload, id: record[3] };
    case RecordKind.error:
      if (!isId(record[3])) throw bad("error");
      return { kind: "error", id: record[3], error: readError(payload) };
    case RecordKind.watch:
      if (!isId(record[3]) || !isText(record[4], PATH_LENGTH_MAX)) throw bad("watch");
      return { kind: "watch", id: record[3], target: record[4] };
    case RecordKind.unwatch:
      if (!isId(record[3])) throw bad("unwatch");
      return { kind: "unwatch", id: record[3] };
    case RecordKind.down:
      if (!isId(record[3])) throw bad("down");
      return { kind: "down", id: record[3], reason: readReason(payload) };
    default:
      throw bad("unknown");
  }
}

/** `at`: where in the record the address begins. */
function readAddress(record: readonly unknown[], at: number): Address {
  const target = record[at];
  const protocol = record[at + 1];
  const version = record[at + 2];
  const compatibleFrom = record[at + 3];
  const name = record[at + 4];
  if (
    !isText(target, PATH_LENGTH_MAX) || !isText(protocol, NAME_LENGTH_MAX) || !isText(name, NAME_LENGTH_MAX) ||
    typeof version !== "number" || typeof compatibleFrom !== "number"
  ) {
    throw bad("address of a");
  }
  return { target, protocol, version, compatibleFrom, name };
}

/** A trace that cannot be read is no trace: W3C asks receivers to go on without it. */
function readTrace(record: readonly unknown[], addressAt: number): TraceContext | undefined {
  const at = addressAt + ADDRESS_FIELDS;
  return record.length > at ? parseTraceparent(record[at], record[at + 1]) : undefined;
}

const ERROR_CODES: readonly CallErrorCode[] = [
  "timeout", "aborted", "stopped", "full", "fault", "refused", "unreachable", "cycle", "protocol", "too-large",
];
const STOP_CODES: readonly StopCode[] = [
  "normal", "fault", "restart-budget", "restart", "parent", "shutdown", "abandoned", "not-found",
];

function readError(payload: unknown): CallError {
  const { code, message, reason, data } = fields(payload);
  if (!ERROR_CODES.includes(code as CallErrorCode) || !isText(message, TEXT_LENGTH_MAX)) throw bad("error");
  if (reason !== undefined && reason !== null && !isText(reason, TEXT_LENGTH_MAX)) throw bad("error");
  return {
    code: code as CallErrorCode,
    message,
    ...(typeof reason === "string" ? { reason } : {}),
    ...(data === undefined || data === null ? {} : { data }),
  };
}

function readReason(payload: unknown): StopReason {
  const { code, message } = fields(payload);
  if (!STOP_CODES.includes(code as StopCode) || !isText(message, TEXT_LENGTH_MAX)) throw bad("down");
  return { code: code as StopCode, message };
}

export function clipText(text: string): string {
  return text.length <= TEXT_LENGTH_MAX ? text : `${text.slice(0, TEXT_LENGTH_MAX - 1)}…`;
}

function fields(payload: unknown): Record<string, unknown> {
  if (typeof payload !== "object" || payload === null) throw bad("error");
  return payload as Record<string, unknown>;
}

function isId(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function isText(value: unknown, lengthMax: number): value is string {
  return typeof value === "string" && value.length <= lengthMax;
}

function bad(kind: string): WireError {
  return new WireError("malformed", `a bad ${kind} record`);
}
