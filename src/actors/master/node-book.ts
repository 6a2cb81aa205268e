// Owns what a master knows of the nodes that joined it.
// Invariant: one entry an account; a node that is down keeps its entry and is no candidate.
import type { Address } from "viem";
import type { Capability } from "../../scheduler/index.js";
import type { NodeAddress, Role } from "../node/config.js";

/** Accounts are cheap to make; a master keeps no more of them than this. */
const NODES_MAX = 10_000;

export interface KnownNode {
  role: Role;
  name: string;
  /** Checksummed account address. */
  account: Address;
  nodeId: string;
  listen: NodeAddress;
  memoryBytes: number;
  capability?: Capability;
  grade?: number;
}

export class NodeBook {
  private readonly nodes = new Map<string, KnownNode>();

  put(node: KnownNode): void {
    const key = node.account.toLowerCase();
    if (!this.nodes.has(key) && this.nodes.size >= NODES_MAX) {
      const oldest = this.nodes.keys().next().value!;
      this.nodes.delete(oldest);
    }
    this.nodes.delete(key);
    this.nodes.set(key, node);
  }

  get(account: string): KnownNode | undefined {
    return this.nodes.get(account.toLowerCase());
  }

  byNodeId(nodeId: string): KnownNode | undefined {
    for (const node of this.nodes.values()) if (node.nodeId === nodeId) return node;
    return undefined;
  }

  all(): KnownNode[] {
    return [...this.nodes.values()];
  }

  ofRole(role: Role): KnownNode[] {
    return this.all().filter((node) => node.role === role);
  }
}
