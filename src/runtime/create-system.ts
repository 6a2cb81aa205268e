// Owns: the public face of a system: local actors plus, when asked for, the network.
// Invariant: a system that never listens or connects opens no socket and loads no native code.
import { createNodeHost } from "./host/node-host.js";
import type { Clock, Host, Logger, Metrics } from "./host/host.js";
import { SystemCore, type ShutdownOptions, type ShutdownReport } from "./core/system.js";

export interface SystemOptions {
  readonly name: string;
  readonly logger?: Logger;
  readonly clock?: Clock;
  readonly random?: (sizeBytes: number) => Uint8Array;
  readonly metrics?: Metrics;
  readonly tasks?: Host["tasks"];
}

export class System extends SystemCore {
  override async shutdown(options: ShutdownOptions = {}): Promise<ShutdownReport> {
    return super.shutdown(options);
  }
}

export function createSystem(options: SystemOptions): System {
  const { name, ...parts } = options;
  return new System(name, createNodeHost(name, parts));
}
