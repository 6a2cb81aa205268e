// W3C trace context: its text form, spans of calls, casts and handlers, and its way through turns.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import {
  behavior, createSpanRecorder, defineProtocol, formatTraceparent, parseTraceparent, seededRandom, settle, VirtualClock,
  type RecordedSpan, type TraceContext,
} from "../../src/runtime/index.js";
import { originOf } from "../../src/runtime/core/mailbox.js";
import { LocalRef } from "../../src/runtime/core/ref.js";
import { testSystem } from "./systems.js";

const TRACE = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN = "00f067aa0ba902b7";

describe("traceparent", () => {
  test.each([
    [`00-${TRACE}-${SPAN}-01`, { traceId: TRACE, spanId: SPAN, flags: 1 }],
    [`00-${TRACE}-${SPAN}-00`, { traceId: TRACE, spanId: SPAN, flags: 0 }],
    [`00-${TRACE}-${SPAN}-ff`, { traceId: TRACE, spanId: SPAN, flags: 3 }],
    [`cc-${TRACE}-${SPAN}-01-what-the-future-will-be`, { traceId: TRACE, spanId: SPAN, flags: 1 }],
  ])("%s is read", (header, expected) => {
    expect(parseTraceparent(header)).toEqual(expected);
  });

  test.each([
    `00-${TRACE}-${SPAN}-01-more`, // version 00 has four fields
    `ff-${TRACE}-${SPAN}-01`, // ff is no version
    `00-${"0".repeat(32)}-${SPAN}-01`,
    `00-${TRACE}-${"0".repeat(16)}-01`,
    `00-${TRACE.toUpperCase()}-${SPAN}-01`,
    `00-${TRACE}-${SPAN}-1`,
    `00-${TRACE}-${SPAN}`,
    `cc-${TRACE}-${SPAN}-01.more`,
    "", 7, null, undefined, {},
  ])("%s is none", (header) => {
    expect(parseTraceparent(header)).toBeUndefined();
  });

  test("a good tracestate is kept as it came, a bad one is left out", () => {
    const state = (text: unknown) => parseTraceparent(`00-${TRACE}-${SPAN}-01`, text)!.state;
    expect(state("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE")).toBe("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE");
    expect(state("fw529a3039@dt=FfffffeA; x, a=b")).toBe("fw529a3039@dt=FfffffeA; x, a=b");
    for (const bad of ["a", "=b", "A=b", "a=", "a=b=c,", "a=1,a=2", `a=${"x".repeat(600)}`, "a=\u0007", 5]) {
      expect(state(bad)).toBeUndefined();
    }
    expect(state(Array.from({ length: 33 }, (_, i) => `k${i}=1`).join(","))).toBeUndefined();
  });

  test("format and parse are inverse, and parse takes anything", () => {
    const hex = (length: number) =>
      fc.string({ unit: fc.constantFrom(..."0123456789abcdef"), minLength: length, maxLength: length })
        .filter((text) => !/^0+$/.test(text));
    fc.assert(
      fc.property(hex(32), hex(16), fc.integer({ min: 0, max: 3 }), (traceId, spanId, flags) => {
        const context: TraceContext = { traceId, spanId, flags };
        expect(parseTraceparent(formatTraceparent(context))).toEqual(context);
      }),
    );
    fc.assert(fc.property(fc.anything(), fc.anything(), (header, state) => void parseTraceparent(header, state)));
  });
});

const Hop = defineProtocol("hop", 1, {
  call: { go: { request: z.null(), reply: z.null() } },
  cast: { note: z.null() },
});

function tree(spans: readonly RecordedSpan[]): string[] {
  const byId = new Map(spans.map((span) => [span.context.spanId, span]));
  const line = (span: RecordedSpan): string => {
    const parent = span.parentSpanId === undefined ? undefined : byId.get(span.parentSpanId);
    return `${parent === undefined ? "" : `${line(parent)} > `}${span.kind} ${span.name}`;
  };
  return spans.map(line).sort();
}

