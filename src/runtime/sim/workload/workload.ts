// Owns: one seed of the simulated workload: a small network of nodes whose actors exercise the runtime's protocols
// under faults, and the verdict. Invariant: everything about a run, its faults' kinds and strengths too, follows from
// the seed and the options that the replay command names.
import type { LogFields } from "../../host/host.js";
import { curveKeysFromSecret, type CurveKeys } from "../../remote/keys.js";
import type { CellReport } from "../../core/cell.js";
import type { System } from "../../create-system.js";
import type { SimEventRecord } from "../event-log.js";
import { MIXED_FAULTS, type SimFaultOptions } from "../faults.js";
import type { SimNetworkOptions } from "../network.js";
import { SimRandom } from "../random.js";
import { simRuntime, type SimBoot, type SimRuntime } from "../sim-runtime.js";
import { driver, keeper, type NodeWorld } from "./actors.js";
import { Oracle, type Sent } from "./oracle.js";
import { spawnTiers, TiersOracle } from "./tiers.js";

export interface SeedOptions {
  readonly seed: number;
  /** Virtual time with faults; default: a few seconds. */
  readonly activeMs?: number;
  readonly onEvent?: (event: SimEventRecord) => void;
}

export interface SeedResult {
  readonly seed: number;
  readonly profile: string;
  readonly hash: string;
  readonly events: number;
  readonly virtualMs: number;
  readonly violations: readonly string[];
  readonly counts: Readonly<Record<string, number>>;
  readonly tail: readonly SimEventRecord[];
}

export interface Profile {
  readonly name: string;
  readonly faults: SimFaultOptions;
  readonly network: SimNetworkOptions;
  readonly tensorChance: number;
  readonly paceMs: readonly [number, number];
  /** Every watch is taken back after a while; else most stay until they fire. */
  readonly takesWatchesBack?: boolean;
}

const NODE_NAMES = ["a", "b", "c"] as const;
export const ACTIVE_MS_DEFAULT = 2_000;
/** A stalled process comes back after 4.5 s; silence is noticed after 4, an attempt given up after 5, a pause lasts 6.5. */
const HEALED_MS = 20_000;
/** Long enough for a half-open connection to be noticed (three pings) and dialed again; most seeds are done by then. */
const HEALED_MS_MIN = 6_000;
const SETTLE_STEP_MS = 1_000;
const WATCH_TAKEN_BACK_CHANCE = 0.3;
const CHECK_EVERY_MS = 400;
const CONNECT_MS_MAX = 3_600_000;
/** Queues that wait for room hold as many again. */
const WAITING_FACTOR = 2;

/** Fixed for each name: deriving keys costs more than some whole runs of a small network. */
const keysOfNames: ReadonlyMap<string, CurveKeys> = new Map(
  NODE_NAMES.map((name) => [name, curveKeysFromSecret(Buffer.from(name.padStart(16, "-").padEnd(32, "-")).toString("hex"))]),
);

export function profileOf(seed: number): Profile {
  const random = new SimRandom(seed, "profile");
  const network: SimNetworkOptions = {
    latencyMs: random.pick([[0.05, 0.4], [0.1, 2], [5, 40], [0.1, 120]] as const), tailChance: random.pick([0, 0.01, 0.1]),
    bandwidthBytesPerMs: random.pick([2_000, 20_000, 125_000]), busyChance: random.pick([0, 0.01, 0.2]),
  };
  const common = { network, tensorChance: random.pick([0, 0.02, 0.1]), paceMs: random.pick([[3, 40], [10, 90], [30, 200]] as const) };
  const { cutEveryMs, clogEveryMs, clogMs, crashEveryMs, downMs, replayEveryMs, stallEveryMs, stallMs } = MIXED_FAULTS;
  const kinds: readonly [string, number, SimFaultOptions, SimNetworkOptions?][] = [
    ["calm", 1, {}],
    ["flaky", 2, { cutEveryMs: cutEveryMs! / 8, clogEveryMs: clogEveryMs!, clogMs: clogMs!, replayEveryMs: replayEveryMs! }, { lossChance: 0.002 }],
    ["crashes", 2, { crashEveryMs: crashEveryMs! / 12, downMs: downMs! }],
    ["stalls", 1, { stallEveryMs: stallEveryMs! / 8, stallMs: stallMs!, clogEveryMs: clogEveryMs! }],
    ["mixed", 4, hastened(MIXED_FAULTS)],
  ];
  let dice = random.below(kinds.reduce((sum, [, weight]) => sum + weight, 0));
  const [name, , faults, extra] = kinds.find(([, weight]) => (dice -= weight) < 0)!;
  return { name, faults, ...common, network: { ...network, ...extra } };
}

