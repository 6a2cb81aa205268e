// Owns: the simulated network: listeners, connections, and what can go wrong with them.
// Invariant: what a connection delivers is a prefix of what was sent on it, in order and unchanged; a lost frame
// therefore ends the connection, as on tcp. What crosses connections is only what `replay` puts there on purpose.
import type { BindOptions, DialFailure, DialOptions, SendOutcome } from "../remote/transport.js";
import { SOCKET_HIGH_WATER_MARK } from "../wire/limits.js";
import { EventKind, type EventLog } from "./event-log.js";
import type { SimRandom } from "./random.js";
import type { Scheduler, SimProcess } from "./scheduler.js";

export interface SimNetworkOptions {
  /** One way, drawn for each frame. */
  readonly latencyMs?: readonly [min: number, max: number];
  /** Share of frames that take ten times as long. */
  readonly tailChance?: number;
  readonly bandwidthBytesPerMs?: number;
  /** Share of sends that find the socket's queue full, where there is a queue. */
  readonly busyChance?: number;
  /** Share of frames that are lost, and their connection with them. */
  readonly lossChance?: number;
}

const DEFAULTS: Required<SimNetworkOptions> = {
  latencyMs: [0.1, 1.5], tailChance: 0.01, bandwidthBytesPerMs: 125_000, busyChance: 0, lossChance: 0,
};
const TAIL_FACTOR = 10;
const ROUTING_ID_BYTES = 17;
/** Share of sends whose outcome is seen only after other things have happened. */
const LATE_OUTCOME_CHANCE = 0.05;
/** A stalled direction is looked at again this often, so that it may be healed at any time. */
const STALL_POLL_MS = 100;
/** A connection to a machine that lost power is given up by the kernel after this long. */
const KERNEL_GIVES_UP_MS = 20_000;
/** Of each direction between two nodes, so many frames are kept for replays. */
const RECORDED_FRAMES_MAX = 32;
/** Checksums look at every byte up to this and at samples past it. */
const CHECKSUM_BYTES = 4096;

interface Flight {
  readonly parts: readonly Uint8Array[];
  readonly checksum: number;
  readonly dueMs: number;
}

/** One direction of a connection. */
interface Stream {
  /** Names of nodes; of the listening one, its endpoint until the connection is open. */
  from: string;
  to: string;
  readonly flights: Flight[];
  /** Known once the connection is open. */
  receiver: SimProcess | undefined;
  lastDueMs: number;
  /** The wire carries one frame after the other. */
  wireBusyMs: number;
  isArmed: boolean;
  /** Set when nothing more will be sent: what is delivered after the last flight. */
  end: { readonly notify: boolean; readonly atMs: number } | undefined;
  isEnded: boolean;
  deliver: (parts: Uint8Array[]) => void;
  onEnd: (notify: boolean) => void;
}

export interface Binding {
  readonly endpoint: string;
  readonly process: SimProcess;
  readonly options: BindOptions;
  readonly connections: Map<string, Connection>;
}

export interface Connection {
  readonly number: number;
  readonly idKey: string;
  readonly id: Uint8Array;
  readonly dialer: SimProcess;
  readonly dial: DialOptions;
  binding: Binding | undefined;
  state: "opening" | "open" | "over";
  readonly up: Stream;
  readonly down: Stream;
}

interface Recorded {
  readonly endpoint: string;
  readonly parts: readonly Uint8Array[];
}

const SENT: Promise<SendOutcome> = Promise.resolve("sent");
const BUSY: Promise<SendOutcome> = Promise.resolve("busy");
const GONE: Promise<SendOutcome> = Promise.resolve("gone");

export class SimNetwork {
  readonly options: Required<SimNetworkOptions>;
  readonly #scheduler: Scheduler;
  readonly #random: SimRandom;
  readonly #log: EventLog;
  readonly #bindings = new Map<string, Binding>();
  readonly #connections = new Set<Connection>();
  readonly #stalls = new Map<string, number>();
  readonly #recorded: Recorded[] = [];
  /** Whether frames are kept for replays. */
  isRecording = false;
  /** Whether frames may be lost; not after faults were healed. */
  isLossy = true;
  #number = 0;
  framesDelivered = 0;
  bytesDelivered = 0;

  constructor(options: SimNetworkOptions, modules: { scheduler: Scheduler; random: SimRandom; log: EventLog }) {
    this.options = { ...DEFAULTS, ...options };
    this.#scheduler = modules.scheduler;
    this.#random = modules.random;
    this.#log = modules.log;
  }

  get openConnections(): number {
    return this.#connections.size;
  }

