// Writes what a small network of real nodes starts from: genesis.json and one TOML a role, with fresh keys.
// Run: node examples/network/create-network.mjs <folder> [--host 127.0.0.1] [--port 7400]
// then, in this order or any other, on one machine or several: supernet node --config <folder>/master.toml, ...
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { randomBytes } from "node:crypto";
import { stringify } from "smol-toml";
import { addressOfPrivateKey, blsPublicKey, blsSecretKeyFromSeed, createDevnetGenesis } from "tesra-supernet/chain";
import { curveKeys } from "tesra-supernet/runtime";

const TSR = 10n ** 18n;
const { values, positionals } = parseArgs({
  allowPositionals: true, options: { host: { type: "string", default: "127.0.0.1" }, port: { type: "string", default: "7400" } },
});
if (!positionals[0]) {
  console.error("Usage: node examples/network/create-network.mjs <folder> [--host 127.0.0.1] [--port 7400]");
  process.exit(2);
}
const folder = resolve(positionals[0]);
if (existsSync(join(folder, "genesis.json"))) {
  console.error(`${folder} holds a network already; give another folder`);
  process.exit(2);
}
mkdirSync(folder, { recursive: true, mode: 0o700 });
const hex = (bytes) => `0x${Buffer.from(bytes).toString("hex")}`;

const nodes = ["master", "pos", "pow", "ps", "worker"].map((role, i) => {
  const privateKey = new Uint8Array(randomBytes(32));
  const blsSecretKey = blsSecretKeyFromSeed(new Uint8Array(randomBytes(32)));
  return {
    role, privateKey, blsSecretKey, address: hex(addressOfPrivateKey(privateKey)), curve: curveKeys(),
    listen: `tcp://${values.host}:${Number(values.port) + i}`,
  };
});
const of = (role) => nodes.find((each) => each.role === role);
const [master, pos] = [of("master"), of("pos")];
const clientKey = new Uint8Array(randomBytes(32));

const genesis = createDevnetGenesis({
  name: "example", chainId: 7358, timestampMs: Date.now(), blockTimeMs: 1_000,
  validators: [{ address: pos.address, blsPublicKey: blsPublicKey(pos.blsSecretKey), stake: 100_000n * TSR }],
  masters: [{
    address: master.address, blsPublicKey: blsPublicKey(master.blsSecretKey), transportKey: master.curve.publicKey, pledge: 50_000n * TSR,
  }],
  allocations: [...nodes.map(({ address }) => address), hex(addressOfPrivateKey(clientKey))].map((address) => ({ address, amount: 10_000n * TSR })),
});
writeFileSync(join(folder, "genesis.json"), JSON.stringify(genesis));
writeFileSync(join(folder, "client.key"), hex(clientKey), { mode: 0o600 });
for (const { role, privateKey, blsSecretKey, curve, listen } of nodes) {
  const config = {
    role, name: role, dataDir: join(folder, role), listen, privateKey: hex(privateKey), genesis: join(folder, "genesis.json"),
    ...(role === "pos" ? { blsSecretKey: hex(blsSecretKey) } : {}),
    bootstrap: role === "master" ? [] : [{ endpoint: master.listen, serverKey: master.curve.publicKey }],
    curve,
    ...(role === "master" ? { rpc: { host: "127.0.0.1", port: 8545 } } : {}),
    compute: { backend: "auto", threads: 1 },
    ...(role === "pow" ? { pow: { dutyCycle: 0.2, dutyCycleWhilePaidWork: 0.02 } } : {}),
  };
  writeFileSync(join(folder, `${role}.toml`), stringify(config), { mode: 0o600 });
}
console.log(`Start each node:  for role in master pos pow ps worker; do npx supernet node --config ${folder}/$role.toml & done`);
console.log("Then train on it:");
console.log(`  npx supernet submit --workers 1 --model mlp --master ${master.listen} --master-key ${master.curve.publicKey} \\`);
console.log(`    --chain-id ${genesis.chainId} --key-file ${join(folder, "client.key")}`);
