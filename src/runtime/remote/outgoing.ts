// Owns: the casts and calls that this system sends to one peer. Invariant: a call that was sent settles exactly once:
// by its answer, its deadline, its caller's signal or the peer going down.
import type { z } from "zod";
import { PendingCall, type CallOptions } from "../core/calls.js";
import { flattenChain } from "../core/chain.js";
import { describeError, type CallError, type CallResult, type CastResult } from "../core/failure.js";
import type { AnyProtocol, CallSchema } from "../core/protocol.js";
import type { Link } from "./link.js";
import { parsePayload, unsendable } from "./payload.js";
import type { PeerLine } from "./peer-line.js";
import { addressFields, RecordKind } from "./record.js";

/** One peer's calls under way; at ~300 B each this is 20 MiB, far past any useful window. */
const PENDING_CALLS_MAX = 65_536;

export class Outgoing {
  readonly #line: PeerLine;
  readonly #calls = new Map<number, { readonly call: PendingCall; readonly reply: z.ZodType }>();
  #number = 0;

  constructor(line: PeerLine) {
    this.#line = line;
  }

  cast(protocol: AnyProtocol, target: string, name: string, message: unknown): CastResult {
    const { link } = this.#line;
    if (link === undefined) return "stopped";
    try {
      return link.send([RecordKind.cast, message, null, ...addressFields(protocol, target, name)]);
    } catch (error) {
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
    if (link === undefined) {
      call.fail({ code: "unreachable", message: `node ${label} is ${this.#line.state}` });
      return call.promise;
    }
    if (this.#calls.size >= PENDING_CALLS_MAX) {
      call.fail({ code: "full", message: `${PENDING_CALLS_MAX} calls to node ${label} are pending` });
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
          message: isFull ? `the outbox to node ${label} is full` : "the link has just closed",
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

  onReply(id: number, payload: unknown, link: Link): void {
    const pending = this.#calls.get(id);
    if (pending === undefined) return; // timed out or aborted here meanwhile
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

  failAll(error: CallError): void {
    for (const { call } of [...this.#calls.values()]) call.fail(error);
  }

  #countUnsendable(target: string, name: string, message: unknown, error: unknown): void {
    const { system } = this.#line;
    system.deadLetters.add("malformed", target, name, message);
    system.host.logger.warn("message cannot be sent", { target, name, error: describeError(error) });
  }
}
