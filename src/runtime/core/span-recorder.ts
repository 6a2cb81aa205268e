// Owns: a tracer that keeps its spans in memory, for tests, examples and small deployments that export them themselves.
// Invariant: holds at most SPANS_MAX ended spans, the newest; what it let go of is counted.
import type { Clock } from "../host/host.js";
import type { Span, SpanKind, TraceContext, Tracer } from "./trace.js";

/** At ~400 B each about 4 MiB. */
export const SPANS_MAX = 10_000;
const SAMPLED_AND_RANDOM = 0x03;

export interface RecordedSpan {
  readonly name: string;
  readonly kind: SpanKind;
  readonly context: TraceContext;
  readonly parentSpanId: string | undefined;
  readonly attributes: Readonly<Record<string, string | number>>;
  readonly startMs: number;
  readonly endMs: number;
  readonly error: unknown;
}

export interface SpanRecorder extends Tracer {
  /** Ended spans, in the order in which they ended. */
  readonly spans: readonly RecordedSpan[];
  readonly dropped: number;
  clear(): void;
}

/** Ids come from `host.random`, times from `host.clock`: seeded and virtual ones make the spans repeatable. */
export function createSpanRecorder(host: {
  readonly clock: Clock;
  random(sizeBytes: number): Uint8Array;
}): SpanRecorder {
  const spans: RecordedSpan[] = [];
  let dropped = 0;
  const id = (sizeBytes: number): string => {
    const bytes = host.random(sizeBytes);
    if (bytes.every((byte) => byte === 0)) bytes[0] = 1; // an all-zero id is not valid
    return Buffer.from(bytes).toString("hex");
  };
  return {
    spans,
    get dropped() {
      return dropped;
    },
    clear: () => void (spans.length = 0),
    startSpan: (name, kind, parent, attributes): Span => {
      const startMs = host.clock.nowMs();
      const context: TraceContext = {
        traceId: parent?.traceId ?? id(16),
        spanId: id(8),
        flags: parent?.flags ?? SAMPLED_AND_RANDOM,
        ...(parent?.state === undefined ? {} : { state: parent.state }),
      };
      let isEnded = false;
      return {
        context,
        end: (error) => {
          if (isEnded) return;
          isEnded = true;
          if (spans.length >= SPANS_MAX) {
            spans.splice(0, SPANS_MAX / 10);
            dropped += SPANS_MAX / 10;
          }
          const endMs = host.clock.nowMs();
          spans.push({ name, kind, context, parentSpanId: parent?.spanId, attributes, startMs, endMs, error });
        },
      };
    },
  };
}
