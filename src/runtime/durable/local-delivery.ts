// Owns: the way of a durable message to an actor of the same system. Invariant: the result is the handler's, exactly
// as it would come back over a link.
import { failed, type CallError, type CallResult } from "../core/failure.js";
import type { Delivery, ReplySlot } from "../core/mailbox.js";
import type { SystemCore } from "../core/system.js";
import type { TraceContext } from "../core/trace.js";
import type { ProtocolTag } from "../remote/record.js";

class LocalSlot implements ReplySlot {
  readonly deadlineMs = Number.POSITIVE_INFINITY;
  readonly delivery: Delivery;
  #settle: ((result: CallResult<unknown>) => void) | undefined;

  constructor(delivery: Delivery, settle: (result: CallResult<unknown>) => void) {
    this.delivery = Object.freeze(delivery);
    this.#settle = settle;
  }

  get isDone(): boolean {
    return this.#settle === undefined;
  }

  succeed(): void {
    this.#finish({ ok: true, value: undefined });
  }

  fail(error: CallError): void {
    this.#finish({ ok: false, error });
  }

  /** Nobody gives a durable message up: what is not confirmed is delivered again. */
  onCancel(): void {}

  #finish(result: CallResult<unknown>): void {
    const settle = this.#settle;
    this.#settle = undefined;
    settle?.(result);
  }
}

export function deliverLocally(
  system: SystemCore,
  path: string,
  { name: protocol }: ProtocolTag,
  name: string,
  message: unknown,
  delivery: Delivery,
  trace: TraceContext | undefined,
): Promise<CallResult<unknown>> {
  const cell = system.cellAt(path);
  if (cell === undefined) return Promise.resolve(failed("stopped", `no actor ${path} on this node`));
  if (cell.protocol.name !== protocol || !Object.hasOwn(cell.protocol.cast as object, name)) {
    return Promise.resolve(failed("protocol", `${path} speaks ${cell.protocol.name} and has no ${protocol} cast "${name}"`));
  }
  return new Promise((resolve) => {
    const slot = new LocalSlot(delivery, resolve);
    const result = cell.deliverConfirmed(name, message, slot, undefined, trace);
    if (result === "full") slot.fail({ code: "full", message: `the mailbox of ${path} is full` });
    else if (result === "stopped") slot.fail({ code: "stopped", message: `${path} has stopped` });
  });
}
