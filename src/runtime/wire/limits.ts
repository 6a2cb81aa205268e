// Owns: the numbers both ends of a link agree on. Each is a bound on what one peer can make the other hold.

/**
 * Version of the link protocol itself; a peer offers [MIN, MAX] and the higher common one is used.
 * 2: tensors by shared memory; reliable and confirmed casts, cancelled calls, trace context.
 * 3: casts in a row to one actor as one record.
 */
export const LINK_VERSION_MIN = 1;
export const LINK_VERSION_MAX = 3;
export const LINK_VERSION_SHARED = 2;
/** From this version on: reliable and confirmed casts, cancelled calls, trace context. */
export const LINK_VERSION_DELIVERY = 2;
/** From this version on: runs of casts. */
export const LINK_VERSION_RUNS = 3;

/** A batch of records is sealed at this many records … */
export const BATCH_RECORDS_MAX = 256;
/** … or this many bytes: large enough to hide the cost of a frame (~3 us), small enough to add no latency. */
export const BATCH_BYTES_MAX = 64 * 1024;
/** Casts in one run: the cost of a record and a frame is spread over them, and an actor's turn comes soon enough. */
export const CAST_RUN_MAX = 512;
/** Typed arrays up to this stay inside msgpack: below it the table entry costs more than the copy. */
export const INLINE_ARRAY_BYTES_MAX = 1024;
/** Records whose tensors together pass this go to the bulk lane, so that messages never queue behind them. */
export const BULK_BYTES_MIN = 64 * 1024;
/** Measured: one 64 MiB message on tcp runs at a quarter of the speed of 256 KiB chunks. */
export const CHUNK_BYTES_TCP = 256 * 1024;
/**
 * A tensor that fits one frame is received without a copy, which on ipc outweighs the finer pipelining of smaller
 * chunks: 2 MB tensors cost the receiver 1.5 ms of CPU per MB in 1 MiB chunks, 0.75 whole (raw ipc peaks at 1 MiB).
 */
export const CHUNK_BYTES_IPC = 4 * 1024 * 1024;
/** Largest message without its tensors. */
export const RECORD_BYTES_MAX = 4 * 1024 * 1024;
/** ZeroMQ drops a connection that announces a larger frame, before a byte of it is stored. */
export const FRAME_BYTES_MAX = RECORD_BYTES_MAX + 256 * 1024;
/** All tensors of one message; a fp32 model of 128 M parameters. */
export const TRANSFER_BYTES_MAX = 512 * 1024 * 1024;
export const TENSORS_PER_MESSAGE_MAX = 4096;

/** Bytes a sender may have under way before the receiver has worked them off. */
export const MESSAGE_WINDOW_BYTES = 4 * 1024 * 1024;
export const BULK_WINDOW_BYTES = 16 * 1024 * 1024;
/** Every frame counts this much more than its bytes, so that tiny frames cannot fill a queue for free. */
export const FRAME_OVERHEAD_BYTES = 64;
/** What may wait at the sender for credit before a cast says "full". */
export const MESSAGE_OUTBOX_BYTES_MAX = 16 * 1024 * 1024;
export const BULK_OUTBOX_BYTES_MAX = 256 * 1024 * 1024;
/** Backstop only: with the windows above at most 4 MiB / 64 B = 65,536 frames can be under way. */
export const SOCKET_HIGH_WATER_MARK = 65_536;

/**
 * Values in one record, nested ones and map keys included. 4 MiB of empty byte strings decode into 400 MB and hold the
 * event loop for a second; at this bound the worst record costs 25 MB and some tens of milliseconds.
 */
export const VALUES_PER_RECORD_MAX = 262_144;
/** Below it a frame on the bulk lane costs less than finding a segment and getting it back. */
export const SHARED_BYTES_MIN = 256 * 1024;
/** Segments one end may hold open for the other, in bytes: four of the largest common tensors (64 MiB) … */
export const SHARED_POOL_BYTES_MAX = 256 * 1024 * 1024 + 4 * 1024 * 1024;
/** … and in number, which bounds the table of either end. */
export const SHARED_SEGMENTS_MAX = 64;
/** Arrays begin at cache lines, so that no element straddles two and vector loads are aligned. */
export const SHARED_ALIGN_BYTES = 64;

/** Reliable casts to one actor that the other end has not taken: a round trip of 10 ms at 100,000 messages a second. */
export const RELIABLE_WINDOW_MESSAGES = 1024;
/** All of one peer's reliable casts under way, kept for a resend at one end and for a full mailbox at the other. */
export const RELIABLE_WINDOW_BYTES = 16 * 1024 * 1024;
/** Actors of one peer that reliable casts are under way to; what is remembered of an idle one is 100 bytes. */
export const RELIABLE_STREAMS_MAX = 4096;
/** Confirmed casts of one outbox to one actor that wait at the receiver for their turn. */
export const CONFIRMED_WINDOW_MESSAGES = 256;
/** All of one peer's confirmed casts that wait here. */
export const CONFIRMED_WINDOW_BYTES = 16 * 1024 * 1024;

/** Nesting past this is an attack or a mistake; 32 leaves room for any hand-written schema. */
export const DEPTH_MAX = 32;
