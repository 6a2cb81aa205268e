// Owns: when things go wrong: each kind of fault is a Poisson process of its own over the whole simulation.
// Invariant: `heal` ends every fault, and nothing new begins until faults are started again.
import { EventKind } from "./event-log.js";
import type { SimNetwork } from "./network.js";
import type { SimRandom } from "./random.js";
import type { Scheduler, SimEvent } from "./scheduler.js";

type Range = readonly [min: number, max: number];

/** Mean virtual time between two faults of a kind; a kind left out never happens. */
export interface SimFaultOptions {
  /** One connection ends, and both ends are told. */
  readonly cutEveryMs?: number;
  /** All connections between two nodes end, and neither end is told (a middle box forgot them). */
  readonly halfOpenEveryMs?: number;
  /** One direction between two nodes carries nothing for a moment. */
  readonly clogEveryMs?: number;
  readonly clogMs?: Range;
  /** The same for long; one direction, or both. */
  readonly partitionEveryMs?: number;
  readonly partitionMs?: Range;
  /** A node ends without a word: by kill -9 or by a power cut. Unsynced writes may be torn. It is started again later. */
  readonly crashEveryMs?: number;
  readonly downMs?: Range;
  /** A process does not run for a while, as in a long garbage collection or a stopped virtual machine. */
  readonly stallEveryMs?: number;
  readonly stallMs?: Range;
  /** An old frame comes again, on a connection of its own. */
  readonly replayEveryMs?: number;
}

/** Some of everything, as hard as a bad day in a data centre. */
export const MIXED_FAULTS: SimFaultOptions = {
  cutEveryMs: 4_000, halfOpenEveryMs: 15_000, clogEveryMs: 3_000, clogMs: [10, 800], partitionEveryMs: 12_000, partitionMs: [500, 8_000],
  crashEveryMs: 10_000, downMs: [50, 6_000], stallEveryMs: 6_000, stallMs: [20, 4_500], replayEveryMs: 2_000,
};

export interface FaultTarget {
  readonly name: string;
  readonly isUp: boolean;
  crash(options: { readonly isPowerLoss: boolean }): void;
  start(): void;
  stall(forMs: number): void;
}

export interface FaultModules {
  readonly scheduler: Scheduler;
  readonly random: SimRandom;
  readonly network: SimNetwork;
  /** Nodes that faults may hit. */
  readonly targets: () => readonly FaultTarget[];
  readonly note: (kind: string, detail: string) => void;
}

export class Faults {
  readonly #options: SimFaultOptions;
  readonly #modules: FaultModules;
  readonly #planned = new Set<SimEvent>();
  readonly #down = new Set<FaultTarget>();
  readonly counts: Record<string, number> = {};
  #isOn = false;

  constructor(options: SimFaultOptions, modules: FaultModules) {
    this.#options = options;
    this.#modules = modules;
  }

