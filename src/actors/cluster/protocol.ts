// Owns the messages of a direct cluster: between a client and the server it speaks to (the master of its runs),
// between that and the servers of the parts, and between parts.
import { z } from "zod";
import { defineProtocol } from "../../runtime/index.js";
import { bytes, count } from "../fields.js";

const array = z.custom<Float32Array | Int32Array | Uint8Array>(
  (value) => value instanceof Float32Array || value instanceof Int32Array || value instanceof Uint8Array, "expected a tensor");
const programId = z.string().regex(/^[0-9a-f]{64}$/);
const runId = z.string().min(1).max(120);
/** The text's own limit is checked when it is parsed; this one is the wire's. */
const text = z.string().max(4 * 2 ** 20);
/** Nodes of the whole graph with their values. */
const values = z.array(z.object({ node: count, value: array })).max(1024);

export const ClusterProtocol = defineProtocol("tesra.cluster", 1, {
  call: {
    /** First of all: proof of the cluster's secret, over both node ids. */
    enter: { request: z.object({ proof: bytes }), reply: z.object({ task: z.string() }) },
    /** Takes a program; the same text again is the same program. */
    define: { request: z.object({ text }), reply: z.object({ program: programId }) },
    /** Client -> master: one run of a program. */
    run: {
      request: z.object({ program: programId, feeds: values }),
      reply: z.object({ values: z.array(array), applied: count, stale: count, staleness: count }),
    },
    /** Master -> server: its part of one run. */
    execute: {
      request: z.object({ program: programId, run: runId, number: count, feeds: values }),
      reply: z.object({ values, applied: count, stale: count, staleness: count }),
    },
    /** Server -> server: a value that crosses. */
    deliver: { request: z.object({ run: runId, node: count, value: array }), reply: z.object({}) },
    /** Client -> master (everywhere) -> server: makes the program's variables from their initializers. */
    initialize: {
      request: z.object({ program: programId, seed: count, everywhere: z.boolean() }),
      reply: z.object({ made: z.array(z.string()) }),
    },
    /** Which of the program's variables have no value yet. */
    uninitialized: {
      request: z.object({ program: programId, everywhere: z.boolean() }),
      reply: z.object({ names: z.array(z.string()) }),
    },
  },
  cast: { abort: z.object({ run: runId, reason: z.string().max(500) }) },
});

export const CLUSTER_ACTOR = "cluster";
