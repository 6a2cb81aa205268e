// Owns: a long run: hours of the workload under periodic faults, and between them rests in which nothing may be held.
// Invariant: at every rest all that messages, calls, watches, timers and links took has been given back, and the heap
// is where it was after the first rests.
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { MIXED_FAULTS, type SimFaultOptions } from "../faults.js";
import { Workload, type Profile } from "./workload.js";

export interface SoakOptions {
  readonly seed: number;
  readonly hours: number;
  readonly onProgress?: (text: string) => void;
}

export interface SoakResult {
  readonly seed: number;
  readonly virtualHours: number;
  readonly events: number;
  readonly hash: string;
  readonly violations: readonly string[];
  readonly rests: readonly Rest[];
  readonly counts: Readonly<Record<string, number>>;
}

export interface Rest {
  readonly atHours: number;
  readonly heapBytes: number;
  readonly bufferBytes: number;
  readonly timers: number;
  readonly plannedEvents: number;
}

const HOUR_MS = 3_600_000;
/** At least so many rests, however short the run: growth needs points to show. */
const RESTS_MIN = 6;
/** Links are whole again, calls have timed out, stalled processes have caught up. */
const REST_MS = 40_000;
/** Code and shapes are warm by then. */
const WARM_RESTS = 2;
/** What a garbage collector leaves differs by this much from one look to the next. */
const HEAP_SLACK_BYTES = 8 * 1024 * 1024;
/** What the pools of all lanes keep differs by as much: 1 to 24 MiB were seen at the rests of a day without growth. */
const BUFFER_SLACK_BYTES = 24 * 1024 * 1024;
/** A node at rest: its driver's step, the heartbeat, an actor waiting for its restart or respawn. */
const TIMERS_PER_NODE_MAX = 8;

/** Slower than the seeds' faults: a node lives for minutes, so that what it collects has time to grow. */
const FAULTS: SimFaultOptions = {
  ...MIXED_FAULTS, cutEveryMs: 40_000, halfOpenEveryMs: 150_000, clogEveryMs: 30_000, partitionEveryMs: 120_000,
  crashEveryMs: 600_000, stallEveryMs: 60_000, replayEveryMs: 20_000,
};

const PROFILE: Profile = {
  name: "soak", faults: FAULTS, network: { latencyMs: [0.1, 2], busyChance: 0.01, lossChance: 0.0001 }, tensorChance: 0.005,
  paceMs: [100, 2_000], takesWatchesBack: true,
};

export async function runSoak(options: SoakOptions): Promise<SoakResult> {
  const { seed, hours, onProgress } = options;
  const workload = new Workload({ seed }, PROFILE);
  const { sim, oracle } = workload;
  const totalMs = hours * HOUR_MS;
  const count = Math.max(RESTS_MIN, Math.ceil(hours));
  const collect = garbageCollector();
  const rests: Rest[] = [];
  try {
    workload.start();
    for (let i = 1; i <= count && oracle.violations.length === 0; i++) {
      if (i > 1) workload.resume();
      await sim.run(Math.max(0, (totalMs * i) / count - REST_MS - sim.nowMs));
      workload.pause();
      await sim.run(REST_MS);
      checkRest(workload);
      oracle.forgetSettled();
      collect();
      const { heapUsed, arrayBuffers } = process.memoryUsage();
      const timers = [...sim.nodes.values()].reduce((sum, node) => sum + node.pendingWork.timers, 0);
      rests.push({ atHours: sim.nowMs / HOUR_MS, heapBytes: heapUsed, bufferBytes: arrayBuffers, timers, plannedEvents: sim.scheduler.pendingEvents });
      onProgress?.(`${(sim.nowMs / HOUR_MS).toFixed(1)} h: heap ${mebibytes(heapUsed)}, buffers ${mebibytes(arrayBuffers)}, ${timers} timers, ${sim.eventCount} events`);
    }
    checkGrowth(rests, (text) => oracle.violate(text));
    await workload.finish();
  } catch (error) {
    oracle.violate(`the soak failed: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
  }
  return { seed, virtualHours: sim.nowMs / HOUR_MS, events: sim.eventCount, hash: sim.hash, violations: oracle.violations, rests, counts: oracle.counts };
}

/** Nothing is under way, so nothing may be held. */
function checkRest({ sim, oracle }: Workload): void {
  if (oracle.openCount > 0) oracle.violate(`${oracle.openCount} calls are open at rest`);
  for (const node of sim.nodes.values()) {
    const { timers, tasks } = node.pendingWork;
    if (timers > TIMERS_PER_NODE_MAX) oracle.violate(`${node.name} has ${timers} timers at rest, expected at most ${TIMERS_PER_NODE_MAX}`);
    if (tasks > 0) oracle.violate(`${node.name} has ${tasks} tasks at rest`);
    for (const system of node.systems) {
      const { callsPending, actors } = system.inspect();
      if (callsPending > 0) oracle.violate(`${node.name} has ${callsPending} pending calls at rest`);
      const queued = actors.flatMap(({ children, queueDepth }) => [queueDepth, ...children.map((child) => child.queueDepth)]);
      if (queued.some((depth) => depth > 0)) oracle.violate(`${node.name} has queued messages at rest: ${queued.join(", ")}`);
      for (const link of system.links()) {
        const bytes = link.lanes.reduce((sum, lane) => sum + lane.queuedBytes, 0);
        if (bytes > 0) oracle.violate(`${node.name} has ${bytes} bytes in its outbox at rest`);
      }
    }
  }
}

/**
 * Growth is what even the lowest of the later rests has over the highest of the earlier ones: from one rest to the next
 * the buffers that pools keep go up and down by 20 MiB.
 */
function checkGrowth(rests: readonly Rest[], violate: (text: string) => void): void {
  const half = Math.floor((rests.length - WARM_RESTS) / 2);
  if (half < 1) return;
  const early = rests.slice(WARM_RESTS, WARM_RESTS + half);
  const late = rests.slice(-half);
  const grown = (of: (rest: Rest) => number): number => Math.min(...late.map(of)) - Math.max(...early.map(of));
  const span = `between the hours up to ${early.at(-1)!.atHours.toFixed(1)} and those from ${late[0]!.atHours.toFixed(1)} on`;
  const heap = grown((rest) => rest.heapBytes);
  const buffers = grown((rest) => rest.bufferBytes);
  if (heap > HEAP_SLACK_BYTES) violate(`the heap grew by ${mebibytes(heap)} ${span}`);
  if (buffers > BUFFER_SLACK_BYTES) violate(`buffers grew by ${mebibytes(buffers)} ${span}`);
}

/** The collector without a flag on the command line. */
function garbageCollector(): () => void {
  setFlagsFromString("--expose_gc");
  return runInNewContext("gc") as () => void;
}

function mebibytes(bytes: number): string {
  return `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
}
