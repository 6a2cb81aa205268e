/**
 * Owns: how the flat parameter vector is cut among several parameter servers.
 * Invariant: the ranges are contiguous, cover the vector once, and begin at a multiple of 64 bytes,
 * so that a shard starts on a cache line and on the kernels' vector boundary.
 */
import type { ParameterSlot } from "../compile/layout.js";
import { TrainingError } from "../errors.js";

/** float32 elements of 64 bytes. */
const ALIGNMENT = 16;

export interface ShardRange {
  /** First element. */
  from: number;
  /** One past the last. */
  to: number;
}

/**
 * Server i of `servers` holds [from, to): sizes differ by at most 64 bytes.
 * Throws TrainingError "option" where a server would get nothing.
 */
export function shardRanges(parameterCount: number, servers: number): ShardRange[] {
  const blocks = Math.ceil(parameterCount / ALIGNMENT);
  if (!Number.isSafeInteger(parameterCount) || !Number.isSafeInteger(servers) || servers < 1 || blocks < servers) {
    throw new TrainingError("option",
      `${parameterCount} parameters cannot be cut among ${servers} servers: each needs at least ${ALIGNMENT}`,
      { parameterCount, servers });
  }
  const start = (server: number): number => Math.min(parameterCount, Math.floor((server * blocks) / servers) * ALIGNMENT);
  return Array.from({ length: servers }, (_, server) => ({ from: start(server), to: start(server + 1) }));
}

/**
 * The parameters that lie in a range, by their place in it: whole ones as they are, a part that is cut off as
 * the vector "name[first:end]" of the parameter's elements.
 */
export function slotsInRange(parameters: readonly ParameterSlot[], { from, to }: ShardRange): ParameterSlot[] {
  return parameters.flatMap((slot) => {
    const first = Math.max(from, slot.offset) - slot.offset, end = Math.min(to, slot.offset + slot.size) - slot.offset;
    if (end <= first) return [];
    const place = { ...slot, offset: slot.offset + first - from };
    if (end - first === slot.size) return [place];
    return [{ ...place, name: `${slot.name}[${first}:${end}]`, shape: [end - first], size: end - first }];
  });
}
