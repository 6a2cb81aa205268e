// Owns: how an actor starts, what follows its faults, and how it starts anew. Invariants: a factory that throws or
// rejects is a fault, never a half-alive actor; the queued messages outlive a restart; each restart is paid from the
// actor's own budget and its parent's shared one, and logged.
import type { Cell } from "./cell.js";
import { endInstance } from "./ending.js";
import { describeError } from "./failure.js";
import type { HandlerTable } from "./handlers.js";
import { Instance } from "./instance.js";
import { isOver, moved } from "./lifecycle.js";
import { backoffDelayMs, type Directive } from "./supervision.js";
import { isThenable } from "./thenable.js";
import { randomUnit } from "../host/host.js";

export function startInstance(cell: Cell): void {
  const { system } = cell;
  const instance = new Instance(cell, system.host);
  cell.instance = instance;
  const outer = system.current;
  system.current = cell;
  cell.turn += 1;
  cell.turnChain = undefined;
  cell.turnTrace = undefined;
  cell.isInHandler = true;
  let made: unknown;
  try {
    made = cell.behavior.create(instance);
  } catch (error) {
    cell.isInHandler = false;
    system.current = outer;
    fault(cell, error, true);
    cell.becameIdle();
    return;
  }
  cell.isInHandler = false;
  system.current = outer;
  if (isThenable(made)) {
    awaitHandlers(cell, instance, made);
    return;
  }
  ready(cell, made);
  cell.becameIdle();
  cell.kick();
}

function awaitHandlers(cell: Cell, instance: Instance, made: PromiseLike<unknown>): void {
  cell.isAwaiting = true;
  const finish = (run: () => void): void => {
    if (cell.instance !== instance || !cell.isAwaiting) return; // forced to stop meanwhile
    cell.isAwaiting = false;
    run();
    cell.becameIdle();
    cell.kick();
  };
  made.then(
    (handlers) => finish(() => ready(cell, handlers)),
    (error: unknown) => finish(() => fault(cell, error, true)),
  );
}

function ready(cell: Cell, made: unknown): void {
  if (typeof made !== "object" || made === null) {
    const what = made === null ? "null" : typeof made;
    fault(cell, new TypeError(`the factory of ${cell.path} must return handlers, it returned ${what}`), true);
    return;
  }
  cell.handlers = made as HandlerTable;
  cell.state = moved(cell.state, "running");
}

/**
 * Something went wrong in this actor, or in a child that escalated: its supervision decides.
 * `isStart`: there is no instance to go on with.
 */
export function fault(cell: Cell, error: unknown, isStart: boolean): void {
  // A suspended actor's fault is being dealt with already, and its children with it.
  if (isOver(cell.state) || cell.state === "suspended") return;
  cell.state = moved(cell.state, "suspended");
  const { system } = cell;
  let directive: Directive;
  try {
    directive = cell.supervision.decide(error);
  } catch (failure) {
    system.host.logger.error("supervision.decide failed; the actor stops", { actor: cell.path, error: failure });
    directive = "stop";
  }
  if (directive === "resume" && isStart) directive = "stop";
  if (cell.isStopRequested && directive !== "resume") directive = "stop";
  system.countFault();
  system.host.logger.warn("actor failed", { actor: cell.path, directive, error });
  if (directive === "resume") resume(cell, error);
  else if (directive === "restart") restartGroup(cell, error);
  else if (directive === "escalate") escalate(cell, error, isStart ? "spent" : "resumable");
  else cell.stop({ code: "fault", message: describeError(error) });
}

/** Children that escalated go on with their parent, or end, but are never left suspended. */
function resume(cell: Cell, error: unknown): void {
  cell.state = moved(cell.state, "running");
  cell.kick();
  if (cell.children === undefined) return;
  for (const child of [...cell.children.values()]) {
    const { escalation } = child;
    if (escalation === undefined) continue;
    child.escalation = undefined;
    if (child.state !== "suspended") continue;
    if (escalation === "resumable") resume(child, error);
    else child.stop({ code: "fault", message: describeError(error) });
  }
}

function escalate(cell: Cell, error: unknown, escalation: "resumable" | "spent"): void {
  const { parent } = cell;
  if (parent === undefined) {
    cell.stop({ code: "fault", message: describeError(error) });
    return;
  }
  cell.escalation = escalation;
  const failure = new Error(`child ${cell.path} escalated: ${describeError(error)}`, { cause: error });
  parent.afterIdle(() => fault(parent, failure, false));
}

function restartGroup(cell: Cell, error: unknown): void {
  const { host } = cell.system;
  const attempt = cell.budget.take();
  if (attempt === undefined) {
    host.logger.error("restart budget used up", { actor: cell.path, error });
    if (cell.supervision.onExhausted === "escalate") escalate(cell, error, "spent");
    else cell.stop({ code: "restart-budget", message: `restarted too often: ${describeError(error)}` });
    return;
  }
  const shared = cell.parent?.childBudget;
  if (shared !== undefined && shared.take() === undefined) {
    host.logger.error("restart budget of the children used up", { actor: cell.parent!.path, error });
    escalate(cell, error, "spent");
    return;
  }
  const delayMs = backoffDelayMs(cell.supervision.backoff, attempt, randomUnit(host.random));
  host.logger.warn("actor restarts", { actor: cell.path, attempt, delayMs });
  restart(cell, delayMs);
  for (const sibling of siblingsAlong(cell)) sibling.afterIdle(() => restartAlong(sibling, cell, delayMs));
}

function siblingsAlong(cell: Cell): Cell[] {
  const { strategy } = cell.supervision;
  if (strategy === "one-for-one") return [];
  const all = [...cell.siblings.values()];
  return strategy === "all-for-one" ? all.filter((each) => each !== cell) : all.slice(all.indexOf(cell) + 1);
}

function restartAlong(cell: Cell, failed: Cell, delayMs: number): void {
  if (cell.state !== "running" || cell.isStopRequested) return; // already restarting or ending
  cell.system.host.logger.warn("actor restarts along", { actor: cell.path, failed: failed.path, delayMs });
  cell.state = moved(cell.state, "suspended");
  restart(cell, delayMs);
}

/** From suspended: end the instance and its children, wait, start anew. Queued messages stay queued. */
function restart(cell: Cell, delayMs: number): void {
  const { system } = cell;
  const { clock } = system.host;
  cell.restarts += 1;
  system.countRestart();
  const { instance } = cell;
  const readyAtMs = clock.nowMs() + delayMs;
  void endInstance(cell, { code: "restart", message: "restarts after a fault" }).then(() => {
    if (cell.instance !== instance || cell.state !== "suspended") return;
    const startAnew = (): void => {
      cell.backoffTimer = undefined;
      if (cell.state !== "suspended") return;
      cell.unstash();
      cell.state = moved(cell.state, "restarting");
      startInstance(cell);
    };
    cell.backoffTimer = clock.setTimer(startAnew, Math.max(0, readyAtMs - clock.nowMs()));
  });
}

