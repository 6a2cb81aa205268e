// Owns: what one peer's casts and calls lead to here. Invariant: a message reaches a handler only if its actor is open
// to peers, the protocol versions fit and the payload passes its schema; all others are counted.
import type { z } from "zod";
import type { Cell } from "../core/cell.js";
import type { CallError } from "../core/failure.js";
import type { Sender } from "../core/mailbox.js";
import type { CallSchema } from "../core/protocol.js";
import type { Link } from "./link.js";
import { parsePayload } from "./payload.js";
import type { PeerLine } from "./peer-line.js";
import type { Address, WireRecord } from "./record.js";
import { RemoteReply } from "./remote-reply.js";

export class Inbound {
  readonly #line: PeerLine;
  readonly #sender: Sender;

  constructor(line: PeerLine, sender: Sender) {
    this.#line = line;
    this.#sender = sender;
  }

  onCast({ address, payload }: WireRecord & { kind: "cast" }, link: Link): void {
    const { deadLetters } = this.#line.system;
    const found = this.#resolve(address, "cast");
    if ("code" in found) {
      deadLetters.add(found.code === "stopped" ? "undeliverable" : "malformed", address.target, address.name, payload);
      if (found.code !== "stopped") link.penalize(1);
      return;
    }
    const parsed = parsePayload(found.schema as z.ZodType, payload);
    if (!parsed.ok) {
      deadLetters.add("malformed", address.target, address.name, payload);
      link.penalize(1);
      return;
    }
    if (found.cell.deliverCast(address.name, parsed.value, this.#sender) === "full") {
      deadLetters.add("undeliverable", address.target, address.name, payload);
    }
  }

  onCall(record: WireRecord & { kind: "call" }, link: Link): void {
    const { address, id } = record;
    const slot = new RemoteReply(this.#line.system, link, id, record.timeoutMs, address);
    const found = this.#resolve(address, "call");
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
    found.cell.deliverCall(address.name, parsed.value, slot, this.#sender, record.chain);
  }

  #resolve(address: Address, kind: "call" | "cast"): { readonly cell: Cell; readonly schema: unknown } | CallError {
    const { target, name } = address;
    const { system } = this.#line;
    const cell = system.roots.get(target) ?? system.cellAt(target);
    if (cell === undefined || !cell.isRemote) return { code: "stopped", message: `no actor ${target} on this node` };
    const { protocol } = cell;
    const isCompatible =
      protocol.name === address.protocol &&
      protocol.version >= address.compatibleFrom &&
      address.version >= protocol.compatibleFrom;
    if (!isCompatible) {
      const [theirs, ours] = [`${address.protocol}/${address.version}`, `${protocol.name}/${protocol.version}`];
      return { code: "protocol", message: `${target} speaks ${ours}, not ${theirs}` };
    }
    if (!Object.hasOwn(protocol[kind] as object, name)) {
      return { code: "protocol", message: `${protocol.name}/${protocol.version} has no ${kind} "${name}"` };
    }
    return { cell, schema: (protocol[kind] as Record<string, unknown>)[name] };
  }
}
