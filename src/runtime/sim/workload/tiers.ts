// Owns: the part of the workload that uses the reliable and the durable tier, and what must be true of them.
// Invariants checked: reliable casts of a pair of incarnations arrive without a gap, without a duplicate and in order;
// what an outbox has confirmed to its sender is handled at least once, in order, and once in effect with an inbox.
import { behavior, type Behavior } from "../../core/behavior.js";
import { defineProtocol } from "../../core/protocol.js";
import { createInbox } from "../../durable/inbox.js";
import { createOutbox } from "../../durable/outbox.js";
import type { Store } from "../../host/store.js";
import { z } from "zod";
import type { NodeWorld } from "./actors.js";
import type { Oracle } from "./oracle.js";

const TiersProtocol = defineProtocol("sim.tiers", 1, {
  cast: {
    reliable: z.object({ from: z.string(), n: z.number().int() }),
    durable: z.object({ id: z.string(), stream: z.string(), n: z.number().int() }),
  },
});
const TIERS_ACTOR = "tiers";
const STEP_MS = [10, 120] as const;
const BURST_MAX = 6;
const SLOW_MS_MAX = 15;
/** Some handlers of durable messages fail: they are then given again. */
const FAULT_CHANCE = 0.03;

/** What outlives the nodes: the account of both tiers. */
export class TiersOracle {
  readonly #oracle: Oracle;
  /** Sender and receiver incarnation -> the next number due. */
  readonly #reliable = new Map<string, number>();
  /** Ids that `send` has confirmed and that wait to take effect, with their streams. */
  readonly #confirmed = new Map<string, string>();
  /** Ids that took effect before their sender knew them stored; those of senders that crashed in between stay. */
  readonly #early = new Set<string>();
  readonly #lastApplied = new Map<string, number>();

  constructor(oracle: Oracle) {
    this.#oracle = oracle;
  }

  reliableHandled(from: string, at: string, n: number): void {
    this.#oracle.count("reliable handled");
    const key = `${from}>${at}`;
    const due = this.#reliable.get(key) ?? 0;
    if (n !== due) this.#oracle.violate(`reliable ${key}: number ${n} where ${due} was due`);
    this.#reliable.set(key, n + 1);
  }

  stored(id: string, stream: string): void {
    this.#oracle.count("durable stored");
    if (!this.#early.delete(id)) this.#confirmed.set(id, stream);
  }

  /** Once in effect: the inbox has let it through. */
  durableApplied(id: string, stream: string, n: number): void {
    this.#oracle.count("durable applied");
    if (!this.#confirmed.delete(id)) this.#early.add(id);
    const last = this.#lastApplied.get(stream) ?? -1;
    if (n === last) this.#oracle.violate(`durable ${id} took effect twice`);
    else if (n < last) this.#oracle.violate(`durable ${stream}: number ${n} after ${last}`);
    this.#lastApplied.set(stream, n);
  }

  /** Whether everything that an outbox has confirmed took effect. */
  get isSettled(): boolean {
    return this.#confirmed.size === 0;
  }

  /** When every outbox had time to deliver what it holds. */
  finish(): void {
    for (const [id, stream] of this.#confirmed) this.#oracle.violate(`durable ${id} (${stream}) was stored, but never handled`);
  }
}

/** One actor that receives both tiers and sends them to its like on the other nodes. */
export function spawnTiers(world: NodeWorld, tiers: TiersOracle, store: Store): void {
  const { system, random } = world;
  system.spawn(receiver(world, tiers, store), { name: TIERS_ACTOR, supervision: { maxRestarts: 1_000_000, backoff: { initialMs: 5, maxMs: 50 } } });
  const outbox = createOutbox(system, { name: "out", store, retry: { initialMs: 20, maxMs: 400, timeoutMs: 3_000 } });
  const next = new Map<string, number>();
  const durableNumbers = readNumbers(store);
  const step = async (): Promise<void> => {
    for (;;) {
      await world.sleep(random.between(...STEP_MS));
      if (system.isShuttingDown) return;
      if (!world.isDriving()) continue;
      const other = random.pick(world.others);
      if (random.chance(0.5)) sendReliable(other.nodeId);
      else sendDurable(other);
    }
  };
  const sendReliable = (nodeId: string): void => {
    const peer = system.peer(nodeId);
    if (peer === undefined) return;
    const key = `${nodeId} ${peer.incarnation}`;
    for (let i = 1 + random.below(BURST_MAX); i > 0; i--) {
      const n = next.get(key) ?? 0;
      const result = peer.ref(TiersProtocol, TIERS_ACTOR).cast("reliable", { from: system.incarnation, n }, { delivery: "reliable" });
      world.oracle.count(`reliable: ${result}`);
      if (result !== "accepted") return;
      next.set(key, n + 1);
    }
  };
  const sendDurable = (other: { readonly name: string; readonly nodeId: string }): void => {
    const stream = `${world.nodeName}>${other.name}`;
    for (let i = 1 + random.below(BURST_MAX); i > 0; i--) {
      const n = durableNumbers.take(stream);
      const id = `${stream}/${n}`;
      outbox.send({ nodeId: other.nodeId, path: TIERS_ACTOR, protocol: TiersProtocol }, "durable", { id, stream, n })
        .then(() => tiers.stored(id, stream), () => world.oracle.count("durable: not stored"));
    }
  };
  void step();
}

function receiver(world: NodeWorld, tiers: TiersOracle, store: Store): Behavior<typeof TiersProtocol> {
  const { random, system } = world;
  return behavior(TiersProtocol, () => {
    const inbox = createInbox({ name: TIERS_ACTOR, store });
    return {
      cast: {
        reliable: ({ from, n }) => {
          tiers.reliableHandled(from, system.incarnation, n);
          return random.chance(0.1) ? world.sleep(random.below(SLOW_MS_MAX)) : undefined;
        },
        durable: async ({ id, stream, n }, { delivery }) => {
          if (random.chance(0.1)) await world.sleep(random.below(SLOW_MS_MAX));
          if (random.chance(FAULT_CHANCE)) throw new Error("told to throw");
          if (inbox.isDuplicate(delivery)) return world.oracle.count("durable repeated");
          inbox.commit(delivery);
          tiers.durableApplied(id, stream, n);
        },
      },
    };
  });
}

/** Numbers that no later incarnation of the sender uses again: each start takes a block of them, on disk first. */
function readNumbers(store: Store): { take(stream: string): number } {
  const BLOCK = 1_000_000;
  const key = Buffer.from("n/starts");
  const starts = Number(Buffer.from(store.get(key) ?? Buffer.from("0")).toString()) + 1;
  store.write([{ key, value: Buffer.from(String(starts)) }], { sync: true });
  const used = new Map<string, number>();
  return {
    take: (stream) => {
      const n = used.get(stream) ?? 0;
      used.set(stream, n + 1);
      return starts * BLOCK + n;
    },
  };
}

