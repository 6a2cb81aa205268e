// Owns: a whole network of roles in the simulator: one task is opened, trained and settled in virtual time.
// Invariant: the roles are those of real nodes; what is simulated is their machine (NodeWorld): clock, network, chain
// store, search thread. Files and kernels are real, and virtual time stands still while they work.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import blst from "@chainsafe/blst";
import { bytesToHex, type Address, type Hex } from "viem";
import { privateKeyToAddress } from "viem/accounts";
import { encodeCertificate } from "../../chain/certificate/certificate.js";
import { createMiner } from "../../chain/certificate/miner.js";
import { createDevnetGenesis } from "../../chain/index.js";
import { openDevice, type Device, type DeviceOptions } from "../../device/device.js";
import { curveKeysFromSecret, simRuntime, type SimBoot, type SimNode, type SimRuntime } from "../../runtime/index.js";
import type { SimEventRecord } from "../../runtime/sim/event-log.js";
import { SIM_EPOCH_MS, virtualizeGlobals } from "../../runtime/sim/globals.js";
import { SimRandom } from "../../runtime/sim/random.js";
import { watchRealWork, type RealWork } from "../../runtime/sim/real-work.js";
import { MODELS, optim, type Job } from "../../training/index.js";
import { TaskClient, type ClientEvent, type TrainOutcome } from "../client/task-client.js";
import type { NodeConfig, Role } from "../node/config.js";
import { startNode, type RunningNode } from "../node/node.js";
import { sleep } from "../node/sleep.js";
import type { NodeWorld } from "../node/world.js";
import { createLocalVm } from "../worker/vm/local-vm.js";

const CHAIN_ID = 7357;
const TSR = 10n ** 18n;
const PURSE = 100_000n * TSR;
const ROLES: readonly (readonly [Role, string])[] = [
  ["master", "master"], ["pos", "pos-1"], ["pos", "pos-2"], ["pow", "pow"], ["ps", "ps"], ["worker", "worker-1"], ["worker", "worker-2"],
];
/** Whom a crash hits in the middle of the run; by seed. */
const VICTIMS = ["nobody", "worker-1", "master", "pos-1", "pow"] as const;
const DOWN_MS = 1_500;
/** Share of the units after which the crash comes. */
const CRASH_SHARE = 0.25;
const BLOCK_MS = 1_000;
/** Libraries leave timers behind that wait for a receipt which has come; they end by themselves. */
const CLOSE_MS = 60_000;
const ROWS = 600;
const PIXELS = 28 * 28;
const CLASSES = 10;
/** One nonce on one core of the simulated machine. */
const SEARCH_MS = 200;
const MEMORY_BYTES = 16 * 1024 ** 3;
/** A run takes about a minute of its own time; a task's deadline is ten. */
const VIRTUAL_MS_MAX = 900_000;

export interface RoleSeedResult {
  readonly seed: number;
  readonly profile: string;
  readonly hash: string;
  readonly events: number;
  readonly virtualMs: number;
  readonly violations: readonly string[];
  readonly counts: Readonly<Record<string, number>>;
  readonly tail: readonly SimEventRecord[];
}

interface Identity {
  readonly role: Role;
  readonly name: string;
  readonly privateKey: Hex;
  readonly address: Address;
  readonly curve: { readonly publicKey: string; readonly secretKey: string };
  readonly blsSecretKey: Hex;
  readonly blsPublicKey: Hex;
}

function createIdentity(role: Role, name: string, random: SimRandom): Identity {
  const privateKey = bytesToHex(random.bytes(32));
  const bls = blst.SecretKey.fromKeygen(random.bytes(32));
  return {
    role, name, privateKey, address: privateKeyToAddress(privateKey),
    curve: curveKeysFromSecret(Buffer.from(random.bytes(32)).toString("hex")),
    blsSecretKey: bytesToHex(bls.toBytes()), blsPublicKey: bytesToHex(bls.toPublicKey().toBytes()),
  };
}

/** Pictures whose brightest stripe is their class. */
function syntheticRows(random: SimRandom): { images: Uint8Array; labels: Uint8Array } {
  const images = random.bytes(ROWS * PIXELS);
  const labels = Uint8Array.from({ length: ROWS }, (_, row) => row % CLASSES);
  const stripe = Math.floor(PIXELS / CLASSES);
  for (let row = 0; row < ROWS; row++) images.fill(255, row * PIXELS + labels[row]! * stripe, row * PIXELS + (labels[row]! + 1) * stripe);
  return { images, labels };
}

function createJob(): Job {
  const { loss, logits, correct } = MODELS.mlp();
  const operation = optim.adam({ beta1: 0.5, beta2: 0.99, epsilon: 1e-8, learningRate: 0.001 })
    .minimize(loss, { mode: "async", maxStaleness: 8, alpha: 0.1, logits, correct });
  return { operation, run: { batchSize: 50, epochs: 1, seed: 1 } };
}

