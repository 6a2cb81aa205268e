/**
 * Owns: the partition of a graph by device: which nodes each device runs, and which values cross.
 * Invariant: every node is in exactly one part; an edge is a transfer exactly when its ends are in
 * different parts, and a value crosses to one device once however many nodes read it there.
 */
import type { Graph } from "./graph.js";

export interface Transfer {
  node: number;
  from: string;
  to: string;
}

export interface Partition {
  /** Device name ("" = unplaced) -> node ids in creation order. */
  parts: Map<string, number[]>;
  transfers: Transfer[];
}

export function partition(graph: Graph): Partition {
  const parts = new Map<string, number[]>();
  const transfers = new Map<string, Transfer>();
  for (const { id, device, inputs } of graph.nodes) {
    const part = parts.get(device);
    if (part === undefined) parts.set(device, [id]);
    else part.push(id);
    for (const input of inputs) {
      const from = graph.nodes[input]!.device;
      if (from !== device) transfers.set(`${input}>${device}`, { node: input, from, to: device });
    }
  }
  return { parts, transfers: [...transfers.values()] };
}
