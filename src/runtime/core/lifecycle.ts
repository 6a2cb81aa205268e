// Owns: the states of a cell and the only table of moves between them.
// Invariant: a cell changes state through `moved` alone, so an impossible move is an assertion, not a bug hunt.

export type CellState = "starting" | "running" | "suspended" | "restarting" | "stopping" | "stopped";

const MOVES: Readonly<Record<CellState, readonly CellState[]>> = {
  starting: ["running", "suspended", "stopping", "stopped"],
  running: ["suspended", "stopping", "stopped"],
  suspended: ["running", "restarting", "stopping", "stopped"],
  restarting: ["running", "suspended", "stopping", "stopped"],
  stopping: ["stopped"],
  stopped: [],
};

/** @returns `to`. A function and not an object of each cell: a cell is spawned and stopped in about a microsecond. */
export function moved(from: CellState, to: CellState): CellState {
  if (!MOVES[from].includes(to)) throw new Error(`assertion: cell moved from ${from} to ${to}`);
  return to;
}

export function isOver(state: CellState): boolean {
  return state === "stopping" || state === "stopped";
}
