// Owns: the memory of a receiver of durable messages: the last number handled of each outbox, which turns "at least
// once" into "once in effect". Invariant: the mark and the operations given with it are written in one synced batch,
// so a crash leaves both or neither.
import type { Delivery } from "../core/mailbox.js";
import { RuntimeError } from "../core/failure.js";
import type { Store, StoreOperation } from "../host/store.js";

export interface InboxOptions {
  /** Unique in its store; one for each actor that handles durable messages. */
  readonly name: string;
  readonly store: Store;
}

export interface Inbox {
  /** Whether this message was handled before; false for one that did not come from an outbox. */
  isDuplicate(delivery: Delivery | undefined): boolean;
  /** Marks the message as handled, together with what handling it changes in the same store. */
  commit(delivery: Delivery | undefined, operations?: readonly StoreOperation[]): void;
}

const NAME = /^[A-Za-z0-9_.-]{1,64}$/;
const NUMBER_BYTES = 8;

export function createInbox({ name, store }: InboxOptions): Inbox {
  if (!NAME.test(name)) throw new RuntimeError("bad-option", `an inbox's name must match ${NAME}, got "${name}"`);
  const keyOf = ({ outbox }: Delivery): Uint8Array => Buffer.from(`i/${name}/${outbox}`, "latin1");
  return {
    isDuplicate: (delivery) => {
      if (delivery === undefined) return false;
      const mark = store.get(keyOf(delivery));
      return mark !== undefined && BigInt(delivery.sequence) <= Buffer.from(mark).readBigUInt64BE(0);
    },
    commit: (delivery, operations = []) => {
      if (delivery === undefined) {
        if (operations.length > 0) store.write(operations, { sync: true });
        return;
      }
      const value = Buffer.alloc(NUMBER_BYTES);
      value.writeBigUInt64BE(BigInt(delivery.sequence), 0);
      store.write([...operations, { key: keyOf(delivery), value }], { sync: true });
    },
  };
}