  get openListeners(): number {
    return this.#bindings.size;
  }

  isBound(endpoint: string): boolean {
    return this.#bindings.has(endpoint);
  }

  bind(endpoint: string, process: SimProcess, options: BindOptions): Binding {
    const binding: Binding = { endpoint, process, options, connections: new Map() };
    this.#bindings.set(endpoint, binding);
    return binding;
  }

  unbind(binding: Binding, isGraceful: boolean): void {
    if (this.#bindings.get(binding.endpoint) === binding) this.#bindings.delete(binding.endpoint);
    for (const connection of [...binding.connections.values()]) {
      this.#endStream(connection.down, isGraceful ? "all" : "some", true);
      this.#endStream(connection.up, "none", false);
      this.#over(connection);
    }
  }

  dial(process: SimProcess, dial: DialOptions): Connection {
    const id = this.#random.bytes(ROUTING_ID_BYTES);
    id[0] = 1; // ids that begin with 0 are the listener's own
    const to = this.#bindings.get(dial.endpoint)?.process.name ?? dial.endpoint;
    const connection: Connection = {
      number: ++this.#number, id, idKey: Buffer.from(id).toString("latin1"), dialer: process, dial, binding: undefined,
      state: "opening", up: createStream(process.name, to), down: createStream(to, process.name),
    };
    connection.down.receiver = process;
    this.#connections.add(connection);
    this.#planOpen(connection, this.#scheduler.localMs(process) + this.#latencyMs());
    return connection;
  }

  /** From the dialing end. */
  sendUp(connection: Connection, parts: readonly Uint8Array[]): Promise<SendOutcome> {
    if (connection.down.isEnded || !connection.dialer.isAlive) return GONE;
    return this.#send(connection, connection.up, connection.dialer, parts);
  }

  /** From the listening end. */
  sendDown(binding: Binding, idKey: string, parts: readonly Uint8Array[]): Promise<SendOutcome> {
    const connection = binding.connections.get(idKey);
    if (connection === undefined || connection.up.isEnded || !binding.process.isAlive) return GONE;
    return this.#send(connection, connection.down, binding.process, parts);
  }

  /** The dialing end closes. */
  hangUp(connection: Connection, isGraceful: boolean): void {
    connection.down.isEnded = true;
    connection.down.flights.length = 0;
    if (connection.state === "opening") {
      this.#over(connection);
      return;
    }
    this.#endStream(connection.up, isGraceful ? "all" : "some", true);
    if (connection.state !== "over") this.#over(connection);
  }

  /** What a process leaves behind: after a kill the kernel says goodbye for it, after a power cut nobody does. */
  drop(process: SimProcess, isPowerLoss: boolean): void {
    for (const [endpoint, binding] of this.#bindings) if (binding.process === process) this.#bindings.delete(endpoint);
    for (const connection of [...this.#connections]) {
      const isDialer = connection.dialer === process;
      if (!isDialer && connection.binding?.process !== process) continue;
      const [gone, other] = isDialer ? [connection.up, connection.down] : [connection.down, connection.up];
      this.#endStream(other, "none", false);
      this.#endStream(gone, "some", true, isPowerLoss ? KERNEL_GIVES_UP_MS : 0);
      this.#over(connection);
    }
  }

  // --- faults ------------------------------------------------------------------------------------------------------

  /** Cuts one open connection. With `isSilent` neither end is told: it goes on sending into the void. */
  cut(connection: Connection, isSilent: boolean): void {
    if (connection.state !== "open") return;
    const afterMs = isSilent ? KERNEL_GIVES_UP_MS : 0;
    this.#endStream(connection.up, "some", true, afterMs);
    this.#endStream(connection.down, "some", true, afterMs);
    this.#over(connection);
  }

  /** Cuts all that is between two nodes, also what is only being opened, and tells nobody. */
  forget(a: string, b: string): void {
    for (const connection of [...this.#connections]) {
      const { from, to } = connection.up;
      if (!((from === a && to === b) || (from === b && to === a))) continue;
      if (connection.state === "open") this.cut(connection, true);
      else this.#over(connection); // the attempt hears nothing, until it is given up
    }
  }

  open(): Connection[] {
    return [...this.#connections].filter(({ state }) => state === "open");
  }

  /** Nothing gets from one node to the other until then; what is sent waits. One direction only. */
  stall(from: string, to: string, untilMs: number): void {
    const key = `${from}>${to}`;
    this.#stalls.set(key, Math.max(untilMs, this.#stalls.get(key) ?? 0));
  }

  healStalls(): void {
    this.#stalls.clear();
  }

  /** An old frame comes to its listener once more, on a connection of its own. @returns whether there was one. */
  replay(): boolean {
    const old = this.#recorded.filter(({ endpoint }) => this.#bindings.has(endpoint));
    if (old.length === 0) return false;
    const { endpoint, parts } = this.#random.pick(old);
    const binding = this.#bindings.get(endpoint)!;
    const id = this.#random.bytes(ROUTING_ID_BYTES);
    this.#scheduler.at(this.#scheduler.nowMs, EventKind.frame, binding.process, () => {
      this.#log.record(EventKind.frame, binding.process.index, binding.process.name, this.#scheduler.nowMs, -1, "replay", parts);
      binding.options.onFrame(id, parts.map(copyOf));
    });
    return true;
  }

  // --- connections -------------------------------------------------------------------------------------------------

  #planOpen(connection: Connection, atMs: number): void {
    this.#scheduler.at(atMs, EventKind.connect, connection.dialer, () => {
      if (connection.state !== "opening") return;
      const { dial, dialer } = connection;
      const binding = this.#bindings.get(dial.endpoint);
      const to = binding?.process.name ?? connection.up.to;
      if (this.#isStalled(dialer.name, to) || this.#isStalled(to, dialer.name)) {
        this.#planOpen(connection, this.#scheduler.nowMs + STALL_POLL_MS);
        return;
      }
      const failure = failureOf(dial, binding);
      this.#log.record(EventKind.connect, dialer.index, dialer.name, this.#scheduler.nowMs, connection.number, failure ?? `to ${to}`);
      if (failure !== undefined) {
        this.#over(connection);
        connection.down.isEnded = true;
        dial.onLost(failure);
      } else this.#open(connection, binding!);
    });
  }

