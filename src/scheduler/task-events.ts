/**
 * Owns: the words of the task book: what happens to a task (events, plain JSON, journalled) and what
 * is to be done about it (commands, given to the chain, the workers and the client).
 */
export type TaskPhase =
  | "open" | "matching" | "accepted" | "running" | "finishing" | "stopping"
  | "settled" | "cancelled" | "aborted" | "late" | "expired";

export const finalPhases = ["settled", "cancelled", "aborted", "late", "expired"] as const;
export type FinalPhase = (typeof finalPhases)[number];

export const isFinalPhase = (phase: TaskPhase): phase is FinalPhase =>
  (finalPhases as readonly TaskPhase[]).includes(phase);

/** What of the on-chain terms the book needs. Times are the chain's, in seconds. */
export interface TaskTerms {
  readonly taskId: string;
  readonly minWorkers: number;
  readonly maxWorkers: number;
  readonly allowStandby: boolean;
  readonly acceptBy: number;
  readonly epochs: number;
  readonly shardSamples: readonly number[];
}

export type TaskEvent =
  /** Seen on chain. */
  | { kind: "opened"; terms: TaskTerms }
  /** What matching found now; may come again while the task is short of workers. */
  | { kind: "matched"; workers: readonly string[]; standby: readonly string[] }
  | { kind: "accepted"; worker: string; deadline: number }
  /** A named node refused, or did not accept in the time it was given. */
  | { kind: "declined"; worker: string }
  | { kind: "started" }
  /** An accepted worker has its code and keys and asks for samples. */
  | { kind: "ready"; worker: string }
  /** Verified: the samples are in the parameters. */
  | { kind: "progressed"; worker: string; leaseId: number; from: number; to: number }
  /** Its link is gone, its step is far past the deadline rule, or its work failed verification. */
  | { kind: "lost"; worker: string; reason: string }
  /** Seen on chain: its pledge is forfeit. */
  | { kind: "aborted"; worker: string }
  /** Seen on chain: left before the start, its pledge returned. */
  | { kind: "released"; worker: string }
  /** Seen on chain: the workers' final receipts. */
  | { kind: "receipts-posted" }
  | { kind: "stop-requested" }
  /** Seen on chain: the task's money has left. */
  | { kind: "closed"; phase: FinalPhase }
  /** Chain time, in seconds. */
  | { kind: "tick"; time: number };

export type TaskCommand =
  /** Run matching for so many more workers. */
  | { kind: "match"; workers: number; except: readonly string[] }
  /** Transactions to the task market. */
  | { kind: "assign"; workers: readonly string[] }
  | { kind: "start" }
  | { kind: "post-final-receipts" }
  | { kind: "abort"; worker: string; reason: string }
  | { kind: "settle" }
  | { kind: "finish-stop" }
  | { kind: "fail" }
  | { kind: "late" }
  | { kind: "expire" }
  /** To the workers. */
  | { kind: "prepare"; worker: string }
  | { kind: "grant"; worker: string; leaseId: number; epoch: number; shard: number; from: number; to: number }
  | { kind: "stop-worker"; worker: string }
  | { kind: "delete-data"; worker: string };

export type WorkerPhase = "assigned" | "accepted" | "ready" | "lost" | "gone";
