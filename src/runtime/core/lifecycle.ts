// Owns: the states of a cell and the only table of moves between them.
// Invariant: a cell changes state through `Lifecycle.to` alone, so an impossible move is an assertion, not a bug hunt.

export type CellState = "starting" | "running" | "suspended" | "restarting" | "stopping" | "stopped";

const MOVES: Readonly<Record<CellState, readonly CellState[]>> = {
  starting: ["running", "suspended", "stopping", "stopped"],
  running: ["suspended", "stopping", "stopped"],
  suspended: ["running", "restarting", "stopping", "stopped"],
  restarting: ["running", "suspended", "stopping", "stopped"],
  stopping: ["stopped"],
  stopped: [],
};

export class Lifecycle {
  #state: CellState = "starting";

  get state(): CellState {
    return this.#state;
  }

  to(next: CellState): void {
    if (!MOVES[this.#state].includes(next)) throw new Error(`assertion: cell moved from ${this.#state} to ${next}`);
    this.#state = next;
  }

  get isOver(): boolean {
    return this.#state === "stopping" || this.#state === "stopped";
  }
}
