// Owns: which nodes are turned away for a while because they broke the protocol. Without it a violator would be back with
// a new link at once, and each round costs this side a handshake and whatever the violation costs.
// Invariants: only a node whose key was proven gets in here; the box is bounded.
import type { Clock } from "../host/host.js";

const BAR_MS_INITIAL = 1000;
/** One violation in ten seconds costs nothing that matters, and an honest node behind a broken network is soon back. */
const BAR_MS_MAX = 10_000;
/** A node that has behaved for this long begins anew. */
const FORGIVEN_MS = 60_000;
const NODES_MAX = 4096;

interface Entry {
  readonly strikes: number;
  readonly untilMs: number;
}

export class PenaltyBox {
  readonly #clock: Clock;
  readonly #entries = new Map<string, Entry>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Nodes that are turned away right now. */
  get size(): number {
    const now = this.#clock.nowMs();
    let size = 0;
    for (const { untilMs } of this.#entries.values()) if (now < untilMs) size += 1;
    return size;
  }

  add(nodeId: string): void {
    const now = this.#clock.nowMs();
    const known = this.#entries.get(nodeId);
    const strikes = known !== undefined && now - known.untilMs < FORGIVEN_MS ? known.strikes + 1 : 1;
    this.#entries.delete(nodeId);
    this.#entries.set(nodeId, { strikes, untilMs: now + Math.min(BAR_MS_INITIAL * 2 ** (strikes - 1), BAR_MS_MAX) });
    if (this.#entries.size > NODES_MAX) this.#entries.delete(this.#entries.keys().next().value!);
  }

  holds(nodeId: string): boolean {
    const entry = this.#entries.get(nodeId);
    return entry !== undefined && this.#clock.nowMs() < entry.untilMs;
  }
}
