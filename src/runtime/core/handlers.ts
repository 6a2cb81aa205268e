// Owns: handlers as the runtime sees them, their message types gone. Invariant: NO_HANDLERS is what an actor has while
// no instance of it runs.
import type { Meta } from "./behavior.js";
import type { StopReason } from "./failure.js";

export type Handler = (message: unknown, meta: Meta) => unknown;
export type HandlersByName = Readonly<Record<string, Handler>>;

export interface HandlerTable {
  readonly call?: HandlersByName;
  readonly cast?: HandlersByName;
  readonly stopped?: (reason: StopReason) => unknown;
}

export const NO_HANDLERS: HandlerTable = Object.freeze({});
