// Owns: one process's door to the simulated network. Invariant: same contract as every Transport; what its process
// may still hold after a crash leads nowhere.
import { RuntimeError } from "../core/failure.js";
import type { BindOptions, BoundSocket, Channel, DialedChannel, DialOptions, SendOutcome, Transport } from "../remote/transport.js";
import type { Binding, SimNetwork } from "./network.js";
import type { SimProcess } from "./scheduler.js";

/** Ports that the system chooses begin here (RFC 6335, dynamic ports). */
const DYNAMIC_PORT_MIN = 49_152;
/** A dead process hears nothing any more, not even that a send failed. */
const NEVER = new Promise<SendOutcome>(() => undefined);

export class SimTransport implements Transport {
  readonly #network: SimNetwork;
  readonly #process: SimProcess;

  constructor(network: SimNetwork, process: SimProcess) {
    this.#network = network;
    this.#process = process;
  }

  dial(options: DialOptions): DialedChannel {
    const process = this.#process;
    if (!process.isAlive) return { id: new Uint8Array(17), send: () => NEVER, close: () => undefined };
    const network = this.#network;
    let isOver = false;
    const connection = network.dial(process, {
      ...options,
      onFrame: (parts) => {
        if (!isOver) options.onFrame(parts);
      },
      onLost: (failure) => {
        if (isOver) return;
        isOver = true;
        options.onLost(failure);
      },
    });
    return {
      id: connection.id,
      send: (parts) => whileAlive(process, network.sendUp(connection, parts)),
      close: (isGraceful) => {
        isOver = true;
        network.hangUp(connection, isGraceful);
      },
    };
  }

  async bind(options: BindOptions): Promise<BoundSocket> {
    const process = this.#process;
    const network = this.#network;
    if (!process.isAlive) return new Promise<never>(() => undefined);
    const endpoint = this.#resolve(options.endpoint);
    if (network.isBound(endpoint)) {
      throw new RuntimeError("listen-failed", `cannot listen on ${endpoint}: another process listens there`, "stop it or use another");
    }
    const binding: Binding = network.bind(endpoint, process, options);
    return {
      endpoint,
      channel: (id): Channel => {
        const idKey = Buffer.from(id).toString("latin1");
        return {
          send: (parts) => whileAlive(process, network.sendDown(binding, idKey, parts)),
          close: () => undefined, // a listener cannot hang up on one connection
        };
      },
      close: async (isGraceful) => network.unbind(binding, isGraceful),
    };
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #resolve(endpoint: string): string {
    const open = /^(tcp:\/\/.+):(0|\*)$/.exec(endpoint);
    if (open === null) return endpoint;
    for (let port = DYNAMIC_PORT_MIN; ; port++) if (!this.#network.isBound(`${open[1]}:${port}`)) return `${open[1]}:${port}`;
  }
}

/** No outcome is seen by a process that has died meanwhile. */
function whileAlive(process: SimProcess, outcome: Promise<SendOutcome>): Promise<SendOutcome> {
  return outcome.then((value) => (process.isAlive ? value : NEVER));
}
