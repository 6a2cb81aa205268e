// Owns simulated time: sleepers wake in the order of their times while the real work between two wake-ups
// (native steps and updates) takes no simulated time at all.
// Invariant: one sleeper wakes at a time, and all that it sets off has come to rest before the next one
// does; equal times wake in the order in which they were asked for. So a run depends on its seed alone.
export class VirtualClock {
  nowMs = 0;
  #sleepers = [];
  #order = 0;
  #working = 0;
  #tail = Promise.resolve();

  sleep(durationMs) {
    return new Promise((wake) => {
      this.#sleepers.push({ atMs: this.nowMs + durationMs, order: this.#order++, wake });
    });
  }

  /** Real work off the event loop, one piece after the other: time stands still until it is done. */
  busy(work) {
    this.#working += 1;
    const done = this.#tail.then(work).finally(() => { this.#working -= 1; });
    this.#tail = done.catch(() => undefined);
    return done;
  }

  /** Lets time pass until nobody sleeps. */
  async run() {
    await this.#rest();
    while (this.#sleepers.length > 0) {
      const next = this.#sleepers.reduce((a, b) => (b.atMs < a.atMs || (b.atMs === a.atMs && b.order < a.order) ? b : a));
      this.#sleepers.splice(this.#sleepers.indexOf(next), 1);
      this.nowMs = next.atMs;
      next.wake();
      await this.#rest();
    }
  }

  // Between two pieces of work lie promises alone, and those are done before the next turn of the event loop.
  async #rest() {
    do await new Promise((turn) => setImmediate(turn)); while (this.#working > 0);
  }
}
