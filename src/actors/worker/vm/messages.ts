// Owns what a worker and the child that runs a task say to each other: requests and replies, checked where they
// arrive. Invariant: one reply a request; nothing that is read is longer than its bound; a worker believes no offset
// or size of a child before it was checked against what was agreed.
import { checkOptimizer } from "../../../training/optimizer/descriptor.js";
import { checkRules } from "../../../training/optimizer/rules.js";
import { JobError, TrainingError, type JobErrorCode, type TrainingErrorCode } from "../../../training/errors.js";
import type { JobLimits } from "../../../training/graph/parse.js";
import { VmError, type JobSummary, type VmErrorCode } from "./step-runner.js";

/** A job's text (JobLimits.textBytes) as JSON within JSON: quotes and line breaks double it at most. */
export const REQUEST_BYTES_MAX = 16 << 20;
/** A summary, a layout or an error, whose message is cut. */
export const REPLY_BYTES_MAX = 64 << 10;
const MESSAGE_LENGTH_MAX = 2_048;

/** Plans that a child keeps: that of whole batches, and one of the rest of a shard. */
export const SLOTS = 2;

export type Request =
  | { type: "open"; job: string; limits: Partial<JobLimits> }
  /** Compiles the plan of a batch of `rows`, whose head is `slot` of the shared memory. */
  | { type: "prepare"; rows: number; slot: number }
  /** Parameters, inputs and labels lie in the slot; gradient, loss and correct will. */
  | { type: "run"; slot: number };

interface Region { offset: number; length: number }

/** Where a slot holds what: offsets in bytes from the slot's start, lengths in elements. */
export interface StepLayout {
  parameters: Region;
  gradient: Region;
  inputs: Region & { type: "u8" | "i32" | "f32" };
  labels: Region;
  loss: number;
  correct?: number;
}

export interface Opened {
  summary: JobSummary;
  /** Of one slot; the worker makes room for SLOTS. */
  slotBytes: number;
}

/** What a child says before it has been asked: it is confined and ready for a job. */
export interface Ready {
  backend: "cpu" | "cuda";
  /** Private memory that Node and the device take before any job. */
  dataBytes: number;
  limits: boolean;
  capabilities: boolean;
  seccomp: boolean;
  reason: string;
}

export interface ErrorReply { kind: "job" | "training" | "vm"; code: string; message: string }
export type Reply = { ok: true; value: unknown } | { ok: false; error: ErrorReply };

export function errorReply(error: unknown): Reply {
  const { code = "failed", message = String(error) } = error as { code?: string; message?: string };
  const kind = error instanceof JobError ? "job" : error instanceof TrainingError ? "training" : "vm";
  const known = kind !== "vm" || code === "memory" ? code : "failed";
  return { ok: false, error: { kind, code: known, message: message.slice(0, MESSAGE_LENGTH_MAX) } };
}

export function thrownFrom({ kind, code, message }: ErrorReply): Error {
  if (kind === "job") return new JobError(code as JobErrorCode, message);
  if (kind === "training") return new TrainingError(code as TrainingErrorCode, message);
  return new VmError(code as VmErrorCode, message);
}

// ------------------------------------------------------------ checks

type Fields = Record<string, unknown>;

const wrong = (what: string): never => {
  throw new VmError("protocol", `the message has no valid ${what}`);
};
const fieldsOf = (value: unknown, what: string): Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value) ? value as Fields : wrong(what);
const integer = (value: unknown, what: string, max = Number.MAX_SAFE_INTEGER): number =>
  Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) <= max ? value as number : wrong(what);
const text = (value: unknown, what: string): string => typeof value === "string" ? value : wrong(what);
const flag = (value: unknown, what: string): boolean => typeof value === "boolean" ? value : wrong(what);
function oneOf<T extends string>(value: unknown, what: string, all: readonly T[]): T {
  return all.includes(value as T) ? value as T : wrong(what);
}

