// Owns: one incarnation of one other node: the calls and watches that run between it and this system.
// Invariants: when its last link goes, every pending call fails and every watch fires, each exactly once; when the
// node comes back as another incarnation this object is over for good, and so are all refs made from it.
import type { z } from "zod";
import { PendingCall, type CallOptions } from "../core/calls.js";
import type { Cell } from "../core/cell.js";
import { flattenChain } from "../core/chain.js";
import { describeError, type CallError, type CallResult, type CastResult, type StopReason } from "../core/failure.js";
import type { ReplySlot, Sender } from "../core/mailbox.js";
import type { AnyProtocol, CallSchema } from "../core/protocol.js";
import type { Ref } from "../core/ref.js";
import type { SystemCore } from "../core/system.js";
import { WireError } from "../wire/codec.js";
import type { Link, LinkEnd, LinkReport } from "./link.js";
import { addressFields, clipText, readRecord, RecordKind, type Address, type WireRecord } from "./record.js";
import { RemoteRef } from "./remote-ref.js";

/** One peer's calls under way; at ~300 B each this is 20 MiB, far past any useful window. */
const PENDING_CALLS_MAX = 65_536;
/** Watches one peer may hold here. */
const INBOUND_WATCHES_MAX = 65_536;
/** Answers may fill twice the outbox that requests may: the work behind them is done. */
const REPLY_SHARE = 2;

export type PeerState = "up" | "down" | "replaced";

export interface PeerDown {
  readonly end: LinkEnd | "replaced";
  readonly message: string;
}

interface OutboundWatch {
  readonly target: string;
  readonly fire: (reason: StopReason) => void;
}

export class Peer {
  readonly nodeId: string;
  readonly incarnation: string;
  readonly #system: SystemCore;
  readonly #sender: Sender;
  #links: Link[] = [];
  #state: PeerState = "down";
  readonly #calls = new Map<number, { readonly call: PendingCall; readonly reply: z.ZodType }>();
  readonly #watches = new Map<number, OutboundWatch>();
  readonly #inbound = new Map<number, () => void>();
  readonly #downListeners = new Set<(down: PeerDown) => void>();
  #number = 0;

  constructor(system: SystemCore, nodeId: string, incarnation: string) {
    this.#system = system;
    this.nodeId = nodeId;
    this.incarnation = incarnation;
    this.#sender = Object.freeze({ nodeId, link: this });
  }

  get state(): PeerState {
    return this.#state;
  }

  get isUp(): boolean {
    return this.#state === "up";
  }

  ref<P extends AnyProtocol>(protocol: P, name: string): Ref<P> {
    return new RemoteRef(this, protocol, name);
  }

  /** `listener` runs each time the peer goes down. @returns the function that ends the subscription. */
  onDown(listener: (down: PeerDown) => void): () => void {
    this.#downListeners.add(listener);
    return () => void this.#downListeners.delete(listener);
  }

  report(): LinkReport[] {
    return this.#links.map((link) => link.report());
  }

  // --- outgoing ----------------------------------------------------------------------------------------------------

  castTo(protocol: AnyProtocol, target: string, name: string, message: unknown): CastResult {
    const link = this.#links[0];
    if (link === undefined) return "stopped";
    try {
      return link.send([RecordKind.cast, message, null, ...addressFields(protocol, target, name)]);
    } catch (error) {
      this.#countUnsendable(target, name, message, error);
      return "full";
    }
  }

  callTo(
    protocol: AnyProtocol,
    target: string,
    name: string,
    message: unknown,
    options: CallOptions | undefined,
  ): Promise<CallResult<unknown>> {
    const system = this.#system;
    const call = new PendingCall(`${target}.${name} at ${this.nodeId.slice(0, 8)}`, options, system.host.clock, system.deadlines);
    if (call.isDone) return call.promise;
    const link = this.#links[0];
    if (link === undefined) {
      call.fail({ code: "unreachable", message: `node ${this.nodeId.slice(0, 8)} is ${this.#state}` });
      return call.promise;
    }
    if (this.#calls.size >= PENDING_CALLS_MAX) {
      call.fail({ code: "full", message: `${PENDING_CALLS_MAX} calls to node ${this.nodeId.slice(0, 8)} are pending` });
      return call.promise;
    }
    const id = ++this.#number;
    const chain = options?.detached === true ? undefined : system.currentChain();
    const timeoutMs = call.deadlineMs - system.host.clock.nowMs();
    const fields = [id, timeoutMs, chain === undefined ? null : flattenChain(chain)];
    try {
      const result = link.send([RecordKind.call, message, null, ...fields, ...addressFields(protocol, target, name)]);
      if (result !== "accepted") {
        const isFull = result === "full";
        call.fail({
          code: isFull ? "full" : "unreachable",
          message: isFull ? `the outbox to node ${this.nodeId.slice(0, 8)} is full` : "the link has just closed",
        });
        return call.promise;
      }
    } catch (error) {
      call.fail(unsendable(error));
      return call.promise;
    }
    const schema = protocol.call[name] as CallSchema;
    this.#calls.set(id, { call, reply: schema.reply });
    call.onSettled = () => void this.#calls.delete(id);
    return call.promise;
  }

