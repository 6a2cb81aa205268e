// Owns: the way back of one call that came over a link, and who is told when its caller gives up. Invariants: at most
// one answer leaves, and only over the link that the call came on; a call that nobody asks about costs no entry.
import { DeadlineNode } from "../core/deadlines.js";
import type { CallError, CastResult } from "../core/failure.js";
import type { ReplySlot } from "../core/mailbox.js";
import type { SystemCore } from "../core/system.js";
import type { Link } from "./link.js";
import { unsendable } from "./payload.js";
import { REPLY_SHARE } from "./peer-line.js";
import { clipText, RecordKind, type Address } from "./record.js";

/** Calls given up that have not been seen by their actor yet; past it the oldest is run in vain. */
const CANCELLED_MAX = 4096;

/** The calls of one peer that were given up or whose handlers want to hear of it. */
export class Cancellations {
  readonly #cancelled = new Set<number>();
  readonly #listening = new Map<number, RemoteReply>();

  isCancelled(id: number): boolean {
    return this.#cancelled.size > 0 && this.#cancelled.has(id);
  }

  cancel(id: number): void {
    if (this.#cancelled.size >= CANCELLED_MAX) {
      for (const oldest of this.#cancelled) {
        this.#cancelled.delete(oldest);
        break;
      }
    }
    this.#cancelled.add(id);
    this.#listening.get(id)?.giveUp({ code: "aborted", message: "the caller has given the call up" });
  }

  listen(id: number, reply: RemoteReply): void {
    this.#listening.set(id, reply);
  }

  /** An answer has left or can leave no more. */
  forget(id: number): void {
    if (this.#cancelled.size > 0) this.#cancelled.delete(id);
    if (this.#listening.size > 0) this.#listening.delete(id);
  }

  onLinkEnd(link: Link): void {
    const error = { code: "unreachable", message: "the caller's link has closed" } as const;
    for (const reply of [...this.#listening.values()]) if (reply.link === link) reply.giveUp(error);
  }
}

export class RemoteReply extends DeadlineNode implements ReplySlot {
  readonly deadlineMs: number;
  readonly link: Link;
  readonly #system: SystemCore;
  readonly #cancellations: Cancellations;
  readonly #id: number;
  readonly #address: Address;
  #isAnswered = false;
  #givenUp: CallError | undefined;
  #onCancel: ((error: CallError) => void) | undefined;

  constructor(
    options: { readonly id: number; readonly timeoutMs: number; readonly address: Address },
    modules: { readonly system: SystemCore; readonly link: Link; readonly cancellations: Cancellations },
  ) {
    super();
    this.#system = modules.system;
    this.link = modules.link;
    this.#cancellations = modules.cancellations;
    this.#id = options.id;
    this.#address = options.address;
    this.deadlineMs = this.#system.host.clock.nowMs() + options.timeoutMs;
  }

  get delivery(): undefined {
    return undefined;
  }

  get isDone(): boolean {
    return (
      this.#isAnswered ||
      this.#givenUp !== undefined ||
      !this.link.isOpen ||
      this.#cancellations.isCancelled(this.#id) ||
      this.#system.host.clock.nowMs() > this.deadlineMs
    );
  }

  succeed(value: unknown): void {
    if (this.#isLate()) return;
    try {
      this.#note(this.link.send([RecordKind.reply, value, null, this.#id], REPLY_SHARE));
    } catch (error) {
      this.#isAnswered = false;
      this.fail(unsendable(error));
    }
  }

  fail(error: CallError): void {
    if (this.#isLate()) return;
    const payload = { ...error, message: clipText(error.message) };
    try {
      this.#note(this.link.send([RecordKind.error, payload, null, this.#id], REPLY_SHARE));
    } catch {
      const { code, message } = payload; // a refusal's data could not be sent
      this.link.send([RecordKind.error, { code, message }, null, this.#id], REPLY_SHARE);
    }
  }

  onCancel(listener: (error: CallError) => void): void {
    if (this.#isAnswered) return;
    if (this.#givenUp === undefined && this.isDone) {
      this.#givenUp = { code: "aborted", message: "the caller has given the call up" };
    }
    if (this.#givenUp !== undefined) {
      listener(this.#givenUp);
      return;
    }
    this.#onCancel = listener;
    this.#cancellations.listen(this.#id, this);
    this.#system.deadlines.add(this, this.deadlineMs);
  }

  giveUp(error: CallError): void {
    if (this.#isAnswered || this.#givenUp !== undefined) return;
    this.#givenUp = error;
    const listener = this.#onCancel;
    this.#release();
    listener?.(error);
  }

  override expire(): void {
    this.giveUp({ code: "timeout", message: "the caller's deadline has passed" });
  }

  /** Marks the call as answered. @returns true when nobody waits any more. */
  #isLate(): boolean {
    const isLate = this.isDone;
    if (!isLate) this.#isAnswered = true;
    this.#release();
    return isLate;
  }

  #release(): void {
    this.#cancellations.forget(this.#id);
    if (this.#onCancel === undefined) return;
    this.#onCancel = undefined;
    this.#system.deadlines.remove(this);
  }

  #note(result: CastResult): void {
    if (result === "full") this.#system.deadLetters.add("undeliverable", this.#address.target, this.#address.name, undefined);
  }
}
