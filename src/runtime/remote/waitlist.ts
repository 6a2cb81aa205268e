// Owns: messages of a peer that found an actor's mailbox full and wait for room, in their order. Invariant: while one
// waits, none that came later gets past it; each is taken exactly once or comes back from `clear` or `extract`.
import type { Cell } from "../core/cell.js";
import type { CastResult } from "../core/failure.js";

/** Taken entries are cut off in one go: cheaper than moving the rest for each. */
const COMPACT_AT = 256;

export interface WaitingMessage {
  readonly sizeBytes: number;
  /** Called until it says something else than "full". */
  take(): CastResult;
}

export class Waitlist<T extends WaitingMessage> {
  #entries: T[] = [];
  #head = 0;
  #unregister: (() => void) | undefined;

  get size(): number {
    return this.#entries.length - this.#head;
  }

  add(cell: Cell, entry: T): void {
    this.#entries.push(entry);
    if (this.#unregister === undefined) this.#wait(cell);
  }

  /** Takes out those that `test` selects; the rest goes on waiting in its order. */
  extract(test: (entry: T) => boolean): T[] {
    const all = this.#entries.slice(this.#head);
    const taken = all.filter(test);
    if (taken.length === all.length) return this.clear();
    this.#entries = all.filter((entry) => !taken.includes(entry));
    this.#head = 0;
    return taken;
  }

  clear(): T[] {
    this.#unregister?.();
    this.#unregister = undefined;
    const left = this.#entries.slice(this.#head);
    this.#entries = [];
    this.#head = 0;
    return left;
  }

  #wait(cell: Cell): void {
    this.#unregister = cell.whenRoom(() => {
      this.#unregister = undefined;
      this.#drain(cell);
    });
  }

  #drain(cell: Cell): void {
    while (this.size > 0) {
      if (this.#entries[this.#head]!.take() === "full") {
        this.#wait(cell);
        return;
      }
      if (this.size === 0) return; // taking it has cleared the list
      this.#head += 1;
      if (this.#head >= COMPACT_AT) {
        this.#entries = this.#entries.slice(this.#head);
        this.#head = 0;
      }
    }
    this.#entries.length = 0;
    this.#head = 0;
  }
}
