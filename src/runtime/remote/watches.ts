// Owns: the watches that run between this system and one peer, in both directions. Invariant: each watch taken here
// on an actor there fires exactly once unless it is taken back, also when the peer goes down.
import type { StopReason } from "../core/failure.js";
import { WireError } from "../wire/codec.js";
import type { Link } from "./link.js";
import { REPLY_SHARE, type PeerLine } from "./peer-line.js";
import { clipText, RecordKind } from "./record.js";

/** Watches one peer may hold here. */
const INBOUND_WATCHES_MAX = 65_536;

export class Watches {
  readonly #line: PeerLine;
  readonly #outbound = new Map<number, (reason: StopReason) => void>();
  readonly #inbound = new Map<number, () => void>();
  #number = 0;

  constructor(line: PeerLine) {
    this.#line = line;
  }

  add(target: string, listener: (reason: StopReason) => void): () => void {
    const id = ++this.#number;
    const { system, link, label, nodeId, state } = this.#line;
    let isOver = false;
    const fire = (reason: StopReason): void => {
      if (isOver) return;
      isOver = true;
      try {
        listener(reason);
      } catch (error) {
        system.host.logger.error("watcher failed", { target, nodeId, error });
      }
    };
    const isAsked = link?.send([RecordKind.watch, null, null, id, target], REPLY_SHARE) === "accepted";
    if (isAsked) this.#outbound.set(id, fire);
    else system.host.tasks.micro(() => fire(this.#goneReason(`node ${label} is ${state}`)));
    return () => {
      if (isOver) return;
      isOver = true;
      if (this.#outbound.delete(id)) this.#line.link?.send([RecordKind.unwatch, null, null, id], REPLY_SHARE);
    };
  }

  onDown(id: number, reason: StopReason): void {
    const fire = this.#outbound.get(id);
    this.#outbound.delete(id);
    fire?.(reason);
  }

  onWatch(id: number, target: string, link: Link): void {
    const cell = this.#line.system.cellAt(target);
    const report = (reason: StopReason): void => {
      this.#inbound.delete(id);
      const record = [RecordKind.down, { code: reason.code, message: clipText(reason.message) }, null, id];
      // A watch that never fires is worse than a lost link, which fires it as "unreachable".
      if (link.send(record, REPLY_SHARE) === "full") link.close("lost", "no room to say that a watched actor has stopped");
    };
    if (cell === undefined || !cell.isRemote) report({ code: "not-found", message: `no actor ${target}` });
    else if (this.#inbound.size >= INBOUND_WATCHES_MAX) throw new WireError("malformed", "too many watches");
    else {
      this.#inbound.get(id)?.();
      this.#inbound.set(id, cell.watch(report));
    }
  }

  onUnwatch(id: number): void {
    this.#inbound.get(id)?.();
    this.#inbound.delete(id);
  }

  /** The peer is gone: what it watched here is forgotten, … */
  endInbound(): void {
    for (const end of this.#inbound.values()) end();
    this.#inbound.clear();
  }

  /** … and what was watched there fires. */
  fireOutbound(message: string): void {
    const watches = [...this.#outbound.values()];
    this.#outbound.clear();
    for (const fire of watches) fire(this.#goneReason(message));
  }

  #goneReason(message: string): StopReason {
    return { code: this.#line.state === "replaced" ? "replaced" : "unreachable", message };
  }
}