/** The same faults, five times as often: a run is short. */
function hastened(faults: SimFaultOptions): SimFaultOptions {
  return Object.fromEntries(
    Object.entries(faults).map(([key, value]) => [key, typeof value === "number" ? value / 5 : value]),
  ) as SimFaultOptions;
}

export class Workload {
  readonly sim: SimRuntime;
  readonly oracle: Oracle;
  readonly tiers: TiersOracle;
  readonly profile: Profile;
  #isDriving = true;
  readonly #random: SimRandom;

  constructor(options: SeedOptions, profile = profileOf(options.seed)) {
    const { seed, onEvent } = options;
    this.profile = profile;
    this.sim = simRuntime({
      seed, network: profile.network, faults: profile.faults, ...(onEvent === undefined ? {} : { onEvent }),
      onLog: (node, level, message, fields) => this.#onLog(node, level, message, fields),
    });
    this.oracle = new Oracle(() => this.sim.nowMs);
    this.tiers = new TiersOracle(this.oracle);
    this.oracle.isCalm = profile.name === "calm";
    this.#random = this.sim.random;
    this.sim.onCrash = (_node, systems) => {
      for (const { incarnation } of systems) this.oracle.crashed(incarnation);
    };
  }

  start(): void {
    for (const name of NODE_NAMES) {
      this.sim.node(name, (boot) => this.#boot(boot), { keys: keysOfNames.get(name)! });
    }
    this.#planCheck();
    this.sim.startFaults();
  }

  /** No new work, no faults. */
  pause(): void {
    this.#isDriving = false;
    this.sim.heal();
  }

  resume(): void {
    this.#isDriving = true;
    this.#planCheck();
    this.sim.startFaults();
  }

  async finish(): Promise<void> {
    this.pause();
    const endMs = this.sim.nowMs + HEALED_MS;
    await this.sim.run(HEALED_MS_MIN);
    while (this.sim.nowMs < endMs && !this.#isSettled()) await this.sim.run(SETTLE_STEP_MS);
    this.check();
    for (const node of this.sim.nodes.values()) {
      if (!node.isUp) this.oracle.violate(`${node.name} is not up after the faults were healed`);
      else for (const other of NODE_NAMES) if (other !== node.name) this.#assertLinked(node.system!, node.name, other);
    }
    const systems = [...this.sim.nodes.values()].flatMap((node) => node.systems);
    this.tiers.finish();
    await this.sim.shutdown();
    this.oracle.finish();
    for (const left of this.sim.leftovers()) this.oracle.violate(`left over at the end: ${left}`);
    for (const system of systems) {
      if (system.deadlines.size > 0) this.oracle.violate(`${system.name} keeps ${system.deadlines.size} deadlines after its end`);
    }
  }

  #isSettled(): boolean {
    const isWhole = [...this.sim.nodes.values()].every(({ isUp, name, system }) => isUp && NODE_NAMES.every(
      (other) => other === name || system?.peer(keysOfNames.get(other)!.publicKey)?.isUp === true,
    ));
    return isWhole && this.oracle.openCount === 0 && this.tiers.isSettled;
  }

  /** Bounds that hold at every moment. */
  check(): void {
    for (const node of this.sim.nodes.values()) {
      for (const system of node.systems) {
        for (const report of system.tree()) this.#checkCell(report);
        for (const link of system.links()) {
          for (const lane of link.lanes) {
            if (lane.queuedBytes < 0) this.oracle.violate(`${node.name}: an outbox of ${lane.queuedBytes} bytes`);
          }
        }
      }
    }
  }

  #checkCell(report: CellReport): void {
    if (report.queueDepth > report.queueCapacity * WAITING_FACTOR) {
      this.oracle.violate(`${report.path} holds ${report.queueDepth} messages, its capacity is ${report.queueCapacity}`);
    }
    for (const child of report.children) this.#checkCell(child);
  }