  #open(connection: Connection, binding: Binding): void {
    const { up, down, dial, idKey } = connection;
    connection.binding = binding;
    connection.state = "open";
    up.receiver = binding.process;
    up.to = binding.process.name;
    down.from = binding.process.name;
    binding.connections.set(idKey, connection);
    up.deliver = (parts) => {
      if (this.isRecording) this.#record(dial.endpoint, parts);
      binding.options.onFrame(Uint8Array.from(connection.id), parts);
    };
    up.onEnd = (notify) => {
      binding.connections.delete(idKey);
      if (notify && binding.process.isAlive && this.#bindings.get(binding.endpoint) === binding) binding.options.onDisconnect();
    };
    down.deliver = (parts) => dial.onFrame(parts);
    down.onEnd = (notify) => {
      if (notify) dial.onLost("lost");
    };
    this.#arm(up);
    this.#arm(down);
  }

  #over(connection: Connection): void {
    connection.state = "over";
    this.#connections.delete(connection);
  }

  #send(connection: Connection, stream: Stream, sender: SimProcess, parts: readonly Uint8Array[]): Promise<SendOutcome> {
    const isFull = stream.flights.length >= SOCKET_HIGH_WATER_MARK;
    if (isFull || (stream.flights.length > 0 && this.#random.chance(this.options.busyChance))) return BUSY;
    if (stream.end === undefined && !stream.isEnded) {
      const isLost = this.isLossy && connection.state === "open" && this.#random.chance(this.options.lossChance);
      if (isLost) this.cut(connection, false);
      else this.#take(connection, stream, sender, parts);
    }
    if (!this.#random.chance(LATE_OUTCOME_CHANCE)) return SENT;
    return new Promise((resolve) => {
      const atMs = this.#scheduler.nowMs + this.#latencyMs();
      this.#scheduler.at(atMs, EventKind.outcome, sender, () => resolve("sent"));
    });
  }

  #take(connection: Connection, stream: Stream, sender: SimProcess, parts: readonly Uint8Array[]): void {
    let sizeBytes = 0;
    for (const part of parts) sizeBytes += part.length;
    const startMs = Math.max(this.#scheduler.localMs(sender), stream.wireBusyMs);
    stream.wireBusyMs = startMs + sizeBytes / this.options.bandwidthBytesPerMs;
    const dueMs = Math.max(stream.lastDueMs, stream.wireBusyMs + this.#latencyMs());
    stream.lastDueMs = dueMs;
    stream.flights.push({ parts, checksum: checksumOf(parts), dueMs });
    if (connection.state === "open") this.#arm(stream);
  }

  #arm(stream: Stream): void {
    const { receiver } = stream;
    if (receiver === undefined || stream.isArmed || stream.isEnded) return;
    const next = stream.flights[0];
    if (next === undefined && stream.end === undefined) return;
    stream.isArmed = true;
    const stalledMs = this.#stalls.get(`${stream.from}>${stream.to}`) ?? 0;
    let atMs = next?.dueMs ?? stream.end!.atMs;
    const { nowMs } = this.#scheduler;
    if (stalledMs > Math.max(atMs, nowMs)) atMs = Math.min(stalledMs, Math.max(nowMs, atMs) + STALL_POLL_MS);
    this.#scheduler.at(atMs, EventKind.frame, receiver, () => {
      stream.isArmed = false;
      if (stream.isEnded) return;
      if (!this.#isStalled(stream.from, stream.to)) this.#deliverNext(stream, receiver);
      this.#arm(stream);
    });
  }

  #deliverNext(stream: Stream, receiver: SimProcess): void {
    const flight = stream.flights.shift();
    if (flight === undefined) {
      stream.isEnded = true;
      this.#log.record(EventKind.end, receiver.index, receiver.name, this.#scheduler.nowMs, 0);
      stream.onEnd(stream.end!.notify);
      return;
    }
    if (checksumOf(flight.parts) !== flight.checksum) {
      throw new Error(`${stream.from} changed a frame to ${stream.to} after it had been sent: the network may still read it`);
    }
    const parts = flight.parts.map(copyOf);
    this.framesDelivered += 1;
    for (const part of parts) this.bytesDelivered += part.length;
    this.#log.record(EventKind.frame, receiver.index, receiver.name, this.#scheduler.nowMs, parts[0]!.length, undefined, parts);
    stream.deliver(parts);
  }

  /** `keep`: how much of what is under way still arrives. */
  #endStream(stream: Stream, keep: "all" | "some" | "none", notify: boolean, afterMs = 0): void {
    if (stream.end !== undefined || stream.isEnded) return;
    if (keep === "none") {
      stream.isEnded = true;
      stream.flights.length = 0;
      stream.onEnd(false);
      return;
    }
    if (keep === "some") stream.flights.length = this.#random.below(stream.flights.length + 1);
    const lastMs = stream.flights.at(-1)?.dueMs ?? this.#scheduler.nowMs;
    stream.end = { notify, atMs: lastMs + this.#latencyMs() + afterMs };
    this.#arm(stream);
  }

  #isStalled(from: string, to: string): boolean {
    const untilMs = this.#stalls.get(`${from}>${to}`);
    return untilMs !== undefined && untilMs > this.#scheduler.nowMs;
  }

  #latencyMs(): number {
    const [min, max] = this.options.latencyMs;
    const latencyMs = this.#random.between(min, max);
    return this.#random.chance(this.options.tailChance) ? latencyMs * TAIL_FACTOR : latencyMs;
  }

  #record(endpoint: string, parts: readonly Uint8Array[]): void {
    if (this.#recorded.length >= RECORDED_FRAMES_MAX) this.#recorded.splice(this.#random.below(RECORDED_FRAMES_MAX), 1);
    this.#recorded.push({ endpoint, parts: parts.map(copyOf) });
  }
}

