// Rules that the network's workers do not follow are refused before any money moves.
import { expect, it } from "vitest";
import { parseNetworkJob } from "../../../src/actors/parameter-server/hosted-task.js";
import { canonicalJob } from "../../../src/training/graph/canonical.js";
import { mlp } from "../../../src/training/models.js";
import { sgd } from "../../../src/training/optimizer/optim.js";
import type { RulesInput } from "../../../src/training/optimizer/rules.js";

it("takes asynchronous jobs, and refuses rules that would wait for ever", () => {
  const { loss } = mlp({ hidden: [4] });
  const job = (rules: RulesInput): string => canonicalJob({ operation: sgd({ learningRate: 0.1 }).minimize(loss, rules), run: { epochs: 1, batchSize: 8, seed: 0 } });
  expect(parseNetworkJob(job({ mode: "async" })).operation.rules.mode).toBe("async");
  for (const rules of [
    { mode: "ssp", slack: 2 }, { mode: "sync", workers: 2, backups: 0 }, { mode: "async", compression: { kind: "fp16" } },
  ] as RulesInput[]) expect(() => parseNetworkJob(job(rules))).toThrow(/network/);
});