  #planCheck(): void {
    this.sim.at(this.sim.nowMs + CHECK_EVERY_MS, () => {
      this.check();
      if (this.#isDriving) this.#planCheck();
    });
  }

  #assertLinked(system: System, from: string, to: string): void {
    if (system.peer(keysOfNames.get(to)!.publicKey)?.isUp !== true) {
      this.oracle.violate(`${from} has no link to ${to} ${HEALED_MS} ms after the faults were healed`);
    }
  }

  async #boot(boot: SimBoot): Promise<void> {
    const { node, keys, endpoint } = boot;
    const system = boot.createSystem();
    const { oracle, sim } = this;
    system.deadLetters.subscribe(({ reason, message }) => {
      if (isSent(message)) oracle.deadLetter(reason, message);
    });
    const { incarnation } = system;
    let calls = 0;
    const world: NodeWorld = {
      nodeName: node.name, system, oracle, sleep: boot.sleep, random: this.#random.fork(incarnation),
      others: NODE_NAMES.filter((name) => name !== node.name).map((name) => ({ name, nodeId: keysOfNames.get(name)!.publicKey })),
      isDriving: () => this.#isDriving, tensorChance: this.profile.tensorChance, paceMs: this.profile.paceMs,
      takeBackChance: this.profile.takesWatchesBack === true ? 1 : WATCH_TAKEN_BACK_CHANCE,
      nextCall: () => (calls += 1),
    };
    system.spawn(keeper(world), { name: "keeper" });
    system.spawn(driver(world), { name: "driver" });
    spawnTiers(world, this.tiers, boot.disk.openStore("tiers"));
    await system.listen({ endpoint, keys, allow: (key) => [...keysOfNames.values()].some(({ publicKey }) => publicKey === key) });
    for (const name of NODE_NAMES.slice(NODE_NAMES.indexOf(node.name as "a") + 1)) {
      const { publicKey } = keysOfNames.get(name)!;
      const address = sim.nodes.get(name)?.endpoint ?? `tcp://${name}:7000`;
      system.connect({ endpoint: address, serverKey: publicKey, keys, timeoutMs: CONNECT_MS_MAX }).catch((error: unknown) => {
        if (!system.isShuttingDown) oracle.violate(`${node.name} cannot connect to ${name}: ${String(error)}`);
      });
    }
  }

  /** All nodes are honest and all connections keep their order: a broken frame is the runtime's own doing. */
  #onLog(node: string, level: string, message: string, fields: LogFields | undefined): void {
    if (level === "error" && message !== "restart budget used up") {
      this.oracle.violate(`${node} logged "${message}" ${describe(fields?.error)}`);
    }
    if (fields?.end === "violation") this.oracle.violate(`${node} ended a link for a violation: ${String(fields.message)}`);
    if (message === "actor failed" && !describe(fields?.error).includes("told to throw")) {
      this.oracle.violate(`${node}: ${String(fields?.actor)} failed: ${describe(fields?.error)}`);
    }
  }
}

/** Runs one seed to its end. */
export async function runSeed(options: SeedOptions): Promise<SeedResult> {
  const workload = new Workload(options);
  const { sim, oracle, profile } = workload;
  try {
    workload.start();
    await sim.run(options.activeMs ?? ACTIVE_MS_DEFAULT);
    await workload.finish();
  } catch (error) {
    oracle.violate(`the run failed: ${describe(error)}`);
  }
  return {
    seed: options.seed, profile: profile.name, hash: sim.hash, events: sim.eventCount, virtualMs: sim.nowMs,
    violations: oracle.violations, counts: { ...oracle.counts, ...prefixed("fault ", sim.faults.counts) }, tail: sim.tail(),
  };
}

function prefixed(prefix: string, counts: Record<string, number>): Record<string, number> {
  return Object.fromEntries(Object.entries(counts).map(([key, count]) => [prefix + key, count]));
}

function isSent(message: unknown): message is Sent {
  return typeof message === "object" && message !== null && "stream" in message && "from" in message;
}

function describe(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : error === undefined ? "" : String(error);
}