export function checkRequest(value: unknown): Request {
  const { type, job, limits, rows, slot } = fieldsOf(value, "request");
  if (type === "open") return { type, job: text(job, "job"), limits: fieldsOf(limits, "limits") as Partial<JobLimits> };
  if (type === "prepare") return { type, rows: integer(rows, "rows"), slot: integer(slot, "slot", SLOTS - 1) };
  if (type === "run") return { type, slot: integer(slot, "slot", SLOTS - 1) };
  return wrong("type");
}

export function checkReply(value: unknown): Reply {
  const { ok, value: result, error } = fieldsOf(value, "reply");
  if (ok === true) return { ok, value: result };
  const { kind, code, message } = fieldsOf(error, "error");
  return { ok: false, error: { kind: oneOf(kind, "kind", ["job", "training", "vm"]), code: text(code, "code"), message: text(message, "message") } };
}

export function checkReady(value: unknown): Ready {
  const { backend, dataBytes, limits, capabilities, seccomp, reason } = fieldsOf(value, "start");
  return {
    backend: oneOf(backend, "backend", ["cpu", "cuda"]), dataBytes: integer(dataBytes, "dataBytes"), limits: flag(limits, "limits"),
    capabilities: flag(capabilities, "capabilities"), seccomp: flag(seccomp, "seccomp"), reason: text(reason, "reason"),
  };
}

/** @param bounds the limits that the child was told to hold. */
export function checkOpened(value: unknown, bounds: JobLimits): Opened {
  const { summary, slotBytes } = fieldsOf(value, "answer");
  const { run, optimizer, rules, cost } = fieldsOf(summary, "summary");
  const { batchSize, epochs, seed } = fieldsOf(run, "run");
  const { parameterCount, memoryBytes, multiplyAddsPerStep } = fieldsOf(cost, "cost");
  return {
    summary: {
      run: { batchSize: integer(batchSize, "batch size", bounds.batchSize), epochs: integer(epochs, "epochs", bounds.epochs), seed: integer(seed, "seed") },
      optimizer: checkOptimizer(optimizer), rules: checkRules(rules),
      cost: {
        // every variable's start is rounded up to 16 elements
        parameterCount: integer(parameterCount, "parameter count", bounds.parameters + 16 * bounds.nodes),
        memoryBytes: integer(memoryBytes, "memory", bounds.memoryBytes),
        multiplyAddsPerStep: integer(multiplyAddsPerStep, "multiply-adds", bounds.multiplyAddsPerStep),
      },
    },
    slotBytes: integer(slotBytes, "slot size", 2 * bounds.memoryBytes),
  };
}

/** Every region inside the slot, of the number of elements that the worker will write or read. */
export function checkLayout(value: unknown, rows: number, { cost }: JobSummary, slotBytes: number): StepLayout {
  const { parameters, gradient, inputs, labels, loss, correct } = fieldsOf(value, "layout");
  const region = (given: unknown, what: string, elementBytes: number): Region => {
    const { offset, length } = fieldsOf(given, what);
    const at = integer(offset, what, slotBytes), count = integer(length, what, slotBytes);
    return at % 4 === 0 && at + count * elementBytes <= slotBytes ? { offset: at, length: count } : wrong(what);
  };
  const scalar = (offset: unknown, what: string): number => region({ offset, length: 1 }, what, 4).offset;
  const type = oneOf(fieldsOf(inputs, "inputs").type, "type of the inputs", ["u8", "i32", "f32"]);
  const layout = {
    parameters: region(parameters, "parameters", 4), gradient: region(gradient, "gradient", 4),
    inputs: { ...region(inputs, "inputs", type === "u8" ? 1 : 4), type }, labels: region(labels, "labels", 4),
    loss: scalar(loss, "loss"), ...(correct === undefined ? {} : { correct: scalar(correct, "correct") }),
  };
  const { parameterCount } = cost;
  if (layout.parameters.length !== parameterCount || layout.gradient.length !== parameterCount) wrong("parameter count");
  if (layout.inputs.length % rows !== 0 || layout.labels.length % rows !== 0) wrong("row width");
  return layout;
}
