// Owns: what one peer's casts and calls lead to here. Invariants: a message reaches a handler only if its actor is
// open to peers, the protocol versions fit and the payload passes its schema; all others are counted. What waits for
// an actor whose mailbox is "wait" holds the peer's credit, so the peer's window bounds it.
import type { z } from "zod";
import type { Cell } from "../core/cell.js";
import type { CastResult } from "../core/failure.js";
import { Origin, type Sender } from "../core/mailbox.js";
import type { CallSchema } from "../core/protocol.js";
import type { Arrival, Link } from "./link.js";
import { parsePayload } from "./payload.js";
import type { PeerLine } from "./peer-line.js";
import type { Address, CallRecord, CastRecord, CastsRecord } from "./record.js";
import { Cancellations, RemoteReply } from "./remote-reply.js";
import { resolveAddress, type Resolved } from "./resolve.js";
import { Waitlist, type WaitingMessage } from "./waitlist.js";

interface HeldMessage extends WaitingMessage {
  readonly link: Link;
  readonly release: () => void;
  readonly address: Address;
  readonly payload: unknown;
}

export class Inbound {
  readonly #line: PeerLine;
  readonly #sender: Sender;
  /** Of all its plain casts. */
  readonly #origin: Origin;
  readonly #cancellations = new Cancellations();
  readonly #held = new Map<string, Waitlist<HeldMessage>>();

  constructor(line: PeerLine, sender: Sender) {
    this.#line = line;
    this.#sender = sender;
    this.#origin = new Origin(sender, undefined, undefined);
  }

  onCast({ address, payload, trace }: CastRecord, arrival: Arrival): void {
    const found = resolveAddress(this.#line.system, address, "cast");
    const origin = trace === undefined ? this.#origin : new Origin(this.#sender, undefined, trace);
    this.#take(found, address, payload, origin, arrival);
  }

  onCasts({ address, payloads }: CastsRecord, { link, lane, sizeBytes }: Arrival): void {
    const found = resolveAddress(this.#line.system, address, "cast");
    const each = { link, lane, sizeBytes: Math.floor(sizeBytes / payloads.length) };
    for (const payload of payloads) {
      if (!link.isOpen) return; // a message before was one too many of those that fit nothing
      this.#take(found, address, payload, this.#origin, each);
    }
  }

  #take(found: Resolved, address: Address, payload: unknown, origin: Origin, arrival: Arrival): void {
    const { deadLetters } = this.#line.system;
    if ("code" in found) {
      deadLetters.add(found.code === "stopped" ? "undeliverable" : "malformed", address.target, address.name, payload);
      if (found.code !== "stopped") arrival.link.penalize(1);
      return;
    }
    const parsed = parsePayload(found.schema as z.ZodType, payload);
    if (!parsed.ok) {
      deadLetters.add("malformed", address.target, address.name, payload);
      arrival.link.penalize(1);
      return;
    }
    const { cell } = found;
    const { value } = parsed;
    const isBehind = this.#held.size > 0 && this.#held.has(cell.path);
    if (!isBehind && cell.deliverCast(address.name, value, origin) !== "full") return;
    if (cell.holdsSenders) this.#hold(cell, address, payload, arrival, () => cell.deliverCast(address.name, value, origin));
    else deadLetters.add("undeliverable", address.target, address.name, payload);
  }

  onCall(record: CallRecord, arrival: Arrival): void {
    const { address, id, timeoutMs } = record;
    const { system } = this.#line;
    const { link } = arrival;
    const slot = new RemoteReply({ id, timeoutMs, address }, { system, link, cancellations: this.#cancellations });
    const found = resolveAddress(system, address, "call");
    if ("code" in found) {
      if (found.code !== "stopped") link.penalize(1);
      slot.fail(found);
      return;
    }
    const parsed = parsePayload((found.schema as CallSchema).request, record.payload);
    if (!parsed.ok) {
      link.penalize(1);
      slot.fail({ code: "protocol", message: `the request of ${address.target}.${address.name} is not valid: ${parsed.message}` });
      return;
    }
    const { cell } = found;
    const take = (): CastResult => {
      cell.deliverCall(address.name, parsed.value, slot, this.#sender, record.chain, record.trace);
      return "accepted";
    };
    if (this.#held.size > 0 && this.#held.has(cell.path)) this.#hold(cell, address, record.payload, arrival, take);
    else take();
  }

  onCancel(id: number): void {
    this.#cancellations.cancel(id);
  }

  /** What a closed link has brought must not outlive its window: it goes as the messages under way on it went. */
  onLinkEnd(link: Link): void {
    this.#cancellations.onLinkEnd(link);
    for (const [path, waiting] of [...this.#held]) {
      for (const { address, payload } of waiting.extract((each) => each.link === link)) {
        this.#line.system.deadLetters.add("undeliverable", address.target, address.name, payload);
      }
      if (waiting.size === 0) this.#held.delete(path);
    }
  }

  #hold(cell: Cell, address: Address, payload: unknown, { link, lane, sizeBytes }: Arrival, take: () => CastResult): void {
    const release = link.hold(lane, sizeBytes);
    const { path } = cell;
    const waiting = this.#held.get(path) ?? new Waitlist<HeldMessage>();
    this.#held.set(path, waiting);
    waiting.add(cell, {
      sizeBytes,
      link,
      release,
      address,
      payload,
      take: () => {
        const result = take();
        if (result === "full") return result;
        release();
        if (waiting.size === 1) this.#held.delete(path);
        return result;
      },
    });
  }
}
