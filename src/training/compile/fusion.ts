/**
 * Owns: which nodes of a graph become one plan op: a product followed by bias, activation (or the
 * activation's gradient) and the sum with a residual; a convolution followed by bias and ReLU.
 * Invariant: the fused op gives the bits of the separate ones. A node that is absorbed is read by the
 * next of its chain alone, except for what an activation reads, which the product can store beside
 * its result; then all other readers come after the chain's last node, where the op is emitted.
 */
import type { GraphNode } from "../graph/graph.js";

/** A reader that is no node: the value is wanted at the end. */
export const OUTSIDE = -1;

/** The flags by which a plan's product knows its activation. */
type Activation = "relu" | "gelu" | "geluTanh" | "silu";

export interface Fusion {
  producer: GraphNode;
  bias?: number;
  activation?: Activation;
  /** Node that the activation's derivative is taken at: the product is multiplied by it. */
  before?: number;
  residual?: number;
  /** Node that is read elsewhere and stored beside the result. */
  saved?: number;
  /** Nodes that are not lowered on their own. */
  parts: readonly number[];
}

export interface FusionInput {
  nodes: readonly GraphNode[];
  /** Whether a node's value is computed here: wanted, and not fed. */
  isFree: (id: number) => boolean;
  /** Who reads each node, once a use. */
  readers: readonly (readonly number[])[];
  /** Nodes that write variables: fused, a product moves down to its chain's end, but never past one of them. */
  writes: readonly number[];
  /** Sums that are formed in another way. */
  taken: ReadonlySet<number>;
}

function activationOf({ op, attributes }: GraphNode): { activation: Activation; isGradient: boolean } | undefined {
  const isGradient = op.endsWith("Grad");
  const name = isGradient ? op.slice(0, -"Grad".length) : op;
  if (name === "gelu") return { activation: attributes.tanh ? "geluTanh" : "gelu", isGradient };
  return name === "relu" || name === "silu" ? { activation: name, isGradient } : undefined;
}

/** @returns the fusions by the node whose value they give, the last of each chain. */
export function findFusions({ nodes, isFree, readers, writes, taken }: FusionInput): Map<number, Fusion> {
  const found = new Map<number, Fusion>();
  /** The chain that ends at `id`, when it may go on to the node `last`. */
  const chainAt = (id: number, last: number): Fusion | undefined => {
    const node = nodes[id]!;
    if (!isFree(id)) return undefined;
    const isProduct = node.op === "matmul" || node.op === "conv2d";
    const chain = found.get(id) ?? (isProduct ? { producer: node, parts: [] } : undefined);
    return writes.some((write) => write > (chain?.producer.id ?? id) && write < last) ? undefined : chain;
  };
  const isOwned = (id: number): boolean => readers[id]!.length === 1;
  const comesAfter = (saved: number, chain: readonly number[], last: number): boolean =>
    readers[saved]!.every((reader) => reader > last || chain.includes(reader));
  const extend = (node: GraphNode, previous: number, with_: Omit<Fusion, "producer" | "parts">): void => {
    const chain = chainAt(previous, node.id)!;
    found.delete(previous);
    found.set(node.id, { ...chain, ...with_, parts: [...chain.parts, previous] });
  };

  for (const node of nodes) {
    if (!isFree(node.id)) continue;
    const first = node.inputs[0] ?? OUTSIDE;
    const chain = first === OUTSIDE ? undefined : chainAt(first, node.id);
    const step = activationOf(node);
    if (node.op === "biasAdd") {
      const bias = node.inputs[1]!;
      const isPlain = chain !== undefined && chain.bias === undefined && chain.activation === undefined && chain.residual === undefined;
      if (isPlain && isOwned(first) && nodes[bias]!.shape.length === 1 && bias !== first) extend(node, first, { bias });
    } else if (step !== undefined) {
      const { activation, isGradient } = step;
      if (chain === undefined || chain.activation !== undefined || chain.residual !== undefined) continue;
      if (chain.producer.op === "conv2d" && (isGradient || activation !== "relu" || !isOwned(first))) continue;
      if (isGradient) {
        const before = node.inputs[1]!;
        if (isOwned(first) && before !== first) extend(node, first, { activation, before });
      } else if (isOwned(first)) {
        extend(node, first, { activation });
      } else if (comesAfter(first, [node.id], node.id)) {
        extend(node, first, { activation, saved: first });
      }
    } else if (node.op === "add" && !taken.has(node.id) && node.inputs[0] !== node.inputs[1]) {
      // The later of two products takes the other one's value, which is there by then.
      const ends = [...node.inputs].sort((a, b) => b - a);
      const end = ends.find((id) => {
        const candidate = chainAt(id, node.id);
        return candidate !== undefined && candidate.producer.op === "matmul" && candidate.residual === undefined && isOwned(id) &&
          (candidate.saved === undefined || comesAfter(candidate.saved, [id], node.id));
      });
      if (end !== undefined) extend(node, end, { residual: node.inputs.find((id) => id !== end)! });
    }
  }
  return found;
}