class RoleNetwork {
  readonly violations: string[] = [];
  readonly counts: Record<string, number> = {};
  readonly sim: SimRuntime;
  readonly victim: (typeof VICTIMS)[number];
  readonly #random: SimRandom;
  readonly #directory = mkdtempSync(join(tmpdir(), "tesra-sim-"));
  readonly #identities: readonly Identity[];
  readonly #client: Identity;
  readonly #running = new Map<string, RunningNode>();
  #outcome: TrainOutcome | undefined;
  #ledger: { readonly total: Hex; readonly supply: Hex } | undefined;
  #isOver = false;

  readonly #realWork: RealWork;

  constructor(seed: number, realWork: RealWork, onEvent: ((event: SimEventRecord) => void) | undefined) {
    this.#realWork = realWork;
    this.#random = new SimRandom(seed, "roles");
    this.victim = VICTIMS[seed % VICTIMS.length]!;
    this.sim = simRuntime({
      seed, network: { latencyMs: [0.1, 2] }, ...(onEvent === undefined ? {} : { onEvent }),
      onLog: (node, level, message) => {
        if (level === "error") this.violations.push(`${node} logged: ${message}`);
      },
    });
    this.#identities = ROLES.map(([role, name]) => createIdentity(role, name, this.#random));
    this.#client = createIdentity("worker", "client", this.#random);
    this.#writeGenesis();
  }

