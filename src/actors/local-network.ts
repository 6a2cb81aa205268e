// Owns a whole network on one machine: keys, genesis, configs, one process a role, and their end.
// Invariant: nothing of it collides with another network on the machine (sockets live in a folder of
// their own, ports are chosen by the system unless asked for), and stop() leaves no process and no file
// but the data folder that was asked for.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { bytesToHex, type Address, type Hex } from "viem";
import { privateKeyToAddress } from "viem/accounts";
import blst from "@chainsafe/blst";
import { curveKeys } from "../runtime/index.js";
import { createDevnetGenesis } from "../chain/index.js";
import { distFileOf } from "./node/dist-file.js";
import { ProcessSupervisor, type ProcessEvent } from "./node/process-supervisor.js";
import { createRunDirectory, removeRunDirectory } from "./node/run-directory.js";
import type { NodeAddress, NodeConfig, Role } from "./node/config.js";

const TSR = 10n ** 18n;
/** Devnet stakes and purses: enough for every pledge of a demo, tiny beside the supply. */
const VALIDATOR_STAKE = 100_000n * TSR;
const MASTER_PLEDGE = 50_000n * TSR;
const PURSE = 10_000n * TSR;
const CLIENT_PURSE = 100_000n * TSR;
/** Seconds on an idle machine; this for one whose cores others hold. */
const READY_TIMEOUT_MS = 150_000;

export interface LocalNetworkOptions {
  /** Folder that outlives the network; without it everything lives and dies with the run folder. */
  dataDir?: string;
  posNodes: number;
  workers: number;
  blockTimeMs: number;
  /** Port of the master's JSON-RPC; 0 lets the system choose. */
  rpcPort: number;
  backend: "auto" | "cpu" | "cuda";
  threads: number;
  /** Start processes again when they die. */
  restart: boolean;
  pow: NodeConfig["pow"];
  chainId: number;
}

interface Identity {
  role: Role;
  name: string;
  privateKey: Hex;
  address: Address;
  curve: { publicKey: string; secretKey: string };
  blsSecretKey?: Hex;
  blsPublicKey?: Hex;
}

/** What a later start of the same data folder needs to be the same network. */
interface NetworkFile {
  version: 1;
  chainId: number;
  identities: Identity[];
  client: { privateKey: Hex; address: Address };
}

export type LocalNetworkEvent = ProcessEvent;

export class LocalNetwork {
  readonly identities: Identity[];
  readonly clientKey: Hex;
  rpcUrl: string | undefined;

  private constructor(
    readonly runDir: string, readonly dataDir: string, private readonly file: NetworkFile,
    private readonly supervisor: ProcessSupervisor, private readonly ready: Map<string, PromiseWithResolver>,
  ) {
    this.identities = file.identities;
    this.clientKey = file.client.privateKey;
  }

  /** Creates (or reopens) the network's files, starts its processes and waits until all are ready. */
  static async start(
    options: LocalNetworkOptions, onEvent: (event: LocalNetworkEvent) => void, signal?: AbortSignal,
  ): Promise<LocalNetwork> {
    const runDir = createRunDirectory();
    try {
      const dataDir = options.dataDir ?? join(runDir, "data");
      mkdirSync(join(dataDir, "logs"), { recursive: true, mode: 0o700 });
      const file = loadOrCreate(dataDir, options);
      const ready = new Map(file.identities.map(({ name }) => [name, promiseWithResolver()]));
      let network: LocalNetwork | undefined;
      const supervisor = new ProcessSupervisor((event) => {
        if (event.type === "ready") {
          const info = event.info as { rpcUrl?: string };
          if (network && info.rpcUrl) network.rpcUrl = info.rpcUrl;
          ready.get(event.name)?.resolve();
        } else if (event.type === "gave-up" || (event.type === "exited" && event.code === 2)) {
          ready.get(event.name)?.reject(new Error(lastWords(join(dataDir, "logs", `${event.name}.log`), event.name)));
        }
        onEvent(event);
      });
      network = new LocalNetwork(runDir, dataDir, file, supervisor, ready);
      process.on("exit", network.onExit);
      for (const identity of file.identities) network.launch(identity, options);
      await network.whenReady(signal);
      return network;
    } catch (error) {
      removeRunDirectory(runDir);
      throw error;
    }
  }

  get chainId(): number {
    return this.file.chainId;
  }

  get master(): NodeAddress {
    return this.addressOf(this.identities.find(({ role }) => role === "master")!);
  }

  pidOf(name: string): number | undefined {
    return this.supervisor.pidOf(name);
  }

  /** Ends one process by signal; it is started again if the network restarts processes. */
  kill(name: string, signal: NodeJS.Signals): boolean {
    return this.supervisor.kill(name, signal);
  }

  logOf(name: string): string {
    return join(this.dataDir, "logs", `${name}.log`);
  }

  async stop(): Promise<void> {
    await this.supervisor.stop();
    process.removeListener("exit", this.onExit);
    removeRunDirectory(this.runDir);
  }

  /** The last resort, when this process ends without stop(): nothing may outlive it. */
  private readonly onExit = (): void => {
    this.supervisor.killAll();
    removeRunDirectory(this.runDir);
  };

