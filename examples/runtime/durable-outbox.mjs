// Payments that survive both sides: an outbox on RocksDB sends them, the receiver is killed in the middle and comes back, and its
// inbox counts each once. Alerts go the reliable way: over cut links, but not over a crash. Run: node examples/runtime/durable-outbox.mjs
import { fork } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { behavior, createInbox, createOutbox, createSystem, curveKeys, defineProtocol, openRocksStore } from "tesra-supernet/runtime";

const Bank = defineProtocol("bank", 1, {
  call: { total: { request: z.null(), reply: z.object({ coins: z.number(), repeats: z.number(), alerts: z.number() }) } },
  cast: { pay: z.object({ coins: z.number() }), alert: z.string() },
});
const PAYMENTS = 200;

if (process.argv[2] === "bank") {
  const { endpoint, keys, path } = await new Promise((resolve) => process.once("message", resolve));
  const store = await openRocksStore(path);
  const inbox = createInbox({ name: "bank", store });
  const totalKey = Buffer.from("total");
  const system = createSystem({ name: "bank" });
  const bank = behavior(Bank, () => {
    let [repeats, alerts] = [0, 0];
    const coins = () => Number(Buffer.from(store.get(totalKey) ?? "0").toString());
    return {
      call: { total: () => ({ coins: coins(), repeats, alerts }) },
      cast: {
        pay: ({ coins: more }, { delivery }) => {
          if (inbox.isDuplicate(delivery)) return void (repeats += 1);
          // The new total and the mark "handled" reach the disk together or not at all.
          inbox.commit(delivery, [{ key: totalKey, value: Buffer.from(String(coins() + more)) }]);
        },
        alert: () => void (alerts += 1),
      },
    };
  });
  system.spawn(bank, { name: "bank" });
  system.onShutdown("after-links", "store", () => store.close());
  process.once("SIGTERM", () => void system.shutdown());
  await system.listen({ endpoint, keys, allow: "any" });
  process.send("listening");
  process.disconnect();
} else {
  const directory = mkdtempSync(join(tmpdir(), "outbox-"));
  const endpoint = `ipc://${join(directory, "bank.sock")}`;
  const [keys, bankKeys] = [curveKeys(), curveKeys()];
  const start = async () => {
    const bank = fork(fileURLToPath(import.meta.url), ["bank"]);
    bank.send({ endpoint, keys: bankKeys, path: join(directory, "bank") });
    await new Promise((resolve) => bank.once("message", resolve));
    return bank;
  };
  let bank = await start();
  const store = await openRocksStore(join(directory, "shop"));
  const system = createSystem({ name: "shop" });
  const outbox = createOutbox(system, { name: "payments", store });
  const target = { nodeId: bankKeys.publicKey, path: "bank", protocol: Bank };

  await Promise.all(Array.from({ length: PAYMENTS }, () => outbox.send(target, "pay", { coins: 5 })));
  console.log(`${outbox.size} payments on disk before there is a link`);
  const peer = await system.connect({ endpoint, serverKey: bankKeys.publicKey, keys });
  while (outbox.size > PAYMENTS / 2) await new Promise((resolve) => setTimeout(resolve, 1));
  const back = new Promise((resolve) => system.onPeer(resolve));
  bank.kill("SIGKILL");
  bank = await start();
  await outbox.whenEmpty();
  const ref = (await back).ref(Bank, "bank");
  console.log("a reliable alert:", ref.cast("alert", "killed once", { delivery: "reliable" }), "- to the process that is gone:", peer.ref(Bank, "bank").cast("alert", "late"));
  const { value } = await ref.call("total", null);
  console.log(`confirmed ${outbox.report().confirmed}, coins ${value.coins} of ${PAYMENTS * 5}, alerts ${value.alerts}`);
  bank.kill("SIGTERM");
  await system.shutdown();
  await store.close();
  rmSync(directory, { recursive: true });
}
