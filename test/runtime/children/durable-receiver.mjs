// A child process: an actor that handles durable messages slowly and keeps its sum and the marks of its inbox in one
// store. Prints what it handles, with repeats marked; killed at any time by its parent.
import { z } from "zod";
import { behavior, createInbox, createSystem, defineProtocol, openRocksStore, silentLogger } from "../../../dist/runtime/index.js";

const { directory, endpoint, keys } = JSON.parse(process.argv[2]);
const Ledger = defineProtocol("ledger", 1, { cast: { add: z.object({ i: z.number() }) } });
const store = await openRocksStore(directory);
const inbox = createInbox({ name: "ledger", store });
const sumKey = Buffer.from("sum");
const system = createSystem({ name: "receiver", logger: silentLogger });
system.spawn(
  behavior(Ledger, () => ({
    cast: {
      add: async ({ i }, { delivery }) => {
        if (inbox.isDuplicate(delivery)) {
          process.stdout.write(`repeat ${i}\n`);
          return;
        }
        process.stdout.write(`begin ${i}\n`);
        await new Promise((resolve) => setTimeout(resolve, 3));
        const sum = Number(Buffer.from(store.get(sumKey) ?? "0").toString()) + i;
        inbox.commit(delivery, [{ key: sumKey, value: Buffer.from(String(sum)) }]);
        process.stdout.write(`done ${i} ${sum}\n`);
      },
    },
  })),
  { name: "ledger" },
);
await system.listen({ endpoint, keys, allow: "any" });
process.stdout.write("ready\n");
