// Owns: how an actor runs: turns, one handler at a time, answers. Invariant: a turn ends after TURN_MESSAGES_MAX
// messages or TURN_MS_MAX; while a handler awaits, nothing else of its actor runs.
import { Deferred, type Meta } from "./behavior.js";
import type { Cell } from "./cell.js";
import { chainHolds } from "./chain.js";
import { beginStop } from "./ending.js";
import { describeError, Refusal, type CallError } from "./failure.js";
import type { Handler } from "./handlers.js";
import type { Instance } from "./instance.js";
import type { Envelope, ReplySlot } from "./mailbox.js";
import { metaOf, PLAIN_META } from "./message-meta.js";
import { isThenable } from "./thenable.js";
import type { Span } from "./trace.js";

/** A turn ends after this many messages … */
export const TURN_MESSAGES_MAX = 64;
/** … or after this long, so that one actor cannot hold the others up. */
export const TURN_MS_MAX = 1;
/** The clock is read every so many messages at most; quick handlers would otherwise pay for it. */
const CLOCK_STRIDE_MAX = 16;

/** `startMs`: the time now, which the dispatcher has just read. */
export function runTurn(cell: Cell, startMs: number): void {
  cell.isScheduled = false;
  const { mailbox } = cell;
  let checkedAtMs = startMs;
  let count = 0;
  let stride = 1;
  let nextCheck = 1;
  while (cell.state === "running" && !cell.isAwaiting) {
    const task = mailbox.shiftSystem();
    if (task !== undefined) execute(cell, undefined, task.run, false, undefined, PLAIN_META, task.trace, undefined);
    else {
      const envelope = mailbox.shift();
      if (envelope === undefined) break;
      if (cell.roomWaiters !== undefined) cell.offerRoom();
      runUser(cell, envelope);
    }
    count += 1;
    if (count === TURN_MESSAGES_MAX || mailbox.isEmpty) break;
    if (count === nextCheck) {
      const nowMs = cell.system.host.clock.nowMs();
      if (nowMs - startMs >= TURN_MS_MAX) break;
      stride = nowMs - checkedAtMs < TURN_MS_MAX / 8 ? Math.min(stride * 2, CLOCK_STRIDE_MAX) : 1;
      checkedAtMs = nowMs;
      nextCheck = count + stride;
    }
  }
  afterTurn(cell);
}

function afterTurn(cell: Cell): void {
  if (!cell.canRun) return;
  if (!cell.mailbox.isEmpty) cell.schedule();
  else if (cell.isDraining) beginStop(cell);
}

function runUser(cell: Cell, envelope: Envelope): void {
  const { slot, name } = envelope;
  if (slot !== undefined && slot.isDone) {
    cell.countDeadLetter("expired", name, envelope.message);
    return;
  }
  const table = slot === undefined || slot.delivery !== undefined ? cell.handlers.cast : cell.handlers.call;
  // Most actors get the same message again and again; keeping the last one found saves the look-up.
  if (name !== cell.lastName || table !== cell.lastTable) {
    const found = table?.[name];
    if (typeof found !== "function") {
      const message = `${cell.path} has no handler for "${name}"`;
      cell.refuse(envelope, "malformed", { code: "protocol", message });
      return;
    }
    cell.lastName = name;
    cell.lastTable = table;
    cell.lastHandler = found;
    cell.isLastAsync = found instanceof AsyncFunction;
  }
  let { trace } = envelope;
  let span: Span | undefined;
  if (cell.system.isTracing) {
    span = cell.system.traceHandler(cell.path, name, trace);
    if (span !== undefined) trace = span.context;
  }
  cell.running = envelope;
  execute(cell, envelope, cell.lastHandler!, cell.isLastAsync, table, metaOf(envelope, trace), trace, span);
}