describe("spans", () => {
  test("calls, casts and handlers make one tree, over awaits and piped results", async () => {
    const clock = new VirtualClock();
    const host = { clock, random: seededRandom(3) };
    const tracer = createSpanRecorder(host);
    const system = testSystem({ ...host, tracer });
    const sink = system.spawn(behavior(Hop, () => ({ call: { go: () => null }, cast: { note: () => undefined } })), {
      name: "sink",
    });
    const middle = system.spawn(
      behavior(Hop, (ctx) => ({
        call: {
          go: async () => {
            await new Promise((resolve) => setImmediate(resolve));
            await sink.call("go", null);
            ctx.pipeToSelf(Promise.resolve(1), () => void sink.cast("note", null));
            return null;
          },
        },
        cast: { note: () => undefined },
      })),
      { name: "middle" },
    );
    await middle.call("go", null);
    await settle(8);
    const root = "call middle.go > handler middle.go";
    expect(tree(tracer.spans)).toEqual([
      "call middle.go",
      root,
      `${root} > call sink.go`,
      `${root} > call sink.go > handler sink.go`,
      `${root} > cast sink.note`,
      `${root} > cast sink.note > handler sink.note`,
    ].sort());
    expect(new Set(tracer.spans.map((span) => span.context.traceId)).size).toBe(1);
    expect(new Set(tracer.spans.map((span) => span.context.spanId)).size).toBe(tracer.spans.length);
  });

  test("a fault ends its spans with the error, and separate messages begin separate traces", async () => {
    const clock = new VirtualClock();
    const host = { clock, random: seededRandom(4) };
    const tracer = createSpanRecorder(host);
    const system = testSystem({ ...host, tracer });
    const ref = system.spawn(
      behavior(Hop, () => ({
        call: {
          go: () => {
            throw new Error("bad");
          },
        },
        cast: { note: () => undefined },
      })),
      { name: "a" },
    );
    await ref.call("go", null);
    ref.cast("note", null);
    await clock.advance(1000);
    const failed = tracer.spans.filter((span) => span.error !== undefined);
    expect(failed.map((span) => span.kind).sort()).toEqual(["call", "handler"]);
    expect(failed.find((span) => span.kind === "call")!.error).toMatchObject({ code: "fault" });
    expect(new Set(tracer.spans.map((span) => span.context.traceId)).size).toBe(2);
  });

  test("without a tracer an incoming context is passed on to what its turn sends, and no further", async () => {
    const system = testSystem();
    const seen: (TraceContext | undefined)[] = [];
    const sink = system.spawn(
      behavior(Hop, () => ({ call: { go: () => null }, cast: { note: (_, meta) => void seen.push(meta.trace) } })),
    );
    const relay = system.spawn(
      behavior(Hop, () => ({
        call: { go: () => null },
        cast: {
          note: async () => {
            sink.cast("note", null);
            await new Promise((resolve) => setImmediate(resolve));
            sink.cast("note", null);
          },
        },
      })),
    );
    const trace: TraceContext = { traceId: TRACE, spanId: SPAN, flags: 1, state: "a=b" };
    LocalRef.cellOf(relay)!.deliverCast("note", null, originOf(undefined, undefined, trace));
    await settle(8);
    expect(seen).toEqual([trace, trace]);
    relay.cast("note", null);
    await settle(8);
    expect(seen.slice(2)).toEqual([undefined, undefined]);
  });

  test("a tracer that throws costs its spans and nothing else", async () => {
    const system = testSystem({
      tracer: {
        startSpan: () => {
          throw new Error("tracer");
        },
      },
    });
    const ref = system.spawn(behavior(Hop, () => ({ call: { go: () => null }, cast: { note: () => undefined } })));
    expect(ref.cast("note", null)).toBe("accepted");
    expect(await ref.call("go", null)).toEqual({ ok: true, value: null });
  });
});
