// Owns: messages that an actor has put aside. Invariant: holds at most its capacity, in the order of arrival.
import type { Envelope } from "./mailbox.js";

/** An eighth of a default mailbox: what waits for one event, not a second mailbox. */
export const STASH_CAPACITY_DEFAULT = 1024;

export class Stash {
  readonly #capacity: number;
  #envelopes: Envelope[] = [];

  constructor(capacity: number) {
    if (!Number.isSafeInteger(capacity) || capacity < 1) {
      throw new TypeError(`stashCapacity must be an integer from 1, got ${String(capacity)}`);
    }
    this.#capacity = capacity;
  }

  get size(): number {
    return this.#envelopes.length;
  }

  add(envelope: Envelope): boolean {
    if (this.#envelopes.length >= this.#capacity) return false;
    this.#envelopes.push(envelope);
    return true;
  }

  /** Empties the stash. */
  take(): Envelope[] {
    const all = this.#envelopes;
    this.#envelopes = [];
    return all;
  }

  /** Takes out what `test` selects. */
  extract(test: (envelope: Envelope) => boolean): Envelope[] {
    const taken = this.#envelopes.filter(test);
    if (taken.length > 0) this.#envelopes = this.#envelopes.filter((envelope) => !taken.includes(envelope));
    return taken;
  }
}
