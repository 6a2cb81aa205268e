/**
 * Owns: who may hold which shard key until when. The owner's book issues, renews and revokes; the
 * holder's ring keeps unwrapped keys and forgets them. Time comes in as nowMs.
 * Invariant: a shard is leased to one recipient at a time within a task; an expired or revoked
 * lease never becomes valid again.
 */
import { DataError } from "./errors.js";
import { bytesToHex } from "./hash.js";
import type { Random } from "./shard.js";

export interface KeyLease {
  id: string;
  taskId: string;
  shardHash: string;
  /** Hex X25519 public key. */
  recipient: string;
  expiresMs: number;
}

interface Held extends KeyLease { revoked: boolean }

/** Leases of finished tasks are dropped by closeTask; this bounds what open tasks may hold. */
export const LEASES_MAX = 1_048_576;

export class KeyLeaseBook {
  private readonly leases = new Map<string, Held>();
  private readonly current = new Map<string, Held>();

  constructor(private readonly modules: { random: Random }) {}

  /** Leases a shard; refused while another recipient holds a valid lease on it. */
  issue(options: { taskId: string; shardHash: string; recipient: string; durationMs: number }, nowMs: number): KeyLease {
    const { taskId, shardHash, recipient, durationMs } = options;
    if (!(durationMs > 0)) throw new DataError("option", `a lease lasts longer than 0 ms, got ${durationMs}`);
    if (this.leases.size >= LEASES_MAX) throw new DataError("option", `there are ${LEASES_MAX} leases already`);
    const holder = this.current.get(place(taskId, shardHash));
    if (holder !== undefined && holder.recipient !== recipient && isValid(holder, nowMs)) {
      throw new DataError("option", `shard ${shardHash} is leased to another worker until ${holder.expiresMs}; revoke it first`);
    }
    if (holder !== undefined) this.leases.delete(holder.id);
    const lease: Held = {
      id: bytesToHex(this.modules.random(16)), taskId, shardHash, recipient, expiresMs: nowMs + durationMs, revoked: false,
    };
    this.leases.set(lease.id, lease);
    this.current.set(place(taskId, shardHash), lease);
    return published(lease);
  }

  /** The lease, if it is valid now; throws DataError lease-unknown, lease-revoked or lease-expired. */
  check(id: string, nowMs: number): KeyLease {
    const lease = this.leases.get(id);
    if (lease === undefined) throw new DataError("lease-unknown", `there is no lease ${id}`);
    if (lease.revoked) throw new DataError("lease-revoked", `lease ${id} was revoked`);
    if (nowMs >= lease.expiresMs) throw new DataError("lease-expired", `lease ${id} ended at ${lease.expiresMs}, now is ${nowMs}`);
    return published(lease);
  }

  /** Prolongs a lease that is still valid. */
  renew(id: string, durationMs: number, nowMs: number): KeyLease {
    this.check(id, nowMs);
    const lease = this.leases.get(id)!;
    lease.expiresMs = Math.max(lease.expiresMs, nowMs + durationMs);
    return published(lease);
  }

  revoke(id: string): void {
    const lease = this.leases.get(id);
    if (lease !== undefined) lease.revoked = true;
  }

  /** Revokes all that a recipient holds of a task; returns the shards that are free now. */
  revokeRecipient(taskId: string, recipient: string, nowMs: number): string[] {
    const freed = [...this.current.values()]
      .filter((lease) => lease.taskId === taskId && lease.recipient === recipient && isValid(lease, nowMs));
    for (const lease of freed) lease.revoked = true;
    return freed.map((lease) => lease.shardHash);
  }

  active(taskId: string, nowMs: number): KeyLease[] {
    return [...this.current.values()].filter((lease) => lease.taskId === taskId && isValid(lease, nowMs)).map(published);
  }

  /** Forgets a finished task. */
  closeTask(taskId: string): void {
    for (const [id, lease] of this.leases) if (lease.taskId === taskId) this.leases.delete(id);
    for (const [key, lease] of this.current) if (lease.taskId === taskId) this.current.delete(key);
  }
}

const place = (taskId: string, shardHash: string): string => `${taskId}\n${shardHash}`;
const isValid = (lease: Held, nowMs: number): boolean => !lease.revoked && nowMs < lease.expiresMs;
const published = ({ id, taskId, shardHash, recipient, expiresMs }: Held): KeyLease =>
  ({ id, taskId, shardHash, recipient, expiresMs });

/** A worker's keys; they are overwritten when they are forgotten. */
export class KeyRing {
  private readonly keys = new Map<string, { key: Uint8Array; expiresMs: number }>();

  put(lease: KeyLease, key: Uint8Array): void {
    this.forget(lease.shardHash);
    this.keys.set(lease.shardHash, { key: Uint8Array.from(key), expiresMs: lease.expiresMs });
  }

  get(shardHash: string, nowMs: number): Uint8Array {
    const held = this.keys.get(shardHash);
    if (held === undefined) throw new DataError("lease-unknown", `there is no key for shard ${shardHash}`);
    if (nowMs >= held.expiresMs) {
      this.forget(shardHash);
      throw new DataError("lease-expired", `the key of shard ${shardHash} was leased until ${held.expiresMs}, now is ${nowMs}`);
    }
    return held.key;
  }

  forget(shardHash: string): void {
    this.keys.get(shardHash)?.key.fill(0);
    this.keys.delete(shardHash);
  }

  clear(): void {
    for (const shardHash of [...this.keys.keys()]) this.forget(shardHash);
  }
}