  private async whenReady(signal?: AbortSignal): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      signal?.addEventListener("abort", () => reject(new DOMException("interrupted", "AbortError")), { once: true });
      if (signal?.aborted) reject(new DOMException("interrupted", "AbortError"));
      timer = setTimeout(() => reject(new Error(`the network was not ready within ${READY_TIMEOUT_MS / 1000} s`)), READY_TIMEOUT_MS);
    });
    try {
      await Promise.race([Promise.all([...this.ready.values()].map(({ promise }) => promise)), late]);
    } catch (error) {
      await this.supervisor.stop();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  private addressOf(identity: Identity): NodeAddress {
    return { endpoint: `ipc://${join(this.runDir, identity.name)}.sock`, serverKey: identity.curve.publicKey };
  }

  private launch(identity: Identity, options: LocalNetworkOptions): void {
    const config: NodeConfig = {
      role: identity.role, name: identity.name,
      dataDir: join(this.dataDir, identity.name),
      listen: this.addressOf(identity).endpoint,
      // gradients and parameters of one host stay in sockets of a folder that only this user may enter:
      // CURVE there costs two thirds of the throughput and keeps nobody out whom the folder lets in
      plain: identity.role === "ps",
      curve: identity.curve, privateKey: identity.privateKey, blsSecretKey: identity.blsSecretKey,
      genesis: join(this.dataDir, "genesis.json"),
      bootstrap: identity.role === "master" ? [] : [this.master],
      rpc: identity.role === "master" ? { host: "127.0.0.1", port: options.rpcPort } : undefined,
      compute: { backend: options.backend, threads: options.threads },
      pow: options.pow,
    };
    mkdirSync(config.dataDir, { recursive: true, mode: 0o700 });
    const path = join(this.runDir, `${identity.name}.json`);
    writeFileSync(path, JSON.stringify(config, null, 2), { mode: 0o600 });
    this.supervisor.start({
      name: identity.name, script: distFileOf("cli/main.js"), args: ["node", "--config", path],
      logFile: this.logOf(identity.name), restart: options.restart,
    });
  }
}

function loadOrCreate(dataDir: string, options: LocalNetworkOptions): NetworkFile {
  const path = join(dataDir, "network.json");
  const existing = readIfThere(path);
  if (existing) return JSON.parse(existing) as NetworkFile;
  const roles: [Role, string][] = [
    ["master", "master"],
    ...Array.from({ length: options.posNodes }, (_, i): [Role, string] => ["pos", `pos-${i + 1}`]),
    ["pow", "pow"], ["ps", "ps"],
    ...Array.from({ length: options.workers }, (_, i): [Role, string] => ["worker", `worker-${i + 1}`]),
  ];
  const identities = roles.map(([role, name]) => createIdentity(role, name));
  const client = { privateKey: bytesToHex(randomBytes(32)), address: "0x" as Address };
  client.address = privateKeyToAddress(client.privateKey);
  const genesis = createDevnetGenesis({
    chainId: options.chainId, blockTimeMs: options.blockTimeMs, timestampMs: Date.now(),
    validators: identities.filter(({ role }) => role === "pos").map(({ address, blsPublicKey }) => ({
      address, blsPublicKey: blsPublicKey!, stake: VALIDATOR_STAKE,
    })),
    masters: identities.filter(({ role }) => role === "master").map(({ address, blsPublicKey, curve }) => ({
      address, blsPublicKey: blsPublicKey!, transportKey: curve.publicKey, pledge: MASTER_PLEDGE,
    })),
    allocations: [
      ...identities.map(({ address }) => ({ address, amount: PURSE })),
      { address: client.address, amount: CLIENT_PURSE },
    ],
  });
  const file: NetworkFile = { version: 1, chainId: options.chainId, identities, client };
  writeFileSync(join(dataDir, "genesis.json"), JSON.stringify(genesis), { mode: 0o600 });
  writeFileSync(path, JSON.stringify(file, null, 2), { mode: 0o600 });
  return file;
}

function createIdentity(role: Role, name: string): Identity {
  const privateKey = bytesToHex(randomBytes(32));
  const identity: Identity = { role, name, privateKey, address: privateKeyToAddress(privateKey), curve: curveKeys() };
  if (role === "pos" || role === "master") {
    const secret = blst.SecretKey.fromKeygen(randomBytes(32));
    identity.blsSecretKey = bytesToHex(secret.toBytes());
    identity.blsPublicKey = bytesToHex(secret.toPublicKey().toBytes());
  }
  return identity;
}

interface PromiseWithResolver { promise: Promise<void>; resolve: () => void; reject: (error: Error) => void }
function promiseWithResolver(): PromiseWithResolver {
  let resolve!: () => void;
  let reject!: (error: Error) => void;
  const promise = new Promise<void>((yes, no) => { resolve = yes; reject = no; });
  promise.catch(() => undefined); // awaited in whenReady; a later failure is told by events
  return { promise, resolve, reject };
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

function lastWords(logFile: string, name: string): string {
  const lines = (readIfThere(logFile) ?? "").trim().split("\n").filter(Boolean);
  return `${name} did not start: ${lines.at(-1) ?? "it wrote nothing"}`;
}
