// Owns the sizes that both sides of a line must share.

/** Local casts go out in bursts of this many, the last of each answered: below our default mailbox of 8192. */
export const BURST = 5000;
/** Questions under way at once in the windowed asks. */
export const WINDOW = 100;
/** Payload of a small remote message. */
export const RECORD_BYTES = 64;
/** The tensor of the bulk lines, float32. */
export const TENSOR_BYTES = 64 * 2 ** 20;
/** Tensors under way at once: one being sent while the other is being received. */
export const TENSORS_UNDER_WAY = 2;
