// Owns: what a handler is told about its message. Invariant: nothing is made before the handler asks for it, so a
// call whose handler ignores `meta.signal` pays for no AbortController.
import type { Meta } from "./behavior.js";
import type { Delivery, Envelope, ReplySlot, Sender } from "./mailbox.js";
import type { TraceContext } from "./trace.js";

/** A plain local cast has nothing to tell: all of them share this. */
export const PLAIN_META: Meta = Object.freeze({
  sender: undefined, deadline: undefined, signal: undefined, trace: undefined, delivery: undefined,
});

class MessageMeta implements Meta {
  readonly sender: Sender | undefined;
  readonly trace: TraceContext | undefined;
  readonly #slot: ReplySlot | undefined;
  #abort: AbortController | undefined;

  constructor(sender: Sender | undefined, slot: ReplySlot | undefined, trace: TraceContext | undefined) {
    this.sender = sender;
    this.trace = trace;
    this.#slot = slot;
  }

  get deadline(): number | undefined {
    return this.#slot?.deadlineMs;
  }

  get delivery(): Delivery | undefined {
    return this.#slot?.delivery;
  }

  get signal(): AbortSignal | undefined {
    const slot = this.#slot;
    if (slot === undefined) return undefined;
    if (this.#abort === undefined) {
      const abort = (this.#abort = new AbortController());
      slot.onCancel((error) => abort.abort(new Error(error.message, { cause: error })));
    }
    return this.#abort.signal;
  }
}

/** `trace` is the context of the handler's own turn: that of its span when there is a tracer. */
export function metaOf(envelope: Envelope, trace: TraceContext | undefined): Meta {
  const { slot, origin } = envelope;
  if (slot === undefined) {
    if (origin === undefined) return trace === undefined ? PLAIN_META : new MessageMeta(undefined, undefined, trace);
    if (origin.trace === trace) return (origin.meta ??= new MessageMeta(origin.sender, undefined, trace));
  }
  return new MessageMeta(envelope.sender, slot, trace);
}
