// Owns: the records that links carry and how a received one is read. A record is a list:
// [kind, payload, tensor table, …rest]. Invariant: `readRecord` returns a fully checked value or throws WireError.
import { parseChain, type ChainNode } from "../core/chain.js";
import type { CallError, CallErrorCode, StopCode, StopReason } from "../core/failure.js";
import type { AnyProtocol } from "../core/protocol.js";
import { WireError } from "../wire/codec.js";

export const RecordKind = { cast: 1, call: 2, reply: 3, error: 4, watch: 5, unwatch: 6, down: 7 } as const;

/** A path of names of at most 128 characters each, a few levels deep. */
const PATH_LENGTH_MAX = 512;
const NAME_LENGTH_MAX = 64;
const TEXT_LENGTH_MAX = 4096;
/** A caller that waits longer than a day asks in another way. */
const TIMEOUT_MS_MAX = 86_400_000;

export interface Address {
  readonly target: string;
  readonly protocol: string;
  readonly version: number;
  readonly compatibleFrom: number;
  readonly name: string;
}

export type WireRecord =
  | { readonly kind: "cast"; readonly payload: unknown; readonly address: Address }
  | {
      readonly kind: "call";
      readonly payload: unknown;
      readonly address: Address;
      readonly id: number;
      readonly timeoutMs: number;
      readonly chain: ChainNode | undefined;
    }
  | { readonly kind: "reply"; readonly payload: unknown; readonly id: number }
  | { readonly kind: "error"; readonly error: CallError; readonly id: number }
  | { readonly kind: "watch"; readonly id: number; readonly target: string }
  | { readonly kind: "unwatch"; readonly id: number }
  | { readonly kind: "down"; readonly id: number; readonly reason: StopReason };

export function addressFields(protocol: AnyProtocol, target: string, name: string): unknown[] {
  return [target, protocol.name, protocol.version, protocol.compatibleFrom, name];
}

export function readRecord(record: readonly unknown[]): WireRecord {
  const [kind, payload, , ...rest] = record;
  switch (kind) {
    case RecordKind.cast:
      return { kind: "cast", payload, address: readAddress(rest, 0) };
    case RecordKind.call: {
      const [id, timeoutMs, flat] = rest;
      const parsed = flat === null ? { chain: undefined } : parseChain(flat);
      if (!isId(id) || typeof timeoutMs !== "number" || !(timeoutMs >= 0) || parsed === undefined) throw bad("call");
      const bounded = Math.min(timeoutMs, TIMEOUT_MS_MAX);
      return { kind: "call", payload, id, timeoutMs: bounded, chain: parsed.chain, address: readAddress(rest, 3) };
    }
    case RecordKind.reply:
      if (!isId(rest[0])) throw bad("reply");
      return { kind: "reply", payload, id: rest[0] };
    case RecordKind.error:
      if (!isId(rest[0])) throw bad("error");
      return { kind: "error", id: rest[0], error: readError(payload) };
    case RecordKind.watch:
      if (!isId(rest[0]) || !isText(rest[1], PATH_LENGTH_MAX)) throw bad("watch");
      return { kind: "watch", id: rest[0], target: rest[1] };
    case RecordKind.unwatch:
      if (!isId(rest[0])) throw bad("unwatch");
      return { kind: "unwatch", id: rest[0] };
    case RecordKind.down:
      if (!isId(rest[0])) throw bad("down");
      return { kind: "down", id: rest[0], reason: readReason(payload) };
    default:
      throw bad("unknown");
  }
}

function readAddress(rest: readonly unknown[], at: number): Address {
  const target = rest[at];
  const protocol = rest[at + 1];
  const version = rest[at + 2];
  const compatibleFrom = rest[at + 3];
  const name = rest[at + 4];
  if (
    !isText(target, PATH_LENGTH_MAX) || !isText(protocol, NAME_LENGTH_MAX) || !isText(name, NAME_LENGTH_MAX) ||
    typeof version !== "number" || typeof compatibleFrom !== "number"
  ) {
    throw bad("address of a");
  }
  return { target, protocol, version, compatibleFrom, name };
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
