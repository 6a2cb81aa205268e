// Owns: the actors of the simulated workload: sinks that are sent everything, their keeper, and a driver that sends.
// Invariant: what they do is drawn from the simulation's random source; what they see goes to the oracle.
import { behavior, replyLater, type Behavior, type Context, type SpawnOptions } from "../../core/behavior.js";
import { Refusal } from "../../core/failure.js";
import type { Overflow } from "../../core/mailbox.js";
import type { AnyProtocol, Request } from "../../core/protocol.js";
import type { Ref } from "../../core/ref.js";
import type { System } from "../../create-system.js";
import type { SimRandom } from "../random.js";
import type { Oracle, WatchAccount } from "./oracle.js";
import { DriverProtocol, KeeperProtocol, SinkProtocol, type How } from "./protocols.js";

export const SINKS_PER_NODE = 3;
const BURST_MESSAGES_MAX = 12;
const RESPAWN_MS = 150;
const RESTARTS = { maxRestarts: 3, withinMs: 4_000 } as const;
/** Over BULK_BYTES_MIN, so that it takes the bulk lane. */
const TENSOR_FLOATS = 20_000;
const SLOW_MS_MAX = 25;
const CALL_TIMEOUT_MS = [10, 2_500] as const;

/** What the actors of one incarnation share. */
export interface NodeWorld {
  readonly nodeName: string;
  readonly system: System;
  readonly random: SimRandom;
  readonly oracle: Oracle;
  /** Node ids of all others. */
  readonly others: readonly { readonly name: string; readonly nodeId: string }[];
  readonly sleep: (ms: number) => Promise<void>;
  readonly isDriving: () => boolean;
  readonly tensorChance: number;
  readonly paceMs: readonly [number, number];
  readonly nextCall: () => number;
  readonly takeBackChance: number;
}

type AskMode = Request<typeof SinkProtocol, "ask">["mode"];
const ASK_MODES: readonly AskMode[] = ["echo", "echo", "echo", "slow", "later", "refuse", "throw", "hang", "relay"];

export const sinkPath = (index: number): string => `keeper/sink-${index}`;

/** Queues of a few messages, so that they fill. */
function mailboxOf(random: SimRandom): { capacity: number; overflow: Overflow; isOrdered: boolean } {
  const capacity = 2 + random.below(24);
  const overflow = random.pick(["reject", "reject", "drop-oldest", "drop-newest", "wait", "conflate"] as const);
  if (overflow !== "conflate") return { capacity, overflow, isOrdered: true };
  const conflate = (name: string, message: unknown): string | undefined =>
    name === "note" ? (message as { key: string }).key || undefined : undefined;
  return { capacity, overflow: { conflate }, isOrdered: false };
}

function sink(world: NodeWorld, isOrdered: boolean): Behavior<typeof SinkProtocol> {
  const { oracle, random } = world;
  const startsMs: number[] = [];
  return behavior(SinkProtocol, (ctx) => {
    noteStart(world, ctx, startsMs);
    const act = (how: How): void | Promise<void> => {
      if (how === "throw") throw new Error("told to throw");
      if (how === "slow") return world.sleep(1 + random.below(SLOW_MS_MAX));
    };
    return {
      call: {
        ask: ({ id, mode }) => {
          oracle.callRuns(id);
          switch (mode) {
            case "refuse":
              throw new Refusal("no", "told to refuse", { id });
            case "throw":
              throw new Error("told to throw");
            case "slow":
              return world.sleep(random.below(SLOW_MS_MAX)).then(() => ({ id }));
            case "later":
              return replyLater(world.sleep(random.below(10 * SLOW_MS_MAX)).then(() => ({ id })));
            case "hang":
              return replyLater(new Promise<never>(() => undefined));
            case "relay":
              return askSomebody(world, "echo").then(() => ({ id }));
            default:
              return { id };
          }
        },
        tensor: ({ id, x }) => {
          oracle.callRuns(id);
          return { id, x, sum: checkTensor(world, x) };
        },
      },
      cast: {
        note: (message) => {
          oracle.handled(message, isOrdered);
          return act(message.how);
        },
        tensor: (message) => {
          oracle.handled(message, isOrdered);
          checkTensor(world, message.x);
          return act(message.how);
        },
      },
    };
  });
}

/** A restart budget holds for one life of an actor: from its spawning to its end. */
function noteStart(world: NodeWorld, ctx: Context<typeof SinkProtocol>, startsMs: number[]): void {
  const nowMs = ctx.clock.nowMs();
  startsMs.push(nowMs);
  const recent = startsMs.filter((each) => nowMs - each < RESTARTS.withinMs - 1).length;
  if (recent > RESTARTS.maxRestarts + 1) {
    world.oracle.violate(`${ctx.path} started ${recent} times within ${RESTARTS.withinMs} ms, its budget is ${RESTARTS.maxRestarts} restarts`);
  }
}

/** Every element is the first one plus its place: a mixed-up or torn tensor shows. */
function checkTensor({ oracle }: NodeWorld, x: Float32Array): number {
  const first = x[0] ?? 0;
  for (let i = 0; i < x.length; i += 97) {
    if (x[i] !== first + (i % 8)) {
      oracle.violate(`a tensor of ${x.length} arrived with ${x[i]} at ${i}, expected ${first + (i % 8)}`);
      break;
    }
  }
  return first;
}

export function createTensor(first: number, length: number): Float32Array {
  const x = new Float32Array(length);
  for (let i = 0; i < length; i++) x[i] = first + (i % 8);
  return x;
}

