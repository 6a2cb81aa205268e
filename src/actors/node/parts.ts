// Owns what the parts of a node share: its configuration, links, and what it has to close.
import type { Genesis } from "../../chain/index.js";
import type { Device } from "../../device/device.js";
import type { AnyProtocol, Behavior, Logger, System } from "../../runtime/index.js";
import type { NodeConfig } from "./config.js";
import type { Links } from "./links.js";
import type { NodeWorld } from "./world.js";

export class NodeStartError extends Error {
  constructor(readonly code: "genesis" | "listen" | "chain" | "device", message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "NodeStartError";
  }
}

export interface Parts {
  config: NodeConfig;
  log: Logger;
  system: System;
  links: Links;
  genesis: Genesis;
  closers: (() => Promise<void> | void)[];
  now: () => number;
  world: NodeWorld;
  /** Ends the node with a reason that no restart of an actor mends. */
  fail: (error: Error) => void;
}

/** Role actors by their name below the supervisor. */
export type Children = Map<string, Behavior<AnyProtocol>>;

export interface Role {
  rpcUrl: string | undefined;
  /** Done before each join: a worker registers on the chain first. */
  beforeJoin?: () => Promise<void>;
  isChainNode: boolean;
}

/** The device of this node's configuration; closed with the node. */
export function openComputeDevice(parts: Parts): Device {
  const { compute } = parts.config;
  const device = parts.world.openDevice({ backend: compute.backend, threads: compute.threads, gpu: compute.gpu });
  parts.closers.push(() => device.close());
  return device;
}
