// Owns: how an actor ends: draining, stopping, its children first, telling whoever watches.
// Invariants: queued and stashed messages are refused, never dropped in silence; watchers hear exactly once; an actor
// with nothing to wait for (no children, no `stopped` handler, no handler under way) ends within the call to `stop`.
import type { Cell } from "./cell.js";
import type { StopReason } from "./failure.js";
import { NO_HANDLERS } from "./handlers.js";
import { isOver, moved } from "./lifecycle.js";
import type { Envelope } from "./mailbox.js";

const ENDED = Promise.resolve();

/** With `drain`, messages already queued are handled first. @returns when the actor has ended. */
export function stop(cell: Cell, reason: StopReason, drain: boolean): Promise<void> {
  if (cell.state === "stopped") return ENDED;
  const isFirst = !cell.isStopRequested;
  cell.isStopRequested = true;
  cell.stopReason ??= reason;
  if (cell.roomWaiters !== undefined) cell.offerRoom();
  if (drain && isFirst && !isOver(cell.state) && !(cell.canRun && !cell.isInHandler && cell.mailbox.isEmpty)) {
    cell.isDraining = true;
    cell.kick();
  } else if ((!drain || isFirst) && !isOver(cell.state)) {
    cell.isDraining = false;
    // Tell a handler that is still awaiting something that there is no point any more.
    if (cell.isAwaiting) cell.instance?.close();
    if (cell.isInHandler || cell.isAwaiting) cell.afterIdle(() => beginStop(cell));
    else beginStop(cell);
  }
  if (hasStopped(cell)) return ENDED;
  return new Promise((resolve) => (cell.stopWaiters ??= []).push(resolve));
}

export function beginStop(cell: Cell): void {
  if (isOver(cell.state)) return;
  cell.isDraining = false;
  cell.state = moved(cell.state, "stopping");
  clearBackoff(cell);
  refuseQueued(cell);
  if (cell.handlers.stopped === undefined && (cell.children === undefined || cell.children.size === 0)) {
    closeInstance(cell);
    finish(cell);
  } else void endInstance(cell, cell.stopReason!).then(() => finish(cell));
}

/** Closes the instance, stops the children, last spawned first, and gives the `stopped` handler its word. */
export async function endInstance(cell: Cell, reason: StopReason): Promise<void> {
  const { stopped } = cell.handlers;
  closeInstance(cell);
  if (cell.children !== undefined) {
    const childReason: StopReason = {
      code: reason.code === "shutdown" ? "shutdown" : "parent",
      message: `${cell.path} ended`,
    };
    for (const child of [...cell.children.values()].reverse()) await child.stop(childReason);
  }
  if (stopped === undefined) return;
  try {
    await stopped(reason);
  } catch (error) {
    cell.system.host.logger.warn("stopped handler failed", { actor: cell.path, error });
  }
}

function closeInstance(cell: Cell): void {
  cell.handlers = NO_HANDLERS;
  const stale = cell.mailbox.clearSystem();
  if (stale > 0) cell.countDeadLetter("stale", "", undefined, stale);
  cell.instance?.close();
}

/** Ends without waiting for anything; for the shutdown deadline. @returns whether something was abandoned. */
export function abandon(cell: Cell): boolean {
  let isAbandoned = false;
  if (cell.children !== undefined) {
    for (const child of [...cell.children.values()]) isAbandoned = abandon(child) || isAbandoned;
  }
  if (cell.state === "stopped") return isAbandoned;
  cell.isStopRequested = true;
  cell.isAwaiting = false;
  const { running } = cell;
  if (running !== undefined) {
    cell.running = undefined;
    running.slot?.fail({ code: "stopped", message: `${cell.path} was abandoned at the shutdown deadline` });
  }
  cell.stopReason = { code: "abandoned", message: "still busy at the shutdown deadline" };
  clearBackoff(cell);
  closeInstance(cell);
  refuseQueued(cell);
  finish(cell);
  return true;
}

function clearBackoff(cell: Cell): void {
  if (cell.backoffTimer === undefined) return;
  cell.system.host.clock.clearTimer(cell.backoffTimer);
  cell.backoffTimer = undefined;
}

function refuseQueued(cell: Cell): void {
  const refuse = (envelope: Envelope): void =>
    cell.refuse(envelope, "stopped", { code: "stopped", message: `${cell.path} stopped before it could answer` });
  if (cell.stash !== undefined) cell.stash.take().forEach(refuse);
  cell.mailbox.drain().forEach(refuse);
  if (cell.roomWaiters !== undefined) cell.offerRoom();
}

function finish(cell: Cell): void {
  if (cell.state === "stopped") return;
  cell.state = moved(cell.state, "stopped");
  const { siblings, watchers, stopWaiters } = cell;
  if (siblings.get(cell.name) === cell) siblings.delete(cell.name);
  cell.instance = undefined;
  cell.lastTable = undefined;
  cell.lastHandler = undefined;
  cell.lastName = undefined;
  if (watchers !== undefined) {
    cell.watchers = undefined;
    // Later than this call: a watcher must not run inside whatever asked the actor to stop.
    cell.system.host.tasks.micro(() => {
      for (const watcher of [...watchers]) notify(cell, watcher);
    });
  }
  if (stopWaiters !== undefined) {
    cell.stopWaiters = undefined;
    for (const resolve of stopWaiters) resolve();
  }
}

/** @returns the function that takes the watch back. */
export function watch(cell: Cell, listener: (reason: StopReason) => void): () => void {
  let isTaken = false;
  const once = (reason: StopReason): void => {
    if (isTaken) return;
    isTaken = true;
    listener(reason);
  };
  if (cell.state === "stopped") cell.system.host.tasks.micro(() => notify(cell, once));
  else (cell.watchers ??= new Set()).add(once);
  return () => {
    isTaken = true;
    cell.watchers?.delete(once);
  };
}

function notify(cell: Cell, watcher: (reason: StopReason) => void): void {
  try {
    watcher(cell.stopReason!);
  } catch (error) {
    cell.system.host.logger.error("watcher failed", { actor: cell.path, error });
  }
}

function hasStopped(cell: Cell): boolean {
  return cell.state === "stopped";
}