/** Keeps its sinks alive: one that stops for good comes back a little later under the same name. */
export function keeper(world: NodeWorld): Behavior<typeof KeeperProtocol> {
  const { oracle, random, system } = world;
  return behavior(KeeperProtocol, (ctx) => {
    const watches = new Map<number, WatchAccount>();
    ctx.signal.addEventListener("abort", () => watches.forEach((each) => each.takeBack()), { once: true });
    const spawn = (index: number): void => {
      const { isOrdered, ...mailbox } = mailboxOf(random);
      const options: SpawnOptions = {
        name: `sink-${index}`, remote: true, mailbox,
        supervision: {
          ...RESTARTS, backoff: { initialMs: 5, maxMs: 200, factor: 2, jitter: 0.5 },
          decide: () => random.pick(["restart", "restart", "restart", "resume", "stop"] as const),
        },
      };
      const ref = ctx.spawn(sink(world, isOrdered), options);
      const account = oracle.watched(system.incarnation, ref.path);
      ctx.watch(ref, () => {
        account.fire();
        ctx.timers.once(`respawn-${index}`, RESPAWN_MS, () => spawn(index));
      });
      watches.set(index, account);
    };
    for (let index = 0; index < SINKS_PER_NODE; index++) spawn(index);
    return {};
  });
}

/** Some actor of some node that is linked now. */
function somebody(world: NodeWorld): { ref: Ref<typeof SinkProtocol>; nodeName: string; isLocal: boolean } | undefined {
  const { random, system, others, nodeName } = world;
  const path = random.chance(0.03) ? "nobody" : sinkPath(random.below(SINKS_PER_NODE));
  const other = random.chance(0.25) ? undefined : random.pick(others);
  if (other === undefined) {
    const ref = system.cellAt(path)?.ref as unknown as Ref<typeof SinkProtocol> | undefined;
    return ref && { ref, nodeName, isLocal: true };
  }
  const peer = system.peer(other.nodeId);
  return peer && { ref: peer.ref(SinkProtocol, path), nodeName: other.name, isLocal: false };
}

async function askSomebody(world: NodeWorld, mode: AskMode): Promise<void> {
  const target = somebody(world);
  if (target === undefined) return;
  const { oracle, random, system } = world;
  const id = `${system.incarnation}/${world.nextCall()}`;
  const timeoutMs = random.between(...CALL_TIMEOUT_MS);
  oracle.called(id, system.incarnation, system.host.clock.nowMs() + timeoutMs);
  const abort = random.chance(0.15) ? new AbortController() : undefined;
  if (abort !== undefined) void world.sleep(random.below(60)).then(() => abort.abort());
  const options = { timeoutMs, ...(abort === undefined ? {} : { signal: abort.signal }) };
  const result = random.chance(world.tensorChance)
    ? await target.ref.call("tensor", { id, x: createTensor(random.below(100), random.pick([10, 700, TENSOR_FLOATS])) }, options)
    : await target.ref.call("ask", { id, mode }, options);
  oracle.settled(id, result.ok ? "ok" : result.error.code, result.ok ? result.value.id : undefined);
}

/** Sends casts and calls, and watches, to everybody at a seeded pace. */
export function driver(world: NodeWorld): Behavior<typeof DriverProtocol> {
  const { oracle, random, system } = world;
  const numbers = new Map<string, number>();
  const castSomewhere = (): void => {
    const target = somebody(world);
    if (target === undefined) return;
    const { ref, isLocal, nodeName } = target;
    const isBulk = random.chance(world.tensorChance);
    const count = isBulk ? 1 + random.below(2) : 1 + random.below(BURST_MESSAGES_MAX);
    for (let i = 0; i < count; i++) {
      const stream = `${nodeName}/${ref.path}/${isBulk ? "bulk" : "message"}`;
      const n = numbers.get(stream) ?? 0;
      numbers.set(stream, n + 1);
      const how: How = random.chance(0.04) ? "throw" : random.chance(0.1) ? "slow" : "quick";
      const sent = { id: `${system.incarnation}/${stream}/${n}`, from: system.incarnation, stream, n, how };
      const result = isBulk
        ? ref.cast("tensor", { ...sent, x: createTensor(n % 100, TENSOR_FLOATS) })
        : ref.cast("note", { ...sent, key: random.chance(0.5) ? `k${random.below(4)}` : "" });
      if (result === "accepted") oracle.accepted(sent, isLocal);
      else oracle.count(`casts: ${result}`);
    }
  };
  const watchSomebody = (): void => {
    const target = somebody(world);
    if (target === undefined) return;
    const account = oracle.watched(system.incarnation, `${target.nodeName}/${target.ref.path}`);
    const end = target.ref.watch(account.fire);
    if (!random.chance(world.takeBackChance)) return;
    void world.sleep(random.below(2_000)).then(() => {
      end();
      account.takeBack();
    });
  };
  return behavior(DriverProtocol, (ctx) => {
    const step = (): void => {
      if (world.isDriving()) {
        const dice = random.unit();
        if (dice < 0.5) castSomewhere();
        else if (dice < 0.85) void askSomebody(world, random.pick(ASK_MODES));
        else if (dice < 0.93) watchSomebody();
        else spawnBriefly(ctx);
      }
      ctx.timers.once("step", random.between(...world.paceMs), step);
    };
    const spawnBriefly = (c: Context<typeof DriverProtocol>): void => {
      const child = c.spawn(sink(world, true));
      child.watch(oracle.watched(system.incarnation, child.path).fire);
      const sent = { id: `${system.incarnation}/${child.path}/0`, from: system.incarnation, stream: child.path, n: 0 };
      if (child.cast("note", { ...sent, how: random.pick(["quick", "throw"] as const), key: "" }) === "accepted") oracle.accepted(sent, true);
      void world.sleep(random.below(500)).then(() => system.stop(child as unknown as Ref<AnyProtocol>, { drain: random.chance(0.5) }));
    };
    step();
    return {};
  });
}
