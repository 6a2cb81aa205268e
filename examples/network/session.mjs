// A whole network in processes of its own, one paid task on it, and the task's account from the chain.
// Run: node examples/network/session.mjs
import { LocalNetwork, openDevice, TaskClient } from "tesra-supernet";
import { mlp, optim } from "tesra-supernet/training";
import { syntheticImages } from "../training/synthetic.mjs";

const WORKERS = 2;
const CHAIN_ID = 7357;
const model = mlp({ hidden: [64] });
const operation = optim.adam({ learningRate: 5e-4, beta1: 0.5 })
  .minimize(model.loss, { mode: "async", maxStaleness: 8, logits: model.logits, correct: model.correct });
const device = openDevice({ backend: "cpu", threads: 1 });

const network = await LocalNetwork.start({
  posNodes: 1, workers: WORKERS, blockTimeMs: 500, rpcPort: 0, backend: "cpu", threads: 1, restart: true, chainId: CHAIN_ID,
  pow: { dutyCycle: 0.1, dutyCycleWhilePaidWork: 0.02 },
}, () => undefined);
try {
  console.log(`network up: ${network.identities.map(({ name }) => name).join(", ")}; JSON-RPC ${network.rpcUrl}`);
  const client = await TaskClient.connect({ master: network.master, privateKey: network.clientKey, chainId: CHAIN_ID }, { device });
  try {
    const outcome = await client.train({
      job: { operation, run: { batchSize: 64, epochs: 3, seed: 1 } }, name: "synthetic", workers: WORKERS,
      train: syntheticImages(8_192, 1), test: syntheticImages(1_000, 2),
    }, (event) => {
      if (event.type === "opened") console.log(`task ${event.taskId} opened in block ${event.block}, escrow ${event.collateral} wei`);
      if (event.type === "evaluation") console.log(`epoch ${event.epoch}: test accuracy ${(event.accuracy * 100).toFixed(1)} %`);
    }, new AbortController().signal);
    const { account } = outcome;
    console.log(`${account.outcome}: ${outcome.samples} samples, test accuracy ${(outcome.accuracy * 100).toFixed(1)} %`);
    for (const { who, what, amount, why } of account.rows) console.log(`  ${who}  ${what}  ${amount} wei  (${why})`);
    console.log(`what came in less what went out: ${account.balance} wei`);
  } finally {
    await client.close();
  }
} finally {
  await network.stop();
  device.close();
}
