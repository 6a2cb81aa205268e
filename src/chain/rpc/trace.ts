// Owns debug_traceTransaction, debug_traceCall and debug_traceBlock*: geth's struct log and its callTracer.
// Invariant: bounded: a struct log of more than STEPS_MAX steps is refused, a block is traced one transaction at a time.
import type { EVMResult, InterpreterStep, Message } from "@ethereumjs/evm";
import { padTo, toHex } from "../bytes.js";
import type { Block } from "../block/block.js";
import type { Chain } from "../chain.js";
import type { ExecutionObserver } from "../execution/machine.js";
import { canonicalPlace, findBlock, needHeader } from "./blocks.js";
import { readCall, revertReason } from "./calls.js";
import { invalidParams, RpcError, rpcCode } from "./errors.js";
import { quantity } from "./format.js";
import type { RpcMethod } from "./methods.js";
import { hashParam, objectParam } from "./params.js";

/** Some 200 bytes a step with its stack: 50 MB, the most that one answer should cost. */
const STEPS_MAX = 250_000;

interface Tracer extends ExecutionObserver {
  result(outcome: { gasUsed: bigint; gas: bigint }): unknown;
}

export function traceMethods(chain: Chain): Record<string, RpcMethod> {
  const traceAt = async (block: Block, index: number, config: unknown): Promise<unknown> => {
    const tracer = createTracer(config);
    const receipt = await chain.replay(block, index, tracer);
    return tracer.result({ gasUsed: receipt.gasUsed, gas: chain.decoder.decode(block.transactions[index]!).tx.gasLimit });
  };
  const traceBlock: RpcMethod = async ([id, config]) => {
    const block = findBlock(chain, id);
    if (!block) throw new RpcError(rpcCode.server, "block not found");
    const traces: unknown[] = [];
    for (let index = 0; index < block.transactions.length; index++) {
      const txHash = toHex(chain.decoder.decode(block.transactions[index]!).hash);
      traces.push({ txHash, result: await traceAt(block, index, config) });
    }
    return traces;
  };
  return {
    debug_traceTransaction: async ([hash, config]) => {
      const place = canonicalPlace(chain, hashParam(hash, "transaction hash"));
      if (!place) throw new RpcError(rpcCode.server, "transaction not found");
      return traceAt(place.block, place.index, config);
    },
    debug_traceCall: async ([call, id, config]) => {
      const header = needHeader(chain, id);
      const request = readCall(call, header.gasLimit);
      const tracer = createTracer(config);
      const machine = await chain.machineAt(header);
      const { gasUsed } = await machine.observed(tracer, () => machine.callAsTransaction(request));
      return tracer.result({ gasUsed, gas: request.gas });
    },
    debug_traceBlockByNumber: traceBlock,
    debug_traceBlockByHash: (params) => (hashParam(params[0], "block hash"), traceBlock(params)),
  };
}

function createTracer(param: unknown): Tracer {
  const config = param === undefined || param === null ? {} : objectParam(param, "config");
  const { tracer, tracerConfig } = config;
  if (tracer === undefined) return new StructLogTracer(config);
  if (tracer === "callTracer") return new CallTracer(tracerConfig === undefined ? {} : objectParam(tracerConfig, "tracerConfig"));
  return invalidParams(`tracer: expected callTracer, or none for the struct log, got ${JSON.stringify(tracer)}`);
}

/** geth's default tracer: one entry an opcode, as it was before the opcode ran. */
class StructLogTracer implements Tracer {
  private readonly logs: Record<string, unknown>[] = [];
  /** Slots seen so far, by contract: what an entry's `storage` shows. */
  private readonly storage = new Map<string, Record<string, string>>();
  private output = "0x";
  private failed = false;
  private isOver = false;
  private loading: { slots: Record<string, string>; key: string; depth: number } | undefined;

  constructor(private readonly options: Record<string, unknown>) {}

  step(step: InterpreterStep): void {
    const { limit, disableStack, disableStorage, enableMemory } = this.options;
    const stack = step.stack;
    if (this.loading) {
      // the value of a load is on top of the stack when the next opcode of its frame begins
      if (this.loading.depth === step.depth) this.loading.slots[this.loading.key] = word(stack.at(-1) ?? 0n);
      this.loading = undefined;
    }
    if (typeof limit === "number" && limit > 0 && this.logs.length >= limit) return;
    if (this.logs.length >= STEPS_MAX) {
      this.isOver = true;
      return;
    }
    const entry: Record<string, unknown> = {
      pc: step.pc, op: step.opcode.name, gas: Number(step.gasLeft), gasCost: Number(step.opcode.dynamicFee ?? step.opcode.fee),
      depth: step.depth + 1,
    };
    if (disableStack !== true) entry.stack = stack.map((item) => `0x${item.toString(16)}`);
    if (enableMemory === true) entry.memory = words(step.memory);
    if (disableStorage !== true && (step.opcode.name === "SLOAD" || step.opcode.name === "SSTORE")) {
      const owner = step.address.toString();
      const slots = this.storage.get(owner) ?? {};
      this.storage.set(owner, slots);
      const key = word(stack.at(-1) ?? 0n);
      if (step.opcode.name === "SSTORE") slots[key] = word(stack.at(-2) ?? 0n);
      else this.loading = { slots, key, depth: step.depth };
      entry.storage = { ...slots };
    }
    if (step.gasRefund > 0n) entry.refund = Number(step.gasRefund);
    this.logs.push(entry);
  }