  watchAt(target: string, listener: (reason: StopReason) => void): () => void {
    const id = ++this.#number;
    let isOver = false;
    const fire = (reason: StopReason): void => {
      if (isOver) return;
      isOver = true;
      try {
        listener(reason);
      } catch (error) {
        this.#system.host.logger.error("watcher failed", { target, nodeId: this.nodeId, error });
      }
    };
    const isAsked = this.#links[0]?.send([RecordKind.watch, null, null, id, target], REPLY_SHARE) === "accepted";
    if (isAsked) this.#watches.set(id, { target, fire });
    else this.#system.host.tasks.micro(() => fire(this.#goneReason(`node ${this.nodeId.slice(0, 8)} is ${this.#state}`)));
    return () => {
      if (isOver) return;
      isOver = true;
      if (this.#watches.delete(id)) this.#links[0]?.send([RecordKind.unwatch, null, null, id], REPLY_SHARE);
    };
  }

  // --- links -------------------------------------------------------------------------------------------------------

  addLink(link: Link): void {
    this.#links.push(link);
    this.#state = "up";
  }

  /** @returns true when that was the last one. */
  removeLink(link: Link, end: LinkEnd, message: string): boolean {
    this.#links = this.#links.filter((each) => each !== link);
    if (this.#links.length > 0 || this.#state !== "up") return false;
    this.#goDown("down", { end, message });
    return true;
  }

  /** The node has come back as another incarnation. */
  replace(): void {
    if (this.#state === "replaced") return;
    const links = this.#links;
    this.#links = [];
    const wasUp = this.#state === "up";
    this.#state = "replaced";
    for (const link of links) link.close("lost", "the node came back as a new incarnation");
    if (wasUp) this.#goDown("replaced", { end: "replaced", message: "the node came back as a new incarnation" });
  }

  closeLinks(): void {
    for (const link of [...this.#links]) link.close("closed", "closed by this side");
  }

  sayGoodbye(): void {
    for (const link of this.#links) link.sayGoodbye();
  }

  async flushed(): Promise<void> {
    await Promise.all(this.#links.map((link) => link.flushed()));
  }

  probe(): void {
    for (const link of [...this.#links]) link.probe();
  }

  beat(isStalled: boolean): void {
    for (const link of [...this.#links]) link.beat(isStalled);
  }

  #goDown(state: "down" | "replaced", down: PeerDown): void {
    this.#state = state;
    const { logger } = this.#system.host;
    (down.end === "violation" || down.end === "silent" ? logger.warn : logger.info)("peer is down", {
      nodeId: this.nodeId, end: down.end, message: down.message,
    });
    for (const end of this.#inbound.values()) end();
    this.#inbound.clear();
    const error: CallError = { code: "unreachable", message: `node ${this.nodeId.slice(0, 8)} went down: ${down.message}` };
    for (const { call } of [...this.#calls.values()]) call.fail(error);
    const watches = [...this.#watches.values()];
    this.#watches.clear();
    for (const { fire } of watches) fire(this.#goneReason(down.message));
    for (const listener of [...this.#downListeners]) {
      try {
        listener(down);
      } catch (failure) {
        logger.error("onDown listener failed", { nodeId: this.nodeId, error: failure });
      }
    }
  }

  #goneReason(message: string): StopReason {
    return { code: this.#state === "replaced" ? "replaced" : "unreachable", message };
  }

  // --- incoming ----------------------------------------------------------------------------------------------------

  /** @throws WireError when the record is none. */
  onRecord(raw: readonly unknown[], link: Link): void {
    const record = readRecord(raw);
    switch (record.kind) {
      case "cast":
        this.#onCast(record, link);
        break;
      case "call":
        this.#onCall(record, link);
        break;
      case "reply":
        this.#onReply(record.id, record.payload, link);
        break;
      case "error":
        this.#calls.get(record.id)?.call.fail(record.error);
        break;
      case "watch":
        this.#onWatch(record.id, record.target, link);
        break;
      case "unwatch":
        this.#inbound.get(record.id)?.();
        this.#inbound.delete(record.id);
        break;
      case "down": {
        const watch = this.#watches.get(record.id);
        this.#watches.delete(record.id);
        watch?.fire(record.reason);
      }
    }
  }

  #onCast({ address, payload }: WireRecord & { kind: "cast" }, link: Link): void {
    const { deadLetters } = this.#system;
    const found = this.#resolve(address, "cast");
    if ("code" in found) {
      deadLetters.add(found.code === "stopped" ? "undeliverable" : "malformed", address.target, address.name, payload);
      if (found.code !== "stopped") link.penalize(1);
      return;
    }
    const parsed = parse(found.schema as z.ZodType, payload);
    if (!parsed.ok) {
      deadLetters.add("malformed", address.target, address.name, payload);
      link.penalize(1);
      return;
    }
    if (found.cell.deliverCast(address.name, parsed.value, this.#sender) === "full") {
      deadLetters.add("undeliverable", address.target, address.name, payload);
    }
  }

  #onCall(record: WireRecord & { kind: "call" }, link: Link): void {
    const { address, id } = record;
    const slot = new RemoteReply(this.#system, link, id, record.timeoutMs, address);
    const found = this.#resolve(address, "call");
    if ("code" in found) {
      if (found.code !== "stopped") link.penalize(1);
      slot.fail(found);
      return;
    }
    const parsed = parse((found.schema as CallSchema).request, record.payload);
    if (!parsed.ok) {
      link.penalize(1);
      slot.fail({ code: "protocol", message: `the request of ${address.target}.${address.name} is not valid: ${parsed.message}` });
      return;
    }
    found.cell.deliverCall(address.name, parsed.value, slot, this.#sender, record.chain);
  }

  #onReply(id: number, payload: unknown, link: Link): void {
    const pending = this.#calls.get(id);
    if (pending === undefined) return; // timed out or aborted here meanwhile
    const parsed = parse(pending.reply, payload);
    if (parsed.ok) pending.call.succeed(parsed.value);
    else {
      link.penalize(1);
      pending.call.fail({ code: "protocol", message: `the reply is not valid: ${parsed.message}` });
    }
  }

  #onWatch(id: number, target: string, link: Link): void {
    const cell = this.#system.cellAt(target);
    const report = (reason: StopReason): void => {
      this.#inbound.delete(id);
      link.send([RecordKind.down, { code: reason.code, message: clipText(reason.message) }, null, id], REPLY_SHARE);
    };
    if (cell === undefined || !cell.isRemote) report({ code: "not-found", message: `no actor ${target}` });
    else if (this.#inbound.size >= INBOUND_WATCHES_MAX) throw new WireError("malformed", "too many watches");
    else {
      this.#inbound.get(id)?.();
      this.#inbound.set(id, cell.watch(report));
    }
  }

  #resolve(address: Address, kind: "call" | "cast"): { readonly cell: Cell; readonly schema: unknown } | CallError {
    const { target, name } = address;
    const cell = this.#system.roots.get(target) ?? this.#system.cellAt(target);
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

  #countUnsendable(target: string, name: string, message: unknown, error: unknown): void {
    this.#system.deadLetters.add("malformed", target, name, message);
    this.#system.host.logger.warn("message cannot be sent", { target, name, error: describeError(error) });
  }
}

class RemoteReply implements ReplySlot {
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

function parse(schema: z.ZodType, payload: unknown): { ok: true; value: unknown } | { ok: false; message: string } {
  try {
    const result = schema.safeParse(payload);
    if (result.success) return { ok: true, value: result.data };
    const issue = result.error.issues[0];
    return { ok: false, message: `${issue?.path.join(".") || "message"}: ${issue?.message ?? "invalid"}` };
  } catch (error) {
    return { ok: false, message: describeError(error) };
  }
}

function unsendable(error: unknown): CallError {
  return {
    code: error instanceof WireError && error.code === "too-large" ? "too-large" : "protocol",
    message: describeError(error),
  };
}
