// Owns: what the parts of a peer share: who it is and the link to use right now. Invariant: `link` is open or
// undefined, so whoever finds none must not expect an answer.
import type { SystemCore } from "../core/system.js";
import type { Link } from "./link.js";

/** Answers may fill twice the outbox that requests may: the work behind them is done. */
export const REPLY_SHARE = 2;

export type PeerState = "up" | "down" | "replaced";

export interface PeerLine {
  readonly system: SystemCore;
  readonly nodeId: string;
  /** The node id as logs and errors show it. */
  readonly label: string;
  readonly state: PeerState;
  readonly link: Link | undefined;
}
