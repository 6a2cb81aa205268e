// Owns: the way back of one call that came over a link. Invariant: at most one answer leaves, and only over the link
// that the call came on.
import type { CallError, CastResult } from "../core/failure.js";
import type { ReplySlot } from "../core/mailbox.js";
import type { SystemCore } from "../core/system.js";
import type { Link } from "./link.js";
import { unsendable } from "./payload.js";
import { REPLY_SHARE } from "./peer-line.js";
import { clipText, RecordKind, type Address } from "./record.js";

export class RemoteReply implements ReplySlot {
  readonly deadlineMs: number;
  readonly #system: SystemCore;
  readonly #link: Link;
  readonly #id: number;
  readonly #address: Address;
  #isAnswered = false;

  constructor(system: SystemCore, link: Link, id: number, timeoutMs: number, address: Address) {
    this.#system = system;
    this.#link = link;
    this.#id = id;
    this.#address = address;
    this.deadlineMs = system.host.clock.nowMs() + timeoutMs;
  }

  get isDone(): boolean {
    return this.#isAnswered || !this.#link.isOpen || this.#system.host.clock.nowMs() > this.deadlineMs;
  }

  /** A caller on another node gives up by its deadline or with its link; both show in `isDone`. */
  onCancel(_listener: (error: CallError) => void): void {}

  succeed(value: unknown): void {
    if (this.isDone) return;
    this.#isAnswered = true;
    try {
      this.#note(this.#link.send([RecordKind.reply, value, null, this.#id], REPLY_SHARE));
    } catch (error) {
      this.#isAnswered = false;
      this.fail(unsendable(error));
    }
  }

  fail(error: CallError): void {
    if (this.isDone) return;
    this.#isAnswered = true;
    const payload = { ...error, message: clipText(error.message) };
    try {
      this.#note(this.#link.send([RecordKind.error, payload, null, this.#id], REPLY_SHARE));
    } catch {
      const { code, message } = payload; // a refusal's data could not be sent
      this.#link.send([RecordKind.error, { code, message }, null, this.#id], REPLY_SHARE);
    }
  }

  #note(result: CastResult): void {
    if (result === "full") this.#system.deadLetters.add("undeliverable", this.#address.target, this.#address.name, undefined);
  }
}
