// A child process: an outbox on RocksDB. Sends `count` messages, prints the number of each once it is on disk, and
// goes on delivering until it is killed.
import { z } from "zod";
import { createOutbox, createSystem, defineProtocol, openRocksStore, silentLogger } from "../../../dist/runtime/index.js";

const { directory, endpoint, serverKey, keys, from, count } = JSON.parse(process.argv[2]);
const Ledger = defineProtocol("ledger", 1, { cast: { add: z.object({ i: z.number() }) } });
const system = createSystem({ name: "sender", logger: silentLogger });
const store = await openRocksStore(directory);
const outbox = createOutbox(system, { name: "orders", store, retry: { initialMs: 5, maxMs: 50 } });
void system.connect({ endpoint, serverKey, keys, timeoutMs: 60_000 });
const target = { nodeId: serverKey, path: "ledger", protocol: Ledger };
process.stdout.write(`ready ${outbox.size}\n`);
for (let i = from; i < from + count; i++) {
  await outbox.send(target, "add", { i });
  process.stdout.write(`sent ${i}\n`);
}
await outbox.whenEmpty();
process.stdout.write("empty\n");
setInterval(() => undefined, 1000); // stays until it is killed