function execute(
  cell: Cell,
  envelope: Envelope | undefined,
  handler: Handler,
  isAsync: boolean,
  owner: unknown,
  meta: Meta,
  trace: Envelope["trace"],
  span: Span | undefined,
): void {
  const { system } = cell;
  cell.turn += 1;
  cell.processed += 1;
  cell.turnChain = envelope === undefined ? undefined : envelope.chain;
  cell.turnTrace = trace;
  const outer = system.current;
  system.current = cell;
  cell.isInHandler = true;
  const message = envelope === undefined ? undefined : envelope.message;
  let result: unknown;
  try {
    // A tracer wants the context over the awaits of any handler; calls alone pay for those declared async.
    result =
      system.asyncContext !== undefined && (isAsync || (trace !== undefined && system.tracer !== undefined))
        ? system.asyncContext.run(cell.turnNode(), () => handler.call(owner, message, meta))
        : handler.call(owner, message, meta);
  } catch (error) {
    system.current = outer;
    cell.isInHandler = false;
    cell.running = undefined;
    if (span !== undefined) span.end(error);
    handlerFailed(cell, envelope, error);
    cell.becameIdle();
    return;
  }
  system.current = outer;
  cell.isInHandler = false;
  if (isThenable(result)) {
    holdFor(cell, envelope, result, span);
    return;
  }
  if (envelope !== undefined && envelope.slot !== undefined && cell.running === envelope) {
    if (result instanceof Deferred) answerLater(envelope.slot, result, cell.path);
    else envelope.slot.succeed(result);
  }
  cell.running = undefined;
  if (span !== undefined) span.end();
  if (cell.whenIdle !== undefined) cell.becameIdle();
}

/** The handler has returned a promise: the actor waits for it. */
function holdFor(
  cell: Cell,
  envelope: Envelope | undefined,
  result: PromiseLike<unknown>,
  span: Span | undefined,
): void {
  const { instance } = cell;
  cell.isAwaiting = true;
  failCyclesQueued(cell);
  result.then(
    (value) => {
      if (span !== undefined) span.end();
      if (!isHeldBy(cell, instance)) return;
      cell.isAwaiting = false;
      if (cell.running === envelope) envelope?.slot?.succeed(value);
      released(cell);
    },
    (error: unknown) => {
      if (span !== undefined) span.end(error);
      if (!isHeldBy(cell, instance)) return;
      cell.isAwaiting = false;
      cell.running = undefined;
      handlerFailed(cell, envelope, error);
      released(cell);
    },
  );
}

/** False when the actor was forced to stop meanwhile. */
function isHeldBy(cell: Cell, instance: Instance | undefined): boolean {
  return cell.instance === instance && cell.isAwaiting;
}

function released(cell: Cell): void {
  cell.running = undefined;
  cell.becameIdle();
  afterTurn(cell);
}

function handlerFailed(cell: Cell, envelope: Envelope | undefined, error: unknown): void {
  if (envelope !== undefined) {
    cell.stash?.extract((each) => each === envelope); // stashed, and failed after all
    if (error instanceof Refusal && envelope.slot !== undefined) {
      envelope.slot.fail(asCallError(error, cell.path));
      return;
    }
    cell.refuse(envelope, "fault", asCallError(error, cell.path));
  }
  cell.fault(error);
}

/** Calls that wait for the very turn which the actor now waits in can never be answered. */
function failCyclesQueued(cell: Cell): void {
  const { mailbox, stash, turn } = cell;
  if (mailbox.size === 0 && mailbox.waitingSize === 0 && (stash === undefined || stash.size === 0)) return;
  const { uid } = cell;
  const isCycle = (each: Envelope): boolean => each.slot !== undefined && chainHolds(each.chain, uid, turn);
  for (const envelope of mailbox.extract(isCycle)) failCycle(cell, envelope);
  if (stash !== undefined) for (const envelope of stash.extract(isCycle)) failCycle(cell, envelope);
}

export function failCycle(cell: Cell, envelope: Envelope): void {
  cell.refuse(envelope, "cycle", {
    code: "cycle",
    message: `${cell.path} waits for this very call: it cannot answer "${envelope.name}" before its own call returns`,
  });
}

const AsyncFunction = (async () => undefined).constructor as new () => unknown;

function answerLater(slot: ReplySlot, answer: Deferred<unknown>, path: string): void {
  answer.promise.then(
    (value) => slot.succeed(value),
    (error: unknown) => slot.fail(asCallError(error, path)),
  );
}

function asCallError(error: unknown, path: string): CallError {
  if (error instanceof Refusal) {
    const { message, reason, data } = error;
    return { code: "refused", message, reason, ...(data === undefined ? {} : { data }) };
  }
  return { code: "fault", message: `${path} failed: ${describeError(error)}` };
}
