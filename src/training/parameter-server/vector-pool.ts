/**
 * Owns: vectors of one length between uses: fresh memory of 100 MB costs 25,000 page faults, as much
 * time as the update that is written to it.
 * Invariant: only what was taken here comes back, once; memory of received frames never does.
 */

/** One state of Adam and one gradient between updates. */
const KEPT_MAX = 4;

type Vector = Float32Array<ArrayBuffer>;

export class VectorPool {
  private readonly free: Vector[] = [];
  private readonly lent = new WeakSet<Float32Array>();

  constructor(private readonly length: number) {}

  /** Of any content. */
  take(): Vector {
    const vector = this.free.pop() ?? new Float32Array(this.length);
    this.lent.add(vector);
    return vector;
  }

  /** Nobody reads it any more. */
  give(vector: Float32Array): void {
    if (!this.lent.delete(vector) || this.free.length >= KEPT_MAX) return;
    this.free.push(vector as Vector);
  }
}
