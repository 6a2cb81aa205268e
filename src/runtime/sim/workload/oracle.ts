// Owns: what must be true of the runtime whatever goes wrong, checked against an account kept outside of the nodes.
// Invariant: the oracle only watches; it holds no reference that a node acts on.

/** A failing run repeats itself; the first violations tell the story. */
const VIOLATIONS_MAX = 20;
/** Past its deadline a call may be late by what a stalled process lost, and no more. */
const CALL_LATE_MS_MAX = 10_000;

export interface Sent {
  readonly id: string;
  /** Sender's incarnation. */
  readonly from: string;
  /** Receiver's node and actor, and the lane: within one of these the order is kept. */
  readonly stream: string;
  readonly n: number;
}

interface OpenMessage {
  readonly from: string;
  readonly isLocal: boolean;
}

interface OpenCall {
  readonly from: string;
  readonly deadlineMs: number;
}

interface OpenWatch {
  readonly from: string;
  readonly target: string;
  fired: number;
}

export interface WatchAccount {
  readonly fire: () => void;
  readonly takeBack: () => void;
}

export class Oracle {
  readonly violations: string[] = [];
  readonly counts: Record<string, number> = {};
  readonly #crashed = new Set<string>();
  readonly #lastHandled = new Map<string, number>();
  readonly #handled = new Set<string>();
  readonly #dead = new Set<string>();
  readonly #open = new Map<string, OpenMessage>();
  readonly #calls = new Map<string, OpenCall>();
  readonly #callsRun = new Set<string>();
  readonly #watches = new Map<number, OpenWatch>();
  readonly #nowMs: () => number;
  #watchNumber = 0;
  /** Set while no fault has happened: then casts over links must not be lost either. */
  isCalm = false;

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  violate(text: string): void {
    if (this.violations.length < VIOLATIONS_MAX) this.violations.push(`at ${Math.round(this.#nowMs())} ms: ${text}`);
  }

  count(what: string): void {
    this.counts[what] = (this.counts[what] ?? 0) + 1;
  }

  crashed(incarnation: string): void {
    this.#crashed.add(incarnation);
  }

  // --- casts -------------------------------------------------------------------------------------------------------

  accepted(message: Sent, isLocal: boolean): void {
    this.count(isLocal ? "local casts" : "remote casts");
    // dropped on arrival: the dead letter came before the sender's answer
    if (!this.#dead.has(message.id)) this.#open.set(message.id, { from: message.from, isLocal });
  }

  handled(message: Sent, isOrdered: boolean): void {
    this.count("casts handled");
    if (this.#handled.has(message.id)) this.violate(`cast ${message.id} was handled twice`);
    if (this.#dead.has(message.id)) this.violate(`cast ${message.id} was handled after it had become a dead letter`);
    this.#handled.add(message.id);
    this.#open.delete(message.id);
    if (!isOrdered) return;
    const key = `${message.from} ${message.stream}`;
    const last = this.#lastHandled.get(key) ?? -1;
    if (message.n <= last) this.violate(`pair order: ${message.stream} from ${message.from} handled ${message.n} after ${last}`);
    this.#lastHandled.set(key, message.n);
  }

  deadLetter(reason: string, message: Sent): void {
    this.count(`dead letters: ${reason}`);
    if (reason === "fault") {
      if (!this.#handled.has(message.id)) this.violate(`cast ${message.id} failed without having been handled`);
      return;
    }
    if (this.#handled.has(message.id)) this.violate(`cast ${message.id} was handled and is a dead letter (${reason})`);
    if (this.#dead.has(message.id)) this.violate(`cast ${message.id} is a dead letter twice, now ${reason}`);
    this.#dead.add(message.id);
    this.#open.delete(message.id);
  }

  // --- calls -------------------------------------------------------------------------------------------------------

  called(id: string, from: string, deadlineMs: number): void {
    this.count("calls");
    this.#calls.set(id, { from, deadlineMs });
  }

  callRuns(id: string): void {
    if (this.#callsRun.has(id)) this.violate(`call ${id} was handled twice`);
    this.#callsRun.add(id);
  }

  settled(id: string, outcome: string, answerTo: string | undefined): void {
    const call = this.#calls.get(id);
    if (call === undefined) {
      this.violate(`call ${id} settled twice`);
      return;
    }
    this.#calls.delete(id);
    this.count(`calls: ${outcome}`);
    if (answerTo !== undefined && answerTo !== id) this.violate(`call ${id} got the answer to ${answerTo}`);
    if (outcome === "ok" && !this.#callsRun.has(id)) this.violate(`call ${id} was answered without having been handled`);
    const lateMs = this.#nowMs() - call.deadlineMs;
    if (lateMs > CALL_LATE_MS_MAX) this.violate(`call ${id} settled ${Math.round(lateMs)} ms after its deadline`);
  }

  // --- watches -----------------------------------------------------------------------------------------------------

  watched(from: string, target: string): WatchAccount {
    this.count("watches");
    const id = ++this.#watchNumber;
    const watch: OpenWatch = { from, target, fired: 0 };
    this.#watches.set(id, watch);
    let isTakenBack = false;
    return {
      fire: () => {
        watch.fired += 1;
        if (watch.fired > 1) this.violate(`the watch of ${target} by ${from} fired ${watch.fired} times`);
        if (isTakenBack) this.violate(`the watch of ${target} by ${from} fired after it had been taken back`);
      },
      takeBack: () => {
        isTakenBack = watch.fired === 0;
        if (isTakenBack) this.#watches.delete(id);
      },
    };
  }

  // --- the end -----------------------------------------------------------------------------------------------------

  /** After an orderly shutdown of everything that was still running. */
  finish(): void {
    for (const [id, { from, isLocal }] of this.#open) {
      if ((isLocal || this.isCalm) && !this.#crashed.has(from)) {
        this.violate(`cast ${id} was accepted, but neither handled nor counted as a dead letter`);
      }
    }
    for (const [id, { from }] of this.#calls) if (!this.#crashed.has(from)) this.violate(`call ${id} never settled`);
    for (const { from, target, fired } of this.#watches.values()) {
      if (fired === 0 && !this.#crashed.has(from)) this.violate(`the watch of ${target} by ${from} never fired`);
    }
  }

  /** Calls and local casts that are still under way. */
  get openCount(): number {
    let open = 0;
    for (const { from, isLocal } of this.#open.values()) if (isLocal && !this.#crashed.has(from)) open += 1;
    for (const { from } of this.#calls.values()) if (!this.#crashed.has(from)) open += 1;
    return open;
  }

  /** At a rest, when nothing is under way: what is settled needs no account any more. */
  forgetSettled(): void {
    this.#handled.clear();
    this.#dead.clear();
    this.#callsRun.clear();
    this.#open.clear();
    for (const [id, { from }] of this.#calls) if (this.#crashed.has(from)) this.#calls.delete(id);
    for (const [id, { from, fired }] of this.#watches) if (fired > 0 || this.#crashed.has(from)) this.#watches.delete(id);
    for (const key of this.#lastHandled.keys()) if (this.#crashed.has(key.slice(0, key.indexOf(" ")))) this.#lastHandled.delete(key);
    this.#crashed.clear();
  }
}
