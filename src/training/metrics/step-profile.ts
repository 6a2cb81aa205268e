/**
 * Owns: profiles of training steps: where the time of a compiled step goes, operation by operation, as a
 * table and as a Chrome trace. Invariant: a profiled run computes what any other run does.
 */
import type { Device, OpTensor, OpTiming } from "../../device/device.js";
import type { Compiled } from "../compile/compile.js";

/** One run of a plan. */
export interface ProfiledRun {
  /** On the clock of the caller, in microseconds. */
  startUs: number;
  ops: OpTiming[];
}

export interface ProfileOptions {
  compiled: Compiled;
  /** Start values; zeros otherwise. */
  parameters?: Float32Array;
  inputs: Uint8Array | Int32Array;
  labels: Int32Array;
  /** Runs that are recorded, after `warmUp` ones that are not (default 2): they touch fresh memory. */
  runs: number;
  warmUp?: number;
}

/** Runs a step over one batch and times each of its operations. */
export async function profileStep(device: Device, options: ProfileOptions, modules: { nowUs: () => number }): Promise<ProfiledRun[]> {
  const { compiled, parameters, inputs, labels, runs, warmUp = 2 } = options;
  const plan = device.createPlan(compiled.spec);
  try {
    if (parameters) plan.write(compiled.tensors.parametersFlat, parameters);
    plan.write(compiled.tensors.x, inputs);
    plan.write(compiled.tensors.labels, labels);
    for (let i = 0; i < warmUp; i++) await plan.run();
    const profiled: ProfiledRun[] = [];
    for (let i = 0; i < runs; i++) profiled.push({ startUs: modules.nowUs(), ops: await plan.profile() });
    return profiled;
  } finally {
    plan.close();
  }
}

export interface OpSummary {
  op: string;
  /** In one run. */
  calls: number;
  /** Of one run, in microseconds: the mean over all runs. */
  totalUs: number;
  /** Of all operations' time, 0 to 1. */
  share: number;
  /** Undefined where an operation is bound by memory. */
  gflopsPerSecond?: number;
  gigabytesPerSecond: number;
}

/** One line for each kind of operation, the longest first. */
export function summarizeOps(runs: readonly ProfiledRun[]): OpSummary[] {
  const all = runs.flatMap(({ ops }) => ops);
  const total = all.reduce((sum, { durationUs }) => sum + durationUs, 0);
  const groups = new Map<string, { calls: number; us: number; flops: number; bytes: number }>();
  for (const { op, durationUs, flops, bytes } of all) {
    const group = groups.get(op) ?? { calls: 0, us: 0, flops: 0, bytes: 0 };
    groups.set(op, { calls: group.calls + 1, us: group.us + durationUs, flops: group.flops + flops, bytes: group.bytes + bytes });
  }
  const perSecond = (amount: number, us: number): number => (us > 0 ? amount / us / 1e3 : 0); // 10^9 a second
  return [...groups].map(([op, { calls, us, flops, bytes }]) => ({
    op, calls: calls / runs.length, totalUs: us / runs.length, share: total > 0 ? us / total : 0,
    ...(flops > 0 && { gflopsPerSecond: perSecond(flops, us) }), gigabytesPerSecond: perSecond(bytes, us),
  })).sort((a, b) => b.totalUs - a.totalUs);
}

interface TraceEvent {
  name: string;
  ph: "X" | "M";
  pid: number;
  tid: number;
  ts?: number;
  dur?: number;
  cat?: string;
  args: Record<string, string | number>;
}

export interface ChromeTrace {
  traceEvents: TraceEvent[];
  displayTimeUnit: "ms";
}

const PROCESS = 1, THREAD = 1;
const typeOf = ({ dtype, shape }: OpTensor): string => `${dtype}(${shape.join(", ")})`;

/**
 * Trace Event Format (Duffy et al., "Trace Event Format", Chromium), as Perfetto and chrome://tracing open it:
 * one slice a run, and within it one an operation with shapes, FLOPs and bytes.
 */
export function chromeTrace(runs: readonly ProfiledRun[], names: { process: string; thread: string }): ChromeTrace {
  const label = (kind: string, name: string): TraceEvent => ({ name: kind, ph: "M", pid: PROCESS, tid: THREAD, args: { name } });
  const slice = (name: string, cat: string, ts: number, dur: number, args: TraceEvent["args"]): TraceEvent =>
    ({ name, cat, ph: "X", pid: PROCESS, tid: THREAD, ts, dur, args });
  const origin = runs[0]?.startUs ?? 0;
  const slices = runs.flatMap(({ startUs, ops }, i) => {
    const start = startUs - origin;
    const endUs = ops.reduce((end, op) => Math.max(end, op.startUs + op.durationUs), 0);
    return [slice(`step ${i + 1}`, "step", start, endUs, { operations: ops.length }), ...ops.map((op) =>
      slice(op.op, "operation", start + op.startUs, op.durationUs, {
        tensor: op.outputs[0]?.name ?? "", inputs: op.inputs.map(typeOf).join(" "), outputs: op.outputs.map(typeOf).join(" "),
        flops: op.flops, bytes: op.bytes,
      }))];
  });
  return { traceEvents: [label("process_name", names.process), label("thread_name", names.thread), ...slices], displayTimeUnit: "ms" };
}