  start(): void {
    if (this.#isOn) return;
    this.#isOn = true;
    const { cutEveryMs, halfOpenEveryMs, clogEveryMs, partitionEveryMs, crashEveryMs, stallEveryMs, replayEveryMs } = this.#options;
    this.#modules.network.isLossy = true;
    this.#modules.network.isRecording = replayEveryMs !== undefined;
    this.#every("cut", cutEveryMs, () => this.#cut(false));
    this.#every("half-open", halfOpenEveryMs, () => this.#cut(true));
    this.#every("clog", clogEveryMs, () => this.#stall(this.#options.clogMs ?? [10, 500]));
    this.#every("partition", partitionEveryMs, () => this.#partition());
    this.#every("crash", crashEveryMs, () => this.#crash());
    this.#every("stall", stallEveryMs, () => this.#pause());
    this.#every("replay", replayEveryMs, () => (this.#modules.network.replay() ? "" : undefined));
  }

  /** Ends what is under way: stalls are over, nodes that are down start again. */
  heal(): void {
    this.#isOn = false;
    for (const event of this.#planned) event.isCancelled = true;
    this.#planned.clear();
    this.#modules.network.isLossy = false;
    this.#modules.network.healStalls();
    for (const target of [...this.#down]) this.#restart(target);
  }

  /** `strike` says what it did, or undefined when there was nothing to hit. */
  #every(kind: string, meanMs: number | undefined, strike: () => string | undefined): void {
    if (meanMs === undefined) return;
    this.#after(this.#modules.random.exponential(meanMs), () => {
      const detail = strike();
      if (detail !== undefined) {
        this.counts[kind] = (this.counts[kind] ?? 0) + 1;
        this.#modules.note(kind, detail);
      }
      if (this.#isOn) this.#every(kind, meanMs, strike);
    });
  }

  #after(delayMs: number, run: () => void): void {
    const { scheduler } = this.#modules;
    const event = scheduler.at(scheduler.nowMs + delayMs, EventKind.fault, undefined, () => {
      this.#planned.delete(event);
      run();
    });
    this.#planned.add(event);
  }

  #cut(isSilent: boolean): string | undefined {
    const { network, random } = this.#modules;
    const open = network.open();
    if (open.length === 0) return undefined;
    const connection = random.pick(open);
    if (isSilent) network.forget(connection.up.from, connection.up.to);
    else network.cut(connection, false);
    return `${connection.up.from} - ${connection.up.to}`;
  }

  #stall([min, max]: Range): string | undefined {
    const pair = this.#pair();
    if (pair === undefined) return undefined;
    const { network, random, scheduler } = this.#modules;
    const forMs = random.between(min, max);
    network.stall(pair[0], pair[1], scheduler.nowMs + forMs);
    return `${pair[0]} > ${pair[1]} for ${Math.round(forMs)} ms`;
  }

  #partition(): string | undefined {
    const pair = this.#pair();
    if (pair === undefined) return undefined;
    const { network, random, scheduler } = this.#modules;
    const [min, max] = this.#options.partitionMs ?? [500, 8_000];
    const untilMs = scheduler.nowMs + random.between(min, max);
    const isBoth = random.chance(0.5);
    network.stall(pair[0], pair[1], untilMs);
    if (isBoth) network.stall(pair[1], pair[0], untilMs);
    return `${pair[0]} ${isBoth ? "<>" : ">"} ${pair[1]} until ${Math.round(untilMs)} ms`;
  }

  #crash(): string | undefined {
    const target = this.#upTarget();
    if (target === undefined) return undefined;
    const { random } = this.#modules;
    const isPowerLoss = random.chance(0.3);
    const [min, max] = this.#options.downMs ?? [50, 5_000];
    const downMs = random.between(min, max);
    target.crash({ isPowerLoss });
    this.#down.add(target);
    this.#after(downMs, () => this.#restart(target));
    return `${target.name}${isPowerLoss ? " (power)" : ""} for ${Math.round(downMs)} ms`;
  }

  #restart(target: FaultTarget): void {
    if (!this.#down.delete(target)) return;
    if (!target.isUp) target.start();
  }

  #pause(): string | undefined {
    const target = this.#upTarget();
    if (target === undefined) return undefined;
    const [min, max] = this.#options.stallMs ?? [20, 2_000];
    const forMs = this.#modules.random.between(min, max);
    target.stall(forMs);
    return `${target.name} for ${Math.round(forMs)} ms`;
  }

  #upTarget(): FaultTarget | undefined {
    const up = this.#modules.targets().filter(({ isUp }) => isUp);
    return up.length === 0 ? undefined : this.#modules.random.pick(up);
  }

  #pair(): readonly [string, string] | undefined {
    const { random, targets } = this.#modules;
    const names = targets().map(({ name }) => name);
    if (names.length < 2) return undefined;
    const from = random.below(names.length);
    const to = (from + 1 + random.below(names.length - 1)) % names.length;
    return [names[from]!, names[to]!];
  }
}