  async run(): Promise<void> {
    for (const identity of this.#identities) this.#addNode(identity);
    this.sim.node("client", (boot) => this.#train(boot), { keys: this.#client.curve });
    await this.sim.run(VIRTUAL_MS_MAX, () => this.#isOver);
    this.#judge();
    const closing = [...this.#running.values()].map((node) => node.close());
    await this.sim.settle(Promise.all(closing));
    await this.sim.run(CLOSE_MS);
    for (const left of this.sim.leftovers()) this.violations.push(`left over at the end: ${left}`);
  }

  removeFiles(): void {
    rmSync(this.#directory, { recursive: true, force: true });
  }

  #writeGenesis(): void {
    const of = (role: Role): Identity[] => this.#identities.filter((each) => each.role === role);
    const genesis = createDevnetGenesis({
      chainId: CHAIN_ID, blockTimeMs: BLOCK_MS, timestampMs: SIM_EPOCH_MS,
      validators: of("pos").map(({ address, blsPublicKey }) => ({ address, blsPublicKey, stake: PURSE })),
      masters: of("master").map(({ address, blsPublicKey, curve }) => ({ address, blsPublicKey, transportKey: curve.publicKey, pledge: PURSE })),
      allocations: [...this.#identities, this.#client].map(({ address }) => ({ address, amount: PURSE })),
    });
    writeFileSync(join(this.#directory, "genesis.json"), JSON.stringify(genesis));
  }

  #addNode(identity: Identity): SimNode {
    const { role, name, curve, privateKey, blsSecretKey } = identity;
    const master = this.#identities[0]!;
    const config: NodeConfig = {
      role, name, curve, privateKey, blsSecretKey, dataDir: join(this.#directory, name), listen: `tcp://${name}:7000`, plain: false,
      genesis: join(this.#directory, "genesis.json"),
      bootstrap: role === "master" ? [] : [{ endpoint: `tcp://${master.name}:7000`, serverKey: master.curve.publicKey }],
      compute: { backend: "cpu", threads: 1 }, pow: { dutyCycle: 0.1, dutyCycleWhilePaidWork: 0.05 },
    };
    mkdirSync(config.dataDir);
    return this.sim.node(name, async (boot) => {
      const node = await startNode(config, worldOf(boot, this.#realWork));
      this.#running.set(name, node);
      node.failed.catch((error: unknown) => this.violations.push(`${name} failed: ${String(error)}`));
      node.joined.catch((error: unknown) => this.violations.push(`${name} did not join: ${String(error)}`));
    }, { keys: curve });
  }

  async #train(boot: SimBoot): Promise<void> {
    const device = openHeldDevice({ backend: "cpu", threads: 1 }, this.#realWork);
    const master = this.#identities[0]!;
    const client = await TaskClient.connect(
      { master: { endpoint: `tcp://${master.name}:7000`, serverKey: master.curve.publicKey }, privateKey: this.#client.privateKey, chainId: CHAIN_ID },
      { device, keys: boot.keys, createSystem: () => boot.createSystem() },
    );
    try {
      const request = { job: createJob(), name: "synthetic", train: syntheticRows(this.#random), workers: 2 };
      this.#outcome = await client.train(request, (event) => this.#onEvent(event), new AbortController().signal);
      this.#ledger = await (client.transactor.client.request as (call: object) => Promise<never>)({ method: "tesra_ledger", params: [] });
    } catch (error) {
      this.violations.push(`the task failed: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
    } finally {
      await client.close();
      device.close();
      this.#isOver = true;
    }
  }

  #onEvent(event: ClientEvent): void {
    const kind = event.type === "task" ? event.event.type : event.type;
    this.counts[kind] = (this.counts[kind] ?? 0) + 1;
    this.sim.note(`client ${kind}`);
    if (this.victim === "nobody" || this.counts.crashed !== undefined) return;
    if (event.type !== "task" || event.event.type !== "unit" || event.event.done < CRASH_SHARE * event.event.total) return;
    this.counts.crashed = 1;
    const node = this.sim.nodes.get(this.victim)!;
    this.#running.delete(this.victim);
    node.crash({ isPowerLoss: this.#random.chance(0.5) });
    this.sim.at(this.sim.nowMs + DOWN_MS, () => node.start());
  }

  #judge(): void {
    const fail = (text: string): void => void this.violations.push(text);
    if (this.victim !== "nobody" && this.counts.crashed === undefined) fail(`${this.victim} was never crashed: the run was too short`);
    if (this.#outcome === undefined) {
      if (this.violations.length === 0) fail(`no settlement within ${VIRTUAL_MS_MAX} ms of virtual time`);
      return;
    }
    const { account, progress } = this.#outcome;
    if (account.outcome !== "settled") fail(`the task ended as ${account.outcome}`);
    if (account.balance !== 0n) fail(`the task's account does not balance: ${account.balance}`);
    if (account.collateral !== account.price + account.fee + account.refunded && this.victim === "nobody") {
      const paid = [...account.paid.values()].reduce((sum, each) => sum + each, 0n);
      if (account.collateral !== paid + account.fee + account.refunded) fail("what went in is not what came out");
    }
    if (progress.samples !== ROWS) fail(`${progress.samples} samples were trained, ${ROWS} were asked for`);
    if (this.#ledger === undefined || this.#ledger.total !== this.#ledger.supply) fail(`the ledger is not conserved: ${JSON.stringify(this.#ledger)}`);
  }
}

/** The device's own threads are nothing that Node knows of: each asynchronous operation is held on to here. */
function openHeldDevice(options: DeviceOptions, { hold }: RealWork): Device {
  const device = openDevice(options);
  const methods = device as unknown as Record<string, (...args: unknown[]) => Promise<unknown>>;
  for (const name of Object.getOwnPropertyNames(Object.getPrototypeOf(device)).filter((each) => each.endsWith("Async"))) {
    const method = methods[name]!;
    methods[name] = (...args) => hold(method.apply(device, args));
  }
  const { createPlan } = device;
  return Object.assign(device, {
    createPlan: (...args: Parameters<typeof createPlan>) => {
      const plan = createPlan.apply(device, args);
      const { run } = plan;
      return Object.assign(plan, { run: () => hold(run.call(plan)) });
    },
  });
}

function worldOf(boot: SimBoot, realWork: RealWork): NodeWorld {
  return {
    now: () => SIM_EPOCH_MS + Math.floor(boot.nowMs()),
    sleep, // on the virtual timers
    random: boot.random, memoryBytes: MEMORY_BYTES,
    createLogger: () => boot.log,
    createSystem: ({ name }, logger) => boot.createSystem({ name, logger }),
    openDevice: (options) => openHeldDevice(options, realWork),
    openTaskVm: (_, { device }) => createLocalVm(device),
    openStore: () => Promise.resolve(boot.disk.openStore("chain")),
    openSearch: (data) => {
      const device = openHeldDevice({ backend: "cpu", threads: 1 }, realWork);
      const miner = createMiner({ device, chainId: data.chainId, privateKey: data.privateKey, dims: data.dims });
      return Promise.resolve({
        search: async (request) => {
          const { certificates, noncesTried, multiplyAdds } = await miner.mine(request);
          await boot.sleep(SEARCH_MS);
          return { certificates: certificates.map(encodeCertificate), noncesTried, multiplyAdds, busyMs: SEARCH_MS };
        },
        close: () => Promise.resolve(device.close()),
      });
    },
  };
}

/** Runs one seed of the whole network. The process needs UV_THREADPOOL_SIZE=1. */
export async function runRoleSeed(options: { readonly seed: number; readonly onEvent?: (event: SimEventRecord) => void }): Promise<RoleSeedResult> {
  const realWork = watchRealWork();
  const network = new RoleNetwork(options.seed, realWork, options.onEvent);
  const { sim } = network;
  sim.scheduler.quiesce = realWork.quiesce;
  sim.scheduler.hop = (run) => void realWork.ignore(run);
  const restoreGlobals = virtualizeGlobals(sim.scheduler, new SimRandom(options.seed, "globals"));
  try {
    await network.run();
  } catch (error) {
    network.violations.push(`the run failed: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
  } finally {
    restoreGlobals();
    realWork.stop();
    network.removeFiles();
  }
  return {
    seed: options.seed, profile: `roles, crash of ${network.victim}`, hash: sim.hash, events: sim.eventCount, virtualMs: sim.nowMs,
    violations: network.violations, counts: network.counts, tail: sim.tail(),
  };
}
