/**
 * Owns: which sequence numbers of one worker were applied: the anti-replay window of RFC 4303.
 * Invariant: a sequence is reported new at most once; below the window nothing is new.
 */

/** Pushes of one worker that may overtake each other: far above any pipeline depth in use. */
export const SEQUENCE_WINDOW = 64;

export interface SequenceState {
  highest: number;
  applied: number[];
}

export class SequenceWindow {
  private highest = -1;
  private readonly applied = new Set<number>();

  static from(state: SequenceState): SequenceWindow {
    const window = new SequenceWindow();
    window.highest = state.highest;
    for (const sequence of state.applied) window.applied.add(sequence);
    return window;
  }

  state(): SequenceState {
    return { highest: this.highest, applied: [...this.applied].sort((a, b) => a - b) };
  }

  judge(sequence: number): "new" | "applied" | "too-old" {
    if (this.applied.has(sequence)) return "applied";
    return sequence <= this.highest - SEQUENCE_WINDOW ? "too-old" : "new";
  }

  mark(sequence: number): void {
    this.applied.add(sequence);
    if (sequence <= this.highest) return;
    this.highest = sequence;
    for (const old of this.applied) if (old <= sequence - SEQUENCE_WINDOW) this.applied.delete(old);
  }
}
