// Owns the bytes between a worker and its child: frames of four bytes of length and a JSON text.
// Invariant: a length above the bound is an error before anything of that size is kept.
import { VmError } from "./step-runner.js";

const HEADER_BYTES = 4;

export function encodeFrame(message: unknown): Uint8Array {
  const body = Buffer.from(JSON.stringify(message));
  const frame = Buffer.allocUnsafe(HEADER_BYTES + body.length);
  frame.writeUInt32LE(body.length);
  frame.set(body, HEADER_BYTES);
  return frame;
}

/** Cuts a stream into messages. */
export class FrameReader {
  private held = Buffer.alloc(0);

  constructor(private readonly bytesMax: number) {}

  /** @returns how many bytes complete the next frame, as far as is known. */
  get missingBytes(): number {
    return this.expected() - this.held.length;
  }

  /** The messages that `bytes` completes. Throws VmError "protocol". */
  push(bytes: Uint8Array): unknown[] {
    this.held = this.held.length === 0 ? Buffer.from(bytes) : Buffer.concat([this.held, bytes]);
    const messages: unknown[] = [];
    for (let size = this.expected(); size > HEADER_BYTES && this.held.length >= size; size = this.expected()) {
      messages.push(parsed(this.held.toString("utf8", HEADER_BYTES, size)));
      this.held = this.held.subarray(size);
    }
    return messages;
  }

  private expected(): number {
    if (this.held.length < HEADER_BYTES) return HEADER_BYTES;
    const bodyBytes = this.held.readUInt32LE();
    if (bodyBytes === 0 || bodyBytes > this.bytesMax) {
      throw new VmError("protocol", `a message of ${bodyBytes} bytes; 1 to ${this.bytesMax} are taken`);
    }
    return HEADER_BYTES + bodyBytes;
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new VmError("protocol", "a message that is not JSON");
  }
}
