// Owns: the casts and calls that this system sends to one peer. Invariants: a call that was sent settles exactly once:
// by its answer, its deadline, its caller's signal or the peer going down; the peer is told when the caller gave up.
import type { z } from "zod";
import { PendingCall, type CallOptions } from "../core/calls.js";
import { flattenChain } from "../core/chain.js";
import { describeError, type CallError, type CallResult, type CastResult } from "../core/failure.js";
import type { Delivery } from "../core/mailbox.js";
import type { AnyProtocol, CallSchema } from "../core/protocol.js";
import type { TraceContext } from "../core/trace.js";
import { encodeTail } from "../wire/cast-run.js";
import { LINK_VERSION_DELIVERY, LINK_VERSION_RUNS } from "../wire/limits.js";
import type { Link } from "./link.js";
import { parsePayload, unsendable } from "./payload.js";
import { REPLY_SHARE, type PeerLine } from "./peer-line.js";
import { addressFields, RecordKind, traceFields, type ProtocolTag } from "./record.js";

/** One peer's calls under way; at ~300 B each this is 20 MiB, far past any useful window. */
const PENDING_CALLS_MAX = 65_536;

interface PendingRecord {
  readonly call: PendingCall;
  /** The answer can come over this one alone. */
  readonly link: Link;
  /** Absent for a confirmed cast, whose answer is only that its handler has finished. */
  readonly reply: z.ZodType | undefined;
}

interface CastAddress {
  readonly protocol: AnyProtocol;
  readonly target: string;
  readonly name: string;
  /** Undefined when it is not plain enough for a run. */
  readonly tail: Uint8Array | undefined;
}

export interface ConfirmedCast {
  readonly delivery: Delivery;
  readonly run: number;
  readonly previous: number;
  readonly trace: TraceContext | undefined;
}

export class Outgoing {
  readonly #line: PeerLine;
  readonly #calls = new Map<number, PendingRecord>();
  #number = 0;
  /** Where the last cast went: most follow another one to the same actor. */
  #last: CastAddress | undefined;

  constructor(line: PeerLine) {
    this.#line = line;
  }

  cast(protocol: AnyProtocol, target: string, name: string, message: unknown): CastResult {
    const { link, system } = this.#line;
    if (link === undefined) return "stopped";
    const span = system.tracer === undefined ? undefined : system.traceOut("cast", target, name);
    try {
      if (link.version >= LINK_VERSION_RUNS && (!system.isTracing || (span === undefined && system.currentTrace() === undefined))) {
        const tail = this.#tailFor(protocol, target, name);
        const result = tail === undefined ? undefined : link.sendCast(tail, message);
        if (result !== undefined) return result;
      }
      const trace = link.version < LINK_VERSION_DELIVERY ? undefined : (span?.context ?? system.currentTrace());
      const address = addressFields(protocol, target, name);
      const result = link.send(
        trace === undefined
          ? [RecordKind.cast, message, null, ...address]
          : [RecordKind.cast, message, null, ...address, ...traceFields(trace)],
      );
      span?.end();
      return result;
    } catch (error) {
      span?.end(error);
      this.#countUnsendable(target, name, message, error);
      return "full";
    }
  }

  call(
    protocol: AnyProtocol,
    target: string,
    name: string,
    message: unknown,
    options: CallOptions | undefined,
  ): Promise<CallResult<unknown>> {
    const { system, label, link } = this.#line;
    const call = new PendingCall(`node ${label} ${target}`, name, options, system.host.clock, system.deadlines);
    if (call.isDone) return call.promise;
    const schema = (protocol.call as Record<string, CallSchema | undefined>)[name];
    if (schema === undefined) {
      call.fail({ code: "protocol", message: `${protocol.name}/${protocol.version} has no call "${name}"` });
      return call.promise;
    }
    const span = system.traceOut("call", target, name);
    if (span !== undefined) call.span = span;
    const chain = options?.detached === true ? undefined : system.currentChain();
    const timeoutMs = call.deadlineMs - system.host.clock.nowMs();
    const trace = span?.context ?? system.currentTrace();
    const flat = chain === undefined ? null : flattenChain(chain);
    // One literal: putting it together from lists costs a microsecond a call.
    const record: unknown[] = [
      RecordKind.call, message, null, 0, timeoutMs, flat, target, protocol.name, protocol.version, protocol.compatibleFrom, name,
    ];
    if (trace !== undefined && link !== undefined && link.version >= LINK_VERSION_DELIVERY) record.push(...traceFields(trace));
    this.#send(call, schema.reply, link, record);
    return call.promise;
  }

