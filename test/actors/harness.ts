// A network of real processes for a test, small data whose learning is visible, and doors to each node's chain.
import { join } from "node:path";
import { type PublicClient } from "viem";
import { TaskClient, type ClientEvent, type TrainOutcome } from "../../src/actors/client/task-client.js";
import { CHAIN_ACTOR, ChainProtocol } from "../../src/actors/chain-node/protocol.js";
import { createChainClient } from "../../src/actors/chain-node/transactor.js";
import { LocalNetwork, type LocalNetworkEvent, type LocalNetworkOptions } from "../../src/actors/local-network.js";
import { type NodeAddress } from "../../src/actors/node/config.js";
import { demoJob, type DemoRun } from "../../src/cli/models.js";
import { openDevice, type Device } from "../../src/device/device.js";
import { createSystem, curveKeys, silentLogger, type System } from "../../src/runtime/index.js";
import { type ModelName } from "../../src/training/index.js";

export const CHAIN_ID = 7357;
/** Generous: two cores may be shared with other test files and other programs. */
export const PATIENCE_MS = 60_000;
const POLL_MS = 50;
const PIXELS = 28 * 28;

export interface Rows { images: Uint8Array; labels: Uint8Array }

/** Ten classes: a fixed random picture each, seen through noise. A model that learns gets nearly all right. */
export function syntheticRows(rows: number, seed: number): Rows {
  const prototypes = noise(1, 10 * PIXELS);
  const random = noise(seed + 2, rows * PIXELS);
  const images = new Uint8Array(rows * PIXELS);
  const labels = Uint8Array.from({ length: rows }, (_, row) => row % 10);
  for (let row = 0; row < rows; row += 1) {
    for (let i = 0; i < PIXELS; i += 1) {
      images[row * PIXELS + i] = (prototypes[labels[row]! * PIXELS + i]! + 2 * random[row * PIXELS + i]!) / 3;
    }
  }
  return { images, labels };
}

/** xorshift32: bytes from a seed. */
function noise(seed: number, count: number): Uint8Array {
  let state = (seed * 2_654_435_761) >>> 0 || 1;
  return Uint8Array.from({ length: count }, () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) & 0xff;
  });
}

/** Resolves when `check` holds; fails by naming what was waited for. */
export async function until<T>(what: string, check: () => Promise<T | undefined | false> | T | undefined | false, timeoutMs = PATIENCE_MS): Promise<T> {
  const endMs = Date.now() + timeoutMs;
  for (;;) {
    const value = await check();
    if (value !== undefined && value !== false) return value as T;
    if (Date.now() > endMs) throw new Error(`${what}: not within ${timeoutMs / 1000} s`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

export interface ChainDoor {
  client: PublicClient;
  rpc: <T>(method: string, params?: unknown[]) => Promise<T>;
  close: () => Promise<void>;
}

/** JSON-RPC of one chain node, over its actor link. */
export async function openChainDoor(address: NodeAddress): Promise<ChainDoor> {
  const system = createSystem({ name: "test-door", logger: silentLogger });
  const peer = await system.connect({ ...address, keys: curveKeys(), timeoutMs: PATIENCE_MS });
  const call = async (request: unknown): Promise<unknown> => {
    const result = await peer.ref(ChainProtocol, CHAIN_ACTOR).call("rpc", { request }, { timeoutMs: PATIENCE_MS });
    if (!result.ok) throw new Error(result.error.message);
    return result.value.response;
  };
  const client = createChainClient(call, CHAIN_ID);
  return {
    client,
    rpc: async <T>(method: string, params: unknown[] = []) =>
      await (client.request as unknown as (call: { method: string; params: unknown[] }) => Promise<unknown>)({ method, params }) as T,
    close: async () => void await system.shutdown({ deadlineMs: 500 }),
  };
}

export class TestNetwork {
  private readonly doors: ChainDoor[] = [];
  private readonly clients: TaskClient[] = [];

  private constructor(readonly network: LocalNetwork, readonly device: Device, readonly events: LocalNetworkEvent[]) {}

  static async start(overrides: Partial<LocalNetworkOptions> = {}): Promise<TestNetwork> {
    const events: LocalNetworkEvent[] = [];
    const network = await LocalNetwork.start({
      posNodes: 2, workers: 2, blockTimeMs: 500, rpcPort: 0, backend: "cpu", threads: 1, restart: true, chainId: CHAIN_ID,
      pow: { dutyCycle: 0.1, dutyCycleWhilePaidWork: 0.05 }, ...overrides,
    }, (event) => events.push(event));
    return new TestNetwork(network, openDevice({ backend: "cpu", threads: 1 }), events);
  }

  addressOf(name: string): NodeAddress {
    const { curve } = this.network.identities.find((each) => each.name === name)!;
    return { endpoint: `ipc://${join(this.network.runDir, name)}.sock`, serverKey: curve.publicKey };
  }

  accountOf(name: string): string {
    return this.network.identities.find((each) => each.name === name)!.address;
  }

  dirOf(name: string): string {
    return join(this.network.dataDir, name);
  }

  async door(name: string): Promise<ChainDoor> {
    const door = await openChainDoor(this.addressOf(name));
    this.doors.push(door);
    return door;
  }

  async client(): Promise<TaskClient> {
    const { master, clientKey } = this.network;
    const client = await TaskClient.connect({ master, privateKey: clientKey, chainId: CHAIN_ID }, { device: this.device });
    this.clients.push(client);
    return client;
  }

  /** Trains a model on synthetic rows. */
  async train(
    model: ModelName, train: Rows, run: Omit<DemoRun, "rows">,
    onEvent: (event: ClientEvent) => void = () => undefined, signal = new AbortController().signal,
  ): Promise<{ outcome: TrainOutcome; client: TaskClient }> {
    const client = await this.client();
    const job = demoJob(model, { ...run, rows: train.labels.length });
    const outcome = await client.train({ job, name: "synthetic", train, test: syntheticRows(500, 99), workers: 2 }, onEvent, signal);
    return { outcome, client };
  }

  /** kill -9, and the wait for the process that takes its place. */
  async killAndAwaitRestart(name: string): Promise<void> {
    const before = this.events.length;
    this.network.kill(name, "SIGKILL");
    await until(`${name} is ready again`, () => this.events.slice(before).some((event) => event.type === "ready" && event.name === name));
  }

  async stop(): Promise<void> {
    for (const client of this.clients) await client.close();
    for (const door of this.doors) await door.close();
    await this.network.stop();
    this.device.close();
  }
}