  leave(result: EVMResult): void {
    this.output = toHex(result.execResult.returnValue);
    this.failed = result.execResult.exceptionError !== undefined;
  }

  result({ gasUsed }: { gasUsed: bigint }): unknown {
    if (this.isOver) {
      throw new RpcError(rpcCode.server, `the trace has more than ${STEPS_MAX} steps; give a limit, or use {"tracer": "callTracer"}`);
    }
    return { gas: Number(gasUsed), failed: this.failed, returnValue: this.output, structLogs: this.logs };
  }
}

interface CallFrame {
  type: string;
  from: string;
  to?: string;
  value?: string;
  gas: string;
  gasUsed: string;
  input: string;
  output?: string;
  error?: string;
  revertReason?: string;
  calls?: CallFrame[];
  logs?: { address: string; topics: string[]; data: string; position: string }[];
}

const CALL_OPCODES = new Set(["CALL", "CALLCODE", "DELEGATECALL", "STATICCALL", "CREATE", "CREATE2"]);
/** Names that geth gives to what ended a call. */
const ERRORS: Record<string, string> = { revert: "execution reverted", "invalid opcode": "invalid opcode" };

/** geth's callTracer: the tree of calls. */
class CallTracer implements Tracer {
  private readonly open: CallFrame[] = [];
  private root: CallFrame | undefined;
  private opcode = "CALL";

  constructor(private readonly options: Record<string, unknown>) {}

  step(step: InterpreterStep): void {
    const { name } = step.opcode;
    if (CALL_OPCODES.has(name)) this.opcode = name;
    if (this.options.withLog === true && name.startsWith("LOG")) this.takeLog(step, Number(name.slice(3)));
  }

  enter(message: Message): void {
    const isCreate = message.to === undefined;
    const type = message.depth === 0 ? (isCreate ? "CREATE" : "CALL") : this.opcode;
    const frame: CallFrame = {
      type, from: message.caller.toString(), gas: quantity(message.gasLimit), gasUsed: "0x0", input: toHex(message.data),
      ...(isCreate ? {} : { to: (type === "DELEGATECALL" || type === "CALLCODE" ? message.codeAddress : message.to!).toString() }),
      ...(type === "STATICCALL" ? {} : { value: quantity(message.value) }),
    };
    const parent = this.open.at(-1);
    if (parent && this.options.onlyTopCall !== true) (parent.calls ??= []).push(frame);
    this.root ??= frame;
    this.open.push(frame);
  }

  leave({ execResult, createdAddress }: EVMResult): void {
    const frame = this.open.pop();
    if (!frame) return;
    frame.gasUsed = quantity(execResult.executionGasUsed);
    if (createdAddress) frame.to = createdAddress.toString();
    const failure = execResult.exceptionError?.error;
    if (execResult.returnValue.length > 0 && (failure === undefined || failure === "revert")) frame.output = toHex(execResult.returnValue);
    if (failure === undefined) return;
    frame.error = ERRORS[failure] ?? failure;
    delete frame.logs; // they never happened
    const reason = revertReason(execResult.returnValue);
    if (failure === "revert" && reason !== undefined) frame.revertReason = reason;
  }

  result({ gasUsed, gas }: { gasUsed: bigint; gas: bigint }): unknown {
    // the outermost frame is the transaction: its gas is the transaction's own
    return this.root && { ...this.root, gas: quantity(gas), gasUsed: quantity(gasUsed) };
  }

  private takeLog(step: InterpreterStep, topicCount: number): void {
    const frame = this.open.at(-1);
    if (!frame) return;
    const top = (position: number): bigint => step.stack.at(-1 - position) ?? 0n;
    const [from, length] = [Number(top(0)), Number(top(1))];
    const data = new Uint8Array(Math.min(length, 1 << 20));
    data.set(step.memory.subarray(from, from + data.length));
    (frame.logs ??= []).push({
      address: step.address.toString(), topics: Array.from({ length: topicCount }, (_, i) => word(top(2 + i))),
      data: toHex(data), position: quantity(frame.calls?.length ?? 0),
    });
  }
}

const word = (value: bigint): string => `0x${value.toString(16).padStart(64, "0")}`;

function words(memory: Uint8Array): string[] {
  const list: string[] = [];
  for (let at = 0; at < memory.length; at += 32) list.push(toHex(padTo(memory.subarray(at, at + 32), 32)));
  return list;
}