function createStream(from: string, to: string): Stream {
  return {
    from, to, receiver: undefined, flights: [], lastDueMs: 0, wireBusyMs: 0, isArmed: false, end: undefined, isEnded: false,
    deliver: () => undefined, onEnd: () => undefined,
  };
}

function failureOf(dial: DialOptions, binding: Binding | undefined): DialFailure | undefined {
  if (binding === undefined || !binding.process.isAlive) return "unreachable";
  if (dial.isPlain !== binding.options.isPlain) return "handshake";
  if (dial.isPlain) return undefined;
  if (dial.serverKey !== binding.options.keys.publicKey) return "handshake";
  return isAllowed(binding.options, dial.keys.publicKey) ? undefined : "denied";
}

function isAllowed(options: BindOptions, publicKey: string): boolean {
  try {
    return options.isAllowed(publicKey);
  } catch {
    return false;
  }
}

/** Memory of its own, as a socket's is. */
function copyOf(part: Uint8Array): Uint8Array {
  const copy = Buffer.allocUnsafeSlow(part.length);
  copy.set(part);
  return copy;
}

function checksumOf(parts: readonly Uint8Array[]): number {
  let sum = 0x811c9dc5;
  for (const part of parts) {
    const step = part.length <= CHECKSUM_BYTES ? 1 : Math.floor(part.length / CHECKSUM_BYTES) | 1;
    for (let i = 0; i < part.length; i += step) sum = Math.imul(sum ^ part[i]!, 0x01000193);
  }
  return sum;
}
