// Child of crash.test.ts: makes blocks full of transfers as fast as it can and says when each is committed.
// Arguments: folder of the compiled sources, store folder, genesis file, file with signing key material.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { privateKeyToAccount } from "viem/accounts";

const [, , build, storeFolder, genesisFile, keysFile] = process.argv;
const load = (path) => import(pathToFileURL(`${build}/${path}`).href);
const { Chain } = await load("chain/chain.js");
const { openRocksStore } = await load("chain/store/rocks-store.js");
const { createProducer } = await load("chain/producer.js");
const { fromHex } = await load("chain/bytes.js");

const genesis = JSON.parse(readFileSync(genesisFile, "utf8"));
const keys = JSON.parse(readFileSync(keysFile, "utf8"));
const producer = createProducer({ privateKey: fromHex(keys.privateKey), blsSecretKey: fromHex(keys.blsSecretKey) });
const account = privateKeyToAccount(keys.sender);
const chain = await Chain.open({ store: await openRocksStore(storeFolder), genesis });
process.stdout.write(`open ${chain.head.number}\n`);
for (;;) {
  let nonce = Number((await chain.account(account.address)).nonce);
  for (let i = 0; i < 8; i++, nonce++) {
    const to = `0x${(chain.head.number * 8 + i + 1).toString(16).padStart(40, "5")}`;
    const raw = await account.signTransaction({
      type: "eip1559", chainId: genesis.chainId, nonce, gas: 21_000n, to, value: 1n, maxFeePerGas: 10n ** 10n, maxPriorityFeePerGas: 1n,
    });
    await chain.submitTransaction(fromHex(raw));
  }
  const produced = await chain.produce(chain.nextAttemptMs(chain.head.timestampMs, producer), producer);
  if (produced) process.stdout.write(`block ${produced.header.number} ${Buffer.from(produced.header.hash).toString("hex")}\n`);
}
