// Machines are made and thrown away with every read and every block of a rival: none may stay reachable.
import { expect, it } from "vitest";
import { Executor } from "../../../src/chain/execution/executor.js";
import { createRules } from "../../../src/chain/execution/rules.js";
import { createMemoryStore } from "../../../src/chain/store/memory-store.js";

it("leaves nothing of a machine on the rule set that all machines share", async () => {
  const common = createRules(7_357);
  const executor = new Executor({ store: createMemoryStore(), common });
  for (let i = 0; i < 20; i += 1) await executor.machineAt(undefined);
  for (let i = 0; i < 20; i += 1) await executor.withMachine(undefined, async () => ({ value: i, root: undefined }));
  expect(common.events.listenerCount("hardforkChanged")).toBe(0);
});
