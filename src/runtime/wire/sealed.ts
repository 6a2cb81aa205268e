// Owns: a record and its typed arrays as one piece of bytes, for stores: [body u32][body][arrays]. Invariant:
// `unseal` takes any bytes and either returns plain data within the wire's limits or throws WireError.
import { attachTensors, tensorSizes, WireError, type Codec } from "./codec.js";

const PREFIX_BYTES = 4;

/** `record` as Codec.encode takes it: payload at 1, room for the table at 2. @throws WireError */
export function seal(codec: Codec, record: unknown[]): Uint8Array {
  const { body, tensors, tensorBytes } = codec.encode(record);
  const sealed = Buffer.allocUnsafeSlow(PREFIX_BYTES + body.length + tensorBytes);
  sealed.writeUInt32LE(body.length, 0);
  sealed.set(body, PREFIX_BYTES);
  let at = PREFIX_BYTES + body.length;
  for (const tensor of tensors) {
    sealed.set(tensor, at);
    at += tensor.length;
  }
  return sealed;
}

export function unseal(codec: Codec, bytes: Uint8Array): unknown[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const bodyBytes = bytes.length < PREFIX_BYTES ? -1 : view.getUint32(0, true);
  if (bodyBytes < 0 || PREFIX_BYTES + bodyBytes > bytes.length) throw new WireError("malformed", "a sealed record that ends early");
  let at = PREFIX_BYTES + bodyBytes;
  const record = codec.decode(bytes.subarray(PREFIX_BYTES, at));
  const buffers = tensorSizes(record[2]).map((sizeBytes) => {
    if (at + sizeBytes > bytes.length) throw new WireError("malformed", "a sealed record that ends early");
    const copy = Buffer.allocUnsafeSlow(sizeBytes);
    copy.set(bytes.subarray(at, at + sizeBytes));
    at += sizeBytes;
    return copy;
  });
  if (at !== bytes.length) throw new WireError("malformed", "a sealed record with bytes left over");
  attachTensors(record, buffers);
  return record;
}
