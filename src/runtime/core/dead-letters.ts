// Owns: the account of messages that were not handled. Invariant: every undelivered message is counted under
// exactly one reason; listeners see it, and a throwing listener harms nobody.

export const DEAD_LETTER_REASONS = [
  "overflow", // dropped by the mailbox's overflow policy
  "conflated", // replaced by a newer message with the same key
  "stopped", // its actor stopped before handling it, or had stopped
  "fault", // its handler threw
  "expired", // its caller stopped waiting before the handler ran
  "cycle", // a call that would have waited for itself
  "stale", // a timer, watch or piped result of an instance that is gone
  "malformed", // from the wire: not decodable or not of the protocol
  "undeliverable", // from the wire: no such actor or mailbox full
] as const;

export type DeadLetterReason = (typeof DEAD_LETTER_REASONS)[number];

export interface DeadLetter {
  readonly reason: DeadLetterReason;
  readonly target: string;
  readonly name: string;
  readonly message: unknown;
}

export class DeadLetters {
  readonly #counts = new Map<DeadLetterReason, number>(DEAD_LETTER_REASONS.map((reason) => [reason, 0]));
  readonly #listeners = new Set<(letter: DeadLetter) => void>();

  add(reason: DeadLetterReason, target: string, name: string, message: unknown, count = 1): void {
    this.#counts.set(reason, this.#counts.get(reason)! + count);
    if (this.#listeners.size === 0) return;
    for (const listener of [...this.#listeners]) {
      try {
        listener({ reason, target, name, message });
      } catch {
        // The listener observes; what it throws is not the runtime's to handle.
      }
    }
  }

  /** @returns the function that ends the subscription. */
  subscribe(listener: (letter: DeadLetter) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  counts(): Record<DeadLetterReason, number> {
    return Object.fromEntries(this.#counts) as Record<DeadLetterReason, number>;
  }

  get total(): number {
    let total = 0;
    for (const count of this.#counts.values()) total += count;
    return total;
  }
}
