// The runtime's public entry (`tesra-supernet/runtime`).
export { createSystem, System, type SystemOptions } from "./create-system.js";
export { defineProtocol } from "./core/protocol.js";
export type {
  AnyProtocol, CallName, CallSchema, CastName, Message, Protocol, Reply, Request,
} from "./core/protocol.js";
export { behavior, replyLater, Deferred } from "./core/behavior.js";
export type { Behavior, Context, Handlers, Meta, Piped, SpawnOptions, Timers } from "./core/behavior.js";
export type { CastOptions, Ref } from "./core/ref.js";
export { Refusal, RuntimeError, describeError } from "./core/failure.js";
export type {
  CallError, CallErrorCode, CallResult, CastResult, RuntimeErrorCode, StopCode, StopReason,
} from "./core/failure.js";
export type { CallOptions } from "./core/calls.js";
export type { CellReport } from "./core/cell.js";
export type { CellState } from "./core/lifecycle.js";
export type { Delivery, MailboxOptions, Overflow, Sender } from "./core/mailbox.js";
export type { BackoffOptions, Directive, RestartBudgetOptions, Strategy, SupervisionOptions } from "./core/supervision.js";
export { DEAD_LETTER_REASONS, type DeadLetter, type DeadLetterReason } from "./core/dead-letters.js";
export type { ShutdownOptions, ShutdownPhase, ShutdownReport, UnfinishedHook } from "./core/shutdown.js";
export type { SystemReport } from "./core/system.js";
export { formatTraceparent, parseTraceparent } from "./core/trace.js";
export type { Span, SpanKind, TraceContext, Tracer } from "./core/trace.js";
export { createSpanRecorder, type RecordedSpan, type SpanRecorder } from "./core/span-recorder.js";
export type { Clock, Host, Logger, LogFields, Metrics, MetricSample, TaskQueue, TimerHandle } from "./host/host.js";
export { silentLogger } from "./host/host.js";
export { MetricsRegistry, createNodeHost } from "./host/node-host.js";
export {
  Probe, SeededFault, seededFaults, seededRandom, settle, VirtualClock, type ProbeEntry, type SeededFaults,
} from "./testkit.js";
export { MIXED_FAULTS, type SimFaultOptions } from "./sim/faults.js";
export { simRuntime, SimRuntime, SimNode, type SimBoot, type SimNodeOptions, type SimOptions } from "./sim/sim-runtime.js";
export type { SimNetworkOptions } from "./sim/network.js";
export { SimDisk, SimFile, SimStore } from "./sim/disk.js";
export { curveKeys, curveKeysFromSecret, type CurveKeys } from "./remote/keys.js";
export type { ConnectOptions, Listener, ListenOptions } from "./remote/remoting.js";
export { Peer, type PeerDown, type PeerState } from "./remote/peer.js";
export type { LaneReport, LinkEnd, LinkReport } from "./remote/link.js";
export type { Transport } from "./remote/transport.js";
export { handOver, type TypedArray } from "./wire/codec.js";
export { releaseTensors } from "./wire/releasable.js";
export type { SharedReport } from "./remote/shared-lane.js";
export type { OwnSegment, SharedMemory, SharedSegment } from "./host/shared-memory.js";
export { createOutbox, Outbox, type OutboxOptions, type OutboxReport, type OutboxTarget } from "./durable/outbox.js";
export type { RejectedMessage } from "./durable/outbox-store.js";
export { createInbox, type Inbox, type InboxOptions } from "./durable/inbox.js";
export { createMemoryStore } from "./host/memory-store.js";
export { openRocksStore } from "./host/rocks-store.js";
export type { Store, StoreEntry, StoreOperation } from "./host/store.js";
export { createPool, createThread, exposeThread, resolveThreadEntry } from "./host/threads.js";
export type { Pool, PoolOptions, PoolRunOptions, Thread, ThreadApi, ThreadOptions } from "./host/threads.js";
