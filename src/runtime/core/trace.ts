// Owns: trace contexts and their W3C text form (Trace Context, sections 3.2 traceparent and 3.3 tracestate), and what
// a tracer is. Invariant: what `parseTraceparent` returns can be formatted again; it never throws, whatever came in.

import type { Logger } from "../host/host.js";

export interface TraceContext {
  /** 32 lower-case hex digits, not all zero. */
  readonly traceId: string;
  /** 16 lower-case hex digits, not all zero. */
  readonly spanId: string;
  /** Bit 0: sampled; bit 1: the trace id is random. */
  readonly flags: number;
  /** The tracestate list, passed on as it came. */
  readonly state?: string;
}

export interface Span {
  readonly context: TraceContext;
  /** Once; `error` when what the span covers failed. */
  end(error?: unknown): void;
}

export type SpanKind = "call" | "cast" | "handler";

export interface Tracer {
  /**
   * `parent` is undefined where a trace begins. Called for every message, so it should be quick.
   * @returns undefined for no span: the message then carries `parent` on.
   */
  startSpan(
    name: string,
    kind: SpanKind,
    parent: TraceContext | undefined,
    attributes: Readonly<Record<string, string | number>>,
  ): Span | undefined;
}

const TRACEPARENT = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/;
const ZERO_TRACE = "0".repeat(32);
const ZERO_SPAN = "0".repeat(16);
const FLAGS_KNOWN = 0x03;
/** Section 3.3.1.5: at least 512 characters are to be passed on; what is longer is dropped whole. */
const STATE_LENGTH_MAX = 512;
const STATE_MEMBERS_MAX = 32;
const STATE_MEMBER =
  /^(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]$/;

/** @returns undefined when `header` is not a traceparent; a bad `state` is left out, the trace goes on. */
export function parseTraceparent(header: unknown, state?: unknown): TraceContext | undefined {
  if (typeof header !== "string" || header.length > STATE_LENGTH_MAX) return undefined;
  const match = TRACEPARENT.exec(header);
  if (match === null) return undefined;
  const [, version, traceId, spanId, flags, rest] = match;
  if (version === "ff" || (version === "00" && rest !== undefined)) return undefined;
  if (traceId === ZERO_TRACE || spanId === ZERO_SPAN) return undefined;
  const context = { traceId: traceId!, spanId: spanId!, flags: Number.parseInt(flags!, 16) & FLAGS_KNOWN };
  return isTraceState(state) ? { ...context, state } : context;
}

/** Always version 00. */
export function formatTraceparent(context: TraceContext): string {
  return `00-${context.traceId}-${context.spanId}-${(context.flags & FLAGS_KNOWN).toString(16).padStart(2, "0")}`;
}

function isTraceState(state: unknown): state is string {
  if (typeof state !== "string" || state.length === 0 || state.length > STATE_LENGTH_MAX) return false;
  const members = state.split(",").map((member) => member.trim()).filter((member) => member !== "");
  if (members.length > STATE_MEMBERS_MAX || !members.every((member) => STATE_MEMBER.test(member))) return false;
  return new Set(members.map((member) => member.slice(0, member.indexOf("=")))).size === members.length;
}

/** A tracer that throws is logged and costs its spans, never a message. */
export function guardedTracer(tracer: Tracer, logger: Logger): Tracer {
  const guarded = <T>(body: () => T): T | undefined => {
    try {
      return body();
    } catch (error) {
      logger.error("tracer failed", { error });
      return undefined;
    }
  };
  return {
    startSpan: (name, kind, parent, attributes) => {
      const span = guarded(() => tracer.startSpan(name, kind, parent, attributes));
      return span === undefined ? undefined : { context: span.context, end: (error) => guarded(() => span.end(error)) };
    },
  };
}