  /** A cast of an outbox; the result is its handler's. "unreachable" also means: not now, try again. */
  confirmed(
    cast: ConfirmedCast,
    target: { readonly protocol: ProtocolTag; readonly path: string; readonly name: string },
    message: unknown,
    options: CallOptions,
  ): Promise<CallResult<unknown>> {
    const { system, label, link } = this.#line;
    const call = new PendingCall(`node ${label} ${target.path}`, target.name, options, system.host.clock, system.deadlines);
    if (call.isDone) return call.promise;
    if (link !== undefined && link.version < LINK_VERSION_DELIVERY) {
      call.fail({ code: "unreachable", message: `node ${label} is too old for confirmed casts` });
      return call.promise;
    }
    const timeoutMs = call.deadlineMs - system.host.clock.nowMs();
    const { outbox, sequence } = cast.delivery;
    const address = addressFields(target.protocol, target.path, target.name);
    const fields = [timeoutMs, outbox, sequence, cast.run, cast.previous, ...address, ...traceFields(cast.trace)];
    this.#send(call, undefined, link, [RecordKind.confirmed, message, null, 0, ...fields]);
    return call.promise;
  }

  /** `record[3]` is where the call's number goes. */
  #send(call: PendingCall, reply: z.ZodType | undefined, link: Link | undefined, record: unknown[]): void {
    const { label, state } = this.#line;
    if (link === undefined) {
      call.fail({ code: "unreachable", message: `node ${label} is ${state}` });
      return;
    }
    if (this.#calls.size >= PENDING_CALLS_MAX) {
      call.fail({ code: "full", message: `${PENDING_CALLS_MAX} calls to node ${label} are pending` });
      return;
    }
    const id = ++this.#number;
    try {
      record[3] = id;
      const result = link.send(record);
      if (result !== "accepted") {
        const isFull = result === "full";
        call.fail({
          code: isFull ? "full" : "unreachable",
          message: isFull ? `the outbox to node ${label} is full` : "the link has just closed",
        });
        return;
      }
    } catch (error) {
      call.fail(unsendable(error));
      return;
    }
    const isCall = record[0] === RecordKind.call;
    this.#calls.set(id, { call, link, reply });
    call.onSettled = (isAnswered) => {
      this.#calls.delete(id);
      if (isAnswered || !isCall || !link.isOpen || link.version < LINK_VERSION_DELIVERY) return;
      link.send([RecordKind.cancel, null, null, id], REPLY_SHARE);
    };
  }

  onReply(id: number, payload: unknown, link: Link): void {
    const pending = this.#calls.get(id);
    if (pending === undefined) return; // timed out or aborted here meanwhile
    if (pending.reply === undefined) {
      pending.call.succeed(undefined);
      return;
    }
    const parsed = parsePayload(pending.reply, payload);
    if (parsed.ok) pending.call.succeed(parsed.value);
    else {
      link.penalize(1);
      pending.call.fail({ code: "protocol", message: `the reply is not valid: ${parsed.message}` });
    }
  }

  onError(id: number, error: CallError): void {
    this.#calls.get(id)?.call.fail(error);
  }

  /** The peer may still be up, over another link. */
  onLinkEnd(ended: Link, error: CallError): void {
    for (const { call, link } of [...this.#calls.values()]) if (link === ended) call.fail(error);
  }

  failAll(error: CallError): void {
    for (const { call } of [...this.#calls.values()]) call.fail(error);
  }

  #tailFor(protocol: AnyProtocol, target: string, name: string): Uint8Array | undefined {
    const last = this.#last;
    if (last !== undefined && last.target === target && last.name === name && last.protocol === protocol) return last.tail;
    const tail = encodeTail([null, ...addressFields(protocol, target, name)]);
    this.#last = { protocol, target, name, tail };
    return tail;
  }

  #countUnsendable(target: string, name: string, message: unknown, error: unknown): void {
    const { system } = this.#line;
    system.deadLetters.add("malformed", target, name, message);
    system.host.logger.warn("message cannot be sent", { target, name, error: describeError(error) });
  }
}
