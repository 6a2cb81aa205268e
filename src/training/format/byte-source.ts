/**
 * Owns: random access to bytes that need not be in memory: what readers of large files ask for, and
 * its two forms, a file and an array. Invariant: a read fills the whole of `into` or throws.
 */
import { open } from "node:fs/promises";
import { TrainingError } from "../errors.js";

export interface ByteSource {
  readonly sizeBytes: number;
  /** Fills `into` with the bytes from `position` on; throws when the source ends before. */
  read(position: number, into: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

/** One system call's worth: below the 2 GiB that Linux reads at once, and large enough to stream. */
const READ_BYTES_MAX = 64 * 2 ** 20;

export const bytesOfArray = (array: ArrayBufferView): Uint8Array =>
  new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

export function memorySource(bytes: Uint8Array): ByteSource {
  return {
    sizeBytes: bytes.length,
    async read(position, into) {
      if (position + into.length > bytes.length) throw pastTheEnd(position + into.length, bytes.length);
      into.set(bytes.subarray(position, position + into.length));
    },
    async close() {},
  };
}

/** A file opened for reading; the caller closes it. */
export async function openFileSource(path: string): Promise<ByteSource> {
  const file = await open(path, "r");
  const { size: sizeBytes } = await file.stat();
  return {
    sizeBytes,
    async read(position, into) {
      for (let done = 0; done < into.length;) {
        const length = Math.min(READ_BYTES_MAX, into.length - done);
        const { bytesRead } = await file.read(into, done, length, position + done);
        if (bytesRead === 0) throw pastTheEnd(position + into.length, position + done);
        done += bytesRead;
      }
    },
    close: () => file.close(),
  };
}

const pastTheEnd = (wanted: number, sizeBytes: number): TrainingError =>
  new TrainingError("format", `bytes up to ${wanted} were asked of a source that ends at ${sizeBytes}`);
